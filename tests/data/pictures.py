"""Tiny pictures that all differ, and folders of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image


def smooth(seed: int, side: int = 48) -> Image.Image:
    """A picture of soft blobs: unlike any other seed, and like itself after a re-save."""
    cells = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(cells).resize((side, side), Image.Resampling.BICUBIC)


def class_folders(root: Path, per_class: int = 3, classes: tuple[str, ...] = ("cat", "dog")) -> Path:
    for label, name in enumerate(classes):
        (root / name).mkdir(parents=True, exist_ok=True)
        for n in range(per_class):
            smooth(1000 * label + n).save(root / name / f"{n}.png")
    return root
