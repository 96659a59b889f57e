"""Pack a kit: model files, golden vectors, and the torch-free part of this package as the runner."""

from __future__ import annotations

import hashlib
import json
import re
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import flyweight
from flyweight.errors import DeviceError, OutputError
from flyweight.export.c.check import check_ours
from flyweight.files import write_zip
from flyweight.kit.run import KIT, KIT_VERSION
from flyweight.measure.device import NAME
from flyweight.measure.result import UntrainedNet
from flyweight.measure.speed import write_photo
from flyweight.models.cost import count
from flyweight.runtime.backends import ENGINES
from flyweight.runtime.bundle import GOLDEN_IMAGES, Bundle, Variant
from flyweight.runtime.hashes import SUMS, digest_of

ROOT = "kit"  # the folder that the archive unpacks to
NEEDS = ("numpy", "onnxruntime", "pillow")  # of the runner itself
# What runs on the device, of this very package: one definition of preprocessing, clock and checks.
RUNNER = (
    "__init__.py", "errors.py", "files.py", "runtime", "measure/__init__.py", "measure/latency.py",
    "measure/statistics.py", "kit/__init__.py", "kit/run.py",
)  # fmt: skip
README = """Measures the models in this folder on this machine and writes result.json.

    python3 run.py --out result.json

needs Python 3.11 or newer with {needs}; run.py says what is missing and how to get it. Nothing is sent anywhere.
Let the machine be idle meanwhile, as it will be in use: the same power supply, cooling and governor.
Then bring result.json back: flyweight device add result.json

Models: {models}
Tested on Linux on x86-64. Linux on ARM (Raspberry Pi), macOS and Windows have the same packages and are NOT tested;
on Windows peak memory is not read.
"""


@dataclass(frozen=True)
class UntrainedFile:
    """A candidate's graph with fresh weights, to be timed."""

    name: str
    file: Path
    net: UntrainedNet
    precision: str


def write_kit(
    bundle: Bundle,
    out: Path,
    *,
    variants: Iterable[str] = (),
    candidates: Sequence[UntrainedFile] = (),
    threads: Sequence[int] = (1,),
    device: str | None = None,
    wheels: Path | None = None,
) -> Path:
    """Write the archive `out` and return it.

    Args:
        variants: Of the bundle; all of them without.
        candidates: Untrained networks to time as well.
        threads: To time each model with.
        device: The name that the device is to have.
        wheels: A folder of .whl files to carry for a device without a network.

    Raises:
        BundleError: It has no such variant, or one in C that Flyweight did not write.
        DeviceError: `device` cannot be the name of one.
        OutputError: `out` is no .zip or cannot be written, or `wheels` holds none.
    """
    if out.suffix.lower() != ".zip":
        raise OutputError(f"a kit is an archive, and {str(out)!r} does not end in .zip", do=f"name it {out.stem}.zip")
    chosen = [bundle.variant(name) for name in dict.fromkeys(variants)] or list(bundle.variants.values())
    for variant in chosen:
        if variant.backend == "c":
            check_ours(bundle, variant)
    if device is not None and not NAME.fullmatch(device):
        raise DeviceError(
            f"{device!r} cannot be the name of a device", do="use small letters, digits, - _ . and at most 63 of them"
        )
    needs = needs_of(chosen)
    models = [*(_variant(bundle, variant) for variant in chosen), *map(_candidate, candidates)]
    kit = {
        "kit_version": KIT_VERSION,
        "flyweight_version": flyweight.__version__,
        "device": device,
        "bundle": {"name": bundle.name, "sha256": _sha256((bundle.path / SUMS).read_bytes())},
        "preprocess": bundle.preprocess.to_json(),
        "images": "golden/images.npy",
        "photo": "photo.jpg",
        "threads": list(dict.fromkeys(threads)),
        "models": models,
    }
    files = dict(_files(bundle, chosen, candidates))
    files |= {f"runner/flyweight/{name}": content for name, content in runner()}
    files |= {f"wheels/{path.name}": path.read_bytes() for path in _wheels(wheels, needs)}
    names = ", ".join(model["name"] for model in models)
    files["README.txt"] = README.format(needs=", ".join(needs), models=names).encode()
    files["requirements.txt"] = "".join(f"{line}\n" for line in requirements(needs)).encode()
    files[KIT] = (json.dumps(kit, indent=1, allow_nan=False) + "\n").encode()
    files["run.py"] = (Path(__file__).parent / "start.py").read_bytes()
    files[SUMS] = "".join(f"{_sha256(files[name])}  {name}\n" for name in sorted(files)).encode()
    write_zip(out, ((f"{ROOT}/{name}", files[name]) for name in sorted(files)))
    return out


