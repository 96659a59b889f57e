"""The text that a result's hash is taken of is the same in every language."""

from __future__ import annotations

import json
import random
import struct
from pathlib import Path

import pytest
from tests.report.browser import Browser

from flyweight.runtime.canonical import canonical, seal

# RFC 8785, appendix B: IEEE 754 bits and the text.
RFC_8785 = {
    "0000000000000000": "0", "8000000000000000": "0", "0000000000000001": "5e-324", "8000000000000001": "-5e-324",
    "7fefffffffffffff": "1.7976931348623157e+308", "ffefffffffffffff": "-1.7976931348623157e+308",
    "4340000000000000": "9007199254740992", "c340000000000000": "-9007199254740992",
    "4430000000000000": "295147905179352830000", "44b52d02c7e14af5": "9.999999999999997e+22",
    "44b52d02c7e14af6": "1e+23", "44b52d02c7e14af7": "1.0000000000000001e+23", "444b1ae4d6e2ef4e":
    "999999999999999700000", "444b1ae4d6e2ef4f": "999999999999999900000", "444b1ae4d6e2ef50": "1e+21",
    "3eb0c6f7a0b5ed8c": "9.999999999999997e-7", "3eb0c6f7a0b5ed8d": "0.000001", "41b3de4355555553":
    "333333333.3333332", "41b3de4355555554": "333333333.33333325", "41b3de4355555555": "333333333.3333333",
    "41b3de4355555556": "333333333.3333334", "41b3de4355555557": "333333333.33333343",
    "becbf647612f3696": "-0.0000033333333333333333", "43143ff3c1cb0959": "1424953923781206.2",
}  # fmt: skip


@pytest.mark.parametrize(("bits", "text"), RFC_8785.items())
def test_numbers_are_written_as_the_rfc_lists_them(bits: str, text: str) -> None:
    assert canonical(struct.unpack(">d", bytes.fromhex(bits))[0]) == text


def test_keys_are_sorted_by_their_utf16_code_units() -> None:
    assert canonical({"\ufb33": 1, "\U0001f600": 2, "b": [None, True], "a": {}}) == (
        '{"a":{},"b":[null,true],"\U0001f600":2,"\ufb33":1}'
    )


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {"a": [-float("inf")]}])
def test_what_json_cannot_say_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="no JSON number"):
        canonical(value)


def test_the_hash_sees_a_changed_number_and_not_the_order_of_keys() -> None:
    sealed = seal({"a": 1, "b": [0.5]})
    assert seal(dict(reversed(sealed.items())))["sha256"] == sealed["sha256"]
    assert seal({**sealed, "b": [0.25]})["sha256"] != sealed["sha256"]


def test_javascript_as_documented_writes_the_same(browser: Browser) -> None:
    page = (Path(__file__).parents[2] / "docs/devices.md").read_text("utf-8")
    code = page.split("```js\n")[1].split("const { sha256")[0]
    numbers = [struct.unpack(">d", random.Random(seed).randbytes(8))[0] for seed in range(500)]
    text = {'é€\x07"\\/\x7f': "\u2028\n"}
    value = {"n": [x for x in numbers if abs(x) < 1e308], "t": text, "\U0001f600": [], "\ufb33": {}}
    assert browser.run(f"{code};canonical(JSON.parse({json.dumps(json.dumps(value))}))") == canonical(value)
