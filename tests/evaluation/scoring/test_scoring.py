"""Scoring one model: F1, modes, averages, hard samples, intervals, invalid input, published scores."""

import json
import subprocess
import sys
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from guardreasoner.errors import InputError
from guardreasoner.evaluation.intervals import Estimate
from guardreasoner.evaluation.scoring import TaskScore, score
from guardreasoner.evaluation.scoring.labels import Mode
from guardreasoner.prompts import answer_block
from guardreasoner.records import Record, Rollout
from guardreasoner.sources.predictions import read_predictions
from guardreasoner.tasks import GUARD_TASKS, Task

REQUEST, COMPLETION = GUARD_TASKS[:2]
THREE = Task("kind", "Kind", "what kind is it?", ("a", "b", "c"), "a")


def task_score(codes: str, task: Task = REQUEST, mode: Mode = "strict") -> TaskScore:
    """Score answers written as gold label and verdict, "HU" for harmful judged unharmful; "-" is unparsed."""
    label_by_letter = {label[0].upper(): label for label in task.labels}
    records, answers = [], []
    for number, code in enumerate(codes.split()):
        records.append(Record(str(number), "", labels={task.name: label_by_letter[code[0]]}, source="b"))
        text = answer_block({task.name: label_by_letter[code[1]]}, [task]) if code[1] != "-" else "…"
        answers.append(Rollout(str(number), "m", "f", 0, 0, text))
    (row,) = score("m", records, answers, [task], mode, resamples=0).benchmarks
    return row


def values(estimates: dict[str, Estimate]) -> dict[str, float | None]:
    return {label: one.value for label, one in estimates.items()}


def test_f1_by_hand() -> None:
    # Harmful: 2 hits, 1 miss, 1 false positive: 4 / 6. Unharmful: 1 hit, 1 miss, 1 false positive: 2 / 4.
    result = task_score("HH HH HU UH UU")
    assert values(result.f1) == pytest.approx({"harmful": 200 / 3, "unharmful": 50.0})
    assert (result.accuracy.value, result.n, result.unparsed) == (pytest.approx(60), 5, 0)
    assert (result.recall.value, result.false_positive_rate.value) == (pytest.approx(200 / 3), 50)
    assert result.positive_f1 == result.f1["harmful"]


def test_strict_counts_an_unparsed_answer_as_one_wrong_answer() -> None:
    assert task_score("HH H- UU U-").f1 == task_score("HH HU UU UH").f1
    assert task_score("HH H- UU U-").accuracy.value == 50
    assert task_score("HH H- UU U-").unparsed == 2


def test_drop_leaves_unparsed_answers_out_and_counts_them() -> None:
    result = task_score("HH HU H- UU U-", mode="drop")
    assert result.f1 == task_score("HH HU UU").f1
    assert result.accuracy.value == pytest.approx(200 / 3)
    assert (result.n, result.unparsed) == (5, 2)
    assert task_score("H- HH", mode="drop").recall.value == 100


def test_with_three_labels_the_others_share_the_cost() -> None:
    result = task_score("AA BB CC A-", THREE)
    # a: 1 hit, 1 miss. b and c: 1 hit and half a false positive.
    assert values(result.f1) == pytest.approx({"a": 200 / 3, "b": 80.0, "c": 80.0})


def test_released_drops_unparsed_harmful_and_doubles_the_rest() -> None:
    # Harmful unparsed: left out. Unharmful unparsed: two false positives for harmful: 2 / (2 + 2).
    result = task_score("HH H- UU U-", mode="released")
    assert result.positive_f1.value == pytest.approx(50)
    assert result.accuracy.value == pytest.approx(50)
    # A refusal is not "harmful", so it counts twice, although it is the positive label of its task: 2 / (2 + 2).
    assert task_score("RR R- CC", COMPLETION, "released").positive_f1.value == pytest.approx(50)


def test_f1_of_a_label_without_records_is_undefined() -> None:
    assert task_score("HH HU").f1["unharmful"].value is None
    assert task_score("HH HU").false_positive_rate.value is None
    assert task_score("HU HU").f1["harmful"].value == 0
    for mode in ("released", "drop"):
        assert values(task_score("H-", mode=mode).f1) == {"harmful": None, "unharmful": None}
        assert task_score("H-", mode=mode).accuracy.value is None


