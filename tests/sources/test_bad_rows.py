"""The exact message for each fault of a row in user files."""

import gzip
import io
import json
from datetime import date, datetime, time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from guardreasoner.errors import InputError
from guardreasoner.sources.files import Files
from guardreasoner.sources.row_parser import Columns

GOOD = {"prompt": "How do I bake bread?", "labels": {"request": "unharmful"}}
HINT = "correct them, or move them out with data.source.quarantine: FOLDER"
LABELS = "allowed are harmful, unharmful"
NO_LABEL = "labels.request, labels.completion, labels.response: found no label, expected one for at least one task"
MAPPED = Columns("text", labels={"request": "label"}, label_map={"request": {0: "unharmful", 1: "harmful"}})
OWN = "allowed are 0, 1, harmful, unharmful"


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in an empty folder, so that messages contain short paths."""
    monkeypatch.chdir(tmp_path)


def read_error(name: str, content: bytes, columns: Columns = Columns()) -> InputError:  # noqa: B008
    """Return the error of reading a file."""
    Path(name).write_bytes(gzip.compress(content, mtime=0) if name.endswith(".gz") else content)
    with pytest.raises(InputError) as caught:
        list(Files(train=name, columns=columns).records("train"))
    return caught.value


def expected_lines(location: str, *faults: str, rows: int = 2) -> str:
    """Return the output for one faulty row."""
    lines = [f"{location}: {fault}" for fault in faults]
    return "\n".join([*lines, f"error: data.source: 1 of {rows} rows is faulty, nothing was started", f"hint: {HINT}"])


def row(**changes: Any) -> bytes:
    """Return the good row with changes as JSON; a column set to ``...`` is removed."""
    return json.dumps({name: value for name, value in (GOOD | changes).items() if value is not ...}).encode()


JSON_OBJECTS: list[tuple[bytes, list[str]]] = [
    (row(prompt=...), ["prompt: this column is missing; there are 'labels'"]),
    (b"{}", ["prompt: this column is missing; there are none"]),
    (row(prompt=None), ["prompt: found null, expected text"]),
    (row(prompt=7), ["prompt: found a number (7), expected text"]),
    (row(prompt=1.5), ["prompt: found a number (1.5), expected text"]),
    (row(prompt=int("9" * 99)), [f"prompt: found a number ({'9' * 37}…), expected text"]),
    (row(prompt=True), ["prompt: found true or false (true), expected text"]),
    (row(prompt=["Hello?"]), ["prompt: found a list, expected text"]),
    (row(prompt={"text": "Hello?"}), ["prompt: found an object, expected text"]),
    (row(prompt=""), ["prompt: found an empty text, expected text"]),
    (row(prompt=" \n\t\u3000"), ["prompt: found an empty text, expected text"]),
    (row(prompt="\ud800"), ["prompt: found a lone surrogate (U+D800) at character 1, expected Unicode text"]),
    (row(response="ab\udfffc"), ["response: found a lone surrogate (U+DFFF) at character 3, expected Unicode text"]),
    (row(reasoning="ab\udc00"), ["reasoning: found a lone surrogate (U+DC00) at character 3, expected Unicode text"]),
    (row(response=0), ["response: found a number (0), expected text"]),
    (row(reasoning=" "), ["reasoning: found an empty text, expected text"]),
    (row(reasoning=["First, …"]), ["reasoning: found a list, expected text"]),
    (row(labels=...), [NO_LABEL]),
    (row(labels=None), [NO_LABEL]),
    (row(labels={}), [NO_LABEL]),
    (row(labels={"request": None, "response": None}), [NO_LABEL]),
    (row(labels="harmful"), ["labels: found 'harmful', expected an object with a label by task"]),
    (row(labels=["harmful"]), ["labels: found a list, expected an object with a label by task"]),
    (row(labels={"requests": "harmful"}), ["labels: found 'requests', allowed are request, completion, response"]),
    (row(labels={"request": "Harmful"}), [f"labels.request: found 'Harmful', {LABELS}"]),
    (row(labels={"request": "unharmful "}), [f"labels.request: found 'unharmful ', {LABELS}"]),
    (row(labels={"request": "refusal"}), [f"labels.request: found 'refusal', {LABELS}"]),
    (row(labels={"completion": "harmful"}), ["labels.completion: found 'harmful', allowed are refusal, compliance"]),
    (row(labels={"request": ""}), [f"labels.request: found an empty text, {LABELS}"]),
    (row(labels={"request": 1}), [f"labels.request: found a number (1), {LABELS}"]),
    (row(labels={"request": True}), [f"labels.request: found true or false (true), {LABELS}"]),
    (row(labels={"request": ["harmful"]}), [f"labels.request: found a list, {LABELS}"]),
    (row(labels={"request": "harmful\ud800"}), [f"labels.request: found 'harmful\\ud800', {LABELS}"]),
    (row(labels={"request": "x" * 50}), [f"labels.request: found '{'x' * 37}…', {LABELS}"]),
    (row(labels={"request": "<b>\x1b[0m\n"}), [f"labels.request: found '<b>\\x1b[0m\\n', {LABELS}"]),
    (b'{"prompt": "Hello?", "labels": {"request": 1e999}}', [f"labels.request: found an infinite number, {LABELS}"]),
    (row(id=5.5), ["id: found a number (5.5), expected text"]),
    (row(id=" "), ["id: found an empty text, expected text"]),
    (row(id="a\nb"), ["id: found a control character, expected a name on one line"]),
    (row(id="x" * 513), ["id: found 513 characters, allowed are 512"]),
    (row(source=["web"]), ["source: found a list, expected text"]),
    (row(source="a\x00"), ["source: found a control character, expected a name on one line"]),
    (
        row(prompt=None, response=1, labels={"request": "bad", "response": "bad"}),
        [
            "prompt: found null, expected text",
            "response: found a number (1), expected text",
            f"labels.request: found 'bad', {LABELS}",
            f"labels.response: found 'bad', {LABELS}",
        ],
    ),
    # not JSON objects
    (b"[1, 2]", ["found a list, expected a JSON object"]),
    (b'"Hello?"', ["found a text, expected a JSON object"]),
    (b"17", ["found a number, expected a JSON object"]),
    (b"1.5", ["found a number, expected a JSON object"]),
    (b"false", ["found true or false, expected a JSON object"]),
    (b"null", ["found null, expected a JSON object"]),
    (b'{"prompt": NaN}', ["found NaN, which is not JSON; use null for a missing value"]),
    (b'{"prompt": "a", "score": -Infinity}', ["found -Infinity, which is not JSON; use null for a missing value"]),
    (b'{"prompt": "a", "prompt": "b"}', ["the key 'prompt' occurs twice"]),
    (b'{"labels": {"request": null, "request": "harmful"}}', ["the key 'request' occurs twice"]),
    (b'{"n": ' + b"9" * 5000 + b"}", ["found a number with thousands of digits, which Python cannot read"]),
]


@pytest.mark.parametrize("name", ["bad.jsonl", "bad.jsonl.gz", "BAD.JSONL", "bad.json", "bad.json.gz"])
@pytest.mark.parametrize(("bad", "faults"), JSON_OBJECTS)
def test_a_faulty_json_object(name: str, bad: bytes, faults: list[str]) -> None:
    lines = name.lower().startswith("bad.jsonl")
    content = row() + b"\n" + bad + b"\n" if lines else b"[" + row() + b",\n " + bad + b"]"
    error = read_error(name, content)
    assert error.lines() == expected_lines(f"{name}:2" if lines else f"{name}:item 2", *faults)


@pytest.mark.parametrize(
    ("bad", "fault"),
    [
        (b'{"prompt": "Hello?"', "not valid JSON: Expecting ',' delimiter at column 20"),
        (b'{"prompt": "Hello?",', "not valid JSON: Expecting property name enclosed in double quotes at column 21"),
        (b"{'prompt': 'Hello?'}", "not valid JSON: Expecting property name enclosed in double quotes at column 2"),
        (b'{"prompt": "Hel', "not valid JSON: Unterminated string starting at column 12"),
        (b'{"prompt": "a\x01b"}', "not valid JSON: Invalid control character at column 14"),
        (b'{"prompt": "a\\x"}', "not valid JSON: Invalid \\escape at column 14"),
        (b'{"prompt": "\\u12"}', "not valid JSON: Invalid \\uXXXX escape at column 14"),
        (b'{"prompt": "a"} {"prompt": "b"}', "not valid JSON: Extra data at column 17"),
        (b'{"prompt": undefined}', "not valid JSON: Expecting value at column 12"),
        (b"prompt: Hello?", "not valid JSON: Expecting value at column 1"),
        (b"[" * 100_000, "not valid JSON: too deeply nested"),
        (b'{"prompt": "caf\xe9"}', "not valid UTF-8: byte 0xe9 at character 16"),
        ('{"prompt": "é'.encode() + b'\xff"}', "not valid UTF-8: byte 0xff at character 14"),
        (b'{"prompt": "\xed\xa0\x80"}', "not valid UTF-8: byte 0xed at character 13"),
        (b'{"prompt": "\xc0\xaf"}', "not valid UTF-8: byte 0xc0 at character 13"),
        (row().decode().encode("utf-16"), "not valid UTF-8: byte 0xff at character 1"),
    ],
)
def test_a_line_that_is_not_json(bad: bytes, fault: str) -> None:
    assert read_error("bad.jsonl", row() + b"\r\n" + bad).lines() == expected_lines("bad.jsonl:2", fault)


CSV_ROWS: list[tuple[str | bytes, list[str]]] = [
    (",1", ["text: found null, expected text"]),
    ('"  ",1', ["text: found an empty text, expected text"]),
    ("Hello?,harmfull", [f"label: found 'harmfull', {OWN}"]),
    ("Hello?,HARMFUL", [f"label: found 'HARMFUL', {OWN}"]),
    ("Hello?,2", [f"label: found '2', {OWN}"]),
    ("Hello?,NaN", [f"label: found 'NaN', {OWN}"]),
    ("Hello?,2024-01-31", [f"label: found '2024-01-31', {OWN}"]),
    ("Hello?, 1", [f"label: found ' 1', {OWN}"]),
    ("Hello?,", ["label: found no label, expected one for at least one task"]),
    ("Hello?", ["found 1 cell, expected 2: 'text', 'label'"]),
    ("Hello, you?,1", ["found 3 cells, expected 2: 'text', 'label'"]),
    ("a\rb,1", ["not valid CSV: found a carriage return outside quotes, expected lines that end in \\n or \\r\\n"]),
    (b"Hello \xff?,1", ["text: not valid UTF-8: byte 0xff at character 7"]),
    ("é,1".encode("latin-1"), ["text: not valid UTF-8: byte 0xe9 at character 1"]),
    ("é".encode() + b"\xed\xb0\x80,1", ["text: not valid UTF-8: byte 0xed at character 2"]),
]


@pytest.mark.parametrize("name", ["bad.csv", "bad.csv.gz", "bad.tsv"])
@pytest.mark.parametrize(("bad", "faults"), CSV_ROWS)
def test_a_faulty_row_of_a_table(name: str, bad: str | bytes, faults: list[str]) -> None:
    content = b'text,label\n"How do\nI bake bread?",0\n' + (bad if isinstance(bad, bytes) else bad.encode())
    if name.endswith(".tsv"):
        content = content.replace(b",", b"\t")
        faults = [fault.replace("valid CSV", "valid TSV") for fault in faults]
    assert read_error(name, content, MAPPED).lines() == expected_lines(f"{name}:4", *faults)


def parquet(bad: Any, column: str = "label", **good: Any) -> bytes:
    """Return a Parquet file with a good and a bad row."""
    first = {"text": "How do I bake bread?", "label": None, "response": "So."} | good
    values = {name: [value, value if name != column else bad] for name, value in first.items()}
    if column not in good:
        values[column][0] = bad
    buffer = io.BytesIO()
    pq.write_table(pa.table(values), buffer)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (parquet("b", label="harmful"), f"label: found 'b', {OWN}"),
        (parquet(float("nan"), label=1.0), f"label: found NaN, {OWN}"),
        (parquet(float("inf"), label=1.0), f"label: found an infinite number, {OWN}"),
        (parquet(2.0, label=1.0), f"label: found a number (2.0), {OWN}"),
        (parquet(-1, label=1), f"label: found a number (-1), {OWN}"),
        (parquet(None, label=1), "label: found no label, expected one for at least one task"),
        (parquet(None, "text", label=1, text="Hello?"), "text: found null, expected text"),
        (parquet("\t", "text", label=1, text="Hello?"), "text: found an empty text, expected text"),
    ],
)
def test_a_faulty_row_of_a_parquet_file(content: bytes, fault: str) -> None:
    assert read_error("bad.parquet", content, MAPPED).lines() == expected_lines("bad.parquet:row 2", fault)


@pytest.mark.parametrize(
    ("value", "what"),
    [
        (date(2024, 1, 31), "a date (2024-01-31)"),
        (datetime(2024, 1, 31, 12), "a date (2024-01-31 12:00:00)"),
        (time(12, 30), "a date (12:30:00)"),
        (b"Hello?", "bytes"),
        (3, "a number (3)"),
        (float("nan"), "NaN"),
        (False, "true or false (false)"),
        (["Hello?"], "a list"),
        ({"a": 1}, "an object"),
        ([("a", 1)], "a list"),
    ],
)
@pytest.mark.parametrize("column", ["text", "response"])
def test_a_parquet_column_of_the_wrong_type(value: Any, what: str, column: str) -> None:
    map_type = pa.map_(pa.string(), pa.int64())
    values = pa.array([value], map_type if isinstance(value, list) and isinstance(value[0], tuple) else None)
    table = pa.table({"text": ["Hello?"], "label": [1]} | {column: values})
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    error = read_error("bad.parquet", buffer.getvalue(), MAPPED)
    assert error.lines() == expected_lines("bad.parquet:row 1", f"{column}: found {what}, expected text", rows=1)
