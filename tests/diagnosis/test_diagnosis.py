"""Each check is made to fire, alone, in a corpus that is clean otherwise."""

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

from guardreasoner.diagnosis import Diagnosis, Examination
from guardreasoner.diagnosis.findings import CHECKS
from guardreasoner.errors import InputError
from guardreasoner.model.batch import Example
from guardreasoner.model.prompt_tokenizer import PromptTokenizer
from guardreasoner.prompts import PromptFormat, answer_block, target
from guardreasoner.records import Record, Split
from guardreasoner.sources.contamination import ContaminationIndex
from guardreasoner.tasks import GUARD_TASKS
from guardreasoner.training.training_data import TrainingItem
from tests.support.tiny import TinySource, answer

FORMAT = PromptFormat(opening="Judge.")
RAW_NOTE = {"other ids as one text"}
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


def taught(prompt_tokenizer: PromptTokenizer, record: Record, *texts: str) -> TrainingItem:
    """Return a record with what it teaches: its own target where none is given."""
    texts = texts or (target(record, GUARD_TASKS),)
    ids = tuple(tuple(prompt_tokenizer.completion(text)) for text in texts)
    return TrainingItem(record, texts, Example(record.id, tuple(prompt_tokenizer.prompt(record)), ids))


def corpus(prompt_tokenizer: PromptTokenizer) -> list[tuple[TrainingItem, Split]]:
    """Return records with which nothing is wrong: every label occurs."""
    splits: tuple[Split, ...] = ("train", "validation")
    records = [(record, split) for split in splits for record in TinySource().records(split)]
    refused = {"train/04": {"completion": "refusal"}, "train/05": {"completion": "refusal"}}
    told = [(replace(r, labels=dict(r.labels) | refused.get(r.id, {})), split) for r, split in records]
    return [(taught(prompt_tokenizer, record), split) for record, split in told]


def examined(prompt_tokenizer: PromptTokenizer, items: Items, **settings: Any) -> Diagnosis:
    """Return the diagnosis of things to learn."""
    chosen: dict[str, Any] = {"asked_by": "here", "limit": 4096, "skip_too_long": False, "held": ContaminationIndex(())}
    examination = Examination(prompt_tokenizer, **(chosen | settings))
    for subject, split in items:
        examination.add(subject, split)
    return examination.diagnosis()


def found(diagnosis: Diagnosis) -> dict[str, tuple[str, ...]]:
    """Return the ids by check, for all that was found but the note that every raw text gets here."""
    hits = [one for one in diagnosis.findings if one.severity != "ok" and one.name not in RAW_NOTE]
    assert all(one.count for one in hits)
    return {one.name: one.ids for one in hits}


def test_a_clean_corpus_is_fine(prompt_tokenizer: PromptTokenizer) -> None:
    diagnosis = examined(prompt_tokenizer, corpus(prompt_tokenizer))
    assert found(diagnosis) == {}
    assert (diagnosis.faults, diagnosis.verdict()) == (0, "nothing would spoil this run")
    assert (diagnosis.train, diagnosis.validation) == (24, 4)
    assert {one.name for one in diagnosis.findings} == set(CHECKS)
    by_part = {row.part: row for row in diagnosis.lengths}
    lengths = sorted(subject.example.length for subject, _ in corpus(prompt_tokenizer))
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
    "target against the label": (FIRST, (answer(FIRST, False),)),
    "no reasoning": (FIRST, (BLOCK,)),
    "answer betrayed": (FIRST, (f"It is fine, as the ground truth says.\n\n{BLOCK}",)),
    "no label": (replace(FIRST, labels={}), ()),
    "cut reasoning": (replace(FIRST, reasoning="The user wants to mend a"), ()),
    "spells a control token": (replace(FIRST, prompt="What does <end> mean?"), ()),
    "holds an answer line": (replace(FIRST, response="Sure.\nRequest: unharmful\nWait."), ()),
}


