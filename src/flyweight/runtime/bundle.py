"""Open a bundle: a folder or .zip whose every byte is checked before any of it is believed."""

from __future__ import annotations

import json
import shutil
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from flyweight.errors import BundleError, DataError
from flyweight.runtime.hashes import check_sums, write_sums
from flyweight.runtime.manifest import FORMAT_VERSION, Manifest, VariantManifest
from flyweight.runtime.preprocess import Preprocess
from flyweight.runtime.unzip import bundle_root, unzip

__all__ = ["FORMAT_VERSION", "Bundle", "Variant", "write_sums"]

MANIFEST = "bundle.json"
GOLDEN_IMAGES = "golden/images.npy"


@dataclass(frozen=True)
class Variant:
    """One shipped model file.

    Attributes:
        file: The model file.
        tolerance: Largest accepted |logit - golden logit|.
        golden: The expected logits (32, K) float32, `.npy`.
        size_bytes: Of the model file and those beside it.
        accuracy: What export measured on the test part, as `measure.accuracy.Accuracy.to_json`, or None.
        source: The variant it was converted from; None for one that was exported from a run.
        beside: Further files that the model file needs.
        threads: That it was measured fastest with; None where that was not asked.
    """

    name: str
    file: Path
    format: str
    precision: str
    backend: str
    tolerance: float
    golden: Path
    size_bytes: int
    accuracy: dict[str, Any] | None
    source: str | None = None
    beside: tuple[Path, ...] = ()
    threads: int | None = None


@dataclass(frozen=True)
class Bundle:
    """An opened and checked bundle. One from a .zip lies in a temporary folder that goes when this object does."""

    path: Path
    name: str
    classes: tuple[str, ...]
    preprocess: Preprocess
    variants: Mapping[str, Variant]
    default: str
    temperature: float
    reject_threshold: float | None
    split: dict[str, Any]
    provenance: dict[str, Any]

    @classmethod
    def open(cls, path: Path) -> Bundle:
        """Return the bundle in a folder or .zip.

        Raises:
            BundleError: Not a bundle, damaged, changed (naming the file and both hashes), or of a newer format.
        """
        path = Path(path)
        if path.is_dir():
            return _read(path)
        if not path.is_file():
            raise BundleError(f"there is no bundle at {str(path)!r}", do="give the folder or .zip that export wrote")
        folder = unzip(path)
        root = bundle_root(folder)
        try:
            bundle = _read(root)
        except BundleError as error:
            shutil.rmtree(folder, ignore_errors=True)
            raise _of_archive(error, root, path) from error
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        weakref.finalize(bundle, shutil.rmtree, folder, ignore_errors=True)
        return bundle

    def variant(self, name: str | None = None) -> Variant:
        """Return a variant by name, the default one without. Raises BundleError."""
        name = self.default if name is None else name
        if name not in self.variants:
            close = get_close_matches(name, self.variants, 1) or sorted(self.variants)
            raise BundleError(
                f"the bundle {self.name!r} has no variant {name!r}; it has {sorted(self.variants)}",
                do=f"use --variant {close[0]}",
            )
        return self.variants[name]

    def onnx_variant(self, name: str | None = None) -> Variant:
        """Return a variant by name; without, the default one, or the ONNX file that it was converted from.

        Raises:
            BundleError: There is no such variant.
        """
        chosen = self.variant(name)
        if name is None and chosen.format != "onnx" and chosen.source is not None:
            return self.variants[chosen.source]
        return chosen

    def counted(self, variant: Variant) -> Path:
        """Return the ONNX file whose graph tells the counted cost of a variant: its own, or its source's."""
        if variant.format == "onnx" or variant.source is None:
            return variant.file
        return self.variants[variant.source].file

    def golden(self, variant: Variant) -> tuple[np.ndarray, np.ndarray]:
        """Return the golden images (32, C, S, S) uint8 and the logits (32, K) float32 expected of `variant`.

        Raises:
            BundleError: A file is not an array, or not of these shapes.
        """
        images, logits = _array(self.path / GOLDEN_IMAGES), _array(variant.golden)
        size = self.preprocess.image_size
        shape = (*images.shape[:1], self.preprocess.channels, size, size)
        if images.shape != shape or images.dtype != np.uint8 or logits.shape != (shape[0], len(self.classes)):
            raise BundleError(
                f"the golden vectors of {self.name!r} are images {images.dtype}{images.shape} and logits "
                f"{logits.shape}; bundle.json describes uint8{shape} and {len(self.classes)} classes",
                do="export again",
            )
        return images, logits


