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

from guardreasoner.contamination import Held
from guardreasoner.data.training import Subject
from guardreasoner.diagnosis import Diagnosis, Examination
from guardreasoner.diagnosis.findings import CHECKS
from guardreasoner.encoder import Encoder
from guardreasoner.errors import InputError
from guardreasoner.prompts import PromptFormat, answer_block, target
from guardreasoner.records import Record, Split
from guardreasoner.tasks import GUARD_TASKS
from guardreasoner.tokens import Example
from tests.tiny import TinySource, answer

FORMAT = PromptFormat(opening="Judge.")
RAW_NOTE = {"other ids as one text"}
TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
FIRST = TinySource().records("train")[1]  # with a response and three labels

Items = Sequence[tuple[Subject, Split]]


@pytest.fixture
def tokenizer(tiny_base: Path) -> Any:
    return AutoTokenizer.from_pretrained(tiny_base)


@pytest.fixture
def encoder(tokenizer: Any) -> Encoder:
    return Encoder(tokenizer, FORMAT)


def taught(encoder: Encoder, record: Record, *texts: str) -> Subject:
    """Return a record with what it teaches: its own target where none is given."""
    texts = texts or (target(record, GUARD_TASKS),)
    ids = tuple(tuple(encoder.completion(text)) for text in texts)
    return Subject(record, texts, Example(record.id, tuple(encoder.prompt(record)), ids))


def corpus(encoder: Encoder) -> list[tuple[Subject, Split]]:
    """Return records with which nothing is wrong: every label occurs."""
    splits: tuple[Split, ...] = ("train", "validation")
    records = [(record, split) for split in splits for record in TinySource().records(split)]
    refused = {"train/04": {"completion": "refusal"}, "train/05": {"completion": "refusal"}}
    told = [(replace(r, labels=dict(r.labels) | refused.get(r.id, {})), split) for r, split in records]
    return [(taught(encoder, record), split) for record, split in told]


def examined(encoder: Encoder, items: Items, **settings: Any) -> Diagnosis:
    """Return the diagnosis of things to learn."""
    chosen: dict[str, Any] = {"asked_by": "here", "limit": 4096, "skip_too_long": False, "held": Held(())}
    examination = Examination(encoder, **(chosen | settings))
    for subject, split in items:
        examination.add(subject, split)
    return examination.diagnosis()


def found(diagnosis: Diagnosis) -> dict[str, tuple[str, ...]]:
    """Return the ids by check, for all that was found but the note that every raw text gets here."""
    hits = [one for one in diagnosis.findings if one.severity != "ok" and one.name not in RAW_NOTE]
    assert all(one.count for one in hits)
    return {one.name: one.ids for one in hits}


def test_a_clean_corpus_is_fine(encoder: Encoder) -> None:
    diagnosis = examined(encoder, corpus(encoder))
    assert found(diagnosis) == {}
    assert (diagnosis.faults, diagnosis.verdict()) == (0, "nothing would spoil this run")
    assert (diagnosis.train, diagnosis.validation) == (24, 4)
    assert {one.name for one in diagnosis.findings} == set(CHECKS)
    by_part = {row.part: row for row in diagnosis.lengths}
    lengths = sorted(subject.example.length for subject, _ in corpus(encoder))
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
def test_one_record_in_which_something_is_wrong(name: str, encoder: Encoder) -> None:
    record, texts = ONE_RECORD[name]
    items = corpus(encoder)
    items[1] = (taught(encoder, record, *texts), "train")
    diagnosis = examined(encoder, items)
    assert found(diagnosis) == {name: (record.id,)}
    assert diagnosis.faults == (CHECKS[name].severity == "fault")


def test_what_was_found_is_said(encoder: Encoder) -> None:
    items = corpus(encoder)
    items[1] = (taught(encoder, replace(FIRST, prompt="<end> and <begin> <end>")), "train")
    message = next(o.message for o in examined(encoder, items).findings if o.name == "spells a control token")
    assert "<end> (1)" in message
    assert "<begin> (1)" in message


def _inside(encoder: Encoder, ids: tuple[int, ...], token: int) -> tuple[int, ...]:
    return (*ids[:5], token, *ids[5:])


IDS: dict[str, Callable[[Encoder, Example], Example]] = {
    "BOS missing": lambda encoder, e: replace(e, prompt=e.prompt[1:]),
    "BOS twice": lambda encoder, e: replace(e, prompt=(e.prompt[0], *e.prompt)),
    "EOS missing": lambda encoder, e: replace(e, completions=(e.completions[0][:-1],)),
    "EOS inside": lambda encoder, e: replace(e, completions=(_inside(encoder, e.completions[0], encoder.end),)),
    "control token from text": lambda encoder, e: replace(e, prompt=_inside(encoder, e.prompt, encoder.padding)),
    "text lost": lambda encoder, e: replace(e, prompt=(*e.prompt[:5], *e.prompt[6:])),
}


