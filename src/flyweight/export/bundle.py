"""Write a bundle: model, golden vectors, card, hashes; complete under its name, or not there at all."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from flyweight import __version__
from flyweight.errors import ExportError, OutputError
from flyweight.export.card import CardFacts, VariantFacts, card
from flyweight.export.onnx import Metadata, to_onnx
from flyweight.export.parity import Parity, check_parity, torch_logits
from flyweight.export.qdq import left_in_float
from flyweight.files import output_error, write_bytes, write_json, write_text, write_zip
from flyweight.models.architecture import Architecture
from flyweight.models.cost import count
from flyweight.models.quantize import bias_on_grid
from flyweight.runtime.bundle import FORMAT_VERSION, Bundle, write_sums
from flyweight.runtime.hashes import SUMS
from flyweight.runtime.preprocess import Preprocess

GOLDEN_IMAGES = 32
CARD = "card.md"
GOLDEN = "golden/images.npy"
FILES = {"fp32": "model.onnx", "int8": "model-int8.onnx"}  # by precision, which is also the name of the variant


def write_bundle(
    out: Path,
    *,
    network: nn.Module,
    architecture: Architecture,
    classes: Sequence[str],
    preprocess: Preprocess,
    temperature: float,
    golden_images: NDArray[np.uint8],
    split_rule: Mapping[str, Any],
    provenance: Mapping[str, Any],
    recipe_yaml: str,
    accuracy: Mapping[str, Any] | Callable[[Path], Mapping[str, Any]] | None = None,
    reject_threshold: float | None = None,
    name: str | None = None,
    parity_images: NDArray[np.uint8] | None = None,
    extras: Mapping[str, bytes] | None = None,
) -> Bundle:
    """Export `network` and return the bundle written at `out`; an earlier bundle there is replaced in one step.

    Args:
        out: A folder that does not exist, is empty, or holds a bundle; or a name that ends in .zip.
        network: Trained, folded or not, as `architecture` builds it; it is not changed.
        golden_images: (32, C, S, S) uint8; kept with the network's logits, so that any device can prove itself.
        split_rule: What `split_from_rule` needs to divide the data again.
        provenance: Where the weights come from: data set and fingerprint, recipe, versions, date, command.
        accuracy: Of the shipped file, by metric, or a function of its path that gives that; None when the test part
            is still sealed.
        parity_images: (N, C, S, S) uint8 to compare the file with the network on; the golden images by default.
        extras: Further files by their path inside the bundle; hashed like the others.

    Raises:
        ExportError: The images or classes do not fit the network, it cannot be exported, or the file disagrees with it.
        OutputError: `out` cannot be written, or is a folder of something else.
    """
    out = Path(out)
    _check(architecture, classes, preprocess, golden_images)
    name_of = precision_of(architecture)
    manifest: dict[str, Any] = {
        "format_version": FORMAT_VERSION,
        "name": name or out.stem,
        "created": _now(),
        "flyweight_version": __version__,
        "classes": list(classes),
        "preprocess": preprocess.to_json(),
        "default": name_of,
        "temperature": float(temperature),
        "reject_threshold": reject_threshold,
        "variants": {},
        "split": dict(split_rule),
        "provenance": dict(provenance),
    }
    images = golden_images if parity_images is None else parity_images
    with _replace(out) as folder:
        (folder / GOLDEN).parent.mkdir()
        np.save(folder / GOLDEN, np.ascontiguousarray(golden_images), allow_pickle=False)
        file, parity = _write_variant(folder, manifest, network, architecture, images, provenance)
        manifest["variants"][name_of]["accuracy"] = _measured(accuracy, file)
        manifest["provenance"] |= {"architecture": architecture.to_json(), "parity": parity.to_json()}
        write_text(folder / "recipe.resolved.yaml", recipe_yaml)
        for inside, content in (extras or {}).items():
            write_bytes(folder / inside, content)
        _describe(folder, manifest)
        write_sums(folder)
    return Bundle.open(out)


def add_variant(
    bundle: Bundle,
    out: Path,
    *,
    network: nn.Module,
    architecture: Architecture,
    parity_images: NDArray[np.uint8],
    provenance: Mapping[str, Any],
    default: bool = False,
) -> Bundle:
    """Write the bundle at `out` with one more model file: the same classes and preprocessing, another precision.

    Args:
        network: Trained, folded or not, as `architecture` builds it.
        parity_images: (N, C, S, S) uint8 to compare the file with the network on.
        provenance: Where these weights come from.
        default: Make it the variant that is used when none is named.

    Raises:
        ExportError: The classes or pixels are not the bundle's, or the file disagrees with the network.
        OutputError: `out` cannot be written.
    """
    _check(architecture, bundle.classes, bundle.preprocess, parity_images)
    manifest = json.loads((bundle.path / "bundle.json").read_text("utf-8"))
    name = precision_of(architecture)
    with _replace(Path(out)) as folder:
        shutil.copytree(bundle.path, folder, dirs_exist_ok=True)
        _, parity = _write_variant(folder, manifest, network, architecture, parity_images, provenance)
        own = {**provenance, "architecture": architecture.to_json(), "parity": parity.to_json()}
        manifest["provenance"].setdefault("variants", {})[name] = own
        manifest["default"] = name if default else manifest["default"]
        _describe(folder, manifest)
        write_sums(folder)
    return Bundle.open(Path(out))


@dataclass(frozen=True)
class NewVariant:
    """A model file that was made from another variant of the bundle, ready to be added to it.

    Attributes:
        files: The model file, then those it needs beside it; their names are those in the bundle.
        source: The variant that it was made from, whose graph is counted.
        golden: Logits (32, K) float32 that it must give on the golden images.
        parity: With the source, on real images; its tolerance is what a device may differ from `golden` by.
        provenance: How it was made.
    """

    name: str
    files: tuple[Path, ...]
    format: str
    precision: str
    backend: str
    source: str
    golden: NDArray[np.float32]
    parity: Parity
    provenance: Mapping[str, Any]


def add_file(bundle: Bundle, out: Path, new: NewVariant, *, default: bool = False) -> Bundle:
    """Write the bundle at `out` (a folder or .zip) with one more model file; a variant of that name is replaced.

    Args:
        default: Make it the variant that is used when none is named.

    Raises:
        ExportError: The name is that of an exported variant.
        OutputError: `out` cannot be written.
    """
    out = Path(out)
    check_name(new.name)
    manifest = json.loads((bundle.path / "bundle.json").read_text("utf-8"))
    _drop(manifest, new.name)
    with _replace(out) as folder:
        shutil.copytree(bundle.path, folder, dirs_exist_ok=True)
        for file in new.files:
            shutil.copyfile(file, folder / file.name)
        golden = folder / f"golden/logits-{new.name}.npy"
        np.save(golden, new.golden.astype(np.float32), allow_pickle=False)
        manifest["variants"][new.name] = {
            "file": new.files[0].name,
            "format": new.format,
            "precision": new.precision,
            "backend": new.backend,
            "tolerance": new.parity.tolerance,
            "golden": golden.relative_to(folder).as_posix(),
            **({"beside": [file.name for file in new.files[1:]]} if new.files[1:] else {}),
            "source": new.source,
            "size_bytes": sum(file.stat().st_size for file in new.files),
            "accuracy": None,
        }
        own = {**new.provenance, "parity": new.parity.to_json()}
        manifest["provenance"].setdefault("variants", {})[new.name] = own
        manifest["default"] = new.name if default else manifest["default"]
        _describe(folder, manifest)
        write_sums(folder)
    return Bundle.open(out)


def check_name(variant: str) -> None:
    """Refuse a name that cannot be part of a file's. Raises ExportError."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", variant):
        raise ExportError(
            f"{variant!r} cannot be the name of a variant, which is part of file names",
            do="use letters, digits, - _ . and at most 64 of them, beginning with a letter or digit",
        )


