"""What training minimises: cross-entropy of the labels, and where there is a teacher, the distance to its answers."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from flyweight.train.distill import Features, Teacher, load_teacher
from flyweight.train.recipe import Recipe
from flyweight.train.remembered import Remembering


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
        self.teacher: Callable[[Tensor], Tensor] | None = None
        self._taught: Teacher | None = None
        self._learned: Features | None = None
        if recipe.distill:
            self._taught = load_teacher(recipe.distill).on(plan)
            self.teacher = Remembering(self._taught, recipe.distill) if recipe.distill.cached else self._taught

    def watch(self, network: nn.Module, example: Tensor) -> None:
        """Compare the features of this network with the teacher's, where the recipe asks for it.

        Args:
            example: One input, on the network's device; its values do not matter.
        """
        if self.distill is not None and self.distill.features and self._learned is None:
            self._learned = Features(network, example)

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
        apart = torch.stack([distance(one, taught.float(), temperature) for one in outputs]).sum()
        loss = (1 - part) * loss + part * apart
        if self._learned is not None and self._taught is not None:
            theirs = [similarity(self._learned.seen, features) for features in self._taught.features]
            loss = loss + self.distill.features * torch.stack(theirs).mean()
        return loss


def similarity(ours: Tensor, theirs: Tensor) -> Tensor:
    """Return how differently two networks see which images of a batch are alike: mean square, 0-dim.

    Features of any number of channels can be compared: each image's similarities to the others, as a unit vector.
    Source: Tung and Mori 2019, "Similarity-Preserving Knowledge Distillation" (arXiv:1907.09682), equations 1 to 4.
    Changed: the mean over a row in place of its sum, so that the batch size does not matter.

    Args:
        ours: Features (N, F).
        theirs: Features (N, G) of the same images.
    """
    grams = [F.normalize(features @ features.T, dim=1) for features in (ours, theirs)]
    return (grams[0] - grams[1]).square().sum(1).mean()


def distance(logits: Tensor, taught: Tensor, temperature: float) -> Tensor:
    """Return the Kullback-Leibler divergence from the teacher's to the student's softened answers, times temperature².

    The square keeps the gradient's size when the temperature is changed (arXiv:1503.02531, section 2).
    """
    student = F.log_softmax(logits / temperature, dim=1)
    teacher = F.log_softmax(taught / temperature, dim=1)
    return F.kl_div(student, teacher, reduction="batchmean", log_target=True) * temperature**2
