"""What a trained network answers on the validation images."""

from __future__ import annotations

from typing import Any

import numpy as np

from flyweight.data.dataset import Dataset
from flyweight.data.split import Split
from flyweight.train.loop import predict_logits
from flyweight.train.prepare import prepare
from flyweight.train.run import batches_for
from flyweight.train.trained import Trained


def validation_logits(
    dataset: Dataset, trained: Trained, parts: Split | None = None
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Return logits (N, K) float32 and labels (N,) of the validation images, by the torch network in fp32.

    Args:
        parts: The split it was trained with; by default the one its recipe asks for.
    """
    prepared = prepare(dataset, trained.recipe, parts=parts, like=trained.architecture)
    _, validation = batches_for(prepared, trained.recipe)
    plan = trained.recipe.settled().model_copy(update={"precision": "fp32"})
    network = trained.network().to(plan.device)
    logits, labels = predict_logits(network, validation, trained.recipe.model_copy(update={"resolved": plan}))
    return logits.numpy(), labels.numpy()