def _answer(record: str, model: str = "m", index: int = 0, **verdicts: str) -> Rollout:
    return Rollout(record, model, "f", index, 0, answer_block(verdicts, GUARD_TASKS))


RECORDS = [
    Record("a", "p", "r", {"request": "harmful", "response": "harmful"}, source="one"),
    Record("b", "p", "r", {"request": "unharmful"}, source="one"),
    Record("c", "p", "r", {"request": "harmful"}, source="two"),
]
ANSWERS = [
    _answer("c", request="harmful"),
    _answer("a", request="harmful", response="unharmful"),
    _answer("b", request="unharmful", response="harmful"),
]


def test_a_record_is_right_when_every_verdict_is() -> None:
    result = score("m", RECORDS, ANSWERS, GUARD_TASKS)
    assert result.accuracy.value == pytest.approx(200 / 3)
    assert (result.records, result.unparsed, result.hard) == (3, 0, None)
    assert [(one.benchmark, one.task, one.n) for one in result.benchmarks] == [
        ("one", "request", 2),
        ("one", "response", 1),
        ("two", "request", 1),
    ]


def test_averages_are_weighted_by_records_and_overall_is_the_mean_over_tasks() -> None:
    answers = [*ANSWERS[1:], Rollout("c", "m", "f", 0, 0, "no idea")]
    result = score("m", RECORDS, answers, GUARD_TASKS)
    request, response = result.averages
    assert request.positive_f1.value == pytest.approx((2 * 100 + 1 * 0) / 3)
    assert request.f1["unharmful"].value == 100  # of benchmark one: the other has no unharmful record
    assert (request.n, request.unparsed, response.positive_f1.value) == (3, 1, 0)
    assert result.overall.value == pytest.approx(((2 * 100 + 1 * 0) / 3 + 0) / 2)
    assert result.unparsed == 1
    # "c" is dropped: benchmark two has no F1, and the average is that of benchmark one
    dropped = score("m", RECORDS, answers, GUARD_TASKS, "drop")
    assert dropped.averages[0].positive_f1.value == 100
    assert (dropped.accuracy.value, dropped.unparsed) == (50, 1)


def test_hard_samples_are_averaged_by_record() -> None:
    hard = [_answer("a", index=i, request="harmful", response=word) for i, word in enumerate(("harmful", "unharmful"))]
    hard += [_answer("b", request="unharmful"), Rollout("b", "m", "f", 1, 0, "no idea")]
    found = {mode: score("m", RECORDS, ANSWERS, GUARD_TASKS, mode, RECORDS[:2], hard).hard for mode in get_args(Mode)}
    assert {mode: one and one.accuracy.value for mode, one in found.items()} == {
        "strict": 50,
        "drop": 75,
        "released": 50,
    }
    assert {(one.records, one.samples, one.unparsed) for one in found.values() if one} == {(2, 4, 1)}
    with pytest.raises(InputError, match="answer for 'a', which is not one of the hard records"):
        score("m", RECORDS, ANSWERS, GUARD_TASKS, hard_answers=hard)


@given(st.lists(st.sampled_from(["HH", "HU", "H-", "UH", "UU", "U-"]), min_size=1, max_size=30), st.integers(0, 3))
def test_intervals_are_within_bounds(words: list[str], seed: int) -> None:
    task = GUARD_TASKS[0]
    names = {"H": "harmful", "U": "unharmful"}
    records = [Record(str(n), "", labels={"request": names[w[0]]}) for n, w in enumerate(words)]
    said = [answer_block({"request": names.get(w[1])}, [task]) for w in words]
    answers = [Rollout(str(n), "m", "f", 0, 0, text) for n, text in enumerate(said)]
    result = score("m", records, answers, [task], resamples=200, seed=seed)
    assert result == score("m", records, answers, [task], resamples=200, seed=seed)
    (row,) = result.benchmarks
    for one in (row.accuracy, row.recall, row.false_positive_rate, *row.f1.values()):
        if one.value is None:
            assert one == Estimate(None)
        elif one.low is not None and one.high is not None:
            assert 0 <= one.low <= one.high <= 100
    if len(set(words)) == 1:
        assert (result.accuracy.low, result.accuracy.high) == (result.accuracy.value, result.accuracy.value)


