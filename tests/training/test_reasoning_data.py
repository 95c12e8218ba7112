"""What R-SFT learns from, and what is mined."""

import logging
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from guardreasoner.errors import InputError
from guardreasoner.model.backbone import Backbone
from guardreasoner.model.batch import Example
from guardreasoner.prompts import answer_block, target
from guardreasoner.records import Record, Rollout, Speed, Split, read_rollouts, write_jsonl
from guardreasoner.tasks import GUARD_TASKS
from guardreasoner.training.reasoning_data import DIRECT_SUFFIX, ReasoningDataModule
from guardreasoner.training.rsft import RSFTModule
from tests.support.tiny import K, TinySource, answer, quiet_trainer, write_rollouts, wrong_outputs

TRAIN = TinySource().records("train")
ANSWERED = [*TRAIN, *TinySource().records("validation")]
MENDABLE = [record.id for place, record in enumerate(ANSWERED) if wrong_outputs(place) < K]


def prepared(base: Path, stage: str = "fit", **arguments: Any) -> ReasoningDataModule:
    """Return a data module that a trainer with a model has set up."""
    data = ReasoningDataModule(**({"source": TinySource()} | arguments))
    data.trainer = quiet_trainer()
    data.trainer.strategy.connect(RSFTModule(Backbone(str(base))))
    data.setup(stage)
    return data


def test_records_bring_their_own_reasoning(tiny_base: Path) -> None:
    prompt_tokenizer = Backbone(str(tiny_base)).prompt_tokenizer
    data = prepared(tiny_base)
    assert [example.id for example in data.train] == [record.id for record in TRAIN]
    for record, example in zip(TRAIN, data.train, strict=True):
        assert list(example.prompt) == prompt_tokenizer.prompt(record)
        assert [list(ids) for ids in example.completions] == [prompt_tokenizer.completion(target(record, GUARD_TASKS))]
    assert [example.id for example in data.validation] == [r.id for r in TinySource().records("validation")]


def test_only_right_traces_are_learned_and_the_rest_is_counted(
    tmp_path: Path, tiny_base: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "guardreasoner"):
        data = prepared(tiny_base, rollouts=[str(write_rollouts(tmp_path / "a", ANSWERED))])
    assert [example.id for example in (*data.train, *data.validation)] == MENDABLE
    prompt_tokenizer = Backbone(str(tiny_base)).prompt_tokenizer
    for place, record in enumerate(ANSWERED):
        for example in (*data.train, *data.validation):
            if example.id == record.id:
                learned = prompt_tokenizer.decode(example.completions[0])
                right = range(wrong_outputs(place), K)
                assert any(learned.startswith(f"{index} So it is a {record.id}.") for index in right), learned
    mendable = len([record for record in MENDABLE if record.startswith("train")])
    assert f"train: {mendable} of 24 records have a correct trace, the others are left out" in caplog.messages
    assert f"R-SFT: {mendable} training and {len(data.validation)} validation records" in caplog.messages


def test_a_trace_that_the_limit_on_tokens_ended_is_not_learned(tmp_path: Path, tiny_base: Path) -> None:
    folder = write_rollouts(tmp_path / "a", ANSWERED)
    rollouts = read_rollouts(folder / "rollouts.jsonl")
    write_jsonl(folder / "rollouts.jsonl", [replace(one, truncated=one.index == K - 1) for one in rollouts])
    data = prepared(tiny_base, rollouts=[str(folder)])
    left = [record.id for place, record in enumerate(ANSWERED) if wrong_outputs(place) < K - 1]
    assert [example.id for example in (*data.train, *data.validation)] == left
    decode = Backbone(str(tiny_base)).prompt_tokenizer.decode
    assert not any(decode(example.completions[0]).startswith(f"{K - 1} ") for example in data.train)


def test_the_trace_of_a_record_stays_when_others_come_and_go(tmp_path: Path, tiny_base: Path) -> None:
    few = prepared(tiny_base, rollouts=[str(write_rollouts(tmp_path / "few", ANSWERED[20:]))])
    more = prepared(tiny_base, rollouts=[str(write_rollouts(tmp_path / "more", ANSWERED[20:]))], source=TinySource(30))
    assert [e.completions for e in few.train] == [e.completions for e in more.train]


def test_traces_of_several_folders_are_pooled(tmp_path: Path, tiny_base: Path) -> None:
    folders = []
    for number, record in enumerate((TRAIN[0], TRAIN[1], ANSWERED[-1])):
        folder = tmp_path / str(number)
        write_jsonl(folder / "records.jsonl", [record])
        write_jsonl(folder / "rollouts.jsonl", [Rollout(record.id, f"m{number}", "f", 0, 0, answer(record, True))])
        folders.append(str(folder))
    data = prepared(tiny_base, rollouts=folders)
    assert [example.id for example in data.train] == [TRAIN[0].id, TRAIN[1].id]


