"""VerdictF1 by hand, and equal to ``score`` in strict mode."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guardreasoner.evaluation.scoring import score
from guardreasoner.evaluation.verdict_metrics import VerdictF1
from guardreasoner.prompts import answer_block
from guardreasoner.records import Record, Rollout
from guardreasoner.tasks import GUARD_TASKS, Task

REQUEST = GUARD_TASKS[0]
THREE = Task("kind", "Kind", "what kind is it?", ("a", "b", "c"), "a")


def measured(codes: str, task: Task = REQUEST, metric: VerdictF1 | None = None) -> dict[str, float]:
    """Measure answers written as gold label and verdict, "HU" for harmful judged unharmful; "-" is unparsed."""
    label_by_letter = {label[0].upper(): label for label in task.labels} | {"-": None}
    metric = metric or VerdictF1([task])
    pairs = codes.split()
    metric.update(
        [{task.name: label_by_letter[verdict]} for _, verdict in pairs],
        [{task.name: label_by_letter[gold]} for gold, _ in pairs],
    )
    return {name: value.item() for name, value in metric.compute().items()}


def test_f1_by_hand() -> None:
    # Harmful: 2 hits, 1 miss, 1 false positive: 4 / 6. Unharmful: 1 hit, 1 miss, 1 false positive: 2 / 4.
    assert measured("HH HH HU UH UU") == pytest.approx(
        {
            "accuracy": 3 / 5,
            "unparsed": 0,
            "f1/request/harmful": 2 / 3,
            "f1/request/unharmful": 1 / 2,
            "accuracy/request": 3 / 5,
        }
    )


def test_unparsed_answer_is_one_wrong_answer() -> None:
    # as if the other label had been given; for each label 1 hit, 1 miss, 1 false positive: 2 / 4
    found = measured("HH H- UU U-")
    assert found["f1/request/harmful"] == found["f1/request/unharmful"] == pytest.approx(1 / 2)
    assert found["accuracy"] == found["unparsed"] == pytest.approx(1 / 2)
    # only unparsed answers: nothing is correct, and no value is undefined
    assert measured("H- U-") == pytest.approx(
        {"accuracy": 0, "unparsed": 1, "f1/request/harmful": 0, "f1/request/unharmful": 0, "accuracy/request": 0}
    )


def test_f1_of_a_label_without_records_is_left_out() -> None:
    assert measured("HH HU H-").keys() == {"accuracy", "unparsed", "f1/request/harmful", "accuracy/request"}


def test_ordered_labels_have_the_values_of_both_readings() -> None:
    found = measured("AA BA BC CB CC", Task("kind", "Kind", "what kind is it?", ("a", "b", "c"), ordered=True))
    # Strict, b and c positive: 3 hits, 1 miss: 6 / 7. Loose, c positive: 1 hit, 1 miss, 1 false positive: 2 / 4.
    assert found["f1/kind (strict)/c"] == pytest.approx(6 / 7)
    assert found["f1/kind (loose)/c"] == pytest.approx(1 / 2)
    assert found["accuracy/kind (strict)"] == pytest.approx(4 / 5)
    assert found["accuracy/kind"] == pytest.approx(2 / 5)


def test_record_counts_only_for_tasks_with_a_label() -> None:
    metric = VerdictF1(GUARD_TASKS)
    metric.update(
        [
            {"request": "harmful", "completion": "refusal", "response": None},
            {"request": "harmful", "completion": "refusal", "response": "harmful"},
        ],
        [{"request": "harmful"}, {"request": "unharmful", "completion": "refusal", "response": None}],
    )
    found = {name: value.item() for name, value in metric.compute().items()}
    assert not [name for name in found if "/response" in name]  # no gold label
    assert found["accuracy/request"] == pytest.approx(1 / 2)
    assert found["f1/completion/refusal"] == 1
    assert found["accuracy"] == pytest.approx(1 / 2)  # the first matches its one label, the second one of two
    assert found["unparsed"] == 0  # the missing response verdict has no gold label


def test_batches_add_up_until_reset() -> None:
    metric = VerdictF1([THREE])
    measured("AA AB CC", THREE, metric)
    in_two = measured("BB B- CA", THREE, metric)
    assert in_two == measured("AA AB CC BB B- CA", THREE)
    metric.reset()
    assert measured("AB", THREE, metric) == measured("AB", THREE)


@given(st.lists(st.tuples(st.sampled_from("ABC"), st.sampled_from("ABC-")), min_size=1, max_size=20))
def test_values_equal_those_of_score(pairs: list[tuple[str, str]]) -> None:
    records, answers = [], []
    for number, (gold, verdict) in enumerate(pairs):
        said = answer_block({"kind": verdict.lower()}, [THREE]) if verdict != "-" else "Hm."
        records.append(Record(str(number), "p", labels={"kind": gold.lower()}))
        answers.append(Rollout(str(number), "m", "f", 0, 0, said))
    (row,) = score("m", records, answers, [THREE], resamples=0).benchmarks
    expected = {f"f1/kind/{label}": f1.value / 100 for label, f1 in row.f1.items() if f1.value is not None}
    accuracy = sum(gold == verdict for gold, verdict in pairs) / len(pairs)
    expected |= {"accuracy": accuracy, "accuracy/kind": accuracy, "unparsed": row.unparsed / len(pairs)}
    assert measured(" ".join(gold + verdict for gold, verdict in pairs), THREE) == pytest.approx(expected)


def test_records_without_labels_are_not_counted() -> None:
    metric = VerdictF1(GUARD_TASKS)
    metric.update([{"request": "harmful"}], [{}])
    assert metric.compute() == {}
    metric.update([{"request": "harmful"}], [{"request": "unharmful"}])
    assert metric.compute()["accuracy"] == 0