def _drop(manifest: dict[str, Any], name: str) -> None:
    """Forget an earlier conversion of that name."""
    earlier = manifest["variants"].get(name)
    other = "convert it under another name (flyweight convert --name), or begin with a bundle without that variant"
    if earlier is not None and earlier.get("source") is None:
        raise ExportError(f"the bundle has an exported variant {name!r}", do=other)
    if any(one.get("source") == name for one in manifest["variants"].values()):
        raise ExportError(f"other variants were made from {name!r}", do=other)
    manifest["variants"].pop(name, None)


def _entry(folder: Path, file: Path, golden: Path, precision: str, parity: Parity) -> dict[str, Any]:
    """Return what bundle.json says of an ONNX file for ONNX Runtime."""
    return {
        "file": file.name,
        "format": "onnx",
        "precision": precision,
        "backend": "onnxruntime",
        "tolerance": parity.tolerance,
        "golden": golden.relative_to(folder).as_posix(),
        "size_bytes": file.stat().st_size,
        "accuracy": None,
    }


def record_accuracy(bundle: Bundle, accuracy: Mapping[str, Any], out: Path, variant: str | None = None) -> Bundle:
    """Write the bundle at `out` with the accuracy of a variant in manifest and card; the model's bytes stay the same.

    Raises:
        OutputError: `out` cannot be written, or is a folder of something else.
    """
    manifest = json.loads((bundle.path / "bundle.json").read_text("utf-8"))
    manifest["variants"][bundle.variant(variant).name]["accuracy"] = dict(accuracy)
    return _with_manifest(bundle, manifest, Path(out))


