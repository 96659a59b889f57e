from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats

from flyweight.measure.statistics import (
    Spread,
    could_find,
    detectable,
    holm,
    mcnemar_exact,
    mean_interval,
    midranks,
    over_data_sets,
    paired_bootstrap,
    paired_runs,
    permutation_test,
    power,
    quantile_interval,
    smallest_n,
    wilson,
)


@pytest.mark.parametrize(("k", "n"), [(0, 10), (1, 1), (7, 10), (9912, 10_000), (5000, 10_000), (10, 10)])
@pytest.mark.parametrize("level", [0.9, 0.95, 0.99])
def test_wilson_is_scipys(k: int, n: int, level: float) -> None:
    reference = scipy.stats.binomtest(k, n).proportion_ci(level, method="wilson")
    assert wilson(k, n, level) == pytest.approx((reference.low, reference.high), abs=1e-12)


def test_wilson_of_nothing_knows_nothing_and_refuses_impossible_counts() -> None:
    assert wilson(0, 0) == (0.0, 1.0)
    with pytest.raises(ValueError, match="3 of 2"):
        wilson(3, 2)


@pytest.mark.parametrize(("b", "c"), [(0, 0), (0, 5), (5, 0), (3, 9), (10, 10), (40, 61), (600, 700)])
def test_mcnemar_is_the_binomial_test_at_a_half(b: int, c: int) -> None:
    reference = scipy.stats.binomtest(b, b + c).pvalue if b + c else 1.0
    assert mcnemar_exact(b, c) == pytest.approx(reference, rel=1e-9)


def test_the_paired_bootstrap_agrees_with_scipys() -> None:
    random = np.random.default_rng(0)
    first = (random.random(800) < 0.9).astype(float)
    second = np.where(random.random(800) < 0.1, 1 - first, first)
    reference = scipy.stats.bootstrap(
        (first - second,), np.mean, method="percentile", n_resamples=9999, rng=np.random.default_rng(1)
    ).confidence_interval
    found = paired_bootstrap(first, second)
    assert found.value == pytest.approx(np.mean(first) - np.mean(second))
    assert (found.low, found.high) == pytest.approx((reference.low, reference.high), abs=0.002)


def test_the_paired_bootstrap_covers_the_truth_about_as_often_as_it_says() -> None:
    random = np.random.default_rng(0)
    hits = 0
    for seed in range(300):
        first, second = (random.random((2, 200)) < [[0.8], [0.7]]).astype(float)
        found = paired_bootstrap(first, second, resamples=1000, seed=seed)
        hits += found.low <= 0.1 <= found.high
    assert 0.90 <= hits / 300 <= 0.99


def test_the_smallest_n_are_those_of_the_protocol() -> None:
    assert [smallest_n(q) for q in (0.5, 0.9, 0.99)] == [6, 29, 299]


@pytest.mark.parametrize(("q", "n"), [(0.5, 5), (0.9, 28), (0.99, 298)])
def test_too_few_samples_give_no_interval(q: float, n: int) -> None:
    assert quantile_interval(list(range(n)), q) is None
    assert quantile_interval(list(range(n + 1)), q) is not None


@pytest.mark.parametrize("q", [0.5, 0.9, 0.99])
@pytest.mark.parametrize("n", [299, 1000])
def test_the_ranks_cover_the_quantile_with_the_stated_probability(q: float, n: int) -> None:
    found = quantile_interval(np.arange(1, n + 1), q)
    assert found is not None
    low, high = int(found.low), int(found.high)
    coverage = scipy.stats.binom.cdf(high - 1, n, q) - scipy.stats.binom.cdf(low - 1, n, q)
    narrower = scipy.stats.binom.cdf(high - 2, n, q) - scipy.stats.binom.cdf(low - 1, n, q)
    assert coverage >= 0.95
    assert narrower < 0.95
    assert found.low <= found.value <= found.high


def test_the_interval_covers_the_median_of_a_skewed_distribution() -> None:
    random = np.random.default_rng(0)
    truth = np.log(2)
    found = [quantile_interval(random.exponential(size=60), 0.5) for _ in range(1000)]
    hits = sum(one is not None and one.low <= truth <= one.high for one in found)
    assert 0.935 <= hits / 1000 <= 0.985


def test_the_largest_sample_is_never_trimmed() -> None:
    found = quantile_interval([1.0] * 298 + [100.0], 0.99)
    assert found is not None
    assert found.high == 100.0


def test_the_permutation_test_is_scipys_exact_one() -> None:
    random = np.random.default_rng(0)
    first, second = random.normal(size=5), random.normal(1.0, size=5)
    reference = scipy.stats.permutation_test(
        (first, second), lambda a, b: np.mean(a) - np.mean(b), n_resamples=np.inf
    ).pvalue
    assert permutation_test(first, second) == pytest.approx(reference)


def test_the_permutation_test_of_ranks_is_the_exact_rank_sum_test() -> None:
    random = np.random.default_rng(1)
    first, second = random.normal(size=5), random.normal(0.8, size=6)
    ranks = midranks([*first, *second])
    reference = scipy.stats.mannwhitneyu(first, second, method="exact").pvalue
    assert permutation_test(ranks[:5], ranks[5:]) == pytest.approx(reference)


def test_midranks_are_scipys() -> None:
    values = [3.0, 1.0, 3.0, 2.0, 1.0, 3.0]
    assert midranks(values).tolist() == scipy.stats.rankdata(values).tolist()


