"""Comparison of runs: differences by hand, paired intervals, hard records, several seeds."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guardreasoner.errors import InputError
from guardreasoner.evaluation.comparison import ALL_RIGHT, Comparison, Run, compare
from guardreasoner.evaluation.scoring import AVERAGE, score
from guardreasoner.evaluation.scoring.labels import Mode
from guardreasoner.report.comparison_tables import comparison_notes
from tests.support.comparisons import TASKS, answers, records


def compare_two(gold: str, first: str, second: str, resamples: int = 300, split: int | None = None) -> Comparison:
    answered = records(gold, split)
    runs = [Run(name, (answers(name, answered, verdicts),)) for name, verdicts in (("A", first), ("B", second))]
    return compare(runs, TASKS, resamples=resamples)


def test_difference_by_hand() -> None:
    pair = compare_two("HHHHUUUU", "HHUUUUUH", "HHHUUUUU").between("A", "B")
    (row,) = pair.benchmarks
    # A: 2 hits, 2 misses, 1 false positive: 4 / 7. B: 3 hits, 1 miss: 6 / 7. Correct: 5 and 7 of 8.
    assert row.f1.value == pytest.approx(100 * (6 - 4) / 7)
    assert row.accuracy.value == 25
    assert (row.n, row.flips.gained, row.flips.lost, row.flips.p) == (8, 2, 0, 0.5)
    assert (pair.records.benchmark, pair.records.task) == (AVERAGE, ALL_RIGHT)
    assert pair.records.accuracy == row.accuracy
    assert pair.hard is None


def test_scores_equal_those_of_a_single_run() -> None:
    comparison = compare_two("HHHHUUUU", "HHUUUUUH", "HHHUUUUU", split=5)
    answered = records("HHHHUUUU", 5)
    one = answers("A", answered, "HHUUUUUH")
    alone = score("A", answered, one.rollouts, TASKS, resamples=0)
    found = comparison.scores["A"]
    assert [row.positive_f1.value for row in found.benchmarks] == [row.positive_f1.value for row in alone.benchmarks]
    assert found.overall.value == alone.overall.value
    assert [row.benchmark for row in comparison.between("A", "B").benchmarks] == ["one", "two"]


def test_paired_interval_matches_resampling_records() -> None:
    rng = np.random.default_rng(3)
    gold = "".join(rng.choice(["H", "U"], 80))
    flip = {"H": "U", "U": "H"}
    first = "".join(w if rng.random() < 0.7 else flip[w] for w in gold)
    # mostly the verdicts of the first run: an unpaired interval would be far wider
    second = "".join(g if rng.random() < 0.15 else w for g, w in zip(gold, first, strict=True))
    (row,) = compare_two(gold, first, second, resamples=6000).between("A", "B").benchmarks
    right = np.array([[g == w for g, w in zip(gold, found, strict=True)] for found in (first, second)])
    harmful = np.array([[w == "H" for w in found] for found in (gold, first, second)])
    drawn = rng.integers(len(gold), size=(6000, len(gold)))

    def f1(run: int) -> np.ndarray:
        hit = (harmful[0] & harmful[run])[drawn].sum(axis=1)
        return 200 * hit / (harmful[0][drawn].sum(axis=1) + harmful[run][drawn].sum(axis=1))

    accuracy = 100 * (right[1][drawn].mean(axis=1) - right[0][drawn].mean(axis=1))
    for found, expected in ((row.accuracy, accuracy), (row.f1, f1(2) - f1(1))):
        assert (found.low, found.high) == pytest.approx(np.percentile(expected, [2.5, 97.5]), abs=1.3)
    spread = right.std(axis=1) * 100 / len(gold) ** 0.5
    unpaired = 2 * 1.96 * float(np.hypot(*spread))
    assert row.accuracy.high is not None
    assert row.accuracy.low is not None
    assert row.accuracy.high - row.accuracy.low < 0.7 * unpaired


LETTERS = st.lists(st.tuples(*[st.sampled_from("HU")], *[st.sampled_from("HU-")] * 2), min_size=1, max_size=25)


@settings(max_examples=50)
@given(LETTERS)
def test_swapping_runs_negates_the_difference(rows: list[tuple[str, str, str]]) -> None:
    gold, first, second = ("".join(letters) for letters in zip(*rows, strict=True))
    comparison = compare_two(gold, first, second, resamples=100)
    there, back = comparison.between("A", "B"), comparison.between("B", "A")
    for one, other in ((there.records, back.records), (there.benchmarks[0], back.benchmarks[0])):
        assert (one.flips.gained, one.flips.lost) == (other.flips.lost, other.flips.gained)
        assert one.flips.p == other.flips.p
        assert one.flips.p is not None
        assert 0 <= one.flips.p <= 1
        for a, b in ((one.accuracy, other.accuracy), (one.f1, other.f1)):
            if a.value is None or a.low is None or a.high is None:
                assert (b.value, b.low) == (a.value, a.low)
            else:
                assert (b.value, b.low, b.high) == pytest.approx((-a.value, -a.high, -a.low))


@settings(max_examples=50)
@given(LETTERS)
def test_identical_runs_have_no_difference(rows: list[tuple[str, str, str]]) -> None:
    gold, found, _ = ("".join(letters) for letters in zip(*rows, strict=True))
    pair = compare_two(gold, found, found, resamples=50).between("A", "B")
    assert (pair.records.accuracy.value, pair.records.accuracy.low, pair.records.accuracy.high) == (0, 0, 0)
    assert (pair.records.flips.gained, pair.records.flips.lost, pair.records.flips.p) == (0, 0, 1)


@pytest.mark.parametrize("mode", ["drop", "released"])
@pytest.mark.parametrize("seeds", [("-UHU",), ("-UHU", "HUHU")])
def test_averages_are_over_the_benchmarks_where_all_runs_have_a_score(mode: Mode, seeds: tuple[str, ...]) -> None:
    answered = records("HUHU", 2)
    files = tuple(answers(f"a{n}", answered, found) for n, found in enumerate(seeds))
    runs = [Run("A", files), Run("B", (answers("b", answered, "UUHU"),))]
    comparison = compare(runs, TASKS, mode, resamples=50)
    # one: A has no answer to its harmful record, B calls it unharmful; two: all are right
    assert [row.positive_f1.value for row in comparison.scores["A"].benchmarks] == [None, 100]
    assert [row.positive_f1.value for row in comparison.scores["B"].benchmarks] == [0, 100]
    for name in "AB":
        assert comparison.scores[name].averages[0].positive_f1.value == 100
        assert comparison.scores[name].overall.value == 100
    pair = comparison.between("A", "B")
    assert (pair.averages[0].f1.value, pair.records.f1.value) == (0, 0)
    notes = comparison_notes(comparison, [pair], {"A": len(seeds), "B": 1}, 50)
    assert any("harmful (request) in one, undefined for A" in note for note in notes)


def test_hard_records_are_paired() -> None:
    answered = records("HHHH")
    hard = ({"000": "HHUU", "001": "HU"}, {"000": "HHHU", "001": "HU"})
    runs = [Run(name, (answers(name, answered, "HHHH", h),)) for name, h in zip("AB", hard, strict=True)]
    comparison = compare(runs, TASKS, resamples=2000)
    found = comparison.between("A", "B").hard
    # 50 and 62.5 %: one record gains 25 points, the other none; a resample gives 0, 12.5 or 25.
    assert found is not None
    assert (found.value, found.low, found.high) == (12.5, 0, 25)
    score = comparison.scores["B"].hard
    assert score is not None
    assert (score.accuracy.value, score.records, score.samples) == (62.5, 2, 6)


def test_several_seeds_are_averaged_and_resampled() -> None:
    answered = records("HHHHUUUU")
    seeds = tuple(answers(f"a{n}", answered, found) for n, found in enumerate(("HHHHUUUU", "UUUUHHHH")))
    runs = [Run("A", seeds), Run("B", (answers("b", answered, "HHHHUUUU"),))]
    comparison = compare(runs, TASKS, resamples=4000)
    one = comparison.scores["A"]
    assert (one.accuracy.value, one.overall.value) == (50, 50)
    # Each seed is all right or all wrong, so only the drawn seeds matter; half of the resamples draw one seed twice.
    assert (one.accuracy.low, one.accuracy.high) == (0, 100)
    resampled = comparison.resampled["A"].accuracy[1:]
    assert [float((resampled == value).mean()) for value in (0, 50, 100)] == pytest.approx([0.25, 0.5, 0.25], abs=0.03)
    pair = comparison.between("A", "B")
    assert (pair.records.accuracy.value, pair.records.flips.p) == (50, None)
    assert (pair.records.flips.gained, pair.records.flips.lost) == (0, 0)


def test_fewer_than_two_or_duplicate_runs_are_refused() -> None:
    answered = records("HU")
    one = answers("A", answered, "HU")
    with pytest.raises(InputError, match="needs at least two runs, got 1"):
        compare([Run("A", (one,))], TASKS)
    with pytest.raises(InputError, match="A is given twice"):
        compare([Run("A", (one,)), Run("B", (one,))], TASKS)


def test_f1_of_a_class_without_records_is_undefined() -> None:
    pair = compare_two("UU", "UH", "UU").between("A", "B")
    assert pair.benchmarks[0].f1.value is None
    assert pair.records.f1.value is None
    assert pair.records.accuracy.value == 50
