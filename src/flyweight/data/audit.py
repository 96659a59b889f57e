"""What is wrong with a data set, all of it at once, and what each finding means for training."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from flyweight.data.dataset import Dataset, ImageFiles
from flyweight.data.near import near_pairs, thumbnail, thumbnails
from flyweight.data.split import Split
from flyweight.errors import DataError
from flyweight.runtime.environment import usable_cores
from flyweight.runtime.preprocess import FORMATS, ORIENTATION, decode

Progress = Callable[[int, int], None]
EXAMPLES = 10
FEW_IMAGES = 20  # a class with fewer cannot be judged
IMBALANCE = 5.0
CHUNK = 512


@dataclass(frozen=True)
class Finding:
    """One thing the audit found.

    Attributes:
        severity: error: training would fail or the result would be wrong; warning: look at it; info: good to know.
        examples: Names of images, or of pairs of them.
        meaning: What it does to training, and what to do.
    """

    severity: Literal["error", "warning", "info"]
    what: str
    count: int
    examples: tuple[str, ...]
    meaning: str


@dataclass(frozen=True)
class Audit:
    """All findings, worst first, and the numbers behind them.

    Attributes:
        unreadable: Reason by name of each image that cannot be decoded.
        classes: Images of each class.
        parts: Images of each part.
        duplicates: Groups of images with the same content, by name.
        near_duplicates: Pairs that look the same, by name.
    """

    name: str
    images: int
    classes: dict[str, int]
    parts: dict[str, int]
    findings: tuple[Finding, ...]
    unreadable: dict[str, str] = field(default_factory=dict)
    duplicates: tuple[tuple[str, ...], ...] = ()
    near_duplicates: tuple[tuple[str, str], ...] = ()

    @property
    def ok(self) -> bool:
        """True where nothing is an error."""
        return all(finding.severity != "error" for finding in self.findings)

    def to_json(self) -> dict[str, Any]:
        """Return plain values; long lists are cut to the first hundred."""
        content = asdict(self)
        for name in ("duplicates", "near_duplicates"):
            content[name] = [list(group) for group in getattr(self, name)[:100]]
        return {**content, "ok": self.ok}


@dataclass(frozen=True)
class _Seen:
    """What decoding one image showed; `problem` where it could not be decoded."""

    problem: str = ""
    mode: str = ""
    turned: bool = False
    size: tuple[int, int] = (0, 0)  # width, height, px
    small: NDArray[np.uint8] | None = None


def audit(dataset: Dataset, split: Split | None = None, *, progress: Progress | None = None) -> Audit:
    """Decode every image once and return everything found. Nothing is changed.

    Args:
        split: The parts to look across; by default the source's own.
        progress: Called with (images looked at, images in all).
    """
    keys = dataset.images.key
    seen = _look(dataset, progress)
    broken = {keys(index): found.problem for index, found in enumerate(seen) if found.problem}
    parts = _parts(dataset, split)
    good = np.array([not found.problem for found in seen])
    hashes = _hashes(dataset, good)
    groups = [group for group in _same(hashes) if good[group[0]]]
    small = np.stack([found.small if found.small is not None else np.zeros((16, 16), np.uint8) for found in seen])
    near = [(a, b) for a, b in near_pairs(small) if good[a] and good[b] and hashes[a] != hashes[b]]
    findings = [
        *_unreadable(broken),
        *_duplicates(dataset, groups, parts),
        *_near(dataset, near, parts),
        *_balance(dataset),
        *_modes(dataset, seen),
        *_sizes(dataset, seen),
    ]
    rank = {"error": 0, "warning": 1, "info": 2}
    return Audit(
        name=dataset.name,
        images=len(dataset),
        classes=dataset.counts(),
        parts={name: int((parts == name).sum()) for name in sorted(set(parts.tolist()))},
        findings=tuple(sorted(findings, key=lambda finding: rank[finding.severity])),
        unreadable=broken,
        duplicates=tuple(tuple(keys(int(index)) for index in group) for group in groups),
        near_duplicates=tuple((keys(a), keys(b)) for a, b in near),
    )


def leave_out(dataset: Dataset, quarantine: Path | None) -> Dataset:
    """Return the data set less the images named in a file that `flyweight data check --quarantine` wrote.

    Raises:
        DataError: The file cannot be read, or names images that are not there.
    """
    if quarantine is None:
        return dataset
    try:
        names = [line for line in quarantine.read_text("utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"the quarantine list {str(quarantine)!r} cannot be read: {error}",
            do="write it with: flyweight data check PATH --quarantine FILE",
        ) from error
    smaller = dataset.without(dict.fromkeys(names, f"named in {quarantine.name}"))
    unknown = set(names) - {image.key for image in smaller.quarantined}
    if unknown:
        raise DataError(
            f"{quarantine}: {len(unknown)} names are no images of {dataset.name}, such as {min(unknown)!r}",
            do="write the list again for this data: flyweight data check PATH --quarantine FILE",
        )
    return smaller


def _parts(dataset: Dataset, split: Split | None) -> NDArray[np.str_]:
    if split is not None:
        parts = np.full(len(dataset), "train", dtype="<U5")
        parts[split.val], parts[split.test] = "val", "test"
        return parts
    return np.full(len(dataset), "", dtype="<U5") if dataset.parts is None else dataset.parts.astype("<U5")


def _look(dataset: Dataset, progress: Progress | None) -> list[_Seen]:
    if not isinstance(dataset.images, ImageFiles):
        array = dataset.images.array
        mode = {1: "L", 3: "RGB", 4: "RGBA"}.get(array.shape[-1], f"{array.shape[-1]} channels")
        return [_Seen(mode=mode, size=(array.shape[2], array.shape[1]), small=one) for one in thumbnails(array)]
    seen: list[_Seen] = []
    with ThreadPoolExecutor(usable_cores()) as pool:
        for start in range(0, len(dataset), CHUNK):
            seen += pool.map(lambda i: _look_at(dataset, i), range(start, min(start + CHUNK, len(dataset))))
            if progress:
                progress(len(seen), len(dataset))
    return seen


def _look_at(dataset: Dataset, index: int) -> _Seen:
    source = dataset.images.read(index)
    try:
        with Image.open(source, formats=FORMATS) as picture:  # type: ignore[arg-type]
            mode, size = picture.mode, picture.size
            if mode in {"L", "RGB"} and ("transparency" in picture.info):
                mode = f"{mode}+transparency"
            turned = int(picture.getexif().get(ORIENTATION, 1)) not in (0, 1)
        return _Seen("", mode, turned, size, thumbnail(decode(source, 3)))
    except DataError as error:
        return _Seen(problem=error.what)
    except Exception as error:  # whatever Pillow's forty decoders raise on a damaged file
        return _Seen(problem=f"{type(error).__name__}: {error}")


def _hashes(dataset: Dataset, good: NDArray[np.bool_]) -> NDArray[np.bytes_]:
    """Return (N,) content hashes, empty for what cannot be decoded: it may not be readable either."""
    if good.all():
        return dataset.hashes()
    hashes = np.zeros(len(dataset), dtype="S32")
    hashes[good] = dataset.images.take(np.flatnonzero(good)).hashes()
    return hashes


def _same(hashes: NDArray[np.bytes_]) -> list[NDArray[np.int64]]:
    """Return the indices of each content that occurs more than once."""
    order = np.argsort(hashes, kind="stable")
    ends = np.flatnonzero(hashes[order][1:] != hashes[order][:-1]) + 1
    return [group for group in np.split(order, ends) if len(group) > 1]


def _unreadable(broken: dict[str, str]) -> Iterator[Finding]:
    if broken:
        shown = tuple(f"{key}: {reason}" for key, reason in list(broken.items())[:EXAMPLES])
        yield Finding(
            "error",
            "images that cannot be decoded",
            len(broken),
            shown,
            "they are left out by name; mend or remove them",
        )


def _duplicates(dataset: Dataset, groups: Sequence[NDArray[np.int64]], parts: NDArray[np.str_]) -> Iterator[Finding]:
    def names(group: NDArray[np.int64]) -> str:
        return " = ".join(dataset.images.key(int(index)) for index in group[:4])

    two_classes = [group for group in groups if len(set(dataset.labels[group])) > 1]
    across = [group for group in groups if len(set(parts[group])) > 1]
    if two_classes:
        yield Finding(
            "error", "the same image in two classes", len(two_classes), tuple(map(names, two_classes[:EXAMPLES])),
            "at least one label is wrong; remove it, since no classifier can satisfy both",
        )  # fmt: skip
    if across:
        yield Finding(
            "error", "the same image in two parts of the official split", len(across),
            tuple(map(names, across[:EXAMPLES])),
            "the test accuracy is partly memory; remove the copies, or let Flyweight split by content",
        )  # fmt: skip
    if groups:
        copies = sum(len(group) - 1 for group in groups)
        yield Finding(
            "info", "exact copies", copies, tuple(map(names, groups[:EXAMPLES])),
            "they weigh more in training; Flyweight's own split keeps copies on one side",
        )  # fmt: skip


def _near(dataset: Dataset, near: Sequence[tuple[int, int]], parts: NDArray[np.str_]) -> Iterator[Finding]:
    def names(pair: tuple[int, int]) -> str:
        return " ~ ".join(dataset.images.key(index) for index in pair)

    across = [pair for pair in near if parts[pair[0]] != parts[pair[1]]]
    if across:
        yield Finding(
            "warning", "nearly the same image in two parts", len(across), tuple(map(names, across[:EXAMPLES])),
            "the test accuracy may be partly memory; group such images (--group) or remove them",
        )  # fmt: skip
    if near:
        yield Finding(
            "info", "pairs that look nearly the same", len(near), tuple(map(names, near[:EXAMPLES])),
            "bursts or edits of one photo: give them a --group so that they stay on one side",
        )  # fmt: skip


def _balance(dataset: Dataset) -> Iterator[Finding]:
    counts = dataset.counts()
    empty = [name for name, count in counts.items() if not count]
    few = [f"{name}: {count}" for name, count in counts.items() if 0 < count < FEW_IMAGES]
    if empty:
        yield Finding("error", "classes without an image", len(empty), tuple(empty[:EXAMPLES]), "remove or fill them")
    if few:
        yield Finding(
            "warning", f"classes with under {FEW_IMAGES} images", len(few), tuple(few[:EXAMPLES]),
            "their accuracy cannot be known within 20 points; add images",
        )  # fmt: skip
    most, least = max(counts, key=lambda name: counts[name]), min(counts, key=lambda name: counts[name])
    if counts[most] > IMBALANCE * max(counts[least], 1):
        yield Finding(
            "warning", "unequal classes", counts[most] // max(counts[least], 1),
            (f"{most}: {counts[most]}", f"{least}: {counts[least]}"),
            "the loss is weighted by class (recipe: balance); judge by balanced_accuracy rather than accuracy",
        )  # fmt: skip


def _modes(dataset: Dataset, seen: Sequence[_Seen]) -> Iterator[Finding]:
    modes: dict[str, list[int]] = {}
    for index, found in enumerate(seen):
        if not found.problem:
            modes.setdefault(found.mode, []).append(index)
    if len(modes) > 1:
        shown = tuple(
            f"{mode}: {len(found)}, e.g. {dataset.images.key(found[0])}" for mode, found in sorted(modes.items())
        )
        yield Finding(
            "info", "several colour modes", len(modes), shown,
            "all are converted the same way in training and on the device; alpha is laid on white, 16 bit scaled to 8",
        )  # fmt: skip
    turned = [index for index, found in enumerate(seen) if found.turned]
    if turned:
        yield Finding(
            "info", "photos turned by EXIF", len(turned),
            tuple(dataset.images.key(index) for index in turned[:EXAMPLES]),
            "they are turned upright in training and on the device alike",
        )  # fmt: skip


def _sizes(dataset: Dataset, seen: Sequence[_Seen]) -> Iterator[Finding]:
    sizes = np.array([found.size for found in seen if not found.problem]).reshape(-1, 2)
    if not len(sizes):
        return
    low, middle, high = sizes.min(0), np.median(sizes, 0).astype(int), sizes.max(0)
    if (low != high).any():
        shown = (f"{low[0]}×{low[1]} to {high[0]}×{high[1]} px, median {middle[0]}×{middle[1]}",)
        yield Finding("info", "several sizes", len(np.unique(sizes, axis=0)), shown, "all are resized to one square")
    long = [
        index for index, found in enumerate(seen) if not found.problem and max(found.size) > 3 * max(1, min(found.size))
    ]
    if long:
        yield Finding(
            "warning", "very long images", len(long), tuple(dataset.images.key(index) for index in long[:EXAMPLES]),
            "the centre crop sees less than a third of them; consider data.resize: pad",
        )  # fmt: skip