@pytest.mark.parametrize("name", IDS)
def test_ids_that_are_not_those_of_the_text(name: str, encoder: Encoder) -> None:
    items = corpus(encoder)
    subject = items[1][0]
    items[1] = (replace(subject, example=IDS[name](encoder, subject.example)), "train")
    assert found(examined(encoder, items)) == {name: (FIRST.id,)}


def test_a_chat_template_may_begin_twice(tokenizer: Any) -> None:
    tokenizer.chat_template = "{{ bos_token }}" + TEMPLATE
    twice = Encoder(tokenizer, replace(FORMAT, chat_template=True))
    assert set(found(examined(twice, corpus(twice)))) == {"BOS twice"}
    tokenizer.chat_template = TEMPLATE
    once = Encoder(tokenizer, replace(FORMAT, chat_template=True))
    diagnosis = examined(once, corpus(once))
    assert found(diagnosis) == {}
    assert diagnosis.asked.startswith("chat template of ")


def test_a_chat_template_that_is_not_used_is_noted(tokenizer: Any) -> None:
    tokenizer.chat_template = TEMPLATE
    encoder = Encoder(tokenizer, FORMAT)
    diagnosis = examined(encoder, corpus(encoder))
    assert set(found(diagnosis)) == {"chat template not used"}
    assert diagnosis.faults == 0
    assert diagnosis.asked.startswith("raw text, no chat template (here)")


def test_a_tokenizer_without_a_beginning_needs_none(tokenizer: Any) -> None:
    tokenizer.bos_token = None
    encoder = Encoder(tokenizer, FORMAT)
    assert found(examined(encoder, corpus(encoder))) == {}


@pytest.mark.parametrize(("unknown", "name"), [(False, "text changed"), (True, "text lost")])
def test_a_tokenizer_that_does_not_keep_the_text(unknown: bool, name: str) -> None:
    characters = {chr(code): code for code in range(128) if not (unknown and chr(code) == "k")}
    plain = Tokenizer(models.BPE(characters | {"\n": 10, "<unk>": 200, "<e>": 201}, [], unk_token="<unk>"))
    plain.normalizer = normalizers.Lowercase()
    plain.decoder = decoders.Fuse()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=plain, eos_token="<e>", unk_token="<unk>")
    encoder = Encoder(tokenizer, FORMAT)
    diagnosis = examined(encoder, corpus(encoder))
    assert set(found(diagnosis)) == {"text changed", name}
    assert diagnosis.faults == unknown


def test_what_is_too_long_is_refused_or_left_out_whole(encoder: Encoder) -> None:
    items = corpus(encoder)
    limit = sorted(subject.example.length for subject, _ in items)[13]
    long = [subject for subject, _ in items if subject.example.length > limit]
    diagnosis = examined(encoder, items, limit=limit)
    finding = diagnosis.findings[0]
    assert (finding.name, finding.severity, finding.count, finding.of) == ("too long", "fault", len(long), 28)
    assert "would refuse to start" in finding.message
    worst = max(long, key=lambda subject: subject.example.length).example
    assert f"{worst.id}: {len(worst.prompt)} + {len(worst.completions[0])}" in finding.message
    diagnosis = examined(encoder, items, limit=limit, skip_too_long=True)
    finding = next(one for one in diagnosis.findings if one.name == "too long")
    assert (finding.severity, finding.count) == ("note", len(long))
    assert diagnosis.train + diagnosis.validation == 28 - len(long)
    assert set(found(examined(encoder, items, limit=3, skip_too_long=True))) == {"too long", "nothing to train on"}


def test_conversations_are_compared_whatever_their_case(encoder: Encoder) -> None:
    again = replace(FIRST, id="again", prompt=FIRST.prompt.upper() + " ")
    other = replace(again, id="other", labels=dict(FIRST.labels) | {"request": "harmful"})
    fewer = replace(again, id="fewer", labels={"request": FIRST.labels["request"]})
    answered = replace(again, id="answered", response="Something else.")
    items = corpus(encoder)
    for record, expected in (
        (again, {"duplicate": ("again",)}),
        (fewer, {"duplicate": ("fewer",)}),
        (other, {"contradicting labels": ("other",)}),
        (answered, {}),
    ):
        assert found(examined(encoder, [*items, (taught(encoder, record), "train")])) == expected
    leaked = [*items, (taught(encoder, answered), "validation")]
    assert found(examined(encoder, leaked)) == {"prompt in both splits": ("answered",)}  # type: ignore[arg-type]


