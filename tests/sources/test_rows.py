"""Rows as they stand in files: quotes, long lines, compressed files, and JSON lists read in pieces."""

import gzip
import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from guardreasoner.errors import InputError
from guardreasoner.records.jsonl import MAX_ROW, read_jsonl
from guardreasoner.sources.rows import read_file_rows

UNCLOSED = "a quoted cell is not closed"
TEXT_AFTER = "found text after the closing quote of a cell; a quote inside a quoted cell is written twice"


def rows(path: Path, content: str | bytes) -> dict[str, dict[str, str] | str]:
    """Write a file, and return the values or the fault of each row by location."""
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return {row.location: row.fault if row.values is None else row.values for row in read_file_rows(path)}


def test_a_lone_quote_in_a_tsv_takes_in_no_other_row(tmp_path: Path) -> None:
    texts = ["one", '"Ignore this', "three", 'The sign says "no"', 'five"', '"six', "seven"]
    found = rows(tmp_path / "a.tsv", "text\tlabel\n" + "".join(f"{text}\tharmful\n" for text in texts))
    assert [row["text"] for row in found.values() if isinstance(row, dict)] == texts


def test_a_quoted_tsv_is_unquoted(tmp_path: Path) -> None:
    found = rows(tmp_path / "a.tsv", 'text\tlabel\n"two\nlines"\t1\n"a ""quote"" and\ta tab"\t0\n')
    assert found == {
        "2": {"text": "two\nlines", "label": "1"},
        "4": {"text": 'a "quote" and\ta tab', "label": "0"},
    }


def test_a_quoted_cell_of_a_tsv_with_one_column_is_one_row(tmp_path: Path) -> None:
    found = rows(tmp_path / "a.tsv", 'text\n"two\nlines"\n"three\n\n""lines"""\nfour\n"not closed\n')
    assert found == {
        "2": {"text": "two\nlines"},
        "4": {"text": 'three\n\n"lines"'},
        "7": {"text": "four"},
        "8": {"text": '"not closed'},
    }


def test_a_tsv_row_of_another_width_is_faulty(tmp_path: Path) -> None:
    found = rows(tmp_path / "a.tsv", 'text\tlabel\n"one\nlast\t1\n')
    assert found == {"2": f"not valid TSV: {UNCLOSED}", "3": {"text": "last", "label": "1"}}


def test_a_broken_csv_row_takes_in_no_other_row(tmp_path: Path) -> None:
    content = 'text,label\none,1\n"two,1\nthree,0\n"four",0\n"five"x,1\nsix,1\n'
    found = rows(tmp_path / "a.csv", content)
    assert {place: fault for place, fault in found.items() if isinstance(fault, str)} == {
        "3": f"not valid CSV: {TEXT_AFTER}",
        "6": f"not valid CSV: {TEXT_AFTER}",
    }
    assert [row["text"] for row in found.values() if isinstance(row, dict)] == ["one", "three", "four", "six"]


def test_a_part_of_a_broken_csv_row_is_no_row(tmp_path: Path) -> None:
    found = rows(tmp_path / "a.csv", 'text,label\n"two\nlines" x,1\nthree,0\n')
    assert found["3"] == f"not valid CSV: {UNCLOSED}"
    assert found["4"] == {"text": "three", "label": "0"}


def test_an_unclosed_quote_at_the_end(tmp_path: Path) -> None:
    found = rows(tmp_path / "a.csv", 'text,label\n"one,1\ntwo,0\n')
    assert found == {"2": f"not valid CSV: {UNCLOSED}", "3": {"text": "two", "label": "0"}}


LONG = MAX_ROW + 1


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", b"{}\n" + b"x" * LONG, "a.jsonl:2: the line is longer than 16 MiB, the most that is read"),
        ("a.jsonl.gz", b" " * (4 * LONG), "a.jsonl.gz:1: the line is longer than 16 MiB, the most that is read"),
        ("a.csv.gz", b"text\n" + b"x" * LONG, "a.csv.gz:2: the line is longer than 16 MiB, the most that is read"),
        ("a.csv.gz", b'text\n"' + b"x\n" * LONG, "a.csv.gz:2: the row is longer than 16 MiB or 65,536 lines, the"),
        ("a.json.gz", b'[{},\n{"a": "' + b"x" * 2 * LONG, "a.json.gz:2: item 2 is longer than 16 MiB, the most that"),
    ],
)
def test_memory_is_bounded_however_well_a_file_is_compressed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, content: bytes, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(name).write_bytes(gzip.compress(content, 1) if name.endswith(".gz") else content)
    del content
    tracemalloc.start()
    with pytest.raises(InputError) as caught:
        list(read_file_rows(name))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert str(caught.value).startswith(message)
    assert peak < 8 * MAX_ROW


def test_a_json_list_in_pieces_reads_as_in_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = [{"a": "é\\u1234" * number, "n": -12.5e3, "t": [True, None, {"b": number}]} for number in range(20)]
    for chunk in (1, 2, 3, 7, 64):
        monkeypatch.setattr("guardreasoner.sources.rows._CHUNK", chunk)
        for indent in (None, 1):
            found = rows(tmp_path / "a.json", json.dumps(values, indent=indent, ensure_ascii=False))
            assert list(found.values()) == values
            with pytest.raises(InputError, match=r"a\.json:4: not valid JSON: Expecting value at column 2$"):
                rows(tmp_path / "a.json", '[\n{"a": 1},\n{"b": 22},\n ?]')
            with pytest.raises(InputError, match=r"a\.json:2: not valid UTF-8: byte 0xff at character 4$"):
                rows(tmp_path / "a.json", '[\n["é'.encode() + b'\xff"]]')


@pytest.mark.parametrize("read", [read_file_rows, read_jsonl])
@pytest.mark.parametrize("mark", [b"\xff\xfe", b"\xfe\xff"])
def test_utf_16_is_named(tmp_path: Path, read: Callable[[Path], object], mark: bytes) -> None:
    (tmp_path / "a.jsonl").write_bytes(mark + b"{}")
    with pytest.raises(InputError, match=r"a\.jsonl: found UTF-16, expected UTF-8"):
        list(read(tmp_path / "a.jsonl"))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"[" * 100_000, "not valid JSON: too deeply nested"),
        (b'{"a": ' + b"9" * 5000 + b"}", "found a number with thousands of digits, which Python cannot read"),
        (b'{"a": NaN}', "found NaN, which is not JSON; use null for a missing value"),
        (b'{"a": 1, "a": 2}', "the key 'a' occurs twice"),
        (b'{"a": "\x00"}', "not valid JSON: Invalid control character at column 8"),
        (b"\x00\x00\x00", "not valid JSON: Expecting value at column 1"),
        (b'{"a": "\xe9"}', "not valid UTF-8: invalid continuation byte"),
    ],
)
def test_our_own_files_are_read_as_strictly(tmp_path: Path, line: bytes, message: str) -> None:
    (tmp_path / "a.jsonl").write_bytes(b"\xef\xbb\xbf{}\r\n" + line + b"\n")
    with pytest.raises(InputError) as caught:
        list(read_jsonl(tmp_path / "a.jsonl"))
    assert str(caught.value) == f"{tmp_path}/a.jsonl:2: {message}"
