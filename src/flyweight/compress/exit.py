"""Early exit: a dense head half-way answers the images it is sure of (`models.exits`).

The trunk stays as it is; the head is fitted to convergence on features that are computed once. The threshold is the
lowest at which the answers together lose no more than `cost` on the validation images, so that most images leave early.
The trial then says what that cost on images the threshold was not chosen by (`--part test`), and what it saved on
average.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor, nn

from flyweight.compress.context import Context, Progressing, Said
from flyweight.compress.step import Options
from flyweight.data.cache import build_fixed
from flyweight.errors import CompressError, OrderError
from flyweight.models.architecture import Architecture
from flyweight.models.exits import NEVER, Cut, EarlyExit, cuts
from flyweight.train.linear_probe import fit_linear
from flyweight.train.trained import Trained

FITTED_ON = 10_000  # training images, at most


class Exit(Options):
    """Where, and how sure.

    Attributes:
        at: Share of the multiply-accumulates before the cut, 0 to 1: the last place that has no more.
        after: Node to cut at, by name, in place of `at`.
        grid: Means of the map over grid × grid parts are what the head sees.
        cost: Share of the validation images (0 to 1) that the exits may lose on balance.
        threshold: Confidence from which an image leaves early; None: chosen by `cost`.
    """

    at: float = Field(default=0.5, gt=0.0, lt=1.0)
    after: str | None = None
    grid: int = Field(default=2, ge=1, le=8)
    cost: float = Field(default=0.002, ge=0.0, le=0.2)
    threshold: float | None = Field(default=None, gt=0.0, le=1.0)


def early_exit(trained: Trained, context: Context, options: Exit) -> Progressing:
    """Return the run, folded, with an early head.

    Raises:
        CompressError: It has no place for one.
        OrderError: It is on int8 levels, or has an early head already.
        ModelError: The network cannot be traced.
    """
    network, architecture, cut = with_exit(trained, options)
    yield Said(f"cut after {cut.node}: {cut.share:.0%} of the MACs, {cut.channels} × {cut.side} × {cut.side}")
    parts = context.split(trained)
    images, labels = context.training_images(trained, FITTED_ON)
    store = build_fixed(context.dataset, parts.val, trained.preprocess)
    seen = np.ascontiguousarray(np.asarray(store.pixels).transpose(0, 3, 1, 2))
    wanted = context.dataset.labels[parts.val]
    _fit_head(network, images, labels, seen, wanted)
    early, late = _both(network, seen)
    threshold = (
        options.threshold if options.threshold is not None else choose_threshold(early, late, wanted, options.cost)
    )
    step = {**architecture.surgery[-1], "threshold": threshold}
    architecture = Architecture.from_json(
        {**architecture.to_json(), "surgery": [*architecture.to_json()["surgery"][:-1], step]}
    )
    leaving = float((confidence(early) >= threshold).mean())
    yield Said(f"{leaving:.1%} of {len(seen)} validation images leave early, sure to {threshold:.4f}")
    return context.changed(trained, architecture, network.state_dict())


def with_exit(trained: Trained, options: Exit) -> tuple[EarlyExit, Architecture, Cut]:
    """Return the folded network with a head that has learned nothing yet, its architecture, and where it was cut."""
    before = trained.architecture
    late = [step["op"] for step in before.surgery if step["op"] in {"quantize", "exit", "mirror", "dual"}]
    if late:
        raise OrderError(
            f"exit cuts a single float network, and {before.name!r} has been through {late[0]}",
            do="put exit on the run as it was before",
        )
    folded = before.fold()
    network = before.operate(trained.network(), folded.surgery[len(before.surgery) :])
    places = cuts(network.eval(), before.name, before.example())
    fitting = [cut for cut in places if (cut.node == options.after if options.after else cut.share <= options.at)]
    if not fitting:
        nodes = ", ".join(f"{cut.node} ({cut.share:.0%})" for cut in places[:8]) or "none"
        raise CompressError(
            f"{before.name!r} has no place to leave "
            + (f"after {options.after!r}" if options.after else f"within {options.at:.0%} of its MACs"),
            do=f"choose after= among: {nodes}",
        )
    cut = fitting[-1]
    architecture = folded.exit(cut.node, grid=options.grid, threshold=NEVER)
    made = folded.operate(network, architecture.surgery[len(folded.surgery) :])
    assert isinstance(made, EarlyExit)
    return made.eval(), architecture, cut


def choose_threshold(
    early: NDArray[np.float32], late: NDArray[np.float32], labels: NDArray[np.int64], cost: float
) -> float:
    """Return the lowest confidence at which answering early loses at most a share `cost` of the images on balance.

    It lies between two confidences that occurred, so that no image stands on the edge.
    """
    sure = confidence(early)
    order = np.argsort(-sure, kind="stable")
    gain = (early.argmax(axis=1) == labels).astype(int) - (late.argmax(axis=1) == labels)
    lost = -np.cumsum(gain[order]) / len(labels)
    allowed = np.flatnonzero(lost <= cost)
    if not len(allowed):
        return 1.0
    last = int(allowed[-1])
    low = float(sure[order[last + 1]]) if last + 1 < len(order) else 0.0
    return float(np.float32((low + float(sure[order[last]])) / 2))


def confidence(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the probability (N,) of the first class of logits (N, K)."""
    found: NDArray[np.float32] = torch.from_numpy(logits).softmax(1).amax(1).numpy()
    return found


def _fit_head(
    network: EarlyExit,
    images: NDArray[np.uint8],
    labels: NDArray[np.int64],
    seen: NDArray[np.uint8],
    wanted: NDArray[np.int64],
) -> None:
    head = network.net["early"]
    dense = head.get_submodule("dense")
    assert isinstance(dense, nn.Linear)
    given = [_pooled(network, some) for some in (images, seen)]
    found = fit_linear(given[0], torch.from_numpy(labels), given[1], torch.from_numpy(wanted), dense.out_features)
    with torch.no_grad():
        dense.weight.copy_(found.weight)
        dense.bias.copy_(found.bias)


@torch.no_grad()
def _pooled(network: EarlyExit, images: NDArray[np.uint8], batch: int = 256) -> Tensor:
    pool = network.net["early"].get_submodule("pool")
    parts = [pool(network.features(torch.from_numpy(images[at : at + batch]))) for at in range(0, len(images), batch)]
    return torch.cat(parts).flatten(1)


@torch.no_grad()
def _both(
    network: EarlyExit, images: NDArray[np.uint8], batch: int = 256
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    found = [network.both(torch.from_numpy(images[at : at + batch])) for at in range(0, len(images), batch)]
    early, late = (torch.cat(parts).numpy() for parts in zip(*found, strict=True))
    return early, late