def test_what_a_benchmark_holds(encoder: Encoder) -> None:
    items, which = corpus(encoder), ("train/01 (1.00 b)",)
    held = Held([Record("b", FIRST.prompt.upper())], similarity=1)
    assert found(examined(encoder, items, held=held)) == {"prompt of a benchmark": which}
    allowed = examined(encoder, items, held=held, allowed=True)
    assert (found(allowed), allowed.faults) == ({"prompt of a benchmark": which}, 0)
    left_out = examined(encoder, items, held=held, leave_out_held=True)
    assert (found(left_out), left_out.train) == ({"left out for a benchmark": which}, 23)
    validated = Held([Record("b", TinySource().records("validation")[0].prompt)], similarity=1)
    assert list(found(examined(encoder, items, held=validated))) == ["prompt of a benchmark"]
    long = replace(FIRST, prompt=FIRST.prompt + " I have asked my neighbours, and none of them could tell me." * 2)
    items[1] = (taught(encoder, long), "train")
    near = examined(encoder, items, held=Held([Record("b", long.prompt + " x")]))
    assert (list(found(near)), near.faults) == (["prompt like a benchmark's"], 0)


def test_a_label_that_nobody_has(encoder: Encoder) -> None:
    items = [(subject, split) for subject, split in corpus(encoder) if subject.record.labels["request"] == "harmful"]
    hits = found(examined(encoder, items))
    assert hits == {"rare label": ("request unharmful: 0 of 12", "response unharmful: 0 of 8")}


def test_pairs_are_right_and_wrong(encoder: Encoder) -> None:
    right, wrong = answer(FIRST, True), answer(FIRST, False)
    partly = f"I see.\n\n{answer_block(dict(FIRST.labels) | {'response': 'harmful'}, GUARD_TASKS)}"
    items = [
        (taught(encoder, s.record, answer(s.record, True), answer(s.record, False)), p) for s, p in corpus(encoder)
    ]
    assert found(examined(encoder, items)) == {}
    assert [row.part for row in examined(encoder, items).lengths] == ["prompt", "chosen", "rejected", "total"]
    for texts, name in (
        ((right, right), "rejected is right"),
        ((partly, wrong), "chosen partly wrong"),
        ((wrong, wrong), "target against the label"),
        (("No idea.", wrong), "unparsable target"),
    ):
        changed = [items[0], (taught(encoder, FIRST, *texts), "train"), *items[2:]]
        assert found(examined(encoder, changed)) == {name: (FIRST.id,)}  # type: ignore[arg-type]


def test_several_pairs_of_a_record_are_no_duplicates(encoder: Encoder) -> None:
    pairs = [
        (taught(encoder, s.record, answer(s.record, True), f"{n} {answer(s.record, False)}"), p)
        for s, p in corpus(encoder)
        for n in range(3)
    ]
    diagnosis = examined(encoder, pairs)
    assert found(diagnosis) == {}
    assert diagnosis.train == 3 * 24
    assert sum(sum(row.labels.values()) for row in diagnosis.balance if row.task == "request") == 24


def test_records_from_which_nothing_can_be_learned(encoder: Encoder) -> None:
    examination = Examination(encoder, "here", 4096, False, Held(()))
    for subject, split in corpus(encoder):
        examination.add(subject, split)
    examination.unlearnable(replace(FIRST, id="silent", reasoning=None), InputError("no reasoning"))
    examination.unlearnable(replace(FIRST, id="wrong"), InputError("its reasoning answers otherwise"))
    assert found(examination.diagnosis()) == {"target against the label": ("wrong",), "no reasoning": ("silent",)}


@given(st.text(max_size=80), st.text(max_size=40))
@settings(max_examples=30)
def test_no_text_makes_a_fault(prompt: str, response: str) -> None:
    encoder = _ENCODER[0]
    record = replace(FIRST, id=prompt, prompt=prompt, response=response, source=response)
    clean = [one for one in corpus(encoder) if one[0].record.id != FIRST.id]
    diagnosis = examined(encoder, [*clean, (taught(encoder, record), "train")])
    assert diagnosis.faults == 0, found(diagnosis)
    json.dumps(diagnosis.as_json())


_ENCODER: list[Encoder] = []


@pytest.fixture(autouse=True)
def _any_encoder(encoder: Encoder) -> None:
    _ENCODER[:] = [encoder]