def runner() -> Iterator[tuple[str, bytes]]:
    """Yield the path under `flyweight/` and the content of each file that runs on the device."""
    root = Path(flyweight.__file__).parent
    for name in RUNNER:
        found = sorted((root / name).rglob("*.py")) if (root / name).is_dir() else [root / name]
        yield from ((path.relative_to(root).as_posix(), path.read_bytes()) for path in found)


def needs_of(variants: Iterable[Variant]) -> tuple[str, ...]:
    """Return the packages that must be installed where these variants are to run; C needs a compiler instead."""
    used = {ENGINES[one.backend].package for one in variants if one.backend in ENGINES} - sys.stdlib_module_names
    return (*NEEDS, *sorted({name.replace("_", "-") for name in used} - {*NEEDS}))


def requirements(needs: Sequence[str] = NEEDS) -> list[str]:
    """Return the lines of requirements.txt: this package's own lower bounds for what a kit needs."""
    wanted: dict[str, str] = {}
    for line in metadata.requires("flyweight") or ():
        match = re.match(r"([A-Za-z0-9._-]+)([^;]*)", line)
        least = re.search(r">=[0-9.]+", match[2]) if match else None
        if match and least and match[1].lower() in needs:
            wanted.setdefault(match[1].lower(), f"{match[1].lower()}{least[0]}")
    return [wanted.get(name, name) for name in needs]


def _files(
    bundle: Bundle, variants: Sequence[Variant], candidates: Sequence[UntrainedFile]
) -> Iterator[tuple[str, bytes]]:
    yield "golden/images.npy", (bundle.path / GOLDEN_IMAGES).read_bytes()
    with tempfile.TemporaryDirectory(prefix="flyweight-kit-") as folder:
        yield "photo.jpg", write_photo(bundle, Path(folder) / "photo.jpg").read_bytes()
    for variant in variants:
        for file in (variant.file, *variant.beside):
            yield _place(bundle, variant, file), file.read_bytes()
        yield f"golden/{variant.name}.npy", variant.golden.read_bytes()
    for candidate in candidates:
        yield f"models/candidates/{candidate.name}.onnx", candidate.file.read_bytes()


def _place(bundle: Bundle, variant: Variant, file: Path) -> str:
    """Return where a file of a variant lies in the kit: as in the bundle, so that it finds those beside it."""
    return f"models/{variant.name}/{file.relative_to(bundle.path).as_posix()}"


def _variant(bundle: Bundle, variant: Variant) -> dict[str, Any]:
    return {
        "name": variant.name,
        "kind": "variant",
        "file": _place(bundle, variant, variant.file),
        "format": variant.format,
        "precision": variant.precision,
        "backend": variant.backend,
        "candidate": None,
        "golden": f"golden/{variant.name}.npy",
        "tolerance": variant.tolerance,
        "sha256": digest_of((variant.file, *variant.beside)),
        "size_bytes": variant.size_bytes,
        **_counted(bundle.counted(variant)),
    }


def _candidate(candidate: UntrainedFile) -> dict[str, Any]:
    return {
        "name": candidate.name,
        "kind": "candidate",
        "file": f"models/candidates/{candidate.name}.onnx",
        "format": "onnx",
        "precision": candidate.precision,
        "backend": "onnxruntime",
        "candidate": candidate.net.model_dump(),
        "golden": None,
        "tolerance": None,
        "sha256": _sha256(candidate.file.read_bytes()),
        "size_bytes": candidate.file.stat().st_size,
        **_counted(candidate.file),
    }


def _counted(graph: Path) -> dict[str, int | None]:
    """Return what an ONNX graph counts; of another file that names no source nothing can be counted."""
    cost = count(graph) if graph.suffix == ".onnx" else None
    return {"params": cost.params, "macs": cost.macs} if cost else {"params": None, "macs": None}


def _wheels(folder: Path | None, needs: Sequence[str]) -> list[Path]:
    if folder is None:
        return []
    found = sorted(folder.glob("*.whl"))
    if not found:
        raise OutputError(
            f"{str(folder)!r} holds no wheel (.whl)",
            do=f"pip download --only-binary=:all: --platform manylinux_2_28_aarch64 --python-version 3.11 "
            f"--dest {folder} {' '.join(needs)}",
        )
    return found


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