def record_device(bundle: Bundle, device: str, measured: Mapping[str, Any], out: Path) -> Bundle:
    """Write the bundle at `out` with what a device measured of it, as `DeviceResult.of_bundle`, in manifest and card.

    Raises:
        OutputError: `out` cannot be written, or is a folder of something else.
    """
    manifest = json.loads((bundle.path / "bundle.json").read_text("utf-8"))
    manifest["provenance"].setdefault("devices", {})[device] = dict(measured)
    return _with_manifest(bundle, manifest, out)


def run_as(bundle: Bundle, variant: str, threads: int, out: Path) -> Bundle:
    """Write the bundle at `out` with another default variant and the number of threads it was measured fastest with.

    Raises:
        BundleError: It has no such variant.
        OutputError: `out` cannot be written, or is a folder of something else.
    """
    manifest = json.loads((bundle.path / "bundle.json").read_text("utf-8"))
    name = bundle.variant(variant).name
    manifest["default"] = name
    manifest["variants"][name]["threads"] = threads
    return _with_manifest(bundle, manifest, Path(out))


def with_threshold(bundle: Bundle, threshold: float, measured: Mapping[str, Any], out: Path) -> Bundle:
    """Write the bundle at `out` with a confidence below which it gives no answer, and what was measured of it.

    Raises:
        OutputError: `out` cannot be written, or is a folder of something else.
    """
    manifest = json.loads((bundle.path / "bundle.json").read_text("utf-8"))
    manifest |= {"reject_threshold": threshold}
    manifest["provenance"]["reject"] = dict(measured)
    return _with_manifest(bundle, manifest, Path(out))


def copy_bundle(bundle: Bundle, out: Path, *, name: str | None = None, default: str | None = None) -> Bundle:
    """Write the bundle at `out` under another name, or with another default variant.

    Raises:
        BundleError: It has no such variant.
        OutputError: `out` cannot be written, or is a folder of something else.
    """
    manifest = json.loads((bundle.path / "bundle.json").read_text("utf-8"))
    manifest |= {"name": name or bundle.name, "default": bundle.variant(default).name}
    return _with_manifest(bundle, manifest, Path(out))


def _with_manifest(bundle: Bundle, manifest: Mapping[str, Any], out: Path) -> Bundle:
    with _replace(out) as folder:
        shutil.copytree(bundle.path, folder, dirs_exist_ok=True)
        _describe(folder, manifest)
        write_sums(folder)
    return Bundle.open(out)


def precision_of(architecture: Architecture) -> str:
    """Return the precision a network ships in, which names its variant: fp32 or int8."""
    return "int8" if architecture.quantized else "fp32"


def _write_variant(
    folder: Path,
    manifest: dict[str, Any],
    network: nn.Module,
    architecture: Architecture,
    images: NDArray[np.uint8],
    provenance: Mapping[str, Any],
) -> tuple[Path, Parity]:
    """Write model file and golden logits, and enter them in the manifest; return the file and its parity."""
    name = precision_of(architecture)
    if name == "int8":  # what is compared below is the file's arithmetic, not that its biases are whole numbers
        network = bias_on_grid(network)
    file, golden = folder / FILES[name], folder / f"golden/logits-{name}.npy"
    # An int8 file is wanted for its bytes: where it comes from, a kilobyte of text, stands in bundle.json alone.
    metadata = Metadata(tuple(manifest["classes"]), manifest["preprocess"], provenance if name == "fp32" else {})
    to_onnx(network, architecture, file, metadata)
    if name == "int8":
        _check_integer(file, architecture)
    parity = check_parity(network, file, images, name)
    logits = torch_logits(network, np.load(folder / GOLDEN))
    np.save(golden, logits.astype(np.float32), allow_pickle=False)
    manifest["variants"][name] = _entry(folder, file, golden, name, parity)
    return file, parity


def _check_integer(file: Path, architecture: Architecture) -> None:
    """Refuse an int8 file that the runtime would silently compute in float."""
    meant = sum(len(step.get("keep_float", ())) for step in architecture.surgery)
    found = left_in_float(file)
    if len(found) > meant:
        raise ExportError(
            f"onnxruntime computes {len(found)} layers of the int8 file of {architecture.name!r} in float "
            f"({', '.join(found[:3])}); {meant} were to stay so",
            do="ship the fp32 file, or name these layers in keep_float",
        )


def _measured(accuracy: Mapping[str, Any] | Callable[[Path], Mapping[str, Any]] | None, file: Path) -> Any:
    found = accuracy(file) if callable(accuracy) else accuracy
    return None if found is None else dict(found)