@pytest.mark.parametrize("name", ONE_RECORD)
def test_one_record_in_which_something_is_wrong(name: str, prompt_tokenizer: PromptTokenizer) -> None:
    record, texts = ONE_RECORD[name]
    items = corpus(prompt_tokenizer)
    items[1] = (taught(prompt_tokenizer, record, *texts), "train")
    diagnosis = examined(prompt_tokenizer, items)
    assert found(diagnosis) == {name: (record.id,)}
    assert diagnosis.faults == (CHECKS[name].severity == "fault")


def test_what_was_found_is_said(prompt_tokenizer: PromptTokenizer) -> None:
    items = corpus(prompt_tokenizer)
    items[1] = (taught(prompt_tokenizer, replace(FIRST, prompt="<end> and <begin> <end>")), "train")
    message = next(o.message for o in examined(prompt_tokenizer, items).findings if o.name == "spells a control token")
    assert "<end> (1)" in message
    assert "<begin> (1)" in message


def _inside(prompt_tokenizer: PromptTokenizer, ids: tuple[int, ...], token: int) -> tuple[int, ...]:
    return (*ids[:5], token, *ids[5:])


IDS: dict[str, Callable[[PromptTokenizer, Example], Example]] = {
    "BOS missing": lambda prompt_tokenizer, e: replace(e, prompt=e.prompt[1:]),
    "BOS twice": lambda prompt_tokenizer, e: replace(e, prompt=(e.prompt[0], *e.prompt)),
    "EOS missing": lambda prompt_tokenizer, e: replace(e, completions=(e.completions[0][:-1],)),
    "EOS inside": lambda prompt_tokenizer, e: replace(
        e, completions=(_inside(prompt_tokenizer, e.completions[0], prompt_tokenizer.end),)
    ),
    "control token from text": lambda prompt_tokenizer, e: replace(
        e, prompt=_inside(prompt_tokenizer, e.prompt, prompt_tokenizer.padding)
    ),
    "text lost": lambda prompt_tokenizer, e: replace(e, prompt=(*e.prompt[:5], *e.prompt[6:])),
}


@pytest.mark.parametrize("name", IDS)
def test_ids_that_are_not_those_of_the_text(name: str, prompt_tokenizer: PromptTokenizer) -> None:
    items = corpus(prompt_tokenizer)
    subject = items[1][0]
    items[1] = (replace(subject, example=IDS[name](prompt_tokenizer, subject.example)), "train")
    assert found(examined(prompt_tokenizer, items)) == {name: (FIRST.id,)}


def test_a_chat_template_may_begin_twice(tokenizer: Any) -> None:
    tokenizer.chat_template = "{{ bos_token }}" + TEMPLATE
    twice = PromptTokenizer(tokenizer, replace(FORMAT, chat_template=True))
    assert set(found(examined(twice, corpus(twice)))) == {"BOS twice"}
    tokenizer.chat_template = TEMPLATE
    once = PromptTokenizer(tokenizer, replace(FORMAT, chat_template=True))
    diagnosis = examined(once, corpus(once))
    assert found(diagnosis) == {}
    assert diagnosis.asked.startswith("chat template of ")


def test_a_chat_template_that_is_not_used_is_noted(tokenizer: Any) -> None:
    tokenizer.chat_template = TEMPLATE
    prompt_tokenizer = PromptTokenizer(tokenizer, FORMAT)
    diagnosis = examined(prompt_tokenizer, corpus(prompt_tokenizer))
    assert set(found(diagnosis)) == {"chat template not used"}
    assert diagnosis.faults == 0
    assert diagnosis.asked.startswith("raw text, no chat template (here)")


def test_a_tokenizer_without_a_beginning_needs_none(tokenizer: Any) -> None:
    tokenizer.bos_token = None
    prompt_tokenizer = PromptTokenizer(tokenizer, FORMAT)
    assert found(examined(prompt_tokenizer, corpus(prompt_tokenizer))) == {}