def test_intervals_match_resampling_whole_records() -> None:
    """Compare with drawing the records themselves: two tasks a record, two benchmarks."""
    rng, names = np.random.default_rng(5), ["harmful", "unharmful"]
    records, answers = [], []
    for number in range(60):
        gold = {name: str(rng.choice(names)) for name in ("request", "response")}
        if number % 3 == 0:
            del gold["response"]
        # both tasks right or both wrong: (record, task) pairs are not independent
        wrong = rng.random() < 0.3
        said = {n: w if not wrong else {"harmful": "unharmful", "unharmful": "harmful"}[w] for n, w in gold.items()}
        records.append(Record(f"r{number}", "p", "r", gold, source="one" if number < 40 else "two"))
        answers.append(_answer(f"r{number}", **said))
    result = score("m", records, answers, GUARD_TASKS, resamples=4000)
    drawn = [rng.integers(0, 40, (8000, 40)), rng.integers(40, 60, (8000, 20))]

    def column(task: str, label: str) -> tuple[np.ndarray, np.ndarray]:
        """Return whether the gold label and the verdict of each record are ``label``; neither without the task."""
        gold = np.array([one.labels.get(task) == label for one in records])
        found = np.array([f"{task}: {label}" in one.completion.lower() for one in answers])
        return gold, found

    def average(task: str) -> np.ndarray:
        (gold, found), (other, _) = column(task, "harmful"), column(task, "unharmful")
        f1 = [200 * (gold & found)[d].sum(1) / (gold[d].sum(1) + found[d].sum(1)) for d in drawn]
        return np.average(f1, axis=0, weights=[(gold | other)[d].sum(1) for d in drawn])

    right = np.all(
        [column(task, word)[0] == column(task, word)[1] for task in ("request", "response") for word in names], axis=0
    )
    everything = np.hstack(drawn)
    expected = (100 * right[everything].mean(1), (average("request") + average("response")) / 2, average("request"))
    found = [result.accuracy, result.overall, result.averages[0].positive_f1]
    for one, values in zip(found, expected, strict=True):
        assert (one.low, one.high) == pytest.approx(np.percentile(values, [2.5, 97.5]), abs=1)


def test_no_intervals_without_resamples() -> None:
    result = score("m", RECORDS, ANSWERS, GUARD_TASKS, resamples=0)
    assert (result.accuracy.low, result.accuracy.high, result.overall.low) == (None, None, None)


@pytest.mark.parametrize(
    ("records", "answers", "message"),
    [
        ([], [], "m: no record to score"),
        (RECORDS, ANSWERS[:2], "m: no answer for record 'b'"),
        (RECORDS, [*ANSWERS, ANSWERS[0]], "m: two answers for record 'c'"),
        (RECORDS[:2], ANSWERS, "m: answer for 'c', which is not one of the 2 records"),
        ([Record("c", "p")], ANSWERS[:1], "m: record c has no gold label"),
        (
            [Record("c", "p", labels={"rating": "bad"})],
            ANSWERS[:1],
            "m: record c has a label for 'rating', which is not",
        ),
        ([Record("c", "p", labels={"request": "bad"})], ANSWERS[:1], "request: gold label 'bad' is not one of"),
    ],
)
def test_answers_must_fit_the_records(records: list[Record], answers: list[Rollout], message: str) -> None:
    with pytest.raises(InputError, match=message):
        score("m", records, answers, GUARD_TASKS)


@pytest.mark.parametrize("model", ["1B", "3B"])
@pytest.mark.parametrize("mode", get_args(Mode))
def test_published_scores(shared_data: Path, model: str, mode: Mode) -> None:
    published = json.loads((shared_data / "published_scores.json").read_text())[model]
    read = read_predictions(shared_data / "predictions" / model)
    result = score(model, read.records, read.rollouts, GUARD_TASKS, mode)
    if mode != "drop":
        assert {one.benchmark: one.positive_f1.value for one in result.benchmarks} == {
            name: pytest.approx(values[mode], abs=0.01) for name, values in published.items()
        }
    if mode != "released":
        assert {one.benchmark: one.unparsed for one in result.benchmarks} == {
            name: values["unparsed"] for name, values in published.items()
        }


def test_scoring_does_not_import_torch() -> None:
    code = "import sys, guardreasoner.evaluation.scoring; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
