"""A bundle as one HTML file: model, onnxruntime-web, golden vectors and a page around them; nothing is loaded later."""

from __future__ import annotations

import base64
import gzip
import hashlib
import html
import json
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from flyweight import __version__, report
from flyweight.errors import ExportError
from flyweight.files import write_text
from flyweight.measure.speed import write_photo
from flyweight.models.cost import count
from flyweight.runtime.bundle import Bundle, Variant
from flyweight.runtime.hashes import SUMS
from flyweight.runtime.preprocess import MAX_PIXELS, MODES
from flyweight.web import ort

PAGE = Path(__file__).parent / "page"
# In the order they need one another; all are classic scripts: a file opened from a disk may not import modules.
SCRIPTS = ("resize.js", "picture.js", "quantiles.js", "network.js", "latency.js", "result.js", "page.js")
LARGE_BYTES = 200_000_000  # above it phones give up


@dataclass(frozen=True)
class WebPage:
    """What was written."""

    html: Path
    variant: str
    size_bytes: int


def write_page(bundle: Bundle, out: Path, *, variant: str | None = None, ort_web: Path | None = None) -> WebPage:
    """Write `index.html` into the folder `out`: one file that needs no server and no network.

    Raises:
        ExportError: The variant is no ONNX file of 1, 3 or 4 channels, or onnxruntime-web cannot be had.
        BundleError: There is no such variant.
        OutputError: `out` cannot be written.
    """
    chosen = bundle.onnx_variant(variant)
    content = render(bundle, chosen, ort.ort_web(ort_web))
    file = Path(out) / "index.html"
    write_text(file, content)
    return WebPage(file, chosen.name, file.stat().st_size)


def render(bundle: Bundle, variant: Variant, runtime: ort.OrtWeb) -> str:
    """Return the page. Raises ExportError as `write_page`."""
    _check(bundle, variant)
    images, logits = bundle.golden(variant)
    files = {
        "model": variant.file.read_bytes(),
        "golden-images": np.ascontiguousarray(images).tobytes(),
        "golden-logits": np.ascontiguousarray(logits, "<f4").tobytes(),
        "photo": _photo(bundle),
    }
    packed = {"runtime-module": _packed_once(runtime.module), "runtime-wasm": _packed_once(runtime.wasm)}
    packed |= {name: _packed(content) for name, content in files.items()}
    styles = (Path(report.__file__).parent / "page" / "style.css", PAGE / "page.css")
    parts = {
        "title": html.escape(bundle.name),
        "style": "\n".join(path.read_text("utf-8") for path in styles),
        "licence": html.escape(f"{ort.LICENCE}."),
        "facts": json.dumps(_facts(bundle, variant), ensure_ascii=False, allow_nan=False).replace("<", "\\u003c"),
        "files": "\n".join(_inlined(name, packed) for name, packed in packed.items()),
        "script": "\n".join((PAGE / name).read_text("utf-8") for name in SCRIPTS),
    }
    return _filled((PAGE / "index.html").read_text("utf-8"), parts)


def _filled(template: str, parts: Mapping[str, str]) -> str:
    """Return the template with every {{name}} replaced; what is filled in is not looked at again."""
    return re.sub(r"\{\{(\w+)\}\}", lambda found: parts[found[1]], template)


def _facts(bundle: Bundle, variant: Variant) -> dict[str, Any]:
    cost, content = count(variant.file), variant.file.read_bytes()
    accuracy = variant.accuracy or {}
    shown = {name: accuracy.get(name) for name in ("top1", "low", "high", "n", "ece")}
    return {
        "name": bundle.name,
        "classes": bundle.classes,
        "preprocess": bundle.preprocess.to_json(),
        "temperature": bundle.temperature,
        "reject_threshold": bundle.reject_threshold,
        "data": _data(bundle.provenance.get("data")),
        "variant": {
            "name": variant.name,
            "format": variant.format,
            "precision": variant.precision,
            "sha256": hashlib.sha256(content).hexdigest(),
            "size_bytes": variant.size_bytes,
            "tolerance": variant.tolerance,
            "params": cost.params,
            "macs": cost.macs,
            "accuracy": shown if None not in [shown[name] for name in ("top1", "low", "high", "n")] else None,
        },
        "bundle_sha256": hashlib.sha256((bundle.path / SUMS).read_bytes()).hexdigest(),
        "flyweight_version": __version__,
        "ort_version": ort.VERSION,
        "max_pixels": MAX_PIXELS,
    }


def _data(data: Any) -> str:
    """Return in a line what provenance says of the data."""
    if not isinstance(data, Mapping):
        return str(data or "")
    parts = {"train": "training", "val": "validation", "test": "test"}
    counts = [f"{data[name]:,} {word}" for name, word in parts.items() if isinstance(data.get(name), int)]
    return str(data.get("name", "")) + (f": {', '.join(counts)} images" if counts else "")


def _check(bundle: Bundle, variant: Variant) -> None:
    if variant.format != "onnx":
        able = [name for name, found in bundle.variants.items() if found.format == "onnx"]
        raise ExportError(
            f"the variant {variant.name!r} is a {variant.format!r} file; a browser runs onnx here",
            do=f"use --variant {able[0]}" if able else "export the run again: flyweight export writes onnx",
        )
    if bundle.preprocess.channels not in MODES:
        raise ExportError(
            f"{bundle.name!r} takes {bundle.preprocess.channels} channels; pictures in a browser have 1, 3 or 4",
            do="train on 1, 3 or 4 channels for use in a browser",
        )
    if variant.size_bytes > LARGE_BYTES:
        raise ExportError(
            f"{variant.file.name!r} has {variant.size_bytes / 1e6:.0f} MB; a page holds {LARGE_BYTES / 1e6:.0f}",
            do="choose a smaller variant or network",
        )


def _photo(bundle: Bundle) -> bytes:
    with tempfile.TemporaryDirectory(prefix="flyweight-web-") as folder:
        return write_photo(bundle, Path(folder) / "photo.jpg").read_bytes()


def _inlined(name: str, packed: str) -> str:
    return f'<script type="application/gzip;base64" id="packed-{name}">{packed}</script>'


@lru_cache(maxsize=2)  # the runtime is the same in every page, and takes a second
def _packed_once(content: bytes) -> str:
    return _packed(content)


def _packed(content: bytes) -> str:
    return base64.b64encode(gzip.compress(content, 6, mtime=0)).decode()
