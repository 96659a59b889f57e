"""What training leaves behind: a folder that reloads without pickle, on any machine, with equal logits."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml
from torch import Tensor, nn

from flyweight.errors import ModelError
from flyweight.files import write_bytes, write_json
from flyweight.models.architecture import Architecture, fold
from flyweight.models.widen import multiple_of_four, widen
from flyweight.runtime.preprocess import Preprocess
from flyweight.train.recipe import Recipe

WEIGHTS, ARCHITECTURE, RECIPE, FACTS = (
    "weights.safetensors",
    "architecture.json",
    "recipe.resolved.yaml",
    "trained.json",
)


@dataclass(frozen=True)
class Trained:
    """A trained classifier and where it comes from.

    Attributes:
        weights: State dict of `architecture.build()`.
        classes: Names in the order of the logits.
        split: The rule that divides the data again (see `data.split.split_from_rule`).
        data: Name, source path and fingerprint of the data set.
        history: One row per epoch, as `train.loop.EpochDone.row`.
        metrics: Of the validation part: val_accuracy, val_loss, val_n; of as many training images, not augmented:
            train_accuracy, train_n. The test part is not looked at in training.
        environment: Machine, versions, date and command.
    """

    architecture: Architecture
    weights: Mapping[str, Tensor]
    recipe: Recipe
    classes: tuple[str, ...]
    preprocess: Preprocess
    split: dict[str, Any]
    data: dict[str, Any]
    history: tuple[dict[str, float], ...]
    metrics: dict[str, float]
    environment: dict[str, Any]

    def network(self) -> nn.Module:
        """Return the network in eval mode: images (N, C, S, S) uint8 to logits (N, K).

        Raises:
            ModelError: The weights are not those of the architecture.
        """
        network = self.architecture.build()
        try:
            network.load_state_dict(dict(self.weights))
        except RuntimeError as error:
            raise ModelError(
                f"the weights do not fit {self.architecture.name!r}: {str(error).splitlines()[-1].strip()}",
                do="use the weights file and architecture.json of the same run",
            ) from error
        return network.eval()

    def padded(self) -> Trained:
        """Return the same classifier with its channels rounded up to multiples of 4, the added ones zero throughout.

        Raises:
            ModelError: The network is no tiny_sep, or is folded or quantized already.
        """
        if self.architecture.surgery:
            raise ModelError(
                f"{self.architecture.name!r} has been changed since it was built, and its channels cannot be padded",
                do="pad the float run as it was trained",
            )
        architecture, weights = widen(self.architecture, self.weights, multiple_of_four(self.architecture))
        return replace(self, architecture=architecture, weights=weights)

    def mirrored(self) -> Trained:
        """Return the same classifier, folded, whose logits are the mean over an image and its mirror image."""
        network, architecture = fold(self.network(), self.architecture)
        return replace(self, architecture=architecture.mirror(), weights=network.state_dict())

    def save(self, folder: Path) -> None:
        """Write weights, architecture.json, recipe.resolved.yaml and trained.json, each whole or not at all."""
        from safetensors.torch import save

        contiguous = {name: value.detach().cpu().contiguous().clone() for name, value in self.weights.items()}
        write_bytes(folder / WEIGHTS, save(contiguous, metadata={"format": "pt"}))
        write_json(folder / ARCHITECTURE, self.architecture.to_json())
        self.recipe.save(folder / RECIPE)
        write_json(folder / FACTS, self._facts())

    def _facts(self) -> dict[str, Any]:
        return {
            "classes": list(self.classes),
            "preprocess": self.preprocess.to_json(),
            "split": self.split,
            "data": self.data,
            "history": list(self.history),
            "metrics": self.metrics,
            "environment": self.environment,
        }

    @classmethod
    def load(cls, folder: Path) -> Trained:
        """Read what `save` wrote.

        Raises:
            ModelError: A file is missing or damaged.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load

        folder = Path(folder)
        try:
            facts = json.loads((folder / FACTS).read_text("utf-8"))
            weights = load((folder / WEIGHTS).read_bytes())
            architecture = Architecture.from_json(json.loads((folder / ARCHITECTURE).read_text("utf-8")))
            recipe = Recipe.model_validate(yaml.safe_load((folder / RECIPE).read_text("utf-8")))
        except (OSError, ValueError, KeyError, SafetensorError, yaml.YAMLError) as error:
            raise ModelError(
                f"{folder} is not a finished run: {error}",
                do=f"train into it first (flyweight train ... --out {folder}), or name another folder",
            ) from error
        return cls(
            architecture=architecture,
            weights=weights,
            recipe=recipe,
            classes=tuple(facts["classes"]),
            preprocess=Preprocess.from_json(facts["preprocess"]),
            split=facts["split"],
            data=facts["data"],
            history=tuple(facts["history"]),
            metrics=facts["metrics"],
            environment=facts["environment"],
        )
