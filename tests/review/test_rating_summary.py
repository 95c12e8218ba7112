"""Figures of ratings against numbers derived by hand, and what holds of all ratings."""

from dataclasses import replace
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guardreasoner.evaluation.intervals import wilson
from guardreasoner.review.rating_summary import BETTER, RaterAgreement, Summary, summarise
from guardreasoner.review.ratings import RUBRIC, TIE, Rating, Ratings
from tests.support.ratings import rating


def of(*ratings: Rating, resamples: int = 0) -> Summary:
    return summarise(Ratings(ratings), resamples=resamples)


def on(summary: Summary, item: str) -> RaterAgreement:
    return next(one for one in summary.agreement if one.item == item)


def test_rates_are_means_over_records_of_means_over_raters() -> None:
    # on r: ann yes, bob no, ½; on s: ann yes, 1; on t nothing. (½ + 1) / 2 = 75 %
    found = of(
        rating("r", a="yy--", b="nnnn"),
        rating("r", "bob", a="n---", b="nnnn"),
        rating("s", a="y---", b="yyyy"),
        rating("t", a="----", b="yyyy"),
    )
    rate = found.rubric["a"]["coherent"]
    assert (rate.percent.value, rate.records, rate.judgements) == (75, 2, 3)
    # p = 3/4, n = 2, z² = 3.84146: (0.75 + 0.960365 ± 1.959964 √(0.09375 + 0.240091)) / 2.92073
    assert (rate.percent.low, rate.percent.high) == pytest.approx((19.787, 97.332), abs=0.001)
    assert found.rubric["a"]["complete"].percent.value is None
    # b: r 0, s 1, t 1
    assert found.rubric["b"]["complete"].percent.value == pytest.approx(200 / 3)
    assert (found.records, dict(found.raters)) == (3, {"ann": 3, "bob": 1})


def test_wins_ties_and_the_sign_test() -> None:
    runs = {"a": "yyyy", "b": "yyyy"}
    words = ["b"] * 6 + ["a"] + [TIE] * 3
    (win,) = of(*(rating(str(n), better=word, **runs) for n, word in enumerate(words))).wins
    assert (win.first, win.second) == ("a", "b")
    assert (win.first_better, win.ties, win.second_better) == (1, 3, 6)
    assert win.rate.value == pytest.approx(75)  # (6 + 3/2) / 10
    assert win.rate == wilson(0.75, 10)
    assert win.p == pytest.approx(2 * (1 + 7) / 2**7)  # 0 or 1 of 7


def test_raters_vote_on_a_record() -> None:
    runs = {"a": "yyyy", "b": "yyyy"}
    votes = {"r": ["b", "b", "a"], "s": ["a", "b"], "t": ["a", TIE]}
    found = of(
        *(rating(r, f"rater {n}", better=word, **runs) for r, words in votes.items() for n, word in enumerate(words))
    )
    (win,) = found.wins
    assert (win.first_better, win.ties, win.second_better) == (1, 1, 1)


def test_of_three_runs_the_best_says_nothing_of_the_others() -> None:
    runs = {"a": "yyyy", "b": "yyyy", "c": "yyyy"}
    wins = of(rating("r", better="c", **runs), rating("s", better=TIE, **runs)).wins
    counts = {(one.first, one.second): (one.first_better, one.ties, one.second_better) for one in wins}
    assert counts == {("a", "b"): (0, 1, 0), ("a", "c"): (0, 1, 1), ("b", "c"): (0, 1, 1)}


def test_kappa_by_hand() -> None:
    # ann and bob on 10 answers: both yes 4, both no 3, ann alone 2, bob alone 1.
    # agreement 7/10; chance 6/10 · 5/10 + 4/10 · 5/10 = 1/2; kappa (0.7 − 0.5) / 0.5 = 0.4
    said = ["yy"] * 4 + ["nn"] * 3 + ["yn"] * 2 + ["ny"]
    ratings = [
        rating(str(n), rater, a=f"{letter}y--")
        for n, pair in enumerate(said)
        for rater, letter in zip(("ann", "bob"), pair, strict=True)
    ]
    one = on(of(*ratings), "coherent")
    assert (one.one, one.other, one.n) == ("ann", "bob", 10)
    assert (one.percent.value, one.kappa.value) == pytest.approx((70, 0.4))
    always = on(of(*ratings), "consistent")
    assert (always.percent.value, always.kappa.value) == (100, None)
    assert [agreed.item for agreed in of(*ratings).agreement] == ["coherent", "consistent"]
    drawn = on(of(*ratings, resamples=2000), "coherent").kappa
    assert drawn.low is not None
    assert drawn.high is not None
    assert drawn.low < 0.4 < drawn.high


