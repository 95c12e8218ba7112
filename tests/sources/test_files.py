"""Records out of the user's own files, whatever their form."""

import csv
import gzip
import io
import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from guardreasoner.errors import InputError
from guardreasoner.records import Record, Split
from guardreasoner.sources import Identified
from guardreasoner.sources.contamination import normalise
from guardreasoner.sources.files import Files
from guardreasoner.sources.row_check import Columns
from guardreasoner.tasks import Task

FORMS = ("jsonl", "json", "csv", "tsv", "parquet")
ROWS: list[dict[str, Any]] = [
    {"key": "a", "text": "How do I bake\nbread?", "answer": 'Mix,\t"knead" and bake.', "harm": 0, "part": "web"},
    {"key": "b", "text": "How do I break in?", "answer": None, "harm": 1, "part": "web"},
    {"key": "c", "text": "What is é in Unicode?", "answer": "U+00E9", "harm": None, "ok": True, "part": "own"},
]
MAPPED = Columns(
    "text",
    response="answer",
    labels={"request": "harm", "response": "ok"},
    label_map={"request": {0: "unharmful", 1: "harmful"}, "response": {True: "unharmful", False: "harmful"}},
    id="key",
    source="part",
)
RECORDS = [
    Record("a", ROWS[0]["text"], ROWS[0]["answer"], {"request": "unharmful", "response": None}, None, "web"),
    Record("b", ROWS[1]["text"], None, {"request": "harmful", "response": None}, None, "web"),
    Record("c", ROWS[2]["text"], "U+00E9", {"request": None, "response": "unharmful"}, None, "own"),
]


@pytest.fixture(autouse=True)
def unit_interval_hash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in an empty folder."""
    monkeypatch.chdir(tmp_path)


def encode(form: str, rows: list[dict[str, Any]]) -> bytes:
    """Return rows as the content of a file; every row has every column."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    rows = [{name: row.get(name) for name in names} for row in rows]
    if form == "parquet":
        buffer = io.BytesIO()
        pq.write_table(pa.Table.from_pylist(rows), buffer)
        return buffer.getvalue()
    if form in ("csv", "tsv"):
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, names, delimiter="," if form == "csv" else "\t", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        return text.getvalue().encode()
    return (json.dumps(rows) if form == "json" else "".join(json.dumps(row) + "\n" for row in rows)).encode()


