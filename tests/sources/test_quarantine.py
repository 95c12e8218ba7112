"""Faulty rows are written to the quarantine unchanged, so that they can be corrected and read again."""

import gzip
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from guardreasoner.errors import InputError
from guardreasoner.records import Record
from guardreasoner.sources.files import Files
from guardreasoner.sources.row_parser import Columns

GOOD = b'{"prompt": "One?", "labels": {"request": "harmful"}}\n'
BAD = [
    b'{"prompt":   7, "labels": {"request": "harmful"}}\r\n',
    b'  {"prompt": "caf\xe9"}\n',
    b'{"prompt": "\\ud83d", "x": 1e5}\n',
    b"not json\x00\x1b\n",
]


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in an empty folder."""
    monkeypatch.chdir(tmp_path)


def write(path: str, content: bytes) -> str:
    """Write a file and its parent folders; return its path."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_bytes(gzip.compress(content, mtime=0) if path.endswith(".gz") else content)
    return path


def read(*train: str, columns: Columns = Columns(), quarantine: str | None = "bad") -> list[Record]:  # noqa: B008
    """Return the training records."""
    return list(Files(train=list(train), columns=columns, quarantine=quarantine).records("train"))


def faults() -> list[str]:
    """Return the lines of faults.txt."""
    return Path("bad/faults.txt").read_text().splitlines()


def test_lines_are_unchanged(caplog: pytest.LogCaptureFixture) -> None:
    write("a.jsonl", b"\xef\xbb\xbf" + GOOD + BAD[0] + BAD[1] + b"\n" + GOOD + BAD[2] + BAD[3])
    assert [record.id for record in read("a.jsonl")] == ["a.jsonl:1", "a.jsonl:5"]
    assert Path("bad/a.jsonl").read_bytes() == b"".join(BAD)
    assert faults() == [
        "a.jsonl:2: prompt: found a number (7), expected text",
        "a.jsonl:3: not valid UTF-8: byte 0xe9 at character 18",
        "a.jsonl:6: prompt: found a lone surrogate (U+D83D) at character 1, expected Unicode text",
        "a.jsonl:7: not valid JSON: Expecting value at column 1",
    ]
    assert caplog.messages == ["4 of 6 rows are in quarantine: bad"]
    assert sorted(os.listdir("bad")) == ["a.jsonl", "faults.txt"]
    assert sorted(os.listdir()) == ["a.jsonl", "bad"]


def test_compressed_lines_are_unchanged() -> None:
    write("a.jsonl.gz", GOOD + b"".join(BAD) + b"[]")
    read("a.jsonl.gz")
    assert gzip.decompress(Path("bad/a.jsonl.gz").read_bytes()) == b"".join(BAD) + b"[]\n"


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz", "a.tsv"])
def test_rows_of_a_table_follow_the_header(name: str) -> None:
    names, good, bad = b'\n"pro\nmpt",label\r\n', b"One?,harmful\n", [b'"Two\n\xff?",harmful\r\n', b'Three?,"bad"']
    content = [names, good, bad[0], good, bad[1]]
    if name == "a.tsv":
        content = [part.replace(b",", b"\t") for part in content]
    columns = Columns("pro\nmpt", labels={"request": "label"})
    assert len(read(write(name, b"".join(content)), columns=columns)) == 2
    quarantined = Path("bad", name).read_bytes()
    quarantined = gzip.decompress(quarantined) if name.endswith(".gz") else quarantined
    assert quarantined == content[0][1:] + content[2] + content[4] + b"\n"
    assert faults() == [
        f"{name}:5: pro\\nmpt: not valid UTF-8: byte 0xff at character 5",
        f"{name}:8: label: found 'bad', allowed are harmful, unharmful",
    ]


def test_items_of_a_list_are_unchanged() -> None:
    bad = [b'{"prompt":  1.50, "labels": {"request":"harmful"}}', b'{"a": "\\u00e9\xc3\xa9", "a": 1}', b" NaN".strip()]
    write("a.json", b"[" + GOOD + b", " + b",\n\n".join(bad) + b"\n]")
    assert len(read("a.json")) == 1
    assert Path("bad/a.json").read_bytes() == b"[\n" + b",\n".join(bad) + b"\n]\n"
    assert faults() == [
        "a.json:item 2: prompt: found a number (1.5), expected text",
        "a.json:item 3: the key 'a' occurs twice",
        "a.json:item 4: found NaN, which is not JSON; use null for a missing value",
    ]


def test_parquet_rows_keep_their_types() -> None:
    table = pa.table(
        {
            "prompt": ["One?", None, "Three?", "Four?"],
            "labels": [{"request": "harmful"}, {"request": "harmful"}, None, {"request": "unharmful"}],
            "small": pa.array([1, 2, None, 4], pa.int8()),
            "when": pa.array([1, 1_700_000_000_123_456_789, 3, None], pa.timestamp("ns", "UTC")),
            "kind": pa.array(["a", "b", "a", "b"]).dictionary_encode(),
            "map": pa.array([[("a", 1)], [("b", 2)], None, []], pa.map_(pa.string(), pa.int32())),
            "none": pa.nulls(4, pa.float32()),
        }
    )
    pq.write_table(table, "a.parquet")
    assert [record.id for record in read("a.parquet")] == ["a.parquet:row 1", "a.parquet:row 4"]
    quarantined = pq.read_table("bad/a.parquet")
    assert (quarantined.schema, quarantined.to_pylist()) == (table.schema, table.take([1, 2]).to_pylist())
    assert [fault.split(": ")[0] for fault in faults()] == ["a.parquet:row 2", "a.parquet:row 3"]


