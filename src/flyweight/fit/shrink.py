"""The pick of `fit`, compressed as asked: it ships only where a trial on validation says so, and within the budget."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import replace
from pathlib import Path

from flyweight.compress.chain import Began, Compressed, Judged, Request, compress, parse_steps
from flyweight.compress.context import Said
from flyweight.compress.files.variant import Conditions
from flyweight.data.dataset import Dataset
from flyweight.export.trained import validation_images
from flyweight.fit.pick import Pick, file_costs, measured
from flyweight.measure.budget import Budget
from flyweight.measure.device import HOST

RUN = "run"  # folder of the picked network, as it was trained


def shrink(
    pick: Pick, steps: Sequence[str], dataset: Dataset, budget: Budget, folder: Path, *, threads: int
) -> Generator[str, None, Pick]:
    """Yield what is said of each step; return the pick with the compressed bundle, or as it was where it does not ship.

    Args:
        steps: As `flyweight compress --step` takes them.

    Raises:
        CompressError: A step is unknown, in the wrong place, or cannot be done to the picked network.
    """
    if budget.device != HOST:
        told = f"Not compressed: the trial's clock is this machine's, and the budget is for {budget.device}."
        yield told
        return replace(pick, why=(*pick.why, told))
    trained = pick.winner.outcome.trained
    assert trained is not None, "only what was trained is picked"
    trained.save(folder / RUN)
    request = Request(folder / RUN, parse_steps(steps), dataset, folder, Conditions("val", threads=threads))
    done: Compressed | None = None
    for event in compress(request):
        if isinstance(event, Compressed):
            done = event
        elif isinstance(event, Began):
            yield f"step {event.number}: {event.step}"
        elif isinstance(event, Said):
            yield event.text
        elif isinstance(event, Judged):
            yield event.trial.verdict()
    assert done is not None, "a chain ends with Compressed"
    why = (*pick.why, *(f"Compressed to {trial.name}: {trial.verdict()}." for trial in done.trials))
    if done.bundle is None or not done.ship:
        return replace(pick, why=why)
    images, labels = validation_images(trained, dataset)
    (cost,) = file_costs([pick.winner.outcome], [done.bundle], budget, threads)
    smaller = measured(pick.winner.outcome, done.bundle, cost, images, labels, budget)
    if not smaller.within:
        return replace(pick, why=(*why, "Compressed it breaks a limit of the budget, so it ships as it was."))
    others = (other for other in pick.finalists if other is not pick.winner)
    return replace(pick, winner=smaller, finalists=(smaller, *others), why=why)