@pytest.mark.parametrize(("unknown", "name"), [(False, "text changed"), (True, "text lost")])
def test_a_tokenizer_that_does_not_keep_the_text(unknown: bool, name: str) -> None:
    characters = {chr(code): code for code in range(128) if not (unknown and chr(code) == "k")}
    plain = Tokenizer(models.BPE(characters | {"\n": 10, "<unk>": 200, "<e>": 201}, [], unk_token="<unk>"))
    plain.normalizer = normalizers.Lowercase()
    plain.decoder = decoders.Fuse()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=plain, eos_token="<e>", unk_token="<unk>")
    prompt_tokenizer = PromptTokenizer(tokenizer, FORMAT)
    diagnosis = examined(prompt_tokenizer, corpus(prompt_tokenizer))
    assert set(found(diagnosis)) == {"text changed", name}
    assert diagnosis.faults == unknown


def test_what_is_too_long_is_refused_or_left_out_whole(prompt_tokenizer: PromptTokenizer) -> None:
    items = corpus(prompt_tokenizer)
    limit = sorted(subject.example.length for subject, _ in items)[13]
    long = [subject for subject, _ in items if subject.example.length > limit]
    diagnosis = examined(prompt_tokenizer, items, limit=limit)
    finding = diagnosis.findings[0]
    assert (finding.name, finding.severity, finding.count, finding.of) == ("too long", "fault", len(long), 28)
    assert "would refuse to start" in finding.message
    worst = max(long, key=lambda subject: subject.example.length).example
    assert f"{worst.id}: {len(worst.prompt)} + {len(worst.completions[0])}" in finding.message
    diagnosis = examined(prompt_tokenizer, items, limit=limit, skip_too_long=True)
    finding = next(one for one in diagnosis.findings if one.name == "too long")
    assert (finding.severity, finding.count) == ("note", len(long))
    assert diagnosis.train + diagnosis.validation == 28 - len(long)
    assert set(found(examined(prompt_tokenizer, items, limit=3, skip_too_long=True))) == {
        "too long",
        "nothing to train on",
    }


def test_conversations_are_compared_whatever_their_case(prompt_tokenizer: PromptTokenizer) -> None:
    again = replace(FIRST, id="again", prompt=FIRST.prompt.upper() + " ")
    other = replace(again, id="other", labels=dict(FIRST.labels) | {"request": "harmful"})
    fewer = replace(again, id="fewer", labels={"request": FIRST.labels["request"]})
    answered = replace(again, id="answered", response="Something else.")
    items = corpus(prompt_tokenizer)
    for record, expected in (
        (again, {"duplicate": ("again",)}),
        (fewer, {"duplicate": ("fewer",)}),
        (other, {"contradicting labels": ("other",)}),
        (answered, {}),
    ):
        assert found(examined(prompt_tokenizer, [*items, (taught(prompt_tokenizer, record), "train")])) == expected
    leaked = [*items, (taught(prompt_tokenizer, answered), "validation")]
    assert found(examined(prompt_tokenizer, leaked)) == {"prompt in both splits": ("answered",)}  # type: ignore[arg-type]


def test_what_a_benchmark_holds(prompt_tokenizer: PromptTokenizer) -> None:
    items, which = corpus(prompt_tokenizer), ("train/01 (1.00 b)",)
    held = ContaminationIndex([Record("b", FIRST.prompt.upper())], similarity=1)
    assert found(examined(prompt_tokenizer, items, held=held)) == {"prompt of a benchmark": which}
    allowed = examined(prompt_tokenizer, items, held=held, allowed=True)
    assert (found(allowed), allowed.faults) == ({"prompt of a benchmark": which}, 0)
    left_out = examined(prompt_tokenizer, items, held=held, skip_contaminated=True)
    assert (found(left_out), left_out.train) == ({"left out for a benchmark": which}, 23)
    validated = ContaminationIndex([Record("b", TinySource().records("validation")[0].prompt)], similarity=1)
    assert list(found(examined(prompt_tokenizer, items, held=validated))) == ["prompt of a benchmark"]
    long = replace(FIRST, prompt=FIRST.prompt + " I have asked my neighbours, and none of them could tell me." * 2)
    items[1] = (taught(prompt_tokenizer, long), "train")
    near = examined(prompt_tokenizer, items, held=ContaminationIndex([Record("b", long.prompt + " x")]))
    assert (list(found(near)), near.faults) == (["prompt like a benchmark's"], 0)