def test_kappa_of_which_is_better_by_hand() -> None:
    # 3 answers: a, b, tie. Same on 3 of 4. ann: a 2, b 1, tie 1; bob: a 1, b 2, tie 1.
    # chance (2·1 + 1·2 + 1·1) / 16 = 5/16; kappa (3/4 − 5/16) / (11/16) = 7/11
    runs = {"a": "----", "b": "----"}
    pairs = [("a", "a"), ("a", "b"), ("b", "b"), (TIE, TIE)]
    ratings = [
        rating(str(n), rater, better=word, **runs)
        for n, pair in enumerate(pairs)
        for rater, word in zip(("ann", "bob"), pair, strict=True)
    ]
    one = on(of(*ratings), BETTER)
    assert (one.n, one.percent.value) == (4, 75)
    assert one.kappa.value == pytest.approx(7 / 11)


def test_texts_that_changed_do_not_count() -> None:
    old, new = rating("r", text="old", a="nnnn"), rating("r", "bob", text="new", a="yyyy")
    found = of(old, new)
    assert (found.other_texts, found.records, dict(found.raters)) == (1, 1, {"bob": 1})
    assert found.rubric["a"]["true"].percent.value == 100
    found = summarise(Ratings((old, new)), {"r": old.texts()})
    assert (found.other_texts, dict(found.raters)) == (1, {"ann": 1})
    assert summarise(Ratings((old, new)), {}).records == 0


def test_what_does_not_count_is_counted() -> None:
    one, again = rating("r", a="nnnn"), rating("r", a="yyyy")
    skip = replace(rating("s", a="----"), skipped=True)
    found = summarise(Ratings((one, again, skip), retracted=2, torn=1))
    assert (found.replaced, found.retracted, found.torn, dict(found.skipped)) == (1, 2, 1, {"ann": 1})
    assert (found.records, found.rubric["a"]["true"].percent.value) == (1, 100)


def test_nothing_is_rated() -> None:
    found = of()
    assert (found.records, dict(found.rubric), found.wins, found.agreement) == (0, {}, (), ())


LETTERS = st.text("yn-", min_size=len(RUBRIC), max_size=len(RUBRIC))
MADE = st.lists(
    st.builds(
        lambda record, rater, better, a, b: rating(record, rater, better, a=a, b=b),
        *(st.sampled_from("rst"), st.sampled_from(["ann", "bob", "cy"]), st.sampled_from(["a", "b", TIE, None])),
        *(LETTERS, LETTERS),
    ),
    max_size=12,
)


@given(MADE)
def test_figures_stay_within_their_bounds_and_ties_count_half(ratings: list[Rating]) -> None:
    found = of(*ratings)
    for of_run in found.rubric.values():
        for rate in of_run.values():
            if rate.percent.value is not None:
                assert rate.percent.low is not None
                assert rate.percent.high is not None
                assert 0 <= rate.percent.low <= rate.percent.value + 1e-9
                assert rate.percent.value - 1e-9 <= rate.percent.high <= 100
            assert rate.records <= min(found.records, rate.judgements)
    for win in found.wins:
        n = win.first_better + win.ties + win.second_better
        assert win.rate.value == pytest.approx(100 * (win.second_better + win.ties / 2) / n)
        assert 0 < win.p <= 1
    for one in found.agreement:
        assert one.percent.value is not None
        assert one.kappa.value is None or -1 <= one.kappa.value <= one.percent.value / 100 + 1e-9


@given(MADE, st.sampled_from(list(permutations(["ann", "bob", "cy"]))))
def test_names_of_raters_do_not_matter(ratings: list[Rating], names: tuple[str, ...]) -> None:
    new = dict(zip(("ann", "bob", "cy"), names, strict=True))
    one, other = of(*ratings), of(*(replace(of_one, rater=new[of_one.rater]) for of_one in ratings))
    assert (one.rubric, one.wins) == (other.rubric, other.wins)

    def agreed(summary: Summary, said: dict[str, str]) -> dict[tuple[frozenset[str], str], tuple[float, object]]:
        return {
            (frozenset((said[found.one], said[found.other])), found.item): (
                round(found.percent.value or 0, 9),
                found.kappa.value and round(found.kappa.value, 9),
            )
            for found in summary.agreement
        }

    assert agreed(one, new) == agreed(other, {name: name for name in names})
