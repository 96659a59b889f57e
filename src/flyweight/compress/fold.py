"""Fold batch norms and parallel branches (RepVGG, MobileOne, RepViT, FastViT): the same answers in fewer layers.

Every export folds. As a step it matters for what comes after it: pruning and training then work on the plain layers.
"""

from __future__ import annotations

from flyweight.compress.context import Context, Progressing, Said
from flyweight.compress.step import Options
from flyweight.models.architecture import fold as fold_all
from flyweight.train.trained import Trained


class Fold(Options):
    """It takes no options."""


def fold(trained: Trained, context: Context, options: Fold) -> Progressing:
    """Return the run with its network folded; itself where that is done already."""
    layers = sum(1 for _ in trained.network().modules())
    network, architecture = fold_all(trained.network(), trained.architecture)
    yield Said(f"{layers} modules → {sum(1 for _ in network.modules())}")
    return context.changed(trained, architecture, network.state_dict())
