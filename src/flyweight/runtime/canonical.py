"""One text for one JSON value, in every language: what a hash over a result is taken of.

Source: RFC 8785, JSON Canonicalization Scheme. In JavaScript: `JSON.stringify` with the keys of all objects sorted.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

HASH = "sha256"  # the key of a result that holds the hash of all the others


def canonical(value: Any) -> str:
    """Return the JSON text of a plain value: no spaces, keys in order, numbers as JavaScript writes them.

    Raises:
        ValueError: A number is not finite.
        TypeError: Something is not a JSON value, or a key is no string.
    """
    if isinstance(value, Mapping):
        keys = sorted(value, key=lambda key: key.encode("utf-16-be"))
        return "{" + ",".join(f"{_text(key)}:{canonical(value[key])}" for key in keys) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ",".join(map(canonical, value)) + "]"
    if isinstance(value, float):
        return _number(value)
    return _text(value)


def seal(result: Mapping[str, Any]) -> dict[str, Any]:
    """Return the result with the hash of its other keys under `sha256`; it notices changes, and proves no author."""
    content = {key: value for key, value in result.items() if key != HASH}
    return {**content, HASH: hashlib.sha256(canonical(content).encode()).hexdigest()}


def _text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def _number(value: float) -> str:
    """Return the shortest digits that give the number again, as ECMAScript lays them out (Number::toString)."""
    if value == 0:
        return "0"  # -0 too
    if value - value != 0:
        raise ValueError(f"{value} is no JSON number")
    sign, digits, exponent = Decimal(repr(value)).normalize().as_tuple()
    assert isinstance(exponent, int), "finite"
    text, minus = "".join(map(str, digits)), "-" * sign
    point = len(text) + exponent  # digits before the point
    if 0 < point <= 21:
        shown = text + "0" * exponent if exponent >= 0 else f"{text[:point]}.{text[point:]}"
    elif -6 < point <= 0:
        shown = f"0.{'0' * -point}{text}"
    else:
        rest = f".{text[1:]}" if len(text) > 1 else ""
        shown = f"{text[0]}{rest}e{point - 1:+d}"
    return minus + shown