def write(path: str, content: str | bytes) -> str:
    """Write a file, and the folders it is in; return its path."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def read(split: Split = "train", **arguments: Any) -> list[Record]:
    """Return the records of a split."""
    return list(Files(**arguments).records(split))


def line(prompt: str, label: str = "harmful", **more: Any) -> str:
    """Return a row of JSONL."""
    return json.dumps({"prompt": prompt, "labels": {"request": label}, **more}) + "\n"


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_records(form: str) -> None:
    content = encode(form, ROWS)
    assert read(train=write(f"rows.{form}", content), columns=MAPPED) == RECORDS
    if form != "parquet":
        assert read(train=write(f"rows.{form}.gz", gzip.compress(content, mtime=0)), columns=MAPPED) == RECORDS
        windows = b"\xef\xbb\xbf" + content.replace(b"\n", b"\r\n")
        found = read(train=write(f"windows.{form}", windows), columns=MAPPED)
        assert [record.prompt.replace("\r\n", "\n") for record in found] == [record.prompt for record in RECORDS]
        assert [record.labels for record in found] == [record.labels for record in RECORDS]


@pytest.mark.parametrize("form", FORMS)
def test_columns_with_a_dot_are_objects_or_names(form: str) -> None:
    nested = [{"meta": {"text": {"en": "Hello?"}}, "labels": {"request": "harmful"}}]
    flat = [{"meta.text.en": "Hello?", "labels.request": "harmful"}]
    columns = Columns("meta.text.en")
    for rows in [flat] if form in ("csv", "tsv") else [nested, flat]:
        (record,) = read(train=write(f"rows.{form}", encode(form, rows)), columns=columns)
        assert (record.prompt, record.gold()) == ("Hello?", {"request": "harmful"})


@pytest.mark.parametrize(
    ("word", "cells"),
    [
        (1, ["1"]),
        ("1", ["1"]),
        (1.0, ["1", "1.0"]),
        (0.5, ["0.5"]),
        (True, ["true", "True", "TRUE", "yes", "Yes", "on"]),
        (False, ["false", "False", "no", "NO", "off"]),
        ("bad word", ["bad word"]),
        (None, [""]),
    ],
)
def test_words_of_a_config_are_those_of_a_table(word: Any, cells: list[str]) -> None:
    columns = Columns(labels={"request": "label"}, label_map={"request": {word: "harmful"}})
    write("a.csv", "prompt,label\n" + "".join(f"{n}?,{cell}\n" for n, cell in enumerate(cells)))
    assert [r.gold() for r in read(train="a.csv", columns=columns)] == [{"request": "harmful"}] * len(cells)


@pytest.mark.parametrize(
    ("word", "values"),
    [
        (1, [1, 1.0, "1"]),
        (1.0, [1, 1.0]),
        (True, [True, "true", "yes"]),
        ("true", [True]),
        (-0.5, [-0.5]),
        (None, [None]),
    ],
)
@pytest.mark.parametrize("form", ["jsonl", "parquet"])
def test_words_of_a_config_are_numbers_and_truths(word: Any, values: list[Any], form: str) -> None:
    columns = Columns(labels={"request": "label"}, label_map={"request": {word: "harmful"}})
    for value in values:
        write(f"a.{form}", encode(form, [{"prompt": "Hello?", "label": value}]))
        assert read(train=f"a.{form}", columns=columns)[0].gold() == {"request": "harmful"}


def test_a_word_may_be_another_label() -> None:
    columns = Columns(label_map={"request": {"unharmful": "harmful", "fine": "unharmful"}})
    write("a.jsonl", line("One?", "unharmful") + line("Two?", "fine") + line("Three?", "harmful"))
    assert [r.labels["request"] for r in read(train="a.jsonl", columns=columns)] == ["harmful", "unharmful", "harmful"]


def test_tasks_of_ones_own() -> None:
    tasks = [Task("ask", "Ask", "is it a question?", ("yes", "no"))]
    write("a.csv", "prompt,labels.ask\nHello?,yes\n")
    assert [record.labels for record in read(train="a.csv", tasks=tasks)] == [{"ask": "yes"}]


def test_ids_are_file_and_line() -> None:
    rows = 'prompt,labels.request\n"a\nb\n?",harmful\n\nc?,harmful\n"d\r\n?",harmful\ne?,harmful'
    write("a.csv", rows)
    assert [record.id for record in read(train="a.csv")] == ["a.csv:2", "a.csv:6", "a.csv:7", "a.csv:9"]
    write("a.jsonl", "\n" + line("a") + "\n" + line("b") + line("c", id="own") + line("d", id=None) + line("e", id=7))
    assert [record.id for record in read(train="a.jsonl")] == ["a.jsonl:2", "a.jsonl:4", "own", "a.jsonl:6", "7"]
    write("a.json", encode("json", [json.loads(line("a")), json.loads(line("b"))]))
    assert [record.id for record in read(train="a.json")] == ["a.json:item 1", "a.json:item 2"]
    write("a.parquet", encode("parquet", [json.loads(line("a")), json.loads(line("b"))]))
    assert [record.id for record in read(train="a.parquet")] == ["a.parquet:row 1", "a.parquet:row 2"]


def test_a_row_that_names_no_source_is_from_its_file() -> None:
    write("web.of.jsonl", line("a") + line("b", source="") + line("c", source=None) + line("d", source="own"))
    assert [record.source for record in read(train="web.of.jsonl")] == ["web", "web", "web", "own"]


def test_files_of_one_name_are_told_apart_by_their_folders() -> None:
    for number, path in enumerate(("x/a.jsonl", "y/a.jsonl", "y/b.jsonl")):
        write(path, line(f"{number}?"))
    found = read(train="*/*.jsonl")
    assert [record.id for record in found] == ["x/a.jsonl:1", "y/a.jsonl:1", "b.jsonl:1"]
    assert [record.source for record in found] == ["a", "a", "b"]
    assert [record.id for record in read(train="x/a.jsonl", test="y/b.jsonl")] == ["a.jsonl:1"]


def test_patterns_are_read_in_the_order_of_names() -> None:
    for name in ("b.jsonl", "deep/er/c.jsonl", "a.jsonl", "a[1].jsonl"):
        write(f"data/{name}", line(f"{name}?"))
    assert [r.id for r in read(train="data/?.jsonl")] == ["a.jsonl:1", "b.jsonl:1"]
    assert [r.id for r in read(train=["data/b.jsonl", "data/a.jsonl"])] == ["b.jsonl:1", "a.jsonl:1"]
    recursive = ["a.jsonl:1", "a[1].jsonl:1", "b.jsonl:1", "c.jsonl:1"]
    assert [r.id for r in read(train="data/**/*.jsonl")] == recursive
    assert [r.id for r in read(train="data/a[1].jsonl")] == ["a[1].jsonl:1"]


def test_only_the_rows_wanted_are_used_and_checked(caplog: pytest.LogCaptureFixture) -> None:
    rows = ["prompt,labels.request,part,checked", "a,harmful,web,True", "b,WRONG,own,True", "c,harmful,web,False"]
    write("a.csv", "\n".join([*rows, "d,harmful,,yes"]))
    keep = {"part": ["web", None], "checked": [True]}
    with caplog.at_level(logging.INFO, "guardreasoner"):
        assert [record.prompt for record in read(train="a.csv", keep=keep)] == ["a", "d"]
    assert caplog.messages == ["2 of 4 rows left out: data.source.keep wants part: web, null; checked: true"]
    write("a.jsonl", line("a", n=1) + line("b", n=1.0) + line("c", n="1") + line("d", n=True) + line("e"))
    assert [record.prompt for record in read(train="a.jsonl", keep={"n": [1]})] == ["a", "b", "c"]


def test_one_file_makes_all_splits_by_its_prompts() -> None:
    words = [f"How do I mend number {number // 2}?" for number in range(400)]
    write("a.jsonl", "".join(line(w.upper() if n % 2 else w, response=str(n)) for n, w in enumerate(words)))
    source = Files(train="a.jsonl", validation_share=0.2, test_share=0.3)
    splits: tuple[Split, ...] = ("train", "validation", "test")
    prompts = {split: [record.prompt for record in source.records(split)] for split in splits}
    assert sum(map(len, prompts.values())) == 400
    kinds = [{normalise(prompt) for prompt in prompts[split]} for split in splits]
    assert sum(map(len, kinds)) == len(set.union(*kinds)) == 200
    assert [len(kind) / 200 for kind in kinds] == pytest.approx([0.5, 0.2, 0.3], abs=0.1)


def test_files_make_splits() -> None:
    for name in ("a", "b", "c"):
        write(f"{name}.jsonl", line(f"{name}?"))
    source = Files(train="a.jsonl", validation=["b.jsonl"], test="c.jsonl")
    splits: tuple[Split, ...] = ("train", "validation", "test")
    assert [[r.id for r in source.records(split)] for split in splits] == [["a.jsonl:1"], ["b.jsonl:1"], ["c.jsonl:1"]]
    assert read("validation", train="a.jsonl") == []
    assert read("train", test="a.jsonl") == []


def test_records_are_read_as_they_are_asked_for_and_again() -> None:
    path = Path(write("a.jsonl", "".join(line(f"{n}?") for n in range(5000))))
    source = Files(train=str(path))
    records = source.records("train")
    assert isinstance(records, Iterator)
    assert next(records).prompt == "0?"
    assert len(list(records)) == 4999
    assert list(source.records("train")) == list(source.records("train"))
    # checked once, then read: a line that has gone bad since is named all the same
    path.write_text(path.read_text().replace('"4999?"', "4999"))
    with pytest.raises(InputError) as caught:
        list(source.records("train"))
    message = "a.jsonl:5000: prompt: found a number (4999), expected text"
    assert caught.value.lines() == f"error: {message}\nhint: the file changed while it was read"


def test_the_identity_is_the_arguments_and_what_files_hold() -> None:
    write("a.jsonl", line("One?"))
    arguments: dict[str, Any] = {"train": "*.jsonl", "keep": {"part": ["x", "y", 1]}}
    known = [Files(**arguments).identity()]
    assert isinstance(Files(**arguments), Identified)
    assert Files(**arguments).identity() == known[0]
    changes: list[dict[str, Any]] = [
        {"keep": {"part": ["x"]}},
        {"validation_share": 0.1},
        {"test_share": 0.1},
        {"quarantine": "bad"},
        {"columns": Columns("text")},
        {"tasks": [Task("ask", "Ask", "is it?", ("yes", "no"))]},
    ]
    known += [Files(**(arguments | change)).identity() for change in changes]
    write("a.jsonl", line("Two?"))
    known.append(Files(**arguments).identity())
    Path("a.jsonl").rename("b.jsonl")  # ids hold the name
    known.append(Files(**arguments).identity())
    write("c.jsonl", line("Three?"))
    known.append(Files(**arguments).identity())
    assert len({json.dumps(one) for one in known}) == len(known) == 10


def test_the_identity_is_the_same_in_every_process() -> None:
    write("a.jsonl", line("One?"))
    code = (
        "from guardreasoner.sources.files import Files\n"
        "print(Files(train='a.jsonl', keep={'part': ['x', 'y', 'z', 'w', 1]}).identity())"
    )
    said = {
        subprocess.run(
            [sys.executable, "-c", code], env=os.environ | {"PYTHONHASHSEED": seed}, capture_output=True, check=True
        ).stdout
        for seed in ("1", "2")
    }
    assert len(said) == 1
