"""Summary of ratings against numbers derived by hand, and properties that hold for any ratings."""

from dataclasses import replace
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guardreasoner.evaluation.intervals import wilson
from guardreasoner.review.rating_summary import BETTER, RaterAgreement, Summary, summarize
from guardreasoner.review.ratings import RUBRIC, TIE, Rating, Ratings
from tests.support.ratings import rating


def summary_of(*ratings: Rating, resamples: int = 0) -> Summary:
    return summarize(Ratings(ratings), resamples=resamples)


def agreement_on(summary: Summary, item: str) -> RaterAgreement:
    return next(one for one in summary.agreement if one.item == item)


def test_rates_average_over_raters_then_over_records() -> None:
    # record r: ann yes, bob no: ½; s: ann yes: 1; t: no mark. (½ + 1) / 2 = 75 %
    result = summary_of(
        rating("r", a="yy--", b="nnnn"),
        rating("r", "bob", a="n---", b="nnnn"),
        rating("s", a="y---", b="yyyy"),
        rating("t", a="----", b="yyyy"),
    )
    rate = result.rubric["a"]["coherent"]
    assert (rate.percent.value, rate.records, rate.judgements) == (75, 2, 3)
    # p = 3/4, n = 2, z² = 3.84146: (0.75 + 0.960365 ± 1.959964 √(0.09375 + 0.240091)) / 2.92073
    assert (rate.percent.low, rate.percent.high) == pytest.approx((19.787, 97.332), abs=0.001)
    assert result.rubric["a"]["complete"].percent.value is None
    # b: r 0, s 1, t 1
    assert result.rubric["b"]["complete"].percent.value == pytest.approx(200 / 3)
    assert (result.records, dict(result.raters)) == (3, {"ann": 3, "bob": 1})


def test_wins_ties_and_the_sign_test() -> None:
    runs = {"a": "yyyy", "b": "yyyy"}
    choices = ["b"] * 6 + ["a"] + [TIE] * 3
    (win,) = summary_of(*(rating(str(n), better=word, **runs) for n, word in enumerate(choices))).wins
    assert (win.first, win.second) == ("a", "b")
    assert (win.first_better, win.ties, win.second_better) == (1, 3, 6)
    assert win.rate.value == pytest.approx(75)  # (6 + 3/2) / 10
    assert win.rate == wilson(0.75, 10)
    assert win.p == pytest.approx(2 * (1 + 7) / 2**7)  # 0 or 1 of 7


def test_majority_of_raters_decides_a_record() -> None:
    runs = {"a": "yyyy", "b": "yyyy"}
    votes = {"r": ["b", "b", "a"], "s": ["a", "b"], "t": ["a", TIE]}
    result = summary_of(
        *(rating(r, f"rater {n}", better=word, **runs) for r, words in votes.items() for n, word in enumerate(words))
    )
    (win,) = result.wins
    assert (win.first_better, win.ties, win.second_better) == (1, 1, 1)


def test_best_of_three_runs_does_not_compare_the_other_two() -> None:
    runs = {"a": "yyyy", "b": "yyyy", "c": "yyyy"}
    wins = summary_of(rating("r", better="c", **runs), rating("s", better=TIE, **runs)).wins
    counts = {(one.first, one.second): (one.first_better, one.ties, one.second_better) for one in wins}
    assert counts == {("a", "b"): (0, 1, 0), ("a", "c"): (0, 1, 1), ("b", "c"): (0, 1, 1)}


def test_kappa_by_hand() -> None:
    # ann and bob on 10 answers: both yes 4, both no 3, ann alone 2, bob alone 1.
    # agreement 7/10; chance 6/10 · 5/10 + 4/10 · 5/10 = 1/2; kappa (0.7 − 0.5) / 0.5 = 0.4
    letters = ["yy"] * 4 + ["nn"] * 3 + ["yn"] * 2 + ["ny"]
    ratings = [
        rating(str(n), rater, a=f"{letter}y--")
        for n, pair in enumerate(letters)
        for rater, letter in zip(("ann", "bob"), pair, strict=True)
    ]
    one = agreement_on(summary_of(*ratings), "coherent")
    assert (one.one, one.other, one.n) == ("ann", "bob", 10)
    assert (one.percent.value, one.kappa.value) == pytest.approx((70, 0.4))
    always = agreement_on(summary_of(*ratings), "consistent")
    assert (always.percent.value, always.kappa.value) == (100, None)
    assert [agreed.item for agreed in summary_of(*ratings).agreement] == ["coherent", "consistent"]
    drawn = agreement_on(summary_of(*ratings, resamples=2000), "coherent").kappa
    assert drawn.low is not None
    assert drawn.high is not None
    assert drawn.low < 0.4 < drawn.high


