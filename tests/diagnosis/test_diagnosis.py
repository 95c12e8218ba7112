"""Each check fires alone on otherwise clean data."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from guardreasoner.diagnosis import Diagnosis, DiagnosisBuilder
from guardreasoner.diagnosis.findings import CHECKS
from guardreasoner.errors import InputError
from guardreasoner.model.batch import Example
from guardreasoner.model.prompt_tokenizer import PromptTokenizer
from guardreasoner.prompts import PromptFormat, answer_block, target
from guardreasoner.records import Message, Record, Split
from guardreasoner.sources.contamination import ContaminationIndex
from guardreasoner.tasks import GUARD_TASKS
from guardreasoner.training.training_data import TrainingItem
from tests.support.tiny import TinySource, answer

FORMAT = PromptFormat(opening="Judge.")
RAW_NOTE = {"joint tokenization differs"}
TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
FIRST = TinySource().records("train")[1]  # with a response and three labels

Items = Sequence[tuple[TrainingItem, Split]]


@pytest.fixture
def tokenizer(tiny_base: Path) -> Any:
    return AutoTokenizer.from_pretrained(tiny_base)


@pytest.fixture
def prompt_tokenizer(tokenizer: Any) -> PromptTokenizer:
    return PromptTokenizer(tokenizer, FORMAT)


def training_item(prompt_tokenizer: PromptTokenizer, record: Record, *texts: str) -> TrainingItem:
    """Return a training item of a record; its target is the record's own unless texts are given."""
    texts = texts or (target(record, GUARD_TASKS),)
    ids = tuple(tuple(prompt_tokenizer.completion(text)) for text in texts)
    return TrainingItem(record, texts, Example(record.id, tuple(prompt_tokenizer.prompt(record)), ids))


def clean_items(prompt_tokenizer: PromptTokenizer) -> list[tuple[TrainingItem, Split]]:
    """Return items without any fault; every label occurs."""
    splits: tuple[Split, ...] = ("train", "validation")
    records = [(record, split) for split in splits for record in TinySource().records(split)]
    refusals = {"train/04": {"completion": "refusal"}, "train/05": {"completion": "refusal"}}
    labelled = [(replace(r, labels=dict(r.labels) | refusals.get(r.id, {})), split) for r, split in records]
    return [(training_item(prompt_tokenizer, record), split) for record, split in labelled]


def diagnose(prompt_tokenizer: PromptTokenizer, items: Items, **settings: Any) -> Diagnosis:
    """Return the diagnosis of training items."""
    defaults: dict[str, Any] = {
        **{"format_source": "here", "limit": 4096, "skip_too_long": False},
        "benchmark_prompts": ContaminationIndex(()),
    }
    builder = DiagnosisBuilder(prompt_tokenizer, **(defaults | settings))
    for item, split in items:
        builder.add(item, split)
    return builder.build()


def hits_of(diagnosis: Diagnosis) -> dict[str, tuple[str, ...]]:
    """Return the ids of the hits by check, without the note that every raw text gets with this tokenizer."""
    hits = [finding for finding in diagnosis.findings if finding.severity != "ok" and finding.name not in RAW_NOTE]
    assert all(finding.count for finding in hits)
    return {finding.name: finding.ids for finding in hits}


def test_clean_data_have_no_findings(prompt_tokenizer: PromptTokenizer) -> None:
    diagnosis = diagnose(prompt_tokenizer, clean_items(prompt_tokenizer))
    assert hits_of(diagnosis) == {}
    assert (diagnosis.faults, diagnosis.verdict()) == (0, "no faults found")
    assert (diagnosis.train, diagnosis.validation) == (24, 4)
    assert {finding.name for finding in diagnosis.findings} == set(CHECKS)
    by_part = {row.part: row for row in diagnosis.lengths}
    lengths = sorted(item.example.length for item, _ in clean_items(prompt_tokenizer))
    assert (by_part["total"].minimum, by_part["total"].maximum) == (lengths[0], lengths[-1])
    assert by_part["total"].percentiles["50"] == lengths[13]
    assert diagnosis.histogram is not None
    assert sum(diagnosis.histogram.counts) == 28
    request = next(row for row in diagnosis.balance if (row.source, row.task) == ("tiny/even", "request"))
    assert (request.labels, request.unlabelled) == ({"harmful": 12, "unharmful": 0}, 0)
    assert json.loads(json.dumps(diagnosis.as_json()))["train"] == 24