def test_the_permutation_test_raises_a_false_alarm_at_most_as_often_as_alpha() -> None:
    random = np.random.default_rng(0)
    alarms = sum(permutation_test(*random.normal(size=(2, 5))) <= 0.05 for _ in range(400))
    assert alarms / 400 <= 0.07


def test_the_permutation_test_samples_splits_when_there_are_too_many() -> None:
    assert permutation_test(np.arange(20.0), np.arange(20.0) + 30, resamples=500) == pytest.approx(1 / 501)


def test_holm_is_statsmodels_holm() -> None:
    # statsmodels.stats.multitest.multipletests([0.01, 0.04, 0.03, 0.005], method="holm")
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == []


def test_mean_interval_is_students() -> None:
    values = [0.91, 0.92, 0.90, 0.93, 0.915]
    found = mean_interval(values)
    low, high = scipy.stats.t.interval(0.95, 4, loc=np.mean(values), scale=scipy.stats.sem(values))
    assert (found.low, found.high) == pytest.approx((low, high))
    assert mean_interval([0.9]).low == -math.inf


def test_with_one_run_paired_runs_is_the_paired_t_test_over_images() -> None:
    random = np.random.default_rng(0)
    first, second = random.random((2, 1, 500)) < 0.8
    found = paired_runs(first, second)
    assert found.p == pytest.approx(scipy.stats.ttest_rel(first[0].astype(float), second[0].astype(float)).pvalue)


def test_when_images_do_not_matter_paired_runs_is_the_paired_t_test_over_runs() -> None:
    differences = np.array([0.02, 0.05, 0.03, 0.04])
    first = np.repeat(differences[:, None], 50, axis=1)
    found = paired_runs(first, np.zeros_like(first))
    assert found.p == pytest.approx(scipy.stats.ttest_1samp(differences, 0).pvalue)
    assert found.df == pytest.approx(3)
    assert found.of_runs == pytest.approx(differences.std(ddof=1))


@pytest.mark.parametrize("runs_deviation", [0.0, 0.01, 0.05])
def test_paired_runs_is_wrong_no_more_often_than_it_says_even_far_out(runs_deviation: float) -> None:
    random = np.random.default_rng(3)
    ps = []
    for _ in range(2000):
        runs, images = random.normal(0, runs_deviation, (3, 1)), random.normal(0, 0.1, (1, 100))
        difference = runs + images + random.normal(0, 0.2, (3, 100))
        ps.append(paired_runs(difference, np.zeros_like(difference)).p)
    for level in (0.05, 0.05 / 24):  # as it stands, and as Holm asks the smallest of 24
        assert np.mean(np.array(ps) < level) <= level + 3 * math.sqrt(level / 2000)


def test_equal_scores_differ_by_nothing() -> None:
    scores = np.random.default_rng(0).random((3, 50)) < 0.5
    assert paired_runs(scores, scores).p == 1.0


@pytest.mark.parametrize(("runs", "tests"), [(3, 1), (3, 16), (5, 16), (10, 1)])
def test_a_difference_of_the_planned_size_is_found_four_times_in_five(runs: int, tests: int) -> None:
    random, spread = np.random.default_rng(1), Spread(of_runs=0.01, disagreeing=1e-12)
    planned = detectable(runs, 100, tests=tests, spread=spread)
    ps = []
    for by_run in random.normal(planned, spread.of_runs, (1500, runs)):
        difference = np.repeat(by_run[:, None], 2, axis=1)
        ps.append(paired_runs(difference, np.zeros_like(difference)).p)
    found = np.mean(np.array(ps) * tests < 0.05)  # Holm's first step
    assert found == pytest.approx(0.8, abs=4 * math.sqrt(0.8 * 0.2 / 1500))


@pytest.mark.parametrize("df", [1.0, 1.7, 2, 4, 9, 9999])
@pytest.mark.parametrize("tests", [1, 3, 16, 200])
def test_what_is_larger_than_could_be_found_is_found(df: float, tests: int) -> None:
    least = could_find(0.02, df, tests=tests)
    assert tests * 2 * scipy.stats.t.sf(least / 0.02, df) < 0.05


def test_power_is_that_of_scipys_noncentral_t_where_scipy_gives_one() -> None:
    for df, errors in ((4, 3.76), (9, 3.3), (30, 2.0)):
        reach = scipy.stats.t.isf(0.025, df)
        expected = scipy.stats.nct.sf(reach, df, errors) + scipy.stats.nct.cdf(-reach, df, errors)
        assert power(errors, df) == pytest.approx(expected, abs=1e-4)
    assert power(0.0, 3) == pytest.approx(0.05, abs=1e-4)


def test_over_data_sets_is_the_mean_with_the_error_of_a_mean() -> None:
    random = np.random.default_rng(0)
    apart = [paired_runs(random.random((4, 300)) < 0.8, random.random((4, 300)) < 0.7) for _ in range(3)]
    found = over_data_sets(apart)
    assert found.difference.value == pytest.approx(np.mean([one.difference.value for one in apart]))
    assert found.error == pytest.approx(math.sqrt(sum(one.error**2 for one in apart)) / 3)
    assert 3 < found.df <= 9
    alone = over_data_sets(apart[:1])
    assert (alone.p, alone.df) == pytest.approx((apart[0].p, apart[0].df))
