"""Make a classifier smaller and faster, and prove that it is no worse.

Two ordered families. What changes a trained network (here, `Trained -> Trained`) can be chained in any order; then what
changes the file of a bundle (`compress.files`, `Bundle -> Bundle`) adds a variant. The wrong order is an OrderError.
`chain.compress` runs a chain and ends with a trial (`measure.trial`): ship, or do not ship, because …
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
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
    """What makes another network of a run's, what it can be told, and what it promises besides not worse.

    Attributes:
        not_after: Steps after which it cannot be done, with the reason.
    """

    apply: Callable[[Trained, Context, Any], Progressing]
    options: type[Options]
    promises: tuple[Promise, ...] = ()
    not_after: Mapping[str, str] = field(default_factory=dict)


_LEVELS = {"qat": "the network is on int8 levels then"}
_TWO = {"exit": "the network then has two heads"}

METHODS: dict[str, Method] = {
    "fold": Method(fold, Fold),
    "prune": Method(prune, Prune, BOTH, _LEVELS | _TWO),
    "finetune": Method(finetune, Finetune),
    "distill": Method(distill, Distill),
    "qat": Method(qat, Qat, BOTH, _LEVELS | _TWO),
    "exit": Method(early_exit, Exit, ("faster",), _LEVELS | _TWO),
}
