"""What is tokenized once is read by the next start, if and only if everything that decides it is the same."""

import importlib
import json
import logging
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from guardreasoner.errors import InputError
from guardreasoner.model.backbone import Backbone
from guardreasoner.model.prompt_tokenizer import PromptTokenizer
from guardreasoner.records import Record, write_jsonl
from guardreasoner.sources.concat import Concat
from guardreasoner.sources.files import Files
from guardreasoner.sources.label_noise import LabelNoise
from guardreasoner.training import training_data as training
from tests.support.starting import LIMIT, Start
from tests.support.tiny import TinySource, write_rollouts

RECORDS = TinySource().records("train")
LONG = Record("long", "How do I wait? " * 99, None, {"request": "unharmful"}, "It is long.", "tiny")


@pytest.fixture
def start(tmp_path: Path, tiny_base: Path, monkeypatch: pytest.MonkeyPatch) -> Start:
    """Work in a folder with data, next to a model that may be changed."""
    monkeypatch.chdir(tmp_path)
    write_jsonl("train.jsonl", [*RECORDS, LONG])
    write_jsonl("validation.jsonl", TinySource().records("validation"))
    write_jsonl("test.jsonl", TinySource().records("test"))
    count = 0
    tokenize = PromptTokenizer._plain

    def counting(self: PromptTokenizer, texts: list[str]) -> list[list[int]]:
        nonlocal count
        count += len(texts)
        return tokenize(self, texts)

    monkeypatch.setattr(PromptTokenizer, "_plain", counting)
    shutil.copytree(tiny_base, "base")
    return Start(Path("base"), lambda: count)


