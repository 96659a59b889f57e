"""Make a classifier smaller and faster, and prove that it is no worse.

Two ordered families. What changes a trained network (here, `Trained -> Trained`) can be chained in any order; then what
changes the file of a bundle (`compress.files`, `Bundle -> Bundle`) adds a variant. The wrong order is an OrderError.
`chain.compress` runs a chain and ends with a trial (`measure.trial`): ship, or do not ship, because …
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from flyweight.compress.context import Context, Progressing
from flyweight.compress.distill import Distill, distill
from flyweight.compress.exit import Exit, early_exit
from flyweight.compress.finetune import Finetune, finetune
from flyweight.compress.fold import Fold, fold
from flyweight.compress.prune import Prune, prune
from flyweight.compress.qat import Qat, qat
from flyweight.compress.step import Options
from flyweight.measure.trial import BOTH, Promise
from flyweight.train.trained import Trained


@dataclass(frozen=True)
class Method:
    """What makes another network of a run's, what it can be told, and what it promises besides not worse."""

    apply: Callable[[Trained, Context, Any], Progressing]
    options: type[Options]
    promises: tuple[Promise, ...] = ()


METHODS: dict[str, Method] = {
    "fold": Method(fold, Fold),
    "prune": Method(prune, Prune, BOTH),
    "finetune": Method(finetune, Finetune),
    "distill": Method(distill, Distill),
    "qat": Method(qat, Qat, BOTH),
    "exit": Method(early_exit, Exit, ("faster",)),
}
