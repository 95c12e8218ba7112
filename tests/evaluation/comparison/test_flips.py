"""Flips between runs and the exact McNemar test."""

from fractions import Fraction
from math import comb

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from guardreasoner.evaluation.comparison.flips import count_flips, list_flips, mcnemar
from guardreasoner.evaluation.scoring.labels import BenchmarkLabels, Mode
from guardreasoner.tasks import GUARD_TASKS

TASKS = GUARD_TASKS[:1]
INDEX_BY_LETTER = {"H": 0, "U": 1, "-": -1}


def labels(gold: str, predicted: str) -> BenchmarkLabels:
    """Return labels of one task, written as letters: gold labels "HHU" and as many verdicts; a dash for none."""
    columns = (np.array([[INDEX_BY_LETTER[letter]] for letter in letters]) for letters in (gold, predicted))
    return BenchmarkLabels("b", tuple(map(str, range(len(gold)))), *columns)


@pytest.mark.parametrize(
    ("gained", "lost", "p"),
    [
        (0, 0, 1),
        (1, 0, 1),  # 2 · ½
        (3, 0, 0.25),  # 2 · 1/8
        (5, 1, 0.21875),  # 2 · (1 + 6) / 64
        (1, 9, 0.021484375),  # 2 · (1 + 10) / 1024
        (6, 6, 1),  # the middle is in both tails
        (10, 2, 0.03857421875),  # 2 · (1 + 12 + 66) / 4096
    ],
)
def test_mcnemar_by_hand(gained: int, lost: int, p: float) -> None:
    assert mcnemar(gained, lost) == p


@given(st.integers(0, 60), st.integers(0, 60))
def test_mcnemar_is_the_symmetric_binomial_tail(gained: int, lost: int) -> None:
    tail = sum(Fraction(comb(gained + lost, k), 2 ** (gained + lost)) for k in range(min(gained, lost) + 1))
    assert mcnemar(gained, lost) == float(min(Fraction(1), 2 * tail)) == mcnemar(lost, gained)
    assert 0 < mcnemar(gained, lost) <= 1


def test_mcnemar_of_thousands_does_not_overflow() -> None:
    assert mcnemar(3000, 3000) == 1
    assert 0 <= mcnemar(6000, 0) < 1e-300
    assert mcnemar(2600, 2400) == pytest.approx(0.0049, abs=1e-4)  # normal: z = 199 / √5000, with the usual correction


def test_gained_and_lost_are_counted_and_listed() -> None:
    one, other = labels("HHUUH-", "HUUH-H"), labels("HHUUH-", "UHUUHU")
    flips = count_flips([(one,)], [(other,)], 0, "strict")
    assert (flips.gained, flips.lost, flips.left_out, flips.p) == (3, 1, 0, 0.625)
    listed = list(list_flips(("A", "B"), [(one,)], [(other,)], TASKS, "strict"))
    assert [(flip.record_id, flip.gold, flip.verdicts["A"], flip.verdicts["B"], flip.gained) for flip in listed] == [
        ("0", "harmful", ("harmful",), ("unharmful",), False),
        ("1", "harmful", ("unharmful",), ("harmful",), True),
        ("3", "unharmful", ("harmful",), ("unharmful",), True),
        ("4", "harmful", (None,), ("harmful",), True),
    ]
    back = count_flips([(other,)], [(one,)], 0, "strict")
    assert (back.gained, back.lost, back.p) == (1, 3, 0.625)


def test_dropped_answers_are_no_flips() -> None:
    one, other = labels("HHUUH-", "HUUH-H"), labels("HHUUH-", "UHUUHU")
    for task in (0, None):
        flips = count_flips([(one,)], [(other,)], task, "drop")
        assert (flips.gained, flips.lost, flips.left_out) == (2, 1, 1)
    assert "4" not in [flip.record_id for flip in list_flips(("A", "B"), [(one,)], [(other,)], TASKS, "drop")]


def test_several_seeds_flip_by_majority_without_p() -> None:
    gold = "HHHH"
    one = tuple(labels(gold, predicted) for predicted in ("HHHU", "HHUU", "HUUU"))
    other = tuple(labels(gold, predicted) for predicted in ("UHHH", "UHUU"))
    # A: right, right, wrong, wrong, each by at least two of three. B: wrong, right, tied, tied.
    flips = count_flips([one], [other], 0, "strict")
    assert (flips.gained, flips.lost, flips.p) == (0, 1, None)
    (flip,) = list_flips(("A", "B"), [one], [other], TASKS, "strict")
    assert flip.verdicts == {"A": ("harmful",) * 3, "B": ("unharmful",) * 2}


@given(
    st.lists(st.tuples(st.sampled_from("HU-"), st.sampled_from("HU-"), st.sampled_from("HU-")), min_size=1),
    st.sampled_from(["strict", "drop"]),
)
def test_listed_flips_match_the_counts(rows: list[tuple[str, str, str]], mode: Mode) -> None:
    gold, first, second = ("".join(letters) for letters in zip(*rows, strict=True))
    one, other = labels(gold, first), labels(gold, second)
    flips = count_flips([(one,)], [(other,)], 0, mode)
    listed = list(list_flips(("A", "B"), [(one,)], [(other,)], TASKS, mode))
    assert (sum(flip.gained for flip in listed), len(listed)) == (flips.gained, flips.gained + flips.lost)
    assert 0 <= flips.left_out <= sum(letter != "-" for letter in gold)
