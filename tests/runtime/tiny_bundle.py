"""A small real bundle without torch: the class is the brightest third of the picture, left, middle or right."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from flyweight.runtime.backends import load_backend
from flyweight.runtime.hashes import write_sums
from flyweight.runtime.preprocess import Preprocess

CLASSES = ("left", "middle", "right")
SIZE = 12
SPLIT = {"val_fraction": 0.2, "test_fraction": 0.3, "seed": 0, "keep_official": True, "grouped": False}


def model(size: int = SIZE, channels: int = 3, gain: float = 20.0) -> onnx.ModelProto:
    """Return uint8 images (N, C, S, S) -> mean brightness of each third, times `gain`: logits (N, 3)."""
    third = size // 3
    kernel = np.full((1, channels, size, third), gain / (channels * size * third), np.float32)
    constants = [
        numpy_helper.from_array(np.float32(1 / 255).reshape(()), "normalize.scale"),
        numpy_helper.from_array(kernel, "weight"),
    ]
    nodes = [
        helper.make_node("Cast", ["images"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["float", "normalize.scale"], ["normal"]),
        helper.make_node("Conv", ["normal", "weight"], ["map"], strides=[1, third]),
        helper.make_node("Flatten", ["map"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "thirds",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["N", channels, size, size])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 3])],
        constants,
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(made)
    return made


def picture(label: int, size: int = 48, seed: int = 0, contrast: int = 160) -> np.ndarray:
    """Return an (H, W, 3) uint8 picture of class `label`, with noise."""
    image = np.random.default_rng(seed).integers(0, 256 - contrast, (size, size, 3), np.uint8)
    third = size // 3
    image[:, label * third : (label + 1) * third] += np.uint8(contrast)
    return image


def write_pictures(folder: Path, per_class: int = 4, size: int = 48) -> Path:
    """Write `folder`/CLASS/N.png and return `folder`."""
    for label, name in enumerate(CLASSES):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for i in range(per_class):
            Image.fromarray(picture(label, size, seed=100 * label + i)).save(folder / name / f"{i}.png")
    return folder


def write_bundle(folder: Path, *, accuracy: dict[str, object] | None = None, **changes: object) -> Path:
    """Write the bundle; `changes` replace keys of bundle.json. The hashes are right in any case."""
    (folder / "golden").mkdir(parents=True)
    (folder / "model.onnx").write_bytes(model().SerializeToString())
    golden = np.stack([picture(i % 3, SIZE, seed=i).transpose(2, 0, 1) for i in range(32)])
    np.save(folder / "golden/images.npy", np.ascontiguousarray(golden))
    logits = load_backend("onnxruntime", folder / "model.onnx").run(golden)
    np.save(folder / "golden/logits-fp32.npy", logits)
    (folder / "card.md").write_text("# thirds\n")
    variant = {
        "file": "model.onnx",
        "format": "onnx",
        "precision": "fp32",
        "backend": "onnxruntime",
        "tolerance": 1e-4,
        "golden": "golden/logits-fp32.npy",
        "size_bytes": (folder / "model.onnx").stat().st_size,
        "accuracy": accuracy,
    }
    manifest = {
        "format_version": 1,
        "name": "thirds",
        "created": "2026-01-01T00:00:00+00:00",
        "flyweight_version": "0.1.0",
        "classes": list(CLASSES),
        "preprocess": Preprocess(SIZE).to_json(),
        "default": "fp32",
        "temperature": 2.0,
        "reject_threshold": None,
        "variants": {"fp32": variant},
        "split": SPLIT,
        "provenance": {"data": "made by tests/runtime/tiny_bundle.py"},
        **changes,
    }
    (folder / "bundle.json").write_text(json.dumps(manifest))
    write_sums(folder)
    return folder
