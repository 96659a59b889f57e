"""Build the embedded sample from the four IDX files of Fashion-MNIST.

python -m flyweight.data.sample.build /usr/share/datasets/fashion-mnist
"""

from __future__ import annotations

import io
import sys
from pathlib import Path

import numpy as np

from flyweight.data.sources.idx import FASHION, read_fashion_mnist
from flyweight.files import write_bytes

PER_CLASS = {"train": 600, "test": 100}


def build(source: Path) -> bytes:
    """Return the .npz: of each class the images with the smallest content hash, in hash order."""
    dataset = read_fashion_mnist(source)
    assert dataset.parts is not None
    arrays: dict[str, np.ndarray[tuple[int, ...], np.dtype[np.generic]]] = {"classes": np.array(FASHION)}
    for part, count in PER_CLASS.items():
        inside = np.flatnonzero(dataset.parts == part)
        order = inside[np.argsort(dataset.hashes()[inside], kind="stable")]
        chosen = np.concatenate([order[dataset.labels[order] == label][:count] for label in range(len(FASHION))])
        chosen = chosen[np.argsort(dataset.hashes()[chosen], kind="stable")]
        arrays[f"x_{part}"] = np.stack([np.asarray(dataset.images.read(int(index)))[..., 0] for index in chosen])
        arrays[f"y_{part}"] = dataset.labels[chosen].astype(np.uint8)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


if __name__ == "__main__":
    write_bytes(Path(__file__).with_name("fashion.npz"), build(Path(sys.argv[1])))