def _describe(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Write bundle.json and the card that says the same to people."""
    write_json(folder / "bundle.json", manifest)
    names = sorted(manifest["variants"], key=lambda name: bool(name != manifest["default"]))
    variants = [_facts_of(folder, manifest, name) for name in names]
    facts = CardFacts(
        name=manifest["name"],
        classes=manifest["classes"],
        preprocess=manifest["preprocess"],
        variants=variants,
        split_rule=manifest["split"],
        provenance=manifest["provenance"],
        reject_threshold=manifest["reject_threshold"],
        temperature=manifest["temperature"],
        hashes=_hashes(folder),
    )
    write_text(folder / CARD, card(facts))


def _hashes(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of every file but the card, which cannot hold its own, and the sums, written last."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name not in (CARD, SUMS))
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def _facts_of(folder: Path, manifest: Mapping[str, Any], name: str) -> VariantFacts:
    """Return what the card says of a variant; architecture and counts of a converted one are its source's."""
    entry, own = manifest["variants"][name], manifest["provenance"].get("variants", {})
    source = entry.get("source")
    exported = own.get(source or name, manifest["provenance"])
    counted = entry if source is None or entry["format"] == "onnx" else manifest["variants"][source]
    return VariantFacts(
        name=name,
        architecture=Architecture.from_json(exported["architecture"]),
        cost=count(folder / counted["file"]),
        size_bytes=entry["size_bytes"],
        parity=Parity(**own.get(name, manifest["provenance"])["parity"]),
        accuracy=entry["accuracy"],
        source=source,
        conversion=own.get(name, {}) if source is not None else {},
    )


def _now() -> str:
    """Return the time in UTC, or SOURCE_DATE_EPOCH where a reproducible build sets it."""
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    moment = datetime.fromtimestamp(int(epoch), UTC) if epoch else datetime.now(UTC)
    return moment.isoformat(timespec="seconds")


def _check(
    architecture: Architecture, classes: Sequence[str], preprocess: Preprocess, images: NDArray[np.uint8]
) -> None:
    if len(classes) != architecture.num_classes:
        raise ExportError(
            f"{len(classes)} class names for {architecture.num_classes} logits", do="give one name per logit, in order"
        )
    ours = (architecture.in_chans, architecture.image_size, architecture.image_size)
    theirs = (preprocess.channels, preprocess.image_size, preprocess.image_size)
    if ours != theirs or tuple(images.shape[1:]) != ours or images.dtype != np.uint8 or not len(images):
        raise ExportError(
            f"the network takes {ours} uint8, preprocessing gives {theirs}, the golden images are "
            f"{images.shape} {images.dtype}",
            do=f"give at least one golden image of shape {ours}, as flyweight.runtime.preprocess.load makes them",
        )
    if (preprocess.mean, preprocess.std) != (architecture.mean, architecture.std):
        raise ExportError(
            f"preprocessing records mean {preprocess.mean} and std {preprocess.std}, the network normalises with "
            f"{architecture.mean} and {architecture.std}",
            do="give both the same mean and std",
        )


def _replace(out: Path) -> contextlib.AbstractContextManager[Path]:
    """Give an empty folder that becomes `out`, an archive where its name ends in .zip, when the block ends well."""
    return (_replace_zip if out.suffix.lower() == ".zip" else _replace_folder)(out)


@contextlib.contextmanager
def _replace_folder(out: Path) -> Iterator[Path]:
    """Give an empty folder that takes the name `out` when the block ends well, and vanishes when it does not."""
    if out.exists() and not (out.is_dir() and ((out / "bundle.json").is_file() or not any(out.iterdir()))):
        raise OutputError(f"{str(out)!r} exists and is not a bundle", do="name a new folder, so that nothing is lost")
    work: Path | None = None
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}."))
        work.chmod(0o755)
        fresh, old = work / "new", work / "old"
        fresh.mkdir()
        yield fresh
        if out.exists():
            os.replace(out, old)
        try:
            os.replace(fresh, out)
        except OSError:
            if old.exists():
                os.replace(old, out)
            raise
    except OSError as error:
        raise output_error(out, error) from error
    finally:
        if work is not None:
            shutil.rmtree(work, ignore_errors=True)


@contextlib.contextmanager
def _replace_zip(out: Path) -> Iterator[Path]:
    """Give an empty folder whose content becomes the archive `out` when the block ends well."""
    if out.is_dir():
        raise OutputError(f"{str(out)!r} is a folder, and a name in .zip is that of an archive", do="name a new file")
    with tempfile.TemporaryDirectory(prefix="flyweight-bundle-") as work:
        folder = Path(work)
        yield folder
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        write_zip(out, ((path.relative_to(folder).as_posix(), path.read_bytes()) for path in files))