def test_files_with_the_same_name_are_numbered() -> None:
    paths = ["x/a.jsonl", "y/a.jsonl", "2-a.jsonl", "z/a.jsonl"]
    for path, bad in zip(paths, BAD, strict=True):
        write(path, GOOD.replace(b"One", path.encode()) + bad)
    read(*paths)
    assert sorted(os.listdir("bad")) == ["2-2-a.jsonl", "2-a.jsonl", "3-a.jsonl", "a.jsonl", "faults.txt"]
    assert sorted(p.read_bytes() for p in Path("bad").glob("*.jsonl")) == sorted(BAD)
    assert [fault.split(":")[0] for fault in faults()] == paths


def test_contradicting_rows_are_quarantined() -> None:
    again = GOOD.replace(b'"harmful"', b'"unharmful"')
    write("a.jsonl", GOOD + again + GOOD)
    assert [record.id for record in read("a.jsonl")] == ["a.jsonl:1", "a.jsonl:3"]
    assert Path("bad/a.jsonl").read_bytes() == again


def test_a_later_run_replaces_the_quarantine() -> None:
    write("a.jsonl", GOOD + BAD[0])
    write("b.jsonl", GOOD + BAD[1])
    read("a.jsonl", "b.jsonl")
    read("b.jsonl")
    assert sorted(os.listdir("bad")) == ["b.jsonl", "faults.txt"]
    assert len(faults()) == 1


def test_corrected_rows_can_be_added(caplog: pytest.LogCaptureFixture) -> None:
    write("a.jsonl", GOOD + BAD[0])
    read("a.jsonl")
    corrected = Path("bad/a.jsonl").read_bytes().replace(b"  7", b'"Seven?"')
    write("corrected.jsonl", corrected)
    assert [record.prompt for record in read("a.jsonl", "corrected.jsonl")] == ["One?", "Seven?"]
    assert [record.prompt for record in read("corrected.jsonl", quarantine=None)] == ["Seven?"]


def test_files_inside_the_quarantine_are_refused() -> None:
    write("a.jsonl", GOOD + BAD[0])
    read("a.jsonl")
    corrected = Path("bad/a.jsonl").read_bytes().replace(b"  7", b'"Seven?"')
    write("bad/a.jsonl", corrected)
    for train in (("a.jsonl", "bad/a.jsonl"), ("a.jsonl", "**/*.jsonl")):
        with pytest.raises(InputError) as caught:
            read(*train[1:] if "*" in train[1] else train)
        assert caught.value.lines() == (
            "error: data.source: bad/a.jsonl is inside data.source.quarantine bad, which is overwritten\n"
            "hint: move the corrected file out of that folder"
        )
    assert Path("bad/a.jsonl").read_bytes() == corrected
    assert [record.prompt for record in read("bad/a.jsonl", quarantine=None)] == ["Seven?"]


@pytest.mark.parametrize("quarantine", ["other", "other/notes.txt"])
def test_a_folder_with_other_files_is_refused(quarantine: str) -> None:
    write("a.jsonl", GOOD + BAD[0])
    write("other/notes.txt", b"keep")
    with pytest.raises(InputError) as caught:
        read("a.jsonl", quarantine=quarantine)
    message = f"data.source.quarantine: {quarantine} contains other files, expected an empty or new folder"
    assert caught.value.lines() == f"error: {message}"
    assert Path("other/notes.txt").read_bytes() == b"keep"


def test_a_folder_that_cannot_be_created() -> None:
    write("a.jsonl", GOOD + BAD[0])
    with pytest.raises(InputError) as caught:
        read("a.jsonl", quarantine="a.jsonl/bad")
    assert str(caught.value) == "data.source.quarantine: a.jsonl/bad cannot be written: File exists"


def test_no_quarantine_without_faults() -> None:
    assert len(read(write("a.jsonl", GOOD))) == 1
    assert os.listdir() == ["a.jsonl"]


def test_all_faults_are_listed() -> None:
    write("a.jsonl", GOOD + b"{}\n" * 1500)
    read("a.jsonl")
    assert len(faults()) == 1500
    assert faults()[-1] == "a.jsonl:1501: prompt: this column is missing; there are none"


def test_a_file_name_that_is_not_utf8() -> None:
    path = os.fsdecode(b"caf\xe9.jsonl")
    try:
        write(path, GOOD + BAD[0])
    except OSError:
        pytest.skip("this file system refuses such names")
    (record,) = read(path)
    assert faults() == ["caf\\udce9.jsonl:2: prompt: found a number (7), expected text"]
    assert (record.id, record.source) == ("caf\\udce9.jsonl:1", "caf\\udce9")