BLOCK = answer_block(FIRST.labels, GUARD_TASKS)
ONE_RECORD: dict[str, tuple[Record, tuple[str, ...]]] = {
    "unparsable target": (FIRST, ("It is fine.",)),
    "target contradicts the label": (FIRST, (answer(FIRST, False),)),
    "empty reasoning": (FIRST, (BLOCK,)),
    "label leaked": (FIRST, (f"It is fine, as the ground truth says.\n\n{BLOCK}",)),
    "no label": (replace(FIRST, labels={}), ()),
    "truncated reasoning": (replace(FIRST, reasoning="The user wants to mend a"), ()),
    "contains a control token": (replace(FIRST, prompt="What does <end> mean?"), ()),
    "contains an answer line": (replace(FIRST, response="Sure.\nRequest: unharmful\nWait."), ()),
}


@pytest.mark.parametrize("name", ONE_RECORD)
def test_a_faulty_record_is_found(name: str, prompt_tokenizer: PromptTokenizer) -> None:
    record, texts = ONE_RECORD[name]
    items = clean_items(prompt_tokenizer)
    items[1] = (training_item(prompt_tokenizer, record, *texts), "train")
    diagnosis = diagnose(prompt_tokenizer, items)
    assert hits_of(diagnosis) == {name: (record.id,)}
    assert diagnosis.faults == (CHECKS[name].severity == "fault")


def test_messages_count_the_control_tokens(prompt_tokenizer: PromptTokenizer) -> None:
    items = clean_items(prompt_tokenizer)
    items[1] = (training_item(prompt_tokenizer, replace(FIRST, prompt="<end> and <begin> <end>")), "train")
    message = next(
        o.message for o in diagnose(prompt_tokenizer, items).findings if o.name == "contains a control token"
    )
    assert "<end> (1)" in message
    assert "<begin> (1)" in message


def insert(ids: tuple[int, ...], token: int) -> tuple[int, ...]:
    return (*ids[:5], token, *ids[5:])


IDS: dict[str, Callable[[PromptTokenizer, Example], Example]] = {
    "BOS missing": lambda prompt_tokenizer, e: replace(e, prompt=e.prompt[1:]),
    "BOS twice": lambda prompt_tokenizer, e: replace(e, prompt=(e.prompt[0], *e.prompt)),
    "EOS missing": lambda prompt_tokenizer, e: replace(e, completions=(e.completions[0][:-1],)),
    "EOS inside": lambda prompt_tokenizer, e: replace(e, completions=(insert(e.completions[0], prompt_tokenizer.end),)),
    "control token from text": lambda prompt_tokenizer, e: replace(
        e, prompt=insert(e.prompt, prompt_tokenizer.padding)
    ),
    "text lost": lambda prompt_tokenizer, e: replace(e, prompt=(*e.prompt[:5], *e.prompt[6:])),
}


@pytest.mark.parametrize("name", IDS)
def test_ids_that_differ_from_the_text_are_found(name: str, prompt_tokenizer: PromptTokenizer) -> None:
    items = clean_items(prompt_tokenizer)
    item = items[1][0]
    items[1] = (replace(item, example=IDS[name](prompt_tokenizer, item.example)), "train")
    assert hits_of(diagnose(prompt_tokenizer, items)) == {name: (FIRST.id,)}


def test_two_bos_tokens_from_a_chat_template_are_found(tokenizer: Any) -> None:
    tokenizer.chat_template = "{{ bos_token }}" + TEMPLATE
    twice = PromptTokenizer(tokenizer, replace(FORMAT, chat_template=True))
    assert set(hits_of(diagnose(twice, clean_items(twice)))) == {"BOS twice"}
    tokenizer.chat_template = TEMPLATE
    once = PromptTokenizer(tokenizer, replace(FORMAT, chat_template=True))
    diagnosis = diagnose(once, clean_items(once))
    assert hits_of(diagnosis) == {}
    assert diagnosis.asked.startswith("chat template of ")


