"""What is known of public data sets: classes, image side, channels and test images. Facts, no code."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Known:
    """One public data set: number of classes, image side (px), channels, test images."""

    num_classes: int
    image_size: int
    in_chans: int
    test_images: int


def canonical(name: str) -> str:
    """Return the key of `DATASETS` that a table's spelling means (`CIFAR-10`, `Tiny ImageNet`), else `name` itself."""
    plain = _plain(name)
    return next((key for key in DATASETS if _plain(key) == plain), _ALIASES.get(plain, name))


def _plain(name: str) -> str:
    return "".join(sign for sign in name.lower() if sign.isalnum())


_ALIASES = {"imagenet": "imagenet-1k", "ilsvrc2012": "imagenet-1k", "tinyimagenet200": "tiny-imagenet"}

DATASETS = {
    "mnist": Known(10, 28, 1, 10_000),
    "fashion-mnist": Known(10, 28, 1, 10_000),
    "cifar10": Known(10, 32, 3, 10_000),
    "cifar100": Known(100, 32, 3, 10_000),
    "tiny-imagenet": Known(200, 64, 3, 10_000),
    "imagenet-1k": Known(1000, 224, 3, 50_000),
}