def test_kappa_of_better_by_hand() -> None:
    # 3 answers: a, b, tie. Same on 3 of 4. ann: a 2, b 1, tie 1; bob: a 1, b 2, tie 1.
    # chance (2·1 + 1·2 + 1·1) / 16 = 5/16; kappa (3/4 − 5/16) / (11/16) = 7/11
    runs = {"a": "----", "b": "----"}
    pairs = [("a", "a"), ("a", "b"), ("b", "b"), (TIE, TIE)]
    ratings = [
        rating(str(n), rater, better=word, **runs)
        for n, pair in enumerate(pairs)
        for rater, word in zip(("ann", "bob"), pair, strict=True)
    ]
    one = agreement_on(summary_of(*ratings), BETTER)
    assert (one.n, one.percent.value) == (4, 75)
    assert one.kappa.value == pytest.approx(7 / 11)


def test_ratings_of_changed_texts_do_not_count() -> None:
    old, new = rating("r", text="old", a="nnnn"), rating("r", "bob", text="new", a="yyyy")
    result = summary_of(old, new)
    assert (result.other_texts, result.records, dict(result.raters)) == (1, 1, {"bob": 1})
    assert result.rubric["a"]["true"].percent.value == 100
    result = summarize(Ratings((old, new)), {"r": old.text_hashes()})
    assert (result.other_texts, dict(result.raters)) == (1, {"ann": 1})
    assert summarize(Ratings((old, new)), {}).records == 0


def test_ignored_ratings_are_counted() -> None:
    one, again = rating("r", a="nnnn"), rating("r", a="yyyy")
    skip = replace(rating("s", a="----"), skipped=True)
    result = summarize(Ratings((one, again, skip), retracted=2, truncated=1))
    assert (result.replaced, result.retracted, result.truncated, dict(result.skipped)) == (1, 2, 1, {"ann": 1})
    assert (result.records, result.rubric["a"]["true"].percent.value) == (1, 100)


def test_empty_summary() -> None:
    result = summary_of()
    assert (result.records, dict(result.rubric), result.wins, result.agreement) == (0, {}, (), ())


LETTERS = st.text("yn-", min_size=len(RUBRIC), max_size=len(RUBRIC))
RATINGS = st.lists(
    st.builds(
        lambda record, rater, better, a, b: rating(record, rater, better, a=a, b=b),
        *(st.sampled_from("rst"), st.sampled_from(["ann", "bob", "cy"]), st.sampled_from(["a", "b", TIE, None])),
        *(LETTERS, LETTERS),
    ),
    max_size=12,
)


@given(RATINGS)
def test_values_are_within_bounds_and_ties_count_half(ratings: list[Rating]) -> None:
    result = summary_of(*ratings)
    for rates in result.rubric.values():
        for rate in rates.values():
            if rate.percent.value is not None:
                assert rate.percent.low is not None
                assert rate.percent.high is not None
                assert 0 <= rate.percent.low <= rate.percent.value + 1e-9
                assert rate.percent.value - 1e-9 <= rate.percent.high <= 100
            assert rate.records <= min(result.records, rate.judgements)
    for win in result.wins:
        n = win.first_better + win.ties + win.second_better
        assert win.rate.value == pytest.approx(100 * (win.second_better + win.ties / 2) / n)
        assert 0 < win.p <= 1
    for one in result.agreement:
        assert one.percent.value is not None
        assert one.kappa.value is None or -1 <= one.kappa.value <= one.percent.value / 100 + 1e-9


@given(RATINGS, st.sampled_from(list(permutations(["ann", "bob", "cy"]))))
def test_summary_does_not_depend_on_rater_names(ratings: list[Rating], names: tuple[str, ...]) -> None:
    new = dict(zip(("ann", "bob", "cy"), names, strict=True))
    one, other = summary_of(*ratings), summary_of(*(replace(rating, rater=new[rating.rater]) for rating in ratings))
    assert (one.rubric, one.wins) == (other.rubric, other.wins)

    def agreements(summary: Summary, names: dict[str, str]) -> dict[tuple[frozenset[str], str], tuple[float, object]]:
        return {
            (frozenset((names[result.one], names[result.other])), result.item): (
                round(result.percent.value or 0, 9),
                result.kappa.value and round(result.kappa.value, 9),
            )
            for result in summary.agreement
        }

    assert agreements(one, new) == agreements(other, {name: name for name in names})


def test_labels_in_the_file_replace_no_rating() -> None:
    labelled = [replace(rating(name, a="----"), answers={}, labels={"request": "harmful"}) for name in "st"]
    result = summary_of(rating("r", a="yyyy"), *labelled)
    assert (result.replaced, result.records) == (0, 1)