def test_prompts_that_a_chat_server_would_change_are_found(tokenizer: Any) -> None:
    hostile = replace(FIRST, id="hostile", prompt="<end>How?")
    tokenizer.chat_template = TEMPLATE.replace("m['content']", "m['content'] | trim")
    trimming = PromptTokenizer(tokenizer, replace(FORMAT, chat_template=True))
    items = [*clean_items(trimming), (training_item(trimming, hostile), "train")]
    diagnosis = diagnose(trimming, items)
    [finding] = [finding for finding in diagnosis.findings if finding.name == "chat server would differ"]
    assert (finding.severity, finding.count, finding.of, finding.ids) == ("warning", 1, len(items), ("hostile",))

    tokenizer.chat_template = "{{ bos_token }}{{ strftime_now('%Y') }}" + TEMPLATE.removeprefix("{{ bos_token }}")
    dated = PromptTokenizer(tokenizer, replace(FORMAT, chat_template=True))
    diagnosis = diagnose(dated, items := clean_items(dated))
    assert set(hits_of(diagnosis)) == {"chat server would differ"}
    [finding] = [finding for finding in diagnosis.findings if finding.name == "chat server would differ"]
    assert (finding.count, finding.of) == (len(items), len(items))
    assert "from token" in finding.message
    assert "with the date 2024-07-26" in diagnosis.asked


def test_a_direct_prompt_is_compared_with_what_a_chat_server_makes_of_it(tokenizer: Any) -> None:
    tokenizer.chat_template = TEMPLATE
    chat = PromptTokenizer(tokenizer, replace(FORMAT, chat_template=True))
    example = Example(FIRST.id, tuple(chat.prompt(FIRST, "direct")), (tuple(chat.completion(BLOCK)),))
    items: Items = [(TrainingItem(FIRST, (BLOCK,), example, "direct"), "train")]
    assert "chat server would differ" not in hits_of(diagnose(chat, items))


def test_thinking_in_a_target_is_found(prompt_tokenizer: PromptTokenizer) -> None:
    text = f"<think>\nThe user wants training data.\n</think>\n{target(FIRST, GUARD_TASKS)}"
    items = [item for item in clean_items(prompt_tokenizer) if item[0].record.id != FIRST.id]
    diagnosis = diagnose(prompt_tokenizer, [*items, (training_item(prompt_tokenizer, FIRST, text), "train")])
    assert hits_of(diagnosis) == {"thinking or preamble": (FIRST.id,)}


def test_an_unused_chat_template_is_noted(tokenizer: Any) -> None:
    tokenizer.chat_template = TEMPLATE
    prompt_tokenizer = PromptTokenizer(tokenizer, FORMAT)
    diagnosis = diagnose(prompt_tokenizer, clean_items(prompt_tokenizer))
    assert set(hits_of(diagnosis)) == {"chat template not used"}
    assert diagnosis.faults == 0
    assert diagnosis.asked.startswith("raw text, no chat template (here)")


def test_a_tokenizer_without_bos_token_needs_none(tokenizer: Any) -> None:
    tokenizer.bos_token = None
    prompt_tokenizer = PromptTokenizer(tokenizer, FORMAT)
    assert hits_of(diagnose(prompt_tokenizer, clean_items(prompt_tokenizer))) == {}


@pytest.mark.parametrize(("unknown", "name"), [(False, "text changed"), (True, "text lost")])
def test_a_lossy_tokenizer_is_found(unknown: bool, name: str) -> None:
    characters = {chr(code): code for code in range(128) if not (unknown and chr(code) == "k")}
    plain = Tokenizer(models.BPE(characters | {"\n": 10, "<unk>": 200, "<e>": 201}, [], unk_token="<unk>"))
    plain.normalizer = normalizers.Lowercase()
    plain.decoder = decoders.Fuse()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=plain, eos_token="<e>", unk_token="<unk>")
    prompt_tokenizer = PromptTokenizer(tokenizer, FORMAT)
    diagnosis = diagnose(prompt_tokenizer, clean_items(prompt_tokenizer))
    assert set(hits_of(diagnosis)) == {"text changed", name}
    assert diagnosis.faults == unknown


def test_long_examples_are_refused_or_dropped(prompt_tokenizer: PromptTokenizer) -> None:
    items = clean_items(prompt_tokenizer)
    limit = sorted(item.example.length for item, _ in items)[13]
    long = [item for item, _ in items if item.example.length > limit]
    diagnosis = diagnose(prompt_tokenizer, items, limit=limit)
    finding = diagnosis.findings[0]
    assert (finding.name, finding.severity, finding.count, finding.of) == ("too long", "fault", len(long), 28)
    assert "data.max_length" in finding.message
    worst = max(long, key=lambda item: item.example.length).example
    assert f"{worst.id}: {len(worst.prompt)} + {len(worst.completions[0])}" in finding.message
    diagnosis = diagnose(prompt_tokenizer, items, limit=limit, skip_too_long=True)
    finding = next(finding for finding in diagnosis.findings if finding.name == "too long")
    assert (finding.severity, finding.count) == ("note", len(long))
    assert diagnosis.train + diagnosis.validation == 28 - len(long)
    assert set(hits_of(diagnose(prompt_tokenizer, items, limit=3, skip_too_long=True))) == {
        "too long",
        "nothing to train on",
    }


