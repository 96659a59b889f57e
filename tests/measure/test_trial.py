"""The verdict of a compression trial: what makes it yes, and each thing that makes it no."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from flyweight.measure.latency import LatencyResult
from flyweight.measure.statistics import ratio_interval, tango
from flyweight.measure.trial import Side, Speed, Trial, judge, promised_by, speed_of, speed_of_kinds

CLASSES = ("ant", "bee", "cat")


@pytest.mark.parametrize(("gained", "lost", "n"), [(2, 12, 50), (0, 0, 40), (5, 5, 1000), (30, 3, 200), (0, 7, 30)])
def test_the_ends_of_tangos_interval_are_where_the_score_of_the_constrained_likelihood_is_1_96(
    gained: int, lost: int, n: int
) -> None:
    found = tango(gained, lost, n)
    assert found.value == pytest.approx((gained - lost) / n)
    for end in (found.low, found.high):
        if not -0.999 < end < 0.999:
            continue

        # The share that only the first gets right, by maximising the likelihood where the difference is held.
        def minus_log(share: float, end: float = end) -> float:
            cells = [(share + end, gained), (share, lost), (1 - 2 * share - end, n - gained - lost)]
            return -sum(k * math.log(max(p, 1e-300)) for p, k in cells if k)

        low, high = max(0.0, -end) + 1e-12, (1 - end) / 2 - 1e-12
        share = minimize_scalar(minus_log, bounds=(low, high), method="bounded", options={"xatol": 1e-12}).x
        score = (gained - lost - n * end) / math.sqrt(n * (2 * share + end * (1 - end)))
        assert abs(score) == pytest.approx(1.96, abs=0.01)


def test_tangos_interval_is_that_of_a_published_example() -> None:
    # Tango 1998, table of the example of soft contact lenses: 43 of 44 agree, one differs.
    found = tango(1, 0, 44)
    assert (found.low, found.high) == pytest.approx((-0.0594, 0.1184), abs=0.003)


def test_no_image_that_differs_still_leaves_room_for_one() -> None:
    assert tango(0, 0, 100).low < -0.03


def test_the_ratio_of_latencies_has_welchs_interval_on_logarithms() -> None:
    from scipy.stats import ttest_ind

    first, second = [1.0, 1.1, 0.9, 1.05], [2.0, 2.1, 1.9, 2.2]
    found = ratio_interval(first, second)
    ends = ttest_ind(np.log(first), np.log(second), equal_var=False).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((math.exp(ends.low), math.exp(ends.high)))


def speed(verdict: str = "faster", **changes: Any) -> Speed:
    ratio = {"faster": 0.5, "slower": 1.5, "no difference": 1.0}[verdict]
    content = {
        "statistic": "median", "before_ms": 1.0, "after_ms": ratio, "verdict": verdict, "n": 500, "threads": 1,
        "ratio": {"value": ratio, "low": 0.9 * ratio, "high": 1.1 * ratio}, "noise_floor": 0.02, "disturbed": False,
    }  # fmt: skip
    return Speed.model_validate({**content, **changes})


def trial(lost: int = 0, gained: int = 0, n: int = 600, sizes: tuple[int, int] = (1000, 400), **changes: Any) -> Trial:
    """Return the trial of two files that differ on the first images: these lost, then those gained."""
    labels = np.arange(n) % 3
    first, second = np.eye(3, dtype=np.float32)[labels], np.eye(3, dtype=np.float32)[labels]
    wrong = np.eye(3, dtype=np.float32)[(labels + 1) % 3]
    second[:lost] = wrong[:lost]
    first[lost : lost + gained] = wrong[lost : lost + gained]
    after = {
        "precision": "int8",
        "backend": "onnxruntime",
        "operators": {"int8": 9},
        "layers": 8,
        **changes.pop("after", {}),
    }
    sides = [
        Side(name="b fp32", precision="fp32", backend="onnxruntime", size_bytes=sizes[0], accuracy=1.0),
        Side(
            name="b int8", size_bytes=sizes[1], accuracy=1.0,
            **after,
        ),
    ]  # fmt: skip
    how: dict[str, Any] = {"margin": 0.01, "speed": speed(), **changes}
    return judge(
        sides[0], sides[1], logits=(first, second), labels=labels, classes=CLASSES,
        images=[f"{i}.png" for i in range(n)], part="validation part", **how,
    )  # fmt: skip


def test_what_is_no_worse_smaller_and_faster_ships() -> None:
    found = trial()
    assert found.ship
    assert found.verdict().startswith("ship, because the accuracy changes by +0.00 points")


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"lost": 60}, "is worse than the margin of 1 points"),
        ({"lost": 12, "gained": 4}, "may be worse than the margin of 1 points"),
        ({"n": 60}, "may be worse than the margin"),  # nothing differs, but 60 images cannot show a point
        ({"sizes": (1000, 1000)}, "1.00 of the 1,000 before"),
        ({"speed": speed("slower")}, "it is slower here: 1.5 ms against 1 ms"),
        ({"speed": speed("no difference")}, "not measurably faster"),
        ({"speed": None}, "nothing was timed"),
        ({"speed": speed(disturbed=True)}, "time it on a quiet machine"),
        # The cast of the bytes that every file takes counts as int8, and tells nothing of the layers.
        (
            {"after": {"operators": {"fp32": 26, "int8": 1}, "layers": 2, "in_float": ("Conv(a)", "Gemm(b)")}},
            "onnxruntime multiplies in float in all 2 layers of the int8 file",
        ),
        (
            {"after": {"in_float": ("Conv(a)", "Gemm(b)"), "unmeant": ("Conv(a)",)}},
            "multiplies in float in 1 of 8 layers that were to be int8: Conv(a)",
        ),
    ],
)
def test_it_does_not_ship_because(changes: dict[str, Any], why: str) -> None:
    found = trial(**changes)
    assert not found.ship
    assert why in found.verdict()


@pytest.mark.parametrize(
    ("before", "after", "promises"),
    [
        (
            ("onnxruntime", "fp32"),
            ("openvino", "fp32"),
            ("faster",),
        ),  # its files are larger: that is not what it is for
        (("onnxruntime", "fp32"), ("openvino", "bf16"), ("faster",)),
        (("onnxruntime", "fp32"), ("litert", "int8"), ("faster",)),
        (("onnxruntime", "fp32"), ("onnxruntime", "fp16"), ("smaller",)),
        (("onnxruntime", "fp32"), ("onnxruntime", "palette8"), ("smaller",)),
        (("onnxruntime", "fp32"), ("onnxruntime", "int8"), ("smaller", "faster")),
        (("onnxruntime", "int8"), ("openvino", "fp32"), ("smaller", "faster")),
        (("onnxruntime", "fp32"), ("onnxruntime", "fp32"), ("smaller", "faster")),
    ],
)
def test_what_a_file_promises_follows_from_what_the_two_are(
    before: tuple[str, str], after: tuple[str, str], promises: tuple[str, ...]
) -> None:
    sides = [Side(name="s", backend=b, precision=p, size_bytes=1, accuracy=1.0) for b, p in (before, after)]
    assert promised_by(*sides) == promises


def test_a_larger_file_for_another_runtime_ships_where_it_is_faster() -> None:
    larger = trial(sizes=(1000, 1100), after={"backend": "openvino", "precision": "fp32"})
    assert larger.ship
    assert larger.promises == ("faster",)
    assert not trial(sizes=(1000, 1100), after={"backend": "openvino", "precision": "fp32"}, promises=("smaller",)).ship


def test_layers_that_were_meant_to_stay_in_float_are_no_reason_against() -> None:
    assert trial(after={"in_float": ("Conv(a)", "Gemm(b)")}).ship


def test_the_verdict_says_where_nobody_knows_what_an_int8_file_computes_in() -> None:
    found = trial(after={"operators": {}, "layers": None})
    assert found.ship
    assert "in what type onnxruntime computes is not known" in found.verdict()


def test_what_promised_only_to_be_smaller_may_be_as_fast_as_before_but_not_slower() -> None:
    assert trial(promises=("smaller",), speed=speed("no difference")).ship
    assert trial(promises=("smaller",), speed=None).ship
    assert "nothing was timed: whether it is slower is not known" in trial(promises=("smaller",), speed=None).verdict()
    assert not trial(promises=("smaller",), speed=speed("slower")).ship


def test_a_quick_clock_says_that_it_knows_no_noise_floor() -> None:
    found = trial(speed=speed(noise_floor=None))
    assert found.ship
    assert "noise floor was not measured" in found.verdict()
    assert "noise floor" not in trial().verdict()


def test_images_that_flipped_are_listed_the_lost_ones_first() -> None:
    found = trial(lost=3, gained=2)
    assert found.flipped == 5
    assert [flip.kind for flip in found.flips] == ["lost"] * 3 + ["gained"] * 2
    assert (found.flips[0].label, found.flips[0].before, found.flips[0].after) == ("ant", "ant", "bee")


def test_a_class_that_loses_more_than_chance_is_named() -> None:
    labels = np.arange(600) % 3
    first = np.eye(3, dtype=np.float32)[labels]
    second = first.copy()
    second[np.flatnonzero(labels == 2)[:40]] = [1, 0, 0]
    side = {"precision": "fp32", "backend": "onnxruntime", "accuracy": 1.0}
    found = judge(
        Side(name="a", size_bytes=2, **side), Side(name="b", size_bytes=1, **side), logits=(first, second),
        labels=labels, classes=CLASSES, images=[str(i) for i in range(600)], part="p", margin=0.2, speed=speed(),
    )  # fmt: skip
    assert [row.name for row in found.per_class if row.regressed] == ["cat"]
    assert found.per_class[2].change.value == pytest.approx(-0.2)


def latency(name: str, centre: float) -> LatencyResult:
    samples = tuple(tuple(centre * (1 + 0.01 * ((i * 7 + p) % 5)) for i in range(60)) for p in range(5))
    return LatencyResult(name, "model", "onnxruntime", 1, samples, True, 10, noise_floor=0.03, cpu_share=1.0)


def test_faster_is_what_interval_and_noise_floor_both_say() -> None:
    assert speed_of(latency("a", 1.0), latency("b", 0.5)).verdict == "faster"
    assert speed_of(latency("a", 1.0), latency("b", 1.5)).verdict == "slower"
    assert speed_of(latency("a", 1.0), latency("b", 0.985)).verdict == "no difference"  # within the noise floor


def test_the_time_of_a_file_with_an_early_exit_is_a_mean() -> None:
    mixed = LatencyResult("b", "model", "onnxruntime", 1, ((1.0, 1.0, 1.0, 9.0),) * 3, True, 1, cpu_share=1.0)
    plain = LatencyResult("a", "model", "onnxruntime", 1, ((4.0, 4.0, 4.0, 4.0),) * 3, True, 1, cpu_share=1.0)
    assert speed_of(plain, mixed, branches=True).after_ms == pytest.approx(3.0)
    assert speed_of(plain, mixed).after_ms == pytest.approx(1.0)


def timed(name: str, ms: float) -> LatencyResult:
    """A file that takes so long, to 1 % from process to process."""
    samples = tuple((ms * (1 + 0.01 * (p - 2)),) * 20 for p in range(5))
    return LatencyResult(name, "model", "onnxruntime", 1, samples, True, 1, cpu_share=1.0)


def test_early_and_late_images_are_weighed_by_their_share_of_all_that_decided() -> None:
    plain, exits = {"all": timed("a", 4.0)}, {"early": timed("b", 1.0), "late": timed("b", 5.0)}
    found = speed_of_kinds(plain, exits, (None, (300, 400)))
    assert found.after_ms == pytest.approx(0.75 * 1.0 + 0.25 * 5.0)
    assert found.ratio.value == pytest.approx(0.5)
    assert found.left_early is not None
    assert found.left_early.value == 0.75


def test_the_interval_of_an_early_exits_speed_covers_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    share, covered = 0.6, 0
    for _ in range(400):
        after = {"early": noisy(rng, 1.0), "late": noisy(rng, 5.0)}
        found = speed_of_kinds({"all": noisy(rng, 4.0)}, after, (None, (int(rng.binomial(150, share)), 150)))
        assert found.ratio.low is not None
        assert found.ratio.high is not None
        covered += found.ratio.low <= (share * 1.0 + (1 - share) * 5.0) / 4.0 <= found.ratio.high
    assert covered / 400 > 0.92


def noisy(rng: np.random.Generator, ms: float) -> LatencyResult:
    samples = tuple((float(ms * rng.lognormal(0.0, 0.01)),) for _ in range(5))
    return LatencyResult("n", "model", "onnxruntime", 1, samples, True, 1, cpu_share=1.0)


def test_few_images_leave_the_share_and_so_the_speed_less_certain() -> None:
    plain, exits = {"all": timed("a", 4.0)}, {"early": timed("b", 1.0), "late": timed("b", 5.0)}
    few, many = (speed_of_kinds(plain, exits, (None, counts)) for counts in ((30, 40), (3000, 4000)))
    assert few.ratio.high - few.ratio.low > 3 * (many.ratio.high - many.ratio.low)  # type: ignore[operator]


def test_where_every_image_leaves_early_there_is_one_kind() -> None:
    found = speed_of_kinds({"all": timed("a", 4.0)}, {"early": timed("b", 1.0)}, (None, (50, 50)))
    assert found.ratio.value == pytest.approx(0.25)
