"""Aligning answers on shared records."""

import pytest

from guardreasoner.errors import InputError
from guardreasoner.evaluation.comparison.alignment import (
    Answers,
    align,
    describe_missing,
    differing_ids,
    missing_records,
)
from guardreasoner.records import Record, Rollout


def record(record_id: str, prompt: str = "p", label: str = "harmful", source: str = "one") -> Record:
    return Record(record_id, prompt, None, {"request": label}, source=source)


def answers(name: str, records: list[Record], hard: list[Record] | None = None) -> Answers:
    def outputs(answered: list[Record]) -> list[Rollout]:
        return [Rollout(one.id, name, "f", 0, 0, "") for one in answered]

    return Answers(name, records, outputs(records), hard or [], outputs(hard or []))


A, B, C = record("a"), record("b"), record("c", source="two")


def test_records_are_brought_into_one_order() -> None:
    aligned = align([answers("x", [A, B, C], [A]), answers("y", [C, A, B], [A])])
    assert [[r.id for r in one.records] for one in aligned.files] == [["a", "b", "c"]] * 2
    assert [one.hard_records for one in aligned.files] == [[A], [A]]
    assert (aligned.left_out, aligned.without_hard) == ({"x": 0, "y": 0}, ())


def test_differing_records_are_refused_with_counts() -> None:
    with pytest.raises(InputError) as caught:
        align([answers("x", [A, B]), answers("y", [B, C])])
    assert str(caught.value) == "the runs did not answer the same records: x lacks 1 (two 1), y lacks 1 (one 1)"
    assert caught.value.hint == "--intersect compares them on the 1 that all have"
    with pytest.raises(InputError) as caught:
        align([answers("x", [A]), answers("y", [C])], intersect=True)
    assert "did not answer the same records" in str(caught.value)
    assert caught.value.hint is None


def test_intersection_counts_left_out_records() -> None:
    aligned = align([answers("x", [A, B], [A, B]), answers("y", [B, C], [B])], intersect=True)
    assert [[answer.record_id for answer in one.rollouts] for one in aligned.files] == [["b"], ["b"]]
    assert [[answer.record_id for answer in one.hard_rollouts] for one in aligned.files] == [["b"], ["b"]]
    assert (aligned.left_out, aligned.hard_left_out) == ({"x": 1, "y": 1}, {"x": 1, "y": 0})


def test_differing_hard_records_are_refused_and_missing_ones_reported() -> None:
    with pytest.raises(InputError, match="did not answer the same hard records: y lacks 1"):
        align([answers("x", [A, B], [A, B]), answers("y", [A, B], [A])])
    aligned = align([answers("x", [A, B], [A, B]), answers("y", [A, B])])
    assert aligned.without_hard == ("y",)
    assert not any(one.hard_rollouts for one in aligned.files)


@pytest.mark.parametrize("intersect", [False, True])
@pytest.mark.parametrize("other", [record("b", "another"), record("b", label="unharmful"), record("b", source="two")])
def test_differing_records_under_one_id_are_refused(other: Record, intersect: bool) -> None:
    with pytest.raises(InputError) as caught:
        align([answers("x", [A, B]), answers("y", [A, other])], intersect)
    assert str(caught.value) == "x and y: 1 records differ under the same id, the first is 'b'"
    assert "reordered" in (caught.value.hint or "")


def test_sampled_records_are_compared_without_conversation() -> None:
    assert differing_ids([A], [record("a", "")]) == []
    assert differing_ids([A], [record("a", "", "unharmful")]) == ["a"]


def test_missing_records_are_described() -> None:
    many = [record(str(n), source=f"s{n // 2}") for n in range(10)]
    absent = missing_records({"x": many, "y": many[:1], "z": many})
    assert list(absent) == ["y"]
    assert describe_missing(absent) == "y lacks 9 (s1 2, s2 2, s3 2, 2 more)"
