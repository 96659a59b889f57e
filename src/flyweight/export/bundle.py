"""Write a bundle: model, golden vectors, card, hashes; complete under its name, or not there at all."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from flyweight import __version__
from flyweight.errors import ExportError, OutputError
from flyweight.export.card import CardFacts, card
from flyweight.export.onnx import Metadata, to_onnx
from flyweight.export.parity import Parity, check_parity, torch_logits
from flyweight.files import output_error, replace_file, write_bytes, write_json, write_text
from flyweight.models.architecture import Architecture
from flyweight.models.cost import count
from flyweight.runtime.bundle import FORMAT_VERSION, Bundle, write_sums
from flyweight.runtime.preprocess import Preprocess

GOLDEN_IMAGES = 32
MODEL, GOLDEN, GOLDEN_LOGITS = "model.onnx", "golden/images.npy", "golden/logits-fp32.npy"


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
    with (_replace_zip if out.suffix == ".zip" else _replace_folder)(out) as folder:
        metadata = Metadata(tuple(classes), preprocess.to_json(), provenance)
        path = to_onnx(network, architecture, folder / MODEL, metadata)
        parity = check_parity(network, path, golden_images if parity_images is None else parity_images)
        _write_golden(folder, golden_images, torch_logits(network, golden_images))
        facts = CardFacts(
            name=name or out.stem,
            architecture=architecture,
            classes=classes,
            preprocess=preprocess.to_json(),
            cost=count(path),
            size_bytes=path.stat().st_size,
            parity=parity,
            accuracy=accuracy(path) if callable(accuracy) else accuracy,
            split_rule=split_rule,
            provenance=provenance,
        )
        write_json(folder / "bundle.json", _manifest(facts, temperature, reject_threshold))
        write_text(folder / "card.md", card(facts))
        write_text(folder / "recipe.resolved.yaml", recipe_yaml)
        for inside, content in (extras or {}).items():
            write_bytes(folder / inside, content)
        write_sums(folder)
    return Bundle.open(out)


def record_accuracy(bundle: Bundle, accuracy: Mapping[str, Any], out: Path, variant: str | None = None) -> Bundle:
    """Write the bundle at `out` with the accuracy of a variant in manifest and card; the model's bytes stay the same.

    Raises:
        OutputError: `out` cannot be written, or is a folder of something else.
    """
    name = bundle.variant(variant).name
    manifest = json.loads((bundle.path / "bundle.json").read_text("utf-8"))
    manifest["variants"][name]["accuracy"] = dict(accuracy)
    with _replace_folder(Path(out)) as folder:
        shutil.copytree(bundle.path, folder, dirs_exist_ok=True)
        write_json(folder / "bundle.json", manifest)
        file = folder / manifest["variants"][name]["file"]
        facts = CardFacts(
            name=manifest["name"],
            architecture=Architecture.from_json(manifest["provenance"]["architecture"]),
            classes=bundle.classes,
            preprocess=manifest["preprocess"],
            cost=count(file),
            size_bytes=file.stat().st_size,
            parity=Parity(**manifest["provenance"]["parity"]),
            accuracy=accuracy,
            split_rule=bundle.split,
            provenance=manifest["provenance"],
        )
        write_text(folder / "card.md", card(facts))
        write_sums(folder)
    return Bundle.open(Path(out))


def _manifest(facts: CardFacts, temperature: float, reject_threshold: float | None) -> dict[str, Any]:
    return {
        "format_version": FORMAT_VERSION,
        "name": facts.name,
        "created": _now(),
        "flyweight_version": __version__,
        "classes": list(facts.classes),
        "preprocess": dict(facts.preprocess),
        "default": "fp32",
        "temperature": float(temperature),
        "reject_threshold": reject_threshold,
        "variants": {"fp32": _variant(facts.parity, facts.size_bytes, facts.accuracy)},
        "split": dict(facts.split_rule),
        "provenance": {
            **facts.provenance,
            "architecture": facts.architecture.to_json(),
            "parity": facts.parity.to_json(),
        },
    }


def _variant(parity: Parity, size_bytes: int, accuracy: Mapping[str, Any] | None) -> dict[str, Any]:
    return {
        "file": MODEL,
        "format": "onnx",
        "precision": "fp32",
        "backend": "onnxruntime",
        "tolerance": parity.tolerance,
        "golden": GOLDEN_LOGITS,
        "size_bytes": size_bytes,
        "accuracy": None if accuracy is None else dict(accuracy),
    }


def _write_golden(folder: Path, images: NDArray[np.uint8], logits: NDArray[np.float32]) -> None:
    (folder / GOLDEN).parent.mkdir()
    np.save(folder / GOLDEN, np.ascontiguousarray(images), allow_pickle=False)
    np.save(folder / GOLDEN_LOGITS, logits.astype(np.float32), allow_pickle=False)


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
    with tempfile.TemporaryDirectory(prefix="flyweight-bundle-") as work:
        folder = Path(work)
        yield folder
        with replace_file(out) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            for path in sorted(path for path in folder.rglob("*") if path.is_file()):
                # A fixed date: the same content gives the same archive.
                entry = zipfile.ZipInfo(path.relative_to(folder).as_posix(), (1980, 1, 1, 0, 0, 0))
                entry.compress_type, entry.external_attr = zipfile.ZIP_DEFLATED, 0o644 << 16
                archive.writestr(entry, path.read_bytes())