def test_conversations_are_compared_ignoring_case(prompt_tokenizer: PromptTokenizer) -> None:
    again = replace(FIRST, id="again", prompt=FIRST.prompt.upper() + " ")
    other = replace(again, id="other", labels=dict(FIRST.labels) | {"request": "harmful"})
    fewer = replace(again, id="fewer", labels={"request": FIRST.labels["request"]})
    answered = replace(again, id="answered", response="Something else.")
    judged = replace(other, id="judged", policy="Be good.")
    longer = replace(other, id="longer", messages=[Message("system", "Be good."), *other.messages])
    items = clean_items(prompt_tokenizer)
    for record, expected in (
        (again, {"duplicate": ("again",)}),
        (fewer, {"duplicate": ("fewer",)}),
        (other, {"contradicting labels": ("other",)}),
        (answered, {}),
        (judged, {}),
        (longer, {}),
    ):
        assert (
            hits_of(diagnose(prompt_tokenizer, [*items, (training_item(prompt_tokenizer, record), "train")]))
            == expected
        )
    leaked = [*items, (training_item(prompt_tokenizer, answered), "validation")]
    assert hits_of(diagnose(prompt_tokenizer, leaked)) == {"prompt in both splits": ("answered",)}  # type: ignore[arg-type]
    items = [*clean_items(prompt_tokenizer), (training_item(prompt_tokenizer, longer), "train")]
    shouted = replace(longer, id="shouted", messages=[Message(m.role, m.content.upper()) for m in longer.messages])
    assert hits_of(diagnose(prompt_tokenizer, [*items, (training_item(prompt_tokenizer, shouted), "train")])) == {
        "duplicate": ("shouted",)
    }


def test_benchmark_prompts_are_found(prompt_tokenizer: PromptTokenizer) -> None:
    items, ids = clean_items(prompt_tokenizer), ("train/01 (1.00 b)",)
    index = ContaminationIndex([Record("b", FIRST.prompt.upper())], similarity=1)
    assert hits_of(diagnose(prompt_tokenizer, items, benchmark_prompts=index)) == {"prompt in a benchmark": ids}
    allowed = diagnose(prompt_tokenizer, items, benchmark_prompts=index, allow_contamination=True)
    assert (hits_of(allowed), allowed.faults) == ({"prompt in a benchmark": ids}, 0)
    dropped = diagnose(prompt_tokenizer, items, benchmark_prompts=index, skip_contaminated=True)
    assert (hits_of(dropped), dropped.train) == ({"dropped for contamination": ids}, 23)
    validation_index = ContaminationIndex([Record("b", TinySource().records("validation")[0].prompt)], similarity=1)
    assert list(hits_of(diagnose(prompt_tokenizer, items, benchmark_prompts=validation_index))) == [
        "prompt in a benchmark"
    ]
    long = replace(FIRST, prompt=FIRST.prompt + " I have asked my neighbours, and none of them could tell me." * 2)
    items[1] = (training_item(prompt_tokenizer, long), "train")
    near = diagnose(prompt_tokenizer, items, benchmark_prompts=ContaminationIndex([Record("b", long.prompt + " x")]))
    assert (list(hits_of(near)), near.faults) == (["prompt similar to a benchmark"], 0)


def test_missing_labels_are_found(prompt_tokenizer: PromptTokenizer) -> None:
    items = [
        (item, split) for item, split in clean_items(prompt_tokenizer) if item.record.labels["request"] == "harmful"
    ]
    hits = hits_of(diagnose(prompt_tokenizer, items))
    assert hits == {"rare label": ("request unharmful: 0 of 12", "response unharmful: 0 of 8")}


