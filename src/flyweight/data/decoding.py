"""Decode many images at once, in chunks, and name all that cannot be read."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from flyweight.data.dataset import Dataset
from flyweight.errors import DataError
from flyweight.runtime.environment import usable_cores
from flyweight.runtime.preprocess import Source

Pixels = NDArray[np.uint8]
Progress = Callable[[int, int], None]
_TASK = 32  # images a thread decodes before it takes the next: enough that handing them out costs nothing


class UnreadableImages(DataError):
    """Images that cannot be decoded.

    Attributes:
        reasons: Name of each image, and why; what `Dataset.without` takes to leave them out.
    """

    def __init__(
        self, what: str, *, do: str, more: str | None = None, reasons: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(what, do=do, more=more)
        self.reasons = dict(reasons or {})

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle by fields, the reasons among them."""
        return (_rebuild, (self.what, self.do, self.more, self.reasons))


def _rebuild(what: str, do: str, more: str, reasons: Mapping[str, str]) -> UnreadableImages:
    return UnreadableImages(what, do=do, more=more, reasons=reasons)


def decode_chunks(
    dataset: Dataset,
    indices: NDArray[np.int64],
    decode_one: Callable[[Source, str], Pixels],
    *,
    chunk: int,
    progress: Progress | None = None,
) -> Iterator[tuple[NDArray[np.int64], list[Pixels]]]:
    """Yield (indices, images) of up to `chunk` images at a time, in order, decoding the next chunk meanwhile.

    Raises:
        UnreadableImages: After the last chunk, when all that can be read have been yielded.
    """
    reasons: dict[str, str] = {}

    def attempt(some: NDArray[np.int64]) -> list[Pixels | None]:
        return [_attempt(dataset, int(index), decode_one, reasons) for index in some]

    pool = ThreadPoolExecutor(usable_cores())  # threads: Pillow decodes without the interpreter's lock
    try:
        starts = range(0, len(indices), chunk)
        ahead = _submit(pool, attempt, indices[:chunk])
        for start in starts:
            coming, ahead = ahead, _submit(pool, attempt, indices[start + chunk : start + 2 * chunk])
            found = [image for task in coming for image in task.result()]
            good = np.array([image is not None for image in found], bool)
            yield indices[start : start + chunk][good], [image for image in found if image is not None]
            if progress:
                progress(min(start + chunk, len(indices)), len(indices))
    finally:
        pool.shutdown(cancel_futures=True)
    if reasons:
        raise _unreadable(reasons, len(indices))


def _submit(
    pool: ThreadPoolExecutor, attempt: Callable[[NDArray[np.int64]], list[Pixels | None]], some: NDArray[np.int64]
) -> list[Future[list[Pixels | None]]]:
    return [pool.submit(attempt, some[start : start + _TASK]) for start in range(0, len(some), _TASK)]


def _attempt(
    dataset: Dataset, index: int, decode_one: Callable[[Source, str], Pixels], reasons: dict[str, str]
) -> Pixels | None:
    name = dataset.images.key(index)
    try:
        return decode_one(dataset.images.read(index), name)
    except DataError as error:
        reasons[name] = error.what
        return None


def _unreadable(reasons: Mapping[str, str], total: int) -> UnreadableImages:
    names = sorted(reasons)
    shown = "; ".join(reasons[name] for name in names[:5])
    rest = f"; and {len(names) - 5} more: {', '.join(names[5:25])}" if len(names) > 5 else ""
    return UnreadableImages(
        f"{len(names)} of {total} images cannot be read: {shown}{rest}",
        do="mend or remove them; flyweight data check lists them all, and nothing else was lost",
        reasons=reasons,
    )