def kept() -> set[str]:
    """Return the folders of ids that are kept."""
    return {name for name in os.listdir("kept") if not name.startswith(".")}


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return what we, not a library, have logged since the last call."""
    lines = [one.getMessage() for one in caplog.records if one.name == "guardreasoner"]
    caplog.clear()
    return lines


ALL = 2 * (len(RECORDS) + 1 + 4)
"""Texts of a whole start: prompt and completion of every record."""


def test_a_second_start_reads_what_the_first_has_made(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "guardreasoner")
    made = []
    for texts in (ALL, 0, 0):
        data = start()
        assert start.texts == texts
        assert [example.id for example in data.train] == [record.id for record in RECORDS]
        made.append((list(data.train), list(data.validation), said(caplog)))
    assert made == [made[0]] * 3
    counts = [
        "train records: 1 of 25 are longer than 200 tokens, left out",
        "R-SFT: 24 training and 4 validation records",
    ]
    assert made[0][2] == counts
    assert len(kept()) == 1


@pytest.mark.parametrize(
    "arguments",
    [
        {"batch_size": 5},
        {"micro_batch_size": 2},
        {"micro_batch_tokens": 4 * LIMIT},
        {"epochs": 1},
        {"start_epoch": 2},
        {"bucket_steps": 4},
        {"chunk_size": 1},
    ],
)
def test_what_decides_no_id_makes_nothing_anew(start: Start, arguments: dict[str, Any]) -> None:
    start()
    start(**arguments)
    assert start.texts == 0
    assert len(kept()) == 1


@pytest.mark.parametrize(
    "arguments",
    [
        {"max_length": LIMIT - 1},
        {"max_length": 2048, "skip_too_long": False},
        {"skip_contaminated": True},
        {"benchmarks": [Files(test="test.jsonl")]},
        {"source": Files(train="train.jsonl")},
        {"source": Files(train="train.jsonl", validation="validation.jsonl", keep={"source": ["tiny/odd"]})},
    ],
)
def test_other_arguments_make_other_ids(start: Start, arguments: dict[str, Any]) -> None:
    start()
    start(**arguments)
    assert start.texts > 0
    assert len(kept()) == 2
    start()
    assert start.texts == 0


def test_a_budget_is_held_against_what_is_tokenized_already(start: Start) -> None:
    start()
    with pytest.raises(InputError, match=r"exceed data\.micro_batch_tokens 20; so do"):
        start(micro_batch_tokens=20)
    assert start.texts == 0


def test_a_refusal_keeps_nothing(start: Start) -> None:
    write_jsonl("test.jsonl", [Record("t", RECORDS[0].prompt.upper(), None, {"request": "harmful"})])
    benchmarks = [Files(test="test.jsonl")]
    for _ in range(2):
        with pytest.raises(
            InputError, match="1 record with a prompt that also occurs in a benchmark of this run: train/00"
        ):
            start(benchmarks=benchmarks)
        with pytest.raises(InputError, match="record long: prompt of"):
            start(skip_too_long=False)
        assert start.texts == 2 * (len(RECORDS) + 1)
        assert kept() == set()


@pytest.mark.parametrize("name", ["train.jsonl", "validation.jsonl"])
def test_other_data_make_other_ids(start: Start, name: str) -> None:
    start()
    content = Path(name).read_text()
    Path(name).write_text(content.replace("How do I", "How do they", 1))
    data = start()
    assert start.texts == ALL
    prompt_tokenizer = Backbone(str(start.base)).prompt_tokenizer
    texts = [prompt_tokenizer.decode(example.prompt) for example in (*data.train, *data.validation)]
    assert len([text for text in texts if "How do they" in text]) == 1
    Path(name).write_text(content)
    start()
    assert start.texts == 0


def test_a_changed_benchmark_is_checked_anew(start: Start) -> None:
    for texts in (ALL, 0):
        start(benchmarks=[Files(test="test.jsonl")])
        assert start.texts == texts
    write_jsonl(
        "test.jsonl",
        [*TinySource().records("test"), Record("t", RECORDS[5].prompt, RECORDS[5].response, RECORDS[5].labels)],
    )
    with pytest.raises(InputError, match="train/05"):
        start(benchmarks=[Files(test="test.jsonl")])


def other_tokenizer(base: Path) -> None:
    """Add a token that is in the texts."""
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.add_tokens(["  "])
    tokenizer.save_pretrained(base)


def other_end(base: Path) -> None:
    """End completions with another token."""
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.eos_token = "<pad>"
    tokenizer.save_pretrained(base)


def other_format(key: str, value: Any) -> Callable[[Path], None]:
    """Return what changes how the model is asked."""

    def change(base: Path) -> None:
        file = base / "guard.json"
        about = json.loads(file.read_text())
        target = about["format"]["tasks"][0] if key == "question" else about["format"]
        target[key] = value
        file.write_text(json.dumps(about))

    return change


@pytest.mark.parametrize(
    "change",
    [
        other_tokenizer,
        other_end,
        other_format("opening", "Judge well."),
        other_format("opening", None),
        other_format("question", "say what it is."),
    ],
)
def test_another_tokenizer_or_format_makes_other_ids(start: Start, change: Callable[[Path], None]) -> None:
    start(max_length=2048)
    change(start.base)
    for texts in (ALL, 0):
        start(max_length=2048)
        assert start.texts == texts


def test_other_code_makes_ids_anew(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    start()
    monkeypatch.setattr(training, "code_fingerprint", lambda: "a newer version")
    for texts in (ALL, 0):
        start()
        assert start.texts == texts


OWN = """
from guardreasoner.prompts import PromptFormat
from guardreasoner.sources.files import Files
from guardreasoner.training.reasoning_data import ReasoningDataModule


class Rows(Files):
    pass


class Data(ReasoningDataModule):
    pass


class Format(PromptFormat):
    pass
"""


@pytest.fixture
def own(start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A module of the user, ``own_code.py`` in the working folder."""
    Path("own_code.py").write_text(OWN)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "own_code", raising=False)
    return importlib.import_module("own_code")


def edit() -> None:
    """Edit the user's module."""
    with Path("own_code.py").open("a") as file:
        file.write("EDITED = True\n")


SPLITS = {"train": "train.jsonl", "validation": "validation.jsonl"}


@pytest.mark.parametrize(
    "use",
    [
        lambda own: {"source": own.Rows(**SPLITS)},
        lambda own: {"source": Concat([own.Rows(**SPLITS)])},
        lambda own: {"source": LabelNoise(Concat([own.Rows(**SPLITS)]), 0.1)},
        lambda own: {"benchmarks": [own.Rows(test="test.jsonl")]},
    ],
    ids=["source", "inner source", "source of an inner source", "benchmark"],
)
def test_an_edited_source_of_the_user_is_read_anew(
    start: Start, own: Any, use: Callable[[Any], dict[str, Any]]
) -> None:
    for fresh in (True, False):
        start(**use(own))
        assert (start.texts > 0) == fresh
    edit()
    for fresh in (True, False):
        start(**use(own))
        assert (start.texts > 0) == fresh


