"""Write resize.json: docs/resize.md once more, one number at a time, with no numpy and no Pillow.

Run `python tests/vectors/make_resize.py` from the repository's root. The vectors change only when the definition does.
"""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

SUPPORT = {"box": 0.5, "bilinear": 1.0, "bicubic": 2.0}


def height_at(kernel: str, x: float) -> float:
    if kernel == "box":
        return 1.0 if -0.5 < x <= 0.5 else 0.0
    x = abs(x)
    if kernel == "bilinear":
        return 1.0 - x if x < 1.0 else 0.0
    if x < 1.0:
        return ((-0.5 + 2.0) * x - (-0.5 + 3.0)) * x * x + 1.0
    return (((x - 5.0) * x + 8.0) * x - 4.0) * -0.5 if x < 2.0 else 0.0


def windows(size: int, start: float, stop: float, out: int, kernel: str) -> list[tuple[int, list[int]]]:
    """Return (first input pixel, weights) for each output pixel."""
    scale = (stop - start) / out
    stretch = max(scale, 1.0)
    support, inverse = SUPPORT[kernel] * stretch, 1.0 / stretch
    found = []
    for place in range(out):
        centre = start + (place + 0.5) * scale
        first = max(int(centre - support + 0.5), 0)
        last = min(int(centre + support + 0.5), size)
        heights = [height_at(kernel, (at - centre + 0.5) * inverse) for at in range(first, last)]
        total = 0.0
        for height in heights:
            total += height
        scaled = [height / total * 4194304.0 for height in heights]
        found.append((first, [int(value - 0.5) if value < 0 else int(value + 0.5) for value in scaled]))
    return found


def across(rows: list[list[list[int]]], start: float, stop: float, out: int, kernel: str) -> list[list[list[int]]]:
    """Return rows of `out` pixels each, of rows of pixels of channels."""
    places = windows(len(rows[0]), start, stop, out, kernel)

    def one(row: list[list[int]], channel: int, first: int, weights: list[int]) -> int:
        total = sum(weight * row[first + tap][channel] for tap, weight in enumerate(weights))
        return min(max((total + 2097152) >> 22, 0), 255)

    return [[[one(row, c, *place) for c in range(len(row[0]))] for place in places] for row in rows]


def on_its_side(rows: list[list[list[int]]]) -> list[list[list[int]]]:
    return [list(column) for column in zip(*rows, strict=True)]


def resize(
    rows: list[list[list[int]]], size: tuple[int, int], kernel: str, box: tuple[float, float, float, float]
) -> list[list[list[int]]]:
    left, top, right, bottom = box
    wide = across(rows, left, right, size[0], kernel)
    return on_its_side(across(on_its_side(wide), top, bottom, size[1], kernel))


def fit(rows: list[list[list[int]]], how: dict[str, Any]) -> list[list[list[int]]]:
    size, kernel = how["image_size"], how["interpolation"]
    height, width = len(rows), len(rows[0])
    if (height, width) == (size, size):
        return rows
    if how["resize"] == "crop":
        side = min(height, width)
        left, top = (width - side) / 2, (height - side) / 2
        return resize(rows, (size, size), kernel, (left, top, left + side, top + side))
    if how["resize"] == "stretch":
        return resize(rows, (size, size), kernel, (0.0, 0.0, float(width), float(height)))
    longest = max(height, width)
    inner_w, inner_h = (max(1, (2 * side * size + longest) // (2 * longest)) for side in (width, height))
    inner = resize(rows, (inner_w, inner_h), kernel, (0.0, 0.0, float(width), float(height)))
    left, top = (size - inner_w) // 2, (size - inner_h) // 2
    fill = [math.floor(mean * 255 + 0.5) for mean in how["mean"]]
    inside = {(y, x): inner[y - top][x - left] for y in range(top, top + inner_h) for x in range(left, left + inner_w)}
    return [[inside.get((y, x), fill) for x in range(size)] for y in range(size)]


def picture(seed: int, height: int, width: int, channels: int) -> list[list[list[int]]]:
    """Return noise in which whole runs are black or white: overshoot must be clipped, and is."""
    draw = random.Random(seed)
    return [
        [[draw.choice((0, 255, draw.randrange(256))) for _ in range(channels)] for _ in range(width)]
        for _ in range(height)
    ]


def to_hex(rows: list[list[list[int]]]) -> str:
    return bytes(value for row in rows for pixel in row for value in pixel).hex()


def vectors() -> dict[str, Any]:
    passes = [(7, 0.0, 7.0, 3), (3, 0.0, 3.0, 7), (1, 0.0, 1.0, 4), (40, 7.5, 32.5, 9), (150, 0.0, 150.0, 2)]
    pictures = [(1, 1, 1), (5, 9, 3), (17, 12, 4), (24, 31, 3), (13, 37, 1)]
    sizes = [(1, 1), (8, 8), (5, 14), (19, 6)]
    ways = [("crop", 8), ("stretch", 11), ("pad", 10), ("crop", 15), ("pad", 20)]
    cases: dict[str, Any] = {"windows": [], "resize": [], "fit": []}
    for kernel in SUPPORT:
        for size, start, stop, out in passes:
            found = windows(size, start, stop, out, kernel)
            cases["windows"].append(
                {
                    **{"size": size, "start": start, "stop": stop, "out": out, "interpolation": kernel},
                    "first": [first for first, _ in found],
                    "weights": [weights for _, weights in found],
                }
            )
        for seed, (height, width, channels) in enumerate(pictures):
            rows = picture(seed, height, width, channels)
            known = {"height": height, "width": width, "channels": channels, "pixels": to_hex(rows)}
            out_w, out_h = sizes[seed % len(sizes)]
            boxes = [(0.0, 0.0, float(width), float(height))]
            boxes += [(1.5, 1.0, width - 1.0, height - 2.5)] if min(height, width) > 4 else []
            for box in boxes:
                done = to_hex(resize(rows, (out_w, out_h), kernel, box))
                asked = {"out_width": out_w, "out_height": out_h, "interpolation": kernel, "box": box}
                cases["resize"].append({**known, **asked, "expected": done})
            resize_by, size = ways[seed]
            mean = [0.1, 0.5, 0.9, 0.2][:channels]
            how = {"image_size": size, "resize": resize_by, "interpolation": kernel, "mean": mean}
            cases["fit"].append({**known, **how, "expected": to_hex(fit(rows, how))})
    return cases


def text() -> str:
    """Return the file: a case to a line."""
    parts = []
    for kind, cases in vectors().items():
        lines = ",\n".join(json.dumps(case) for case in cases)
        parts.append(f'"{kind}": [\n{lines}\n]')
    return "{\n" + ",\n".join(parts) + "\n}\n"


if __name__ == "__main__":
    (Path(__file__).parent / "resize.json").write_text(text(), "utf-8")