def test_faulty_pairs_are_found(prompt_tokenizer: PromptTokenizer) -> None:
    right, wrong = answer(FIRST, True), answer(FIRST, False)
    partly = f"I see.\n\n{answer_block(dict(FIRST.labels) | {'response': 'harmful'}, GUARD_TASKS)}"
    items = [
        (training_item(prompt_tokenizer, s.record, answer(s.record, True), answer(s.record, False)), p)
        for s, p in clean_items(prompt_tokenizer)
    ]
    assert hits_of(diagnose(prompt_tokenizer, items)) == {}
    assert [row.part for row in diagnose(prompt_tokenizer, items).lengths] == ["prompt", "chosen", "rejected", "total"]
    for texts, name in (
        ((right, right), "rejected is right"),
        ((partly, wrong), "chosen partly wrong"),
        ((wrong, wrong), "target contradicts the label"),
        (("No idea.", wrong), "unparsable target"),
    ):
        changed = [items[0], (training_item(prompt_tokenizer, FIRST, *texts), "train"), *items[2:]]
        assert hits_of(diagnose(prompt_tokenizer, changed)) == {name: (FIRST.id,)}  # type: ignore[arg-type]


def test_a_truncated_output_needs_no_end_token(prompt_tokenizer: PromptTokenizer) -> None:
    items = clean_items(prompt_tokenizer)
    record = items[0][0].record
    item = training_item(prompt_tokenizer, record, answer(record, True), "I judge by")
    chosen, rejected = item.example.completions
    cut = replace(item, example=replace(item.example, completions=(chosen, rejected[:-1])), truncated=(False, True))
    for changed, expected in ((cut, {}), (replace(cut, truncated=()), {"EOS missing": (record.id,)})):
        assert hits_of(diagnose(prompt_tokenizer, [(changed, "train"), *items[1:]])) == expected


def test_several_pairs_of_a_record_are_not_duplicates(prompt_tokenizer: PromptTokenizer) -> None:
    pairs = [
        (training_item(prompt_tokenizer, s.record, answer(s.record, True), f"{n} {answer(s.record, False)}"), p)
        for s, p in clean_items(prompt_tokenizer)
        for n in range(3)
    ]
    diagnosis = diagnose(prompt_tokenizer, pairs)
    assert hits_of(diagnosis) == {}
    assert diagnosis.train == 3 * 24
    assert sum(sum(row.labels.values()) for row in diagnosis.balance if row.task == "request") == 24


def test_records_without_a_target_are_found(prompt_tokenizer: PromptTokenizer) -> None:
    builder = DiagnosisBuilder(prompt_tokenizer, "here", 4096, False, ContaminationIndex(()))
    for item, split in clean_items(prompt_tokenizer):
        builder.add(item, split)
    silent = replace(FIRST, id="silent", reasoning=None, messages=(Message("user", "How do I mend a chair?"),))
    block = answer_block(silent.labels, GUARD_TASKS)
    ids = prompt_tokenizer.prompt(silent, "direct"), prompt_tokenizer.completion(block)
    example = Example("silent", tuple(ids[0]), (tuple(ids[1]),))
    builder.add(TrainingItem(silent, (block,), example, "direct"), "train")
    builder.add_unusable(replace(FIRST, id="wrong"), InputError("its reasoning answers otherwise"))
    diagnosis = builder.build()
    assert hits_of(diagnosis) == {"target contradicts the label": ("wrong",), "no reasoning": ("silent",)}
    assert diagnosis.faults == 1


@given(st.text(max_size=80), st.text(max_size=40))
@settings(max_examples=30)
def test_no_prompt_or_response_text_is_a_fault(prompt: str, response: str) -> None:
    prompt_tokenizer = _PROMPT_TOKENIZERS[0]
    record = replace(FIRST, id=prompt, prompt=prompt, response=response, source=response)
    clean = [item for item in clean_items(prompt_tokenizer) if item[0].record.id != FIRST.id]
    diagnosis = diagnose(prompt_tokenizer, [*clean, (training_item(prompt_tokenizer, record), "train")])
    assert diagnosis.faults == 0, hits_of(diagnosis)
    json.dumps(diagnosis.as_json())


_PROMPT_TOKENIZERS: list[PromptTokenizer] = []
"""Passes the fixture to the hypothesis test, which cannot take function-scoped fixtures."""


@pytest.fixture(autouse=True)
def _set_prompt_tokenizer(prompt_tokenizer: PromptTokenizer) -> None:
    _PROMPT_TOKENIZERS[:] = [prompt_tokenizer]
