"""What training minimises: cross-entropy of the labels, and where there is a teacher, the distance to its answers."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from flyweight.train.distill import load_teacher
from flyweight.train.recipe import Recipe


class Loss:
    """The loss of a resolved recipe.

    Attributes:
        teacher: Gives logits (N, K) of images (N, C, S, S); None: the labels alone.
    """

    def __init__(self, recipe: Recipe) -> None:
        plan = recipe.settled()
        self.smoothing = recipe.label_smoothing
        self.weights = None if plan.class_weights is None else torch.tensor(plan.class_weights, device=plan.device)
        self.distill = recipe.distill
        self.teacher = load_teacher(recipe.distill).on(plan) if recipe.distill else None

    def __call__(self, logits: Tensor, wanted: Tensor, taught: Tensor | None) -> Tensor:
        """Return the mean loss (0-dim).

        Args:
            logits: (N, K), or (N, outputs, K), whose losses are added.
            wanted: Labels (N,) or targets (N, K).
            taught: The teacher's logits (N, K).
        """
        outputs = logits.unbind(1) if logits.dim() == 3 else (logits,)
        losses = [F.cross_entropy(one, wanted, weight=self.weights, label_smoothing=self.smoothing) for one in outputs]
        loss = torch.stack(losses).sum() if len(losses) > 1 else losses[0]
        if self.distill is None or taught is None:
            return loss
        part, temperature = self.distill.weight, self.distill.temperature
        return (1 - part) * loss + part * distance(logits, taught.float(), temperature)


def distance(logits: Tensor, taught: Tensor, temperature: float) -> Tensor:
    """Return the Kullback-Leibler divergence from the teacher's to the student's softened answers, times temperature².

    The square keeps the gradient's size when the temperature is changed (arXiv:1503.02531, section 2).
    """
    student = F.log_softmax(logits / temperature, dim=1)
    teacher = F.log_softmax(taught / temperature, dim=1)
    return F.kl_div(student, teacher, reduction="batchmean", log_target=True) * temperature**2
