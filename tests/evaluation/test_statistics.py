"""Every statistic against scipy, statsmodels, published tables or arithmetic done by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from evaluation.statistics import (
    JudgeErrors,
    average_of_means,
    clustered_mean,
    cohen_kappa,
    compare_paired,
    corrected_mean,
    krippendorff_alpha,
    mcnemar_exact_p,
    minimum_detectable_difference,
    sign_flip_p,
)

RNG = np.random.default_rng(0)


def own(n: int) -> list[str]:
    """Return a cluster for each of n items."""
    return [str(item) for item in range(n)]


def test_each_item_its_own_cluster_is_the_t_interval():
    values = RNG.normal(size=40)
    got = clustered_mean(values, own(40))
    low, high = stats.t.interval(0.95, 39, loc=values.mean(), scale=stats.sem(values))
    assert (got.mean, got.low, got.high) == pytest.approx((values.mean(), low, high))


def test_clustered_interval_by_hand():
    # Clusters a: 1, 1 and b: 0, 0 and c: 1, 0. Mean 1/2; residual sums 1, -1, 0; G/(G-1) = 3/2.
    # Variance 3/2 * (1 + 1 + 0) / 36 = 1/12.
    got = clustered_mean([1, 1, 0, 0, 1, 0], ["a", "a", "b", "b", "c", "c"])
    assert got.se == pytest.approx(math.sqrt(1 / 12))
    assert got.high - got.mean == pytest.approx(stats.t.ppf(0.975, 2) * math.sqrt(1 / 12))


def test_clustered_interval_is_the_sandwich_of_statsmodels():
    api = pytest.importorskip("statsmodels.api")
    values, clusters = RNG.integers(0, 2, 60).astype(float), RNG.integers(0, 13, 60)
    fit = api.OLS(values, np.ones(60)).fit(
        cov_type="cluster", cov_kwds={"groups": clusters, "use_correction": False}, use_t=True
    )
    groups = len(set(clusters))
    got = clustered_mean(values, [str(c) for c in clusters])
    assert got.se == pytest.approx(float(fit.bse[0]) * math.sqrt(groups / (groups - 1)))


@pytest.mark.parametrize(
    ("name", "values", "clusters", "mean", "has_interval"),
    [
        ("empty", [], [], None, False),
        ("all right", [1.0] * 8, list("abcdefgh"), 1.0, True),
        ("all wrong", [0.0] * 8, list("abcdefgh"), 0.0, True),
        ("all the same grade", [0.4] * 8, list("abcdefgh"), 0.4, False),
        ("one item", [1.0], ["a"], 1.0, True),
        ("one cluster", [1.0, 0.0], ["a", "a"], 0.5, False),
    ],
)
def test_degenerate_sets(name, values, clusters, mean, has_interval):
    got = clustered_mean(values, clusters)
    assert got.mean == mean, name
    assert (got.low is not None) == has_interval, name


def test_all_right_has_the_interval_of_scipy_s_wilson():
    expected = stats.binomtest(9, 9).proportion_ci(method="wilson")
    got = clustered_mean([1.0] * 9, own(9))
    assert (got.low, got.high, got.method) == (pytest.approx(expected.low), pytest.approx(expected.high), "wilson")


@pytest.mark.parametrize(
    ("name", "a", "b", "kappa"),
    [
        # Observed 0.7, expected 0.5 * 0.6 + 0.5 * 0.4 = 0.5.
        ("20 yes-yes, 5 yes-no, 10 no-yes, 15 no-no", [1] * 25 + [0] * 25, [1] * 20 + [0] * 5 + [1] * 10 + [0] * 15,
         pytest.approx(0.4)),
        ("no cases", [], [], None),
        ("one class", [1, 1], [1, 1], None),
        ("opposites", [1, 0], [0, 1], -1.0),
    ],
)  # fmt: skip
def test_kappa(name, a, b, kappa):
    assert cohen_kappa(a, b) == kappa, name


KRIPPENDORFF_2011 = [
    [1, 2, 3, 3, 2, 1, 4, 1, 2, None, None, None],
    [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, None, 3],
    [None, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, None],
    [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, None],
]
"""Four observers, twelve units: the example of Krippendorff's "Computing Krippendorff's Alpha-Reliability"."""


