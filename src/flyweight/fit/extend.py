"""`fit --from BUNDLE`: go on from a bundle with new images or classes, and say what got better and worse."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from flyweight.data.dataset import Dataset
from flyweight.errors import BundleError
from flyweight.measure.statistics import holm, mcnemar_exact
from flyweight.measure.verify import logits_of
from flyweight.report.facts import Verdict
from flyweight.runtime.bundle import Bundle
from flyweight.runtime.environment import usable_cores
from flyweight.runtime.predict import Predictor
from flyweight.train.trained import Trained

TRAINING = "training"  # folder of a bundle that holds the unfolded weights


def load_start(path: Path) -> tuple[Bundle, Trained]:
    """Return a bundle and the trained weights inside it.

    Raises:
        BundleError: Not a bundle, or one without its training weights.
    """
    bundle = Bundle.open(path)
    if not (bundle.path / TRAINING).is_dir():
        raise BundleError(
            f"the bundle {str(path)!r} holds no {TRAINING}/ folder, so there are no weights to go on from",
            do="give a bundle that flyweight fit, train or export wrote, unreduced",
        )
    return bundle, Trained.load(bundle.path / TRAINING)


def changes(
    old: Bundle, new_classes: tuple[str, ...], dataset: Dataset, test: NDArray[np.int64], logits: NDArray[np.float32]
) -> tuple[Verdict, ...]:
    """Compare old and new on the same test images, class by class, Holm-corrected.

    Args:
        new_classes: In the order of `logits`.
        test: Indices (N,) of the test images.
        logits: (N, K) of the new file on them.
    """
    old_logits, _, _ = logits_of(Predictor(old, threads=usable_cores()), dataset, test)
    names = np.array(dataset.classes)[dataset.labels[test]]
    was_right = np.array(old.classes)[old_logits.argmax(axis=1)] == names
    is_right = np.array(new_classes)[logits.argmax(axis=1)] == names
    rows = [(name, names == name) for name in dataset.classes if (names == name).any()]
    p_values = [_p_value(was_right[mask], is_right[mask]) for _, mask in rows]
    corrected = holm(p_values)
    return tuple(
        _verdict(name, name in old.classes, was_right[mask], is_right[mask], p)
        for (name, mask), p in zip(rows, corrected, strict=True)
    )


def _p_value(was_right: NDArray[np.bool_], is_right: NDArray[np.bool_]) -> float:
    return mcnemar_exact(int((was_right & ~is_right).sum()), int((~was_right & is_right).sum()))


def _verdict(name: str, known: bool, was_right: NDArray[np.bool_], is_right: NDArray[np.bool_], p: float) -> Verdict:
    before, after = 100 * was_right.mean(), 100 * is_right.mean()
    if not known:
        answer = f"new class: recall {after:.1f} %"
    elif p > 0.05:
        answer = f"no difference: recall {before:.1f} % before, {after:.1f} % now"
    else:
        answer = f"{'better' if after > before else 'worse'}: recall {before:.1f} % before, {after:.1f} % now"
    return Verdict(
        question=f"Is {name!r} recognised better than by the bundle it was continued from?",
        answer=answer,
        evidence=f"{len(is_right)} test images, exact McNemar, Holm-corrected p = {p:.3g}",
    )