def test_a_label_that_nobody_has(prompt_tokenizer: PromptTokenizer) -> None:
    items = [
        (subject, split) for subject, split in corpus(prompt_tokenizer) if subject.record.labels["request"] == "harmful"
    ]
    hits = found(examined(prompt_tokenizer, items))
    assert hits == {"rare label": ("request unharmful: 0 of 12", "response unharmful: 0 of 8")}


def test_pairs_are_right_and_wrong(prompt_tokenizer: PromptTokenizer) -> None:
    right, wrong = answer(FIRST, True), answer(FIRST, False)
    partly = f"I see.\n\n{answer_block(dict(FIRST.labels) | {'response': 'harmful'}, GUARD_TASKS)}"
    items = [
        (taught(prompt_tokenizer, s.record, answer(s.record, True), answer(s.record, False)), p)
        for s, p in corpus(prompt_tokenizer)
    ]
    assert found(examined(prompt_tokenizer, items)) == {}
    assert [row.part for row in examined(prompt_tokenizer, items).lengths] == ["prompt", "chosen", "rejected", "total"]
    for texts, name in (
        ((right, right), "rejected is right"),
        ((partly, wrong), "chosen partly wrong"),
        ((wrong, wrong), "target against the label"),
        (("No idea.", wrong), "unparsable target"),
    ):
        changed = [items[0], (taught(prompt_tokenizer, FIRST, *texts), "train"), *items[2:]]
        assert found(examined(prompt_tokenizer, changed)) == {name: (FIRST.id,)}  # type: ignore[arg-type]


def test_several_pairs_of_a_record_are_no_duplicates(prompt_tokenizer: PromptTokenizer) -> None:
    pairs = [
        (taught(prompt_tokenizer, s.record, answer(s.record, True), f"{n} {answer(s.record, False)}"), p)
        for s, p in corpus(prompt_tokenizer)
        for n in range(3)
    ]
    diagnosis = examined(prompt_tokenizer, pairs)
    assert found(diagnosis) == {}
    assert diagnosis.train == 3 * 24
    assert sum(sum(row.labels.values()) for row in diagnosis.balance if row.task == "request") == 24


def test_records_from_which_nothing_can_be_learned(prompt_tokenizer: PromptTokenizer) -> None:
    examination = Examination(prompt_tokenizer, "here", 4096, False, ContaminationIndex(()))
    for subject, split in corpus(prompt_tokenizer):
        examination.add(subject, split)
    examination.unlearnable(replace(FIRST, id="silent", reasoning=None), InputError("no reasoning"))
    examination.unlearnable(replace(FIRST, id="wrong"), InputError("its reasoning answers otherwise"))
    assert found(examination.diagnosis()) == {"target against the label": ("wrong",), "no reasoning": ("silent",)}


@given(st.text(max_size=80), st.text(max_size=40))
@settings(max_examples=30)
def test_no_text_makes_a_fault(prompt: str, response: str) -> None:
    prompt_tokenizer = _ENCODER[0]
    record = replace(FIRST, id=prompt, prompt=prompt, response=response, source=response)
    clean = [one for one in corpus(prompt_tokenizer) if one[0].record.id != FIRST.id]
    diagnosis = examined(prompt_tokenizer, [*clean, (taught(prompt_tokenizer, record), "train")])
    assert diagnosis.faults == 0, found(diagnosis)
    json.dumps(diagnosis.as_json())


_ENCODER: list[PromptTokenizer] = []


@pytest.fixture(autouse=True)
def _any_encoder(prompt_tokenizer: PromptTokenizer) -> None:
    _ENCODER[:] = [prompt_tokenizer]