@pytest.mark.parametrize(
    ("name", "ratings", "level", "alpha"),
    [
        ("published", KRIPPENDORFF_2011, "nominal", pytest.approx(0.743, abs=5e-4)),
        ("published", KRIPPENDORFF_2011, "interval", pytest.approx(0.849, abs=5e-4)),
        ("no variation", [[1, 1], [1, 1]], "nominal", None),
        ("no overlap", [[1, None], [None, 0]], "nominal", None),
        ("nothing", [[], []], "nominal", None),
    ],
)
def test_alpha(name, ratings, level, alpha):
    assert krippendorff_alpha(ratings, level) == alpha, name


def test_mcnemar_is_the_exact_one():
    assert mcnemar_exact_p(2, 9) == pytest.approx(2 * stats.binom.cdf(2, 11, 0.5))
    assert mcnemar_exact_p(0, 0) == 1.0


def test_sign_flip_by_hand():
    # Three clusters with sums 1, 1, 1: of the 8 sign patterns only +++ and --- reach 3.
    assert sign_flip_p([1, 1, 1], list("abc")) == pytest.approx(2 / 8)
    # Within one cluster the same differences are one observation: nothing can be said.
    assert sign_flip_p([1, 1, 1], list("aaa")) == 1.0


def test_random_sign_flips_agree_with_the_exact_binomial():
    differences = [1.0] * 14 + [-1.0] * 6  # 20 clusters, so signs are drawn; the exact p is a binomial one
    exact = stats.binomtest(6, 20).pvalue
    assert sign_flip_p(differences, own(20)) == pytest.approx(exact, abs=0.01)


def test_paired_difference():
    got = compare_paired([0, 0, 1, 0], [1, 1, 1, 0], list("abcd"))
    assert (got.difference.mean, got.only_a, got.only_b) == (0.5, 0, 2)
    assert got.mcnemar_p == 0.5
    assert compare_paired([0.2, 0.4], [0.6, 0.4], list("ab")).mcnemar_p is None  # not right or wrong
    assert compare_paired([], [], []).p_value is None


@pytest.mark.parametrize(("a", "b", "mean"), [([0, 1, 1], [0, 1, 1], 0.0), ([0, 0, 0], [1, 1, 1], 1.0)])
def test_equal_differences_are_no_share(a, b, mean):
    # Wilson's interval of 0 of 3 is 0 to 56 %: as that of a difference it said that B can not be the worse one.
    got = compare_paired(a, b, list("abc")).difference
    assert (got.mean, got.low, got.high) == (mean, None, None)
    # Beside a task with differences -1, 0, 1 the variance of one success and one failure added, 1/5 * 4/5 / 3.
    both = average_of_means([(np.subtract(b, a), list("abc")), ([-1, 0, 1], list("def"))], signed=True)
    assert both.se == pytest.approx(math.sqrt(0.16 / 3 + 1 / 3) / 2)


def test_detectable_difference_has_the_power_it_claims():
    # 200 clusters of standard deviation 0.5: draw sets whose true difference is the detectable one.
    noise = RNG.normal(0, 0.5, (2000, 200))
    detectable = minimum_detectable_difference(clustered_mean(noise[0], own(200)))
    se = noise.std(axis=1, ddof=1) / math.sqrt(200)
    found = np.abs((noise.mean(axis=1) + detectable) / se) > stats.t.ppf(0.975, 199)
    assert found.mean() == pytest.approx(0.8, abs=0.06)


