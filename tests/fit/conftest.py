"""Photos of three kinds of things, drawn: mixed sizes, JPEG and PNG, some grey, some turned by EXIF."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

KINDS = ("disc", "cross", "stripes")


def draw(kind: str, rng: np.random.Generator) -> Image.Image:
    """Return one picture of a kind, somewhere between 40 and 160 px a side."""
    width, height = (int(side) for side in rng.integers(40, 160, 2))
    back, front = (tuple(int(v) for v in rng.integers(low, low + 90, 3)) for low in (0, 160))
    image = Image.new("RGB", (width, height), back)
    pen = ImageDraw.Draw(image)
    left, top, size = width * 0.2, height * 0.2, min(width, height) * 0.6
    if kind == "disc":
        pen.ellipse((left, top, left + size, top + size), fill=front)
    elif kind == "cross":
        pen.line((left, top, left + size, top + size), fill=front, width=7)
        pen.line((left, top + size, left + size, top), fill=front, width=7)
    else:
        for x in range(0, width, 12):
            pen.rectangle((x, 0, x + 5, height), fill=front)
    return image


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with 150 pictures of each kind."""
    root, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for kind in KINDS:
        (root / kind).mkdir()
        for number in range(150):
            image = draw(kind, rng)
            if number % 10 == 0:
                image = image.convert("L")
            exif = Image.Exif()
            exif[0x0112] = 6 if number % 7 == 0 else 1
            image.save(root / kind / f"{number}.{'jpg' if number % 3 else 'png'}", exif=exif)
    return root


@pytest.fixture(scope="session")
def manifest(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same pictures listed in a CSV elsewhere, three to a group."""
    path = photos.parent / "listed.csv"
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["path", "label", "group"])
        for kind in KINDS:
            for number, image in enumerate(sorted((photos / kind).iterdir())):
                rows.writerow([image.relative_to(path.parent), kind, f"{kind}-{number // 3}"])
    return path
