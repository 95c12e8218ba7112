"""Reading records from user files of every format."""

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
from guardreasoner.sources.contamination import normalize
from guardreasoner.sources.files import Files
from guardreasoner.sources.row_parser import Columns
from guardreasoner.tasks import Task

FORMATS = ("jsonl", "json", "csv", "tsv", "parquet")
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
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in an empty folder."""
    monkeypatch.chdir(tmp_path)


def encode(file_format: str, rows: list[dict[str, Any]]) -> bytes:
    """Encode rows as the content of a file; every row has every column."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    rows = [{name: row.get(name) for name in names} for row in rows]
    if file_format == "parquet":
        buffer = io.BytesIO()
        pq.write_table(pa.Table.from_pylist(rows), buffer)
        return buffer.getvalue()
    if file_format in ("csv", "tsv"):
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, names, delimiter="," if file_format == "csv" else "\t", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        return text.getvalue().encode()
    return (json.dumps(rows) if file_format == "json" else "".join(json.dumps(row) + "\n" for row in rows)).encode()


def write(path: str, content: str | bytes) -> str:
    """Write a file and its parent folders; return its path."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def read(split: Split = "train", **arguments: Any) -> list[Record]:
    """Return the records of a split."""
    return list(Files(**arguments).records(split))


def line(prompt: str, label: str = "harmful", **more: Any) -> str:
    """Return a row of JSONL."""
    return json.dumps({"prompt": prompt, "labels": {"request": label}, **more}) + "\n"


@pytest.mark.parametrize("file_format", FORMATS)
def test_every_format_gives_the_same_records(file_format: str) -> None:
    content = encode(file_format, ROWS)
    assert read(train=write(f"rows.{file_format}", content), columns=MAPPED) == RECORDS
    if file_format != "parquet":
        assert read(train=write(f"rows.{file_format}.gz", gzip.compress(content, mtime=0)), columns=MAPPED) == RECORDS
        windows = b"\xef\xbb\xbf" + content.replace(b"\n", b"\r\n")
        found = read(train=write(f"windows.{file_format}", windows), columns=MAPPED)
        assert [record.prompt.replace("\r\n", "\n") for record in found] == [record.prompt for record in RECORDS]
        assert [record.labels for record in found] == [record.labels for record in RECORDS]


@pytest.mark.parametrize("file_format", FORMATS)
def test_a_dot_in_a_column_selects_a_field_or_a_column(file_format: str) -> None:
    nested = [{"meta": {"text": {"en": "Hello?"}}, "labels": {"request": "harmful"}}]
    flat = [{"meta.text.en": "Hello?", "labels.request": "harmful"}]
    columns = Columns("meta.text.en")
    for rows in [flat] if file_format in ("csv", "tsv") else [nested, flat]:
        (record,) = read(train=write(f"rows.{file_format}", encode(file_format, rows)), columns=columns)
        assert (record.prompt, record.gold()) == ("Hello?", {"request": "harmful"})


@pytest.mark.parametrize(
    ("value", "cells"),
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
def test_config_values_match_the_texts_of_a_table(value: Any, cells: list[str]) -> None:
    columns = Columns(labels={"request": "label"}, label_map={"request": {value: "harmful"}})
    write("a.csv", "prompt,label\n" + "".join(f"{n}?,{cell}\n" for n, cell in enumerate(cells)))
    assert [r.gold() for r in read(train="a.csv", columns=columns)] == [{"request": "harmful"}] * len(cells)


@pytest.mark.parametrize(
    ("value", "cells"),
    [
        (1, [1, 1.0, "1"]),
        (1.0, [1, 1.0]),
        (True, [True, "true", "yes"]),
        ("true", [True]),
        (-0.5, [-0.5]),
        (None, [None]),
    ],
)
@pytest.mark.parametrize("file_format", ["jsonl", "parquet"])
def test_config_values_match_numbers_and_booleans(value: Any, cells: list[Any], file_format: str) -> None:
    columns = Columns(labels={"request": "label"}, label_map={"request": {value: "harmful"}})
    for cell in cells:
        write(f"a.{file_format}", encode(file_format, [{"prompt": "Hello?", "label": cell}]))
        assert read(train=f"a.{file_format}", columns=columns)[0].gold() == {"request": "harmful"}


@pytest.mark.parametrize(
    ("first", "second"), [("yes", True), (1, "1"), (1.0, "1"), (0, "0"), (None, ""), (False, "No")]
)
def test_values_that_are_equal_in_a_file_need_one_label(first: Any, second: Any) -> None:
    path = write("a.jsonl", line("One?"))
    for pair in ((first, second), (second, first)):
        with pytest.raises(InputError, match=r"columns\.label_map\.request: .* in a file; expected one label"):
            Files(
                train=path,
                columns=Columns(label_map={"request": dict(zip(pair, ("harmful", "unharmful"), strict=True))}),
            )
        read(train=path, columns=Columns(label_map={"request": dict.fromkeys(pair, "harmful")}))


def test_a_label_may_be_mapped_to_another_label() -> None:
    columns = Columns(label_map={"request": {"unharmful": "harmful", "fine": "unharmful"}})
    write("a.jsonl", line("One?", "unharmful") + line("Two?", "fine") + line("Three?", "harmful"))
    assert [r.labels["request"] for r in read(train="a.jsonl", columns=columns)] == ["harmful", "unharmful", "harmful"]


def test_custom_tasks() -> None:
    tasks = [Task("ask", "Ask", "is it a question?", ("yes", "no"))]
    write("a.csv", "prompt,labels.ask\nHello?,yes\n")
    assert [record.labels for record in read(train="a.csv", tasks=tasks)] == [{"ask": "yes"}]


def test_default_ids_are_file_and_line() -> None:
    rows = 'prompt,labels.request\n"a\nb\n?",harmful\n\nc?,harmful\n"d\r\n?",harmful\ne?,harmful'
    write("a.csv", rows)
    assert [record.id for record in read(train="a.csv")] == ["a.csv:2", "a.csv:6", "a.csv:7", "a.csv:9"]
    write("a.jsonl", "\n" + line("a") + "\n" + line("b") + line("c", id="own") + line("d", id=None) + line("e", id=7))
    assert [record.id for record in read(train="a.jsonl")] == ["a.jsonl:2", "a.jsonl:4", "own", "a.jsonl:6", "7"]
    write("a.json", encode("json", [json.loads(line("a")), json.loads(line("b"))]))
    assert [record.id for record in read(train="a.json")] == ["a.json:item 1", "a.json:item 2"]
    write("a.parquet", encode("parquet", [json.loads(line("a")), json.loads(line("b"))]))
    assert [record.id for record in read(train="a.parquet")] == ["a.parquet:row 1", "a.parquet:row 2"]


def test_the_default_source_is_the_file() -> None:
    write("web.of.jsonl", line("a") + line("b", source="") + line("c", source=None) + line("d", source="own"))
    assert [record.source for record in read(train="web.of.jsonl")] == ["web", "web", "web", "own"]


def test_files_with_the_same_name_are_distinguished_by_path() -> None:
    for number, path in enumerate(("x/a.jsonl", "y/a.jsonl", "y/b.jsonl")):
        write(path, line(f"{number}?"))
    records = read(train="*/*.jsonl")
    assert [record.id for record in records] == ["x/a.jsonl:1", "y/a.jsonl:1", "b.jsonl:1"]
    assert [record.source for record in records] == ["a", "a", "b"]
    assert [record.id for record in read(train="x/a.jsonl", test="y/b.jsonl")] == ["a.jsonl:1"]


def test_patterns_are_read_in_alphabetical_order() -> None:
    for name in ("b.jsonl", "deep/er/c.jsonl", "a.jsonl", "a[1].jsonl"):
        write(f"data/{name}", line(f"{name}?"))
    assert [r.id for r in read(train="data/?.jsonl")] == ["a.jsonl:1", "b.jsonl:1"]
    assert [r.id for r in read(train=["data/b.jsonl", "data/a.jsonl"])] == ["b.jsonl:1", "a.jsonl:1"]
    recursive = ["a.jsonl:1", "a[1].jsonl:1", "b.jsonl:1", "c.jsonl:1"]
    assert [r.id for r in read(train="data/**/*.jsonl")] == recursive
    assert [r.id for r in read(train="data/a[1].jsonl")] == ["a[1].jsonl:1"]


def test_only_kept_rows_are_used_and_checked(caplog: pytest.LogCaptureFixture) -> None:
    rows = ["prompt,labels.request,part,checked", "a,harmful,web,True", "b,WRONG,own,True", "c,harmful,web,False"]
    write("a.csv", "\n".join([*rows, "d,harmful,,yes"]))
    keep = {"part": ["web", None], "checked": [True]}
    with caplog.at_level(logging.INFO, "guardreasoner"):
        assert [record.prompt for record in read(train="a.csv", keep=keep)] == ["a", "d"]
    assert caplog.messages == ["2 of 4 rows skipped: data.source.keep (part: web, null; checked: true)"]
    write("a.jsonl", line("a", n=1) + line("b", n=1.0) + line("c", n="1") + line("d", n=True) + line("e"))
    assert [record.prompt for record in read(train="a.jsonl", keep={"n": [1]})] == ["a", "b", "c"]
    write("a.jsonl", line("a", at={"part": "web"}) + line("b", at={"part": "own"}) + line("c"))
    assert [record.prompt for record in read(train="a.jsonl", keep={"at.part": ["web", None]})] == ["a", "c"]


def test_one_file_is_split_by_prompt() -> None:
    texts = [f"How do I mend number {number // 2}?" for number in range(400)]
    write("a.jsonl", "".join(line(t.upper() if n % 2 else t, response=str(n)) for n, t in enumerate(texts)))
    source = Files(train="a.jsonl", validation_share=0.2, test_share=0.3)
    splits: tuple[Split, ...] = ("train", "validation", "test")
    prompts = {split: [record.prompt for record in source.records(split)] for split in splits}
    assert sum(map(len, prompts.values())) == 400
    distinct = [{normalize(prompt) for prompt in prompts[split]} for split in splits]
    assert sum(map(len, distinct)) == len(set.union(*distinct)) == 200
    assert [len(prompts_of_split) / 200 for prompts_of_split in distinct] == pytest.approx([0.5, 0.2, 0.3], abs=0.1)


def test_one_file_per_split() -> None:
    for name in ("a", "b", "c"):
        write(f"{name}.jsonl", line(f"{name}?"))
    source = Files(train="a.jsonl", validation=["b.jsonl"], test="c.jsonl")
    splits: tuple[Split, ...] = ("train", "validation", "test")
    assert [[r.id for r in source.records(split)] for split in splits] == [["a.jsonl:1"], ["b.jsonl:1"], ["c.jsonl:1"]]
    assert read("validation", train="a.jsonl") == []
    assert read("train", test="a.jsonl") == []


def test_records_are_read_lazily_and_repeatedly() -> None:
    path = Path(write("a.jsonl", "".join(line(f"{n}?") for n in range(5000))))
    source = Files(train=str(path))
    records = source.records("train")
    assert isinstance(records, Iterator)
    assert next(records).prompt == "0?"
    assert len(list(records)) == 4999
    assert list(source.records("train")) == list(source.records("train"))
    # rows are checked only once, but a row that has become faulty since is still reported
    path.write_text(path.read_text().replace('"4999?"', "4999"))
    with pytest.raises(InputError) as caught:
        list(source.records("train"))
    message = "a.jsonl:5000: prompt: found a number (4999), expected text"
    assert caught.value.lines() == f"error: {message}\nhint: the file changed while it was read"


def test_the_identity_depends_on_arguments_and_contents() -> None:
    write("a.jsonl", line("One?"))
    arguments: dict[str, Any] = {"train": "*.jsonl", "keep": {"part": ["x", "y", 1]}}
    identities = [Files(**arguments).identity()]
    assert isinstance(Files(**arguments), Identified)
    assert Files(**arguments).identity() == identities[0]
    changes: list[dict[str, Any]] = [
        {"keep": {"part": ["x"]}},
        {"validation_share": 0.1},
        {"test_share": 0.1},
        {"quarantine": "bad"},
        {"columns": Columns("text")},
        {"tasks": [Task("ask", "Ask", "is it?", ("yes", "no"))]},
    ]
    identities += [Files(**(arguments | change)).identity() for change in changes]
    write("a.jsonl", line("Two?"))
    identities.append(Files(**arguments).identity())
    Path("a.jsonl").rename("b.jsonl")  # ids contain the name
    identities.append(Files(**arguments).identity())
    write("c.jsonl", line("Three?"))
    identities.append(Files(**arguments).identity())
    assert len({json.dumps(identity) for identity in identities}) == len(identities) == 10


def test_the_identity_is_the_same_in_every_process() -> None:
    write("a.jsonl", line("One?"))
    code = (
        "from guardreasoner.sources.files import Files\n"
        "print(Files(train='a.jsonl', keep={'part': ['x', 'y', 'z', 'w', 1]}).identity())"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code], env=os.environ | {"PYTHONHASHSEED": seed}, capture_output=True, check=True
        ).stdout
        for seed in ("1", "2")
    }
    assert len(outputs) == 1
