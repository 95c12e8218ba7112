"""Label noise changes training labels and the reasoning that ends with them, and nothing else."""

import logging
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guardreasoner.errors import InputError
from guardreasoner.prompts import answer_block, parse, target
from guardreasoner.records import Record, Split
from guardreasoner.sources import Identified
from guardreasoner.sources.embedded import Embedded
from guardreasoner.sources.label_noise import LabelNoise
from guardreasoner.tasks import GUARD_TASKS
from tests.support.tiny import TinySource

CORPUS = Embedded(train=600, validation=30, test=30)


class OneRecord:
    """A source with one training record.

    Args:
        reasoning: its reasoning.
    """

    def __init__(self, reasoning: str | None) -> None:
        self.record = Record("a", "p", "r", {"request": "harmful", "response": "unharmful"}, reasoning)

    def records(self, split: Split) -> list[Record]:
        return [self.record]


def always(reasoning: str | None) -> Record:
    """Return the record with both labels changed."""
    (record,) = LabelNoise(OneRecord(reasoning), share=1 - 1e-9).records("train")
    assert dict(record.labels) == {"request": "unharmful", "response": "harmful"}
    return record


def test_a_tenth_of_the_training_labels_changes_and_is_counted(caplog: pytest.LogCaptureFixture) -> None:
    source = LabelNoise(CORPUS)
    with caplog.at_level(logging.INFO, "guardreasoner"):
        noisy = list(source.records("train"))
    changed: Counter[str] = Counter()
    for clean, record in zip(CORPUS.records("train"), noisy, strict=True):
        assert record.gold().keys() == clean.gold().keys()
        names = [name for name, label in clean.gold().items() if record.labels[name] != label]
        changed.update(names)
        assert (record == clean) == (not names)
        assert replace(record, labels=clean.labels, reasoning=clean.reasoning) == clean
    labels = sum(len(record.gold()) for record in noisy)
    assert 0.08 * labels < changed.total() < 0.12 * labels
    by_task = ", ".join(f"{task.name} {changed[task.name]}" for task in GUARD_TASKS)
    line = f"label noise: {changed.total()} of {labels:,} training labels changed ({by_task}), on "
    assert [text.startswith(line) and text.endswith(" 0 not named in the reasoning") for text in caplog.messages] == [
        True
    ]
    assert list(source.records("train")) == noisy
    assert len(caplog.messages) == 1  # the second pass changes the same and is silent


def test_the_reasoning_of_the_corpus_ends_with_the_changed_label() -> None:
    last = {task.name: number for number, task in enumerate(GUARD_TASKS, start=1)}
    for clean, record in zip(CORPUS.records("train"), LabelNoise(CORPUS).records("train"), strict=True):
        sections = (record.reasoning or "").split("# Task ")
        for name, label in record.gold().items():
            if label != clean.labels[name]:
                assert sections[last[name]].rstrip().endswith(f": {label}.")
        verdicts = parse(target(record, GUARD_TASKS), GUARD_TASKS)
        assert {name: label for name, label in verdicts.items() if label} == record.gold()


@pytest.mark.parametrize("split", ["validation", "test"])
def test_held_out_records_stay(split: Split) -> None:
    assert list(LabelNoise(CORPUS, share=0.9).records(split)) == CORPUS.records(split)


def test_the_last_mention_in_the_section_of_the_task_changes() -> None:
    text = "Task 1: harmful? Yes: Harmful, not unharmful.\nTask 2: no.\n## Task 3: harmful words, but unharmful."
    changed = "Task 1: harmful? Yes: unharmful, not unharmful.\nTask 2: no.\n## Task 3: harmful words, but harmful."
    assert always(text).reasoning == changed


def test_an_answer_block_in_the_reasoning_changes_too() -> None:
    verdicts = {"request": "harmful", "completion": "compliance", "response": "unharmful"}
    record = always(f"# Task 1: harmful.\n# Task 3: unharmful.\n\n{answer_block(verdicts, GUARD_TASKS)}")
    changed = answer_block({**verdicts, "request": "unharmful", "response": "harmful"}, GUARD_TASKS)
    assert record.reasoning == f"# Task 1: unharmful.\n# Task 3: harmful.\n\n{changed}"
    assert target(record, GUARD_TASKS) == record.reasoning


def test_reasoning_that_names_no_label_stays_and_is_counted(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "guardreasoner"):
        assert always("# Task 1: bad.\nNothing else.").reasoning == "# Task 1: bad.\nNothing else."
        assert always(None).reasoning is None
    assert [text.rpartition("; ")[2] for text in caplog.messages] == [
        "2 not named in the reasoning",
        "0 not named in the reasoning",
    ]


@given(st.text(alphabet="Task 123#:\nharmful un.", max_size=200))
def test_any_reasoning_is_accepted(text: str) -> None:
    record = always(text)
    if text.strip():
        target(record, GUARD_TASKS)


def test_seed_and_share_decide() -> None:
    def labels(**options: float) -> list[object]:
        return [dict(record.labels) for record in LabelNoise(CORPUS, **options).records("train")]  # type: ignore[arg-type]

    assert labels(share=0) == [dict(record.labels) for record in CORPUS.records("train")]
    assert labels(seed=0) != labels(seed=1)


def test_it_is_identified_if_the_inner_source_is() -> None:
    first, second = LabelNoise(CORPUS), LabelNoise(CORPUS, share=0.2)
    assert isinstance(first, Identified)
    assert isinstance(second, Identified)
    assert first.identity() != second.identity()
    assert not isinstance(LabelNoise(TinySource()), Identified)


def test_a_wrong_share_is_refused() -> None:
    with pytest.raises(InputError, match=r"LabelNoise: share must be in \[0, 1\), got 1"):
        LabelNoise(CORPUS, share=1.0)