def test_no_right_trace_at_all_is_refused(tmp_path: Path, tiny_base: Path) -> None:
    write_jsonl(tmp_path / "records.jsonl", TRAIN)
    write_jsonl(tmp_path / "rollouts.jsonl", [Rollout(r.id, "m", "f", 0, 0, answer(r, False)) for r in TRAIN])
    with pytest.raises(InputError, match=r"no output of a train record in .* is correct"):
        prepared(tiny_base, rollouts=[str(tmp_path)])


def test_mined_rollouts_that_cover_training_records_alone_leave_validation_empty(
    tmp_path: Path, tiny_base: Path
) -> None:
    data = prepared(tiny_base, rollouts=[str(write_rollouts(tmp_path, TRAIN))])
    assert data.train
    assert list(data.validation) == []


def test_a_later_start_yields_the_epochs_that_remain(tiny_base: Path) -> None:
    whole = prepared(tiny_base, batch_size=8, epochs=3).train_dataloader()
    rest = prepared(tiny_base, batch_size=8, epochs=3, start_epoch=1).train_dataloader()
    assert (len(whole), len(rest)) == (9, 6)
    steps = [[batch.ids for batch in step.batches] for step in whole]
    assert [[batch.ids for batch in step.batches] for step in rest] == steps[3:]
    for epoch in range(3):
        ids = [name for step in steps[3 * epoch : 3 * epoch + 3] for batch in step for name in batch]
        assert sorted(ids) == [record.id for record in TRAIN]


def test_a_step_is_computed_in_micro_batches(tiny_base: Path) -> None:
    loader = prepared(tiny_base, batch_size=12, micro_batch_size=5, epochs=1).train_dataloader()
    assert [[len(batch.ids) for batch in step.batches] for step in loader] == [[5, 5, 2]] * 2


def test_a_micro_batch_keeps_to_a_budget_of_tokens(tiny_base: Path) -> None:
    data = prepared(tiny_base, batch_size=12, micro_batch_tokens=200, epochs=1)
    sizes = {example.id: example.tokens for example in data.train}
    batches = [batch for step in data.train_dataloader() for batch in step.batches]
    assert all(sum(sizes[name] for name in batch.ids) <= 200 for batch in batches)
    assert sorted(name for batch in batches for name in batch.ids) == sorted(sizes)
    assert max(len(batch.ids) for batch in batches) > 1


def test_the_largest_example_above_the_budget_is_named(tiny_base: Path) -> None:
    largest = max(prepared(tiny_base).train, key=lambda example: example.tokens)
    with pytest.raises(InputError, match=r"exceed data\.micro_batch_tokens 20; so do 23 more records") as error:
        prepared(tiny_base, micro_batch_tokens=20)
    assert f"record {largest.id}: its {largest.tokens} tokens" in str(error.value)
    assert "data.max_length" in (error.value.hint or "")


@pytest.mark.parametrize("name", ["micro_batch_size", "micro_batch_tokens"])
def test_a_micro_batch_of_nothing_is_refused(name: str) -> None:
    with pytest.raises(InputError, match=f"data.{name} must be at least 1, got 0"):
        ReasoningDataModule(TinySource(), **{name: 0})


def test_a_completion_of_no_token_is_refused(tiny_base: Path) -> None:
    data = prepared(tiny_base)
    empty = [Example("r7", (1, 2), ((3,), ()))]
    with pytest.raises(InputError, match="record r7: a completion without tokens"):
        list(data.drop_too_long(empty, "pairs"))


def test_mining_gets_the_training_records_alone_in_chunks(tiny_base: Path) -> None:
    data = prepared(tiny_base, "predict", chunk_size=10)
    chunks = list(data.predict_dataloader())
    assert [len(chunk) for chunk in chunks] == [10, 10, 4]
    asked = [record for chunk in chunks for record in chunk]
    assert sorted(record.id for record in asked) == [record.id for record in TRAIN]
    lengths = [len(record.prompt) + len(record.response or "") for record in asked]
    assert lengths == sorted(lengths, reverse=True)
    assert data.train == data.validation == []