def test_a_source_that_extends_another_shares_nothing_with_it(start: Start, own: Any) -> None:
    start()
    start(source=own.Rows(**SPLITS))
    assert start.texts == ALL
    start()
    assert (start.texts, len(kept())) == (0, 2)


def test_an_edited_data_module_of_the_user_tokenizes_anew(start: Start, own: Any) -> None:
    start.module = own.Data
    for texts in (ALL, 0):
        start()
        assert start.texts == texts
    edit()
    start()
    assert start.texts == ALL


def test_an_edited_format_of_the_user_is_another_one(start: Start, own: Any) -> None:
    tokenizer = Backbone(str(start.base)).prompt_tokenizer.tokenizer
    before = PromptTokenizer(tokenizer, own.Format()).identity()
    assert before == PromptTokenizer(tokenizer, own.Format()).identity()
    edit()
    assert before != PromptTokenizer(tokenizer, own.Format()).identity()


def test_traces_from_rollouts_are_kept_by_rollouts_and_seed(start: Start) -> None:
    write_rollouts(Path("mined"), list(Files(train="train.jsonl").records("train"))[:20])
    arguments: dict[str, Any] = {"rollouts": ["mined"], "max_length": 2048}
    learned = []
    for seed, fresh in ((0, True), (0, False), (1, True), (1, False), (0, False)):
        data = start(seed=seed, **arguments)
        assert (start.texts > 0) == fresh
        learned.append([example.completions for example in data.train])
    assert learned[0] == learned[1] == learned[4] != learned[2] == learned[3]
    lines = Path("mined/rollouts.jsonl").read_text().replace(" So it is", " So is it")
    Path("mined/rollouts.jsonl").write_text(lines)
    start(**arguments)
    assert start.texts > 0
    Path("mined/rollouts.jsonl").unlink()
    with pytest.raises(InputError, match=r"mined: no rollouts.jsonl here"):
        start(**arguments)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("train.arrow", None),
        ("train.arrow", b""),
        ("validation.arrow", b"not examples"),
        ("notes.json", b"["),
        ("notes.json", b"\xff"),
        ("notes.json", None),
    ],
)
def test_damaged_ids_are_made_anew_and_said_so(
    start: Start, name: str, content: bytes | None, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "guardreasoner")
    whole = list(start().train)
    (folder,) = kept()
    file = Path("kept", folder, name)
    file.unlink() if content is None else file.write_bytes(content)
    said(caplog)
    assert list(start().train) == whole
    assert (start.texts, said(caplog)) == (ALL, [f"kept/{folder} is damaged and is made again"])
    start()
    assert (start.texts, said(caplog), kept()) == (0, [], {folder})


def test_without_a_cache_nothing_stays(start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    before = sorted(os.listdir())
    for _ in range(2):
        data = start(cache=None)
        assert start.texts == ALL
        assert len(data.train) == 24
        assert len(os.listdir(scratch)) == 1
        del data
    assert (sorted(os.listdir()), os.listdir(scratch)) == (before, [])


def test_a_source_that_cannot_say_what_it_gives_is_read_each_time(start: Start) -> None:
    for source, benchmarks in ((TinySource(), []), (Files(train="train.jsonl"), [TinySource(0)])):
        for _ in range(2):
            data = start(source=source, benchmarks=benchmarks)
            assert (start.texts > 0, len(data.train)) == (True, 24)
    assert not Path("kept").exists()


def test_what_a_killed_run_left_is_removed(start: Start) -> None:
    start()
    (folder,) = kept()
    leftover = Path("kept", f".{folder}.0123abcd.new")
    leftover.mkdir()
    (leftover / "train.arrow").write_text("half")
    start()
    assert start.texts == 0
    assert not leftover.exists()
    assert kept() == {folder}
