"""Accuracies against what is public, and against the number of images and runs behind them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise

from flyweight.measure.statistics import wilson
from flyweight.published.checks.groups import grouped
from flyweight.published.count import count
from flyweight.published.finding import Finding, finding
from flyweight.published.references import BEST_IMAGENET, SAME_NET, SMALL, TIMM
from flyweight.published.table import Row

MARGIN = 3.0  # points above every published result of the same network: recipes explain less
Z = 1.959964  # two-sided 95 %
_IMAGENET = "imagenet-1k"


def accuracy_above_best_listed(rows: Sequence[Row]) -> Iterator[Finding]:
    """No accuracy on ImageNet-1k is above the best published one of any network."""
    best, holder = BEST_IMAGENET
    above = [row for row in _from_scratch(rows) if _accuracy(row) > best]
    for group in grouped(above, lambda row: (row.table, row.model)):
        top = max(group, key=_accuracy)
        yield finding(
            "unsupported", "accuracy_above_best_listed", top, "accuracy", f"{best}",
            f"{top.model} is above the best of {TIMM}, {holder}: suspect near-duplicates between training and test "
            "images, another label space, or pretraining that is not named",
            "name the images, classes and weights; remove duplicates of test images (flyweight data check) and retrain",
        )  # fmt: skip


def accuracy_above_same_net(rows: Sequence[Row]) -> Iterator[Finding]:
    """No accuracy on ImageNet-1k is far above every published one of the same network."""
    above = [row for row in _from_scratch(rows) if row.text("model") in SAME_NET]
    above = [row for row in above if _accuracy(row) > SAME_NET[row.text("model")][0] + MARGIN]
    for group in grouped(above, lambda row: (row.table, row.model)):
        top = max(group, key=_accuracy)
        best, tag = SAME_NET[top.text("model")]
        yield finding(
            "unsupported", "accuracy_above_same_net", top, "accuracy", f"{best}",
            f"{_accuracy(top) - best:.1f} points above the best weights of {top.model} in {TIMM}, {tag}",
            "evaluate those weights on the same test images: unless they score as high, the test images are the cause",
        )  # fmt: skip


def _from_scratch(rows: Sequence[Row]) -> list[Row]:
    """Return the rows of networks that were trained on ImageNet-1k alone, as far as the table says."""
    scratch = [row for row in rows if row.text("pretrained").lower() in ("", "no", "none") and not row.fixed]
    return [row for row in scratch if row.text("dataset") == _IMAGENET]


def best_is_beaten(row: Row) -> Iterator[Finding]:
    """What is called the best is not beaten by a public network of at most as many parameters."""
    if row.text("best") != "yes" or row.text("dataset") not in SMALL or row.number("accuracy") is None:
        return
    params = count(row).params
    better = [p for p in SMALL[row.text("dataset")] if p.params <= params and p.accuracy > _accuracy(row)]
    if better:
        top = max(better, key=lambda public: public.accuracy)
        yield finding(
            "unsupported", "best_is_beaten", row, "accuracy", f"{top.accuracy}",
            f"as printed, {_accuracy(row):g} % is below the {top.accuracy} % of {top.source} with {top.params:,} "
            f"parameters, here are {params:,} (public figures often choose their epoch on the test images)",
            "do not call it the best, or compare with public networks of this size",
        )  # fmt: skip


def pretraining_saw_test(row: Row) -> Iterator[Finding]:
    """Weights were not pretrained on the images or classes that they are tested on."""
    if row.text("dataset") != "tiny-imagenet" or "imagenet" not in row.text("pretrained").lower():
        return
    yield finding(
        "unsupported", "pretraining_saw_test", row, "pretrained", "",
        "Tiny ImageNet's 200 classes and its images are drawn from ImageNet: the weights have seen these classes and "
        "possibly these pictures",
        "report training from scratch beside it, and call the pretrained number a transfer within ImageNet",
    )  # fmt: skip


def accuracy_without_interval_or_seeds(rows: Sequence[Row]) -> Iterator[Finding]:
    """A trained network's accuracy comes with its seeds or an interval; fixed weights need neither."""
    bare = [row for row in rows if row.number("accuracy") and not row.fixed and not row.number("seeds")]
    bare = [row for row in bare if not (row.number("accuracy_low") and row.number("accuracy_high"))]
    for group in grouped(bare, lambda row: (row.table, row.model)):
        yield finding(
            "unsupported", "accuracy_without_interval_or_seeds", group[0], "accuracy", "",
            "neither the number of runs nor an interval is given, so luck of one run cannot be told from the method",
            "train with three seeds or more; give their mean and spread, and the interval of the test images",
            claimed=_list([row.numbers["accuracy"].text for row in group]),
        )  # fmt: skip


def differences_inside_noise(rows: Sequence[Row]) -> Iterator[Finding]:
    """Steps between arms, and between the best and the next, are larger than the test images can resolve."""
    scored = [row for row in rows if row.number("accuracy") and row.test_images]
    for group in grouped([row for row in scored if row.text("arm")], lambda r: (r.table, r.model, r.text("dataset"))):
        pairs = [pair for pair in pairwise(group) if not any(row.fixed for row in pair)]
        yield from _inside([*pairs, *_best(group)])
    for group in grouped([row for row in scored if not row.text("arm")], lambda r: (r.table, r.text("dataset"))):
        yield from _inside(_best(group))


def _best(group: Sequence[Row]) -> list[tuple[Row, Row]]:
    """Return the row that is called best and the runner-up, if one is called so."""
    called = [row for row in group if row.text("best") == "yes"]
    others = [row for row in group if row.text("best") != "yes"]
    return [(max(others, key=_accuracy), row) for row in called if others]


def _inside(pairs: Sequence[tuple[Row, Row]]) -> Iterator[Finding]:
    close = {(a.line, b.line): (a, b) for a, b in pairs if abs(_accuracy(b) - _accuracy(a)) < smallest_difference(a, b)}
    if not close:
        return
    steps = list({frozenset(lines): pair for lines, pair in close.items()}.values())
    needed = max(smallest_difference(*pair) for pair in steps)
    last = steps[0][1]
    low, high = (100 * bound for bound in wilson(_right(last), last.test_images or 0))
    yield finding(
        "unsupported", "differences_inside_noise", last, "accuracy", f"{needed:.2f} points",
        f"on {last.test_images:,} images one run at {last.numbers['accuracy'].text} % is [{low:.2f}, {high:.2f}]; two "
        f"unpaired runs differ beyond chance from {needed:.2f} points on, and seeds add to it",
        "compare image by image (McNemar) over several seeds, or call these steps equal",
        claimed="; ".join(f"{_named(a)} → {_named(b)}" for a, b in steps),
    )  # fmt: skip


def smallest_difference(first: Row, second: Row) -> float:
    """Return the smallest difference (points) of two accuracies that 95 % of chance does not reach."""
    variance = 0.0
    for row in (first, second):
        images = row.test_images or 1
        share = (_right(row) + 1) / (images + 2)  # never 0 or 1: no accuracy is without error
        variance += share * (1 - share) / images
    return 100 * Z * math.sqrt(variance)


def _right(row: Row) -> int:
    images = row.test_images or 0
    return min(images, round(images * _accuracy(row) / 100))


def _accuracy(row: Row) -> float:
    number = row.number("accuracy")
    return -1.0 if number is None else number.value


def _named(row: Row) -> str:
    return f"{row.text('arm') or row.model} {row.numbers['accuracy'].text}"


def _list(values: Sequence[str]) -> str:
    return ", ".join(values) if len(values) <= 6 else f"{', '.join(values[:5])} and {len(values) - 5} more"
