"""The public functions: what the commands do, for programs.

    from flyweight.api import Budget, fit, load_data, load_recipe, train, export, verify, measure, predict

Nothing heavy is imported until a function is called; training and export need the `train` extra.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from flyweight.data.audit import Audit, audit
from flyweight.data.dataset import Dataset
from flyweight.data.sources import load_data
from flyweight.data.split import Split, split
from flyweight.errors import FlyweightError
from flyweight.measure.budget import Budget
from flyweight.measure.speed import Measurement, measure
from flyweight.measure.verify import Verified, verify
from flyweight.runtime.bundle import Bundle
from flyweight.runtime.predict import Prediction, Predictor
from flyweight.train.recipe import Recipe, load_recipe

if TYPE_CHECKING:
    from flyweight.fit import Fitted
    from flyweight.train.trained import Trained

__all__ = [
    "Audit",
    "Budget",
    "Bundle",
    "Dataset",
    "FlyweightError",
    "Measurement",
    "Prediction",
    "Predictor",
    "Recipe",
    "Split",
    "Verified",
    "audit",
    "export",
    "fit",
    "load_data",
    "load_recipe",
    "measure",
    "predict",
    "split",
    "train",
    "verify",
]


def train(dataset: Dataset, recipe: Recipe, out: Path | str, *, device: str | None = None) -> Trained:
    """Train in the folder `out` and return the result; a stopped run continues, a finished one is read back.

    Raises:
        RecipeError: The folder holds a run of another recipe.
        TrainingError: The loss is not finite, or memory is too small.
        DataError: Images cannot be read, or a class is missing from a part.
        OutputError: The folder cannot be written.
    """
    from flyweight.train.run import train_and_wait

    return train_and_wait(dataset, recipe, Path(out), device=device)


def export(trained: Trained, dataset: Dataset, out: Path | str, *, reject_threshold: float | None = None) -> Bundle:
    """Return the bundle written at `out`: ONNX with normalisation inside, calibrated on validation, checked.

    Raises:
        ExportError: The file disagrees with the network.
        OutputError: `out` cannot be written.
    """
    from flyweight.export import export as export_bundle

    return export_bundle(trained, dataset, Path(out), reject_threshold=reject_threshold)


def predict(
    bundle: Bundle | Path | str, sources: Iterable[Path | bytes], *, top_k: int = 5, threads: int = 1
) -> Iterator[Prediction]:
    """Yield the classes of images, most likely first, with calibrated confidence (0 to 1).

    Raises:
        BundleError: Not a bundle, damaged or changed.
    """
    opened = bundle if isinstance(bundle, Bundle) else Bundle.open(Path(bundle))
    return Predictor(opened, threads=threads).predict(list(sources), top_k=top_k)


def fit(data: str | Path, budget: Budget | str, out: Path | str, *, minutes: float = 10.0, seed: int = 0) -> Fitted:
    """Return the most accurate classifier that meets the budget, as a bundle and a report in `out`.

    Args:
        data: Any source that `load_data` takes.
        minutes: Time for training on this machine.

    Raises:
        BudgetError: Nothing fits; the message says which limit binds.
        DataError, DeviceError, OutputError: As the command's.
    """
    from flyweight.fit import FitRequest, Fitted
    from flyweight.fit import fit as run_fit

    limits = budget if isinstance(budget, Budget) else Budget.parse(budget)
    for event in run_fit(FitRequest(str(data), limits, Path(out), minutes=minutes, seed=seed)):
        if isinstance(event, Fitted):
            return event
    raise AssertionError("fit ends with Fitted")