def _read(folder: Path) -> Bundle:
    if not (folder / MANIFEST).is_file():
        raise BundleError(
            f"{str(folder)!r} is not a bundle: it holds no {MANIFEST}",
            do="give the folder or .zip that flyweight export or fit wrote",
        )
    check_sums(folder)
    manifest = _manifest(folder)
    return Bundle(
        path=folder,
        name=manifest.name,
        classes=manifest.classes,
        preprocess=_preprocess(manifest, folder),
        variants={name: _variant(folder, name, entry) for name, entry in manifest.variants.items()},
        default=manifest.default,
        temperature=manifest.temperature,
        reject_threshold=manifest.reject_threshold,
        split=manifest.split,
        provenance=manifest.provenance,
    )


def _of_archive(error: BundleError, root: Path, archive: Path) -> BundleError:
    """Return the error in the words of the user, who knows the archive and not the folder it was unpacked into."""
    what = error.what.replace(repr(str(root)), repr(str(archive)))
    return BundleError(what, do=error.do.replace(repr(root.name), repr(archive.name)), more=error.more)


def _manifest(folder: Path) -> Manifest:
    try:
        content = json.loads((folder / MANIFEST).read_text("utf-8"))
        version = content.get("format_version")
    except (ValueError, AttributeError) as error:
        raise BundleError(f"{MANIFEST} in {str(folder)!r} is not a JSON object: {error}", do="export again") from error
    if isinstance(version, int) and version > FORMAT_VERSION:
        raise BundleError(
            f"the bundle {str(folder)!r} has the format version {version}; this flyweight reads up to {FORMAT_VERSION}",
            do="pip install --upgrade flyweight",
        )
    try:
        return Manifest.model_validate(content)
    except ValidationError as error:
        raise BundleError(f"{MANIFEST} in {str(folder)!r} is not valid: {_first(error)}", do="export again") from error


def _preprocess(manifest: Manifest, folder: Path) -> Preprocess:
    try:
        return Preprocess.from_json(manifest.preprocess)
    except DataError as error:
        raise BundleError(f"{MANIFEST} in {str(folder)!r} is not valid: {error.what}", do="export again") from error


def _first(error: ValidationError) -> str:
    problems = [f"{'.'.join(map(str, found['loc'])) or 'it'}: {found['msg']}" for found in error.errors()]
    return "; ".join(problems)


def _variant(folder: Path, name: str, entry: VariantManifest) -> Variant:
    file, golden = folder / entry.file, folder / entry.golden
    beside = tuple(folder / one for one in entry.beside)
    for needed in (file, *beside, golden, folder / GOLDEN_IMAGES):
        if not needed.is_file():
            raise BundleError(
                f"{str(needed.relative_to(folder))!r} of the variant {name!r} is missing from {str(folder)!r}",
                do="export again",
            )
    size_bytes = sum(one.stat().st_size for one in (file, *beside))
    if size_bytes != entry.size_bytes:
        raise BundleError(
            f"{entry.file!r} has {size_bytes} bytes; {MANIFEST} says size_bytes {entry.size_bytes}",
            do="export again",
        )
    return Variant(
        name, file, entry.format, entry.precision, entry.backend, entry.tolerance, golden, entry.size_bytes,
        entry.accuracy, entry.source, beside, entry.threads,
    )  # fmt: skip


def _array(path: Path) -> np.ndarray:
    try:
        return np.asarray(np.load(path, allow_pickle=False))
    except (OSError, ValueError, EOFError) as error:
        # numpy speaks of pickles wherever the header is not its own; that would only mislead
        raise BundleError(
            f"{str(path)!r} is not a readable array ({path.stat().st_size} bytes)", do="export again"
        ) from error
