"""Options that hold several numbers, separated by commas."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from flyweight.errors import RecipeError

Number = TypeVar("Number", int, float)


def numbers(text: str, option: str, kind: Callable[[str], Number]) -> list[Number]:
    """Return the numbers of "0.1,0.3"; raises RecipeError where it is not such a list, or one is not above zero."""
    try:
        found = list(dict.fromkeys(kind(part) for part in text.split(",") if part.strip()))
    except ValueError:
        found = []
    if not found or not all(0 < number < float("inf") for number in found):
        example = "0.01,0.1" if kind is float else "32,128"
        raise RecipeError(f"{option} {text!r} is not a list of numbers above zero", do=f"write e.g. {option} {example}")
    return found