def test_the_average_of_one_task_is_that_task():
    values, clusters = RNG.integers(0, 2, 300).astype(float), [str(n // 3) for n in range(300)]
    assert average_of_means([(values, clusters), ([], [])]) == clustered_mean(values, clusters)


def test_the_average_weighs_tasks_alike_and_leaves_empty_ones_out():
    large, small = [1.0, 0.0] * 50, [1.0, 1.0, 0.0, 0.0]
    got = average_of_means([(large, own(100)), (small, list("abcd")), ([], [])])
    assert got.mean == 0.5
    # Variances add: (0.25 / 99 + 0.25 / 3) / 4; the small task's three degrees of freedom hold it open.
    assert got.se == pytest.approx(math.sqrt((0.25 / 99 + 0.25 / 3) / 4))
    degrees = (0.25 / 99 + 0.25 / 3) ** 2 / ((0.25 / 99) ** 2 / 99 + (0.25 / 3) ** 2 / 3)
    assert got.high - got.mean == pytest.approx(stats.t.ppf(0.975, degrees) * got.se)
    assert average_of_means([([], [])]).mean is None
    assert average_of_means([([1.0, 0.0], ["a", "a"]), (small, list("abcd"))]).low is None  # one cluster


def test_the_interval_of_an_average_covers_the_truth_as_often_as_it_says():
    """Two tasks of 0.9 and 0.4, clusters of three equal items: the bootstrap over clusters did the same, slower."""
    hits = 0
    for _ in range(400):
        groups = []
        for share, count in ((0.9, 60), (0.4, 90)):
            drawn = (RNG.random(count) < share).astype(float)
            groups.append((np.repeat(drawn, 3), [str(n // 3) for n in range(3 * count)]))
        got = average_of_means(groups)
        hits += got.low <= 0.65 <= got.high
    assert 0.92 <= hits / 400 <= 0.98


def verdicts(yes: int, n: int) -> tuple[list[float], list[bool], list[str]]:
    return [1.0] * yes + [0.0] * (n - yes), [True] * n, own(n)


def test_rogan_gladen_by_hand():
    # Apparent 0.6, sensitivity 0.9, specificity 0.8: (0.6 + 0.8 - 1) / (0.9 + 0.8 - 1) = 0.4 / 0.7.
    got = corrected_mean(*verdicts(60, 100), JudgeErrors(90, 100, 80, 100))
    v = 0.4 / 0.7
    assert got.mean == pytest.approx(v)
    # Delta method, p(1-p)/(n-1) being the variance of a mean whose items are their own clusters.
    variance = (0.6 * 0.4 / 99 + v**2 * 0.9 * 0.1 / 100 + (1 - v) ** 2 * 0.8 * 0.2 / 100) / 0.7**2
    assert got.se == pytest.approx(math.sqrt(variance))


def test_certain_scores_are_not_corrected():
    got = corrected_mean([1.0, 0.0, 1.0, 0.0], [False] * 4, list("abcd"), JudgeErrors(90, 100, 80, 100))
    assert (got.mean, got.se) == (0.5, pytest.approx(math.sqrt(0.25 / 3)))
    # Half certain (all right), half judged at 0.6: 0.5 * 1 + 0.5 * 4/7.
    scores, judged, _ = verdicts(60, 100)
    scores, judged = scores + [1.0] * 100, judged + [False] * 100
    mixed = corrected_mean(scores, judged, own(200), JudgeErrors(90, 100, 80, 100))
    assert mixed.mean == pytest.approx(0.5 + 0.5 * 4 / 7)


def test_rogan_gladen_covers_the_truth():
    truth, sensitivity, specificity, hits = 0.55, 0.85, 0.9, 0
    for _ in range(400):
        apparent = RNG.binomial(300, truth * sensitivity + (1 - truth) * (1 - specificity))
        errors = JudgeErrors(RNG.binomial(200, sensitivity), 200, RNG.binomial(200, specificity), 200)
        got = corrected_mean(*verdicts(apparent, 300), errors)
        hits += got.low <= truth <= got.high
    assert 0.92 <= hits / 400 <= 0.98


@pytest.mark.parametrize(
    ("name", "given", "errors"),
    [
        ("no better than chance", verdicts(50, 100), (50, 100, 50, 100)),
        ("no items", ([], [], []), (9, 10, 9, 10)),
        ("no labelled pairs", ([1.0], [True], ["a"]), (0, 0, 0, 0)),
    ],
)
def test_nothing_is_corrected_by_what_says_nothing(name, given, errors):
    got = corrected_mean(*given, JudgeErrors(*errors))
    assert (got.mean, got.low, got.high) == (None, None, None), name


@given(st.lists(st.sampled_from([0.0, 1.0]), min_size=2, max_size=40), st.integers(1, 6))
def test_intervals_hold_their_mean(values, groups):
    got = clustered_mean(values, [str(n % groups) for n in range(len(values))])
    assert got.low is None or got.low <= got.mean <= got.high