def test_mining_can_have_a_sample_of_the_training_records(tiny_base: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", "guardreasoner"):
        some, more = (
            {record.id for record in prepared(tiny_base, "predict", predict_sample=size).records} for size in (5, 9)
        )
    assert (len(some), len(more)) == (5, 9)
    assert some < more < {record.id for record in TRAIN}
    assert "a sample of 5 of 24 records" in caplog.text


def test_what_is_too_long_is_refused_or_left_out_and_counted(tiny_base: Path, caplog: pytest.LogCaptureFixture) -> None:
    lengths = sorted(example.length for example in prepared(tiny_base).train)
    limit = lengths[len(lengths) // 2]
    longer = sum(length > limit for length in lengths)
    worst = max(prepared(tiny_base).train, key=lambda example: example.length)
    sizes = f"prompt of {len(worst.prompt)} and completion of {len(worst.completions[0])} tokens"
    message = f"record {worst.id}: {sizes} exceed data.max_length {limit}; so do {longer - 1} more train records"
    with pytest.raises(InputError, match=re.escape(message)):
        prepared(tiny_base, max_length=limit)
    with caplog.at_level(logging.INFO, "guardreasoner"):
        data = prepared(tiny_base, max_length=limit, skip_too_long=True)
    assert len(data.train) == 24 - longer
    assert f"train records: {longer} of 24 are longer than {limit} tokens, left out" in caplog.messages
    with pytest.raises(InputError, match="all 24 are longer"):
        prepared(tiny_base, max_length=lengths[0] - 1, skip_too_long=True)


class WithoutReasoning(TinySource):
    """Records of which every second one has no reasoning."""

    def records(self, split: Split) -> list[Record]:
        """Return the records of a split."""
        return [r if n % 2 else replace(r, reasoning=None) for n, r in enumerate(super().records(split))]


def direct_target(record: Record) -> str:
    return answer_block(record.labels, GUARD_TASKS)


def test_a_record_without_reasoning_trains_its_verdicts_alone(
    tiny_base: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "guardreasoner"):
        data = prepared(tiny_base, source=WithoutReasoning())
    tokenizer = Backbone(str(tiny_base)).prompt_tokenizer
    records = {record.id: record for record in WithoutReasoning().records("train")}
    for example in data.train:
        record = records[example.id]
        speed: Speed = "reasoned" if record.reasoning else "direct"
        text = target(record, GUARD_TASKS) if record.reasoning else direct_target(record)
        assert list(example.prompt) == tokenizer.prompt(record, speed)
        assert list(example.completions[0]) == tokenizer.completion(text)
    assert data.speeds == ("reasoned", "direct")
    assert "train: 12 records without reasoning train their verdicts alone" in caplog.messages
    assert "train: 12 reasoned and 12 direct targets" in caplog.messages


def test_a_share_of_the_records_trains_both_speeds(tiny_base: Path) -> None:
    plain = prepared(tiny_base)
    half = prepared(tiny_base, direct_share=0.5)
    all_ = prepared(tiny_base, direct_share=1.0)
    ids = [example.id for example in half.train]
    direct = [name for name in ids if name.endswith(DIRECT_SUFFIX)]
    assert 6 <= len(direct) <= 18
    assert [name for name in ids if name not in direct] == [example.id for example in plain.train]
    assert len(all_.train) == 48
    assert set(ids) < {example.id for example in all_.train}
    assert (plain.speeds, half.speeds) == (("reasoned",), ("reasoned", "direct"))


def test_labels_alone(tiny_base: Path) -> None:
    data = prepared(tiny_base, use_reasoning=False)
    tokenizer = Backbone(str(tiny_base)).prompt_tokenizer
    assert [list(e.completions[0]) for e in data.train] == [tokenizer.completion(direct_target(r)) for r in TRAIN]
    assert data.speeds == ("direct",)


def test_records_without_a_trace_keep_their_own_reasoning(tmp_path: Path, tiny_base: Path) -> None:
    write_jsonl(tmp_path / "records.jsonl", TRAIN[:1])
    write_jsonl(tmp_path / "rollouts.jsonl", [Rollout(TRAIN[0].id, "m", "f", 0, 0, answer(TRAIN[0], True))])
    data = prepared(tiny_base, rollouts=[str(tmp_path)], keep_own=True)
    tokenizer = Backbone(str(tiny_base)).prompt_tokenizer
    learned = [tokenizer.decode(example.completions[0]) for example in data.train]
    assert learned == [answer(TRAIN[0], True), *(target(record, GUARD_TASKS) for record in TRAIN[1:])]


def test_cached_targets_keep_their_speeds(tmp_path: Path, tiny_base: Path) -> None:
    class Named(TinySource):
        def identity(self) -> object:
            return "tiny"

    first, second = (prepared(tiny_base, source=Named(), direct_share=1.0, cache=str(tmp_path)) for _ in range(2))
    assert first.speeds == second.speeds == ("reasoned", "direct")
    assert len(list(tmp_path.glob("[0-9a-f]*"))) == 1
