"""Messages for invalid files, contradicting rows, and invalid arguments."""

import gzip
import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from guardreasoner.errors import InputError
from guardreasoner.sources.files import Files
from guardreasoner.sources.row_parser import Columns
from guardreasoner.tasks import Task

HINT = "correct them, or move them out with data.source.quarantine: FOLDER"
GOOD = '{"prompt": "How do I bake bread?", "labels": {"request": "unharmful"}}\n'


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in an empty folder, so that messages contain short paths."""
    monkeypatch.chdir(tmp_path)


def write(path: str, content: str | bytes) -> None:
    """Write a file and its parent folders."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_bytes(content if isinstance(content, bytes) else content.encode())


def read_error(**arguments: Any) -> InputError:
    """Return the error of reading the training records."""
    with pytest.raises(InputError) as caught:
        list(Files(**arguments).records("train"))
    return caught.value


def duplicate_column() -> bytes:
    """Return a Parquet file with two columns of the same name."""
    buffer = io.BytesIO()
    table = pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], names=["prompt", "prompt"])
    pq.write_table(table, buffer)
    return buffer.getvalue()


def empty_parquet() -> bytes:
    """Return a Parquet file without rows."""
    buffer = io.BytesIO()
    pq.write_table(pa.table({"prompt": pa.array([], pa.string())}), buffer)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", "", "a.jsonl: the file has no rows"),
        ("a.jsonl", "\n \r\n\t\n", "a.jsonl: the file has no rows"),
        ("a.jsonl", b"\xef\xbb\xbf", "a.jsonl: the file has no rows"),
        ("a.jsonl.gz", b"", "a.jsonl.gz: the file has no rows"),
        ("a.jsonl.gz", gzip.compress(b"", mtime=0), "a.jsonl.gz: the file has no rows"),
        ("a.json", "", "a.json: the file has no rows"),
        ("a.json", " [\n] ", "a.json: the file has no rows"),
        ("a.csv", "", "a.csv: the file has no rows"),
        ("a.csv", "prompt,label\n\n", "a.csv: the file has no rows"),
        ("a.tsv", "prompt\tlabel", "a.tsv: the file has no rows"),
        ("a.parquet", empty_parquet(), "a.parquet: the file has no rows"),
        ("a.json", "17", "a.json: found a number, expected a JSON list of objects"),
        ("a.json", "9" * 9000, "a.json: found a number, expected a JSON list of objects"),
        ("a.json", "null", "a.json: found null, expected a JSON list of objects"),
        ("a.json", '\n"[]"', "a.json: found a text, expected a JSON list of objects"),
        ("a.json", "[\n{}", "a.json:2: not valid JSON: Expecting ',' or ']' at column 3"),
        ("a.json", "[\n{},\n", "a.json:3: not valid JSON: Expecting value at column 1"),
        ("a.json", "[{},]", "a.json:1: not valid JSON: Expecting value at column 5"),
        ("a.json", "[{} {}]", "a.json:1: not valid JSON: Expecting ',' or ']' at column 5"),
        ("a.json", "[{}]\n[{}]", "a.json:2: not valid JSON: Extra data at column 1"),
        ("a.json", "[]\n]", "a.json:2: not valid JSON: Extra data at column 1"),
        ("a.json", "[{}\n,\n{'a': 1}]", "a.json:3: not valid JSON: Expecting property name enclosed in double quotes"),
        ("a.json", "prompt,label\n", "a.json:1: not valid JSON: Expecting value at column 1"),
        ("a.json", '[\n["é'.encode() + b'\xff"]]', "a.json:2: not valid UTF-8: byte 0xff at character 4"),
        ("a.json", "[" * 100_000, "a.json:1: not valid JSON: too deeply nested"),
        ("a.csv", "prompt,label,prompt\n1,2,3\n", "a.csv:1: the column 'prompt' occurs twice"),
        ("a.csv", "prompt,,\n1,2,3\n", "a.csv:1: the column '' occurs twice"),
        ("a.csv", b"\n\nprompt,\xe9\n1,2\n", "a.csv:3: the column names are not valid UTF-8"),
        ("a.csv", '"prompt,label\nHello?,1\n', "a.csv:1: not valid CSV: a quoted cell is not closed"),
        (
            "a.csv",
            "prompt,label\rHello?,harmful\r",
            "a.csv:1: not valid CSV: found a carriage return outside quotes, expected lines that end in \\n or \\r\\n",
        ),
        ("a.parquet", duplicate_column(), "a.parquet: the column 'prompt' occurs twice"),
        ("a.parquet", GOOD, "a.parquet: not a readable Parquet file: Parquet magic bytes not found in footer."),
        ("a.parquet", b"", "a.parquet: not a readable Parquet file: Parquet file size is 0 bytes"),
        ("a.jsonl.gz", GOOD, "a.jsonl.gz: cannot be read: Not a gzipped file (b'{\"')"),
        (
            "a.csv.gz",
            gzip.compress(b"prompt,label\n" * 99, mtime=0)[:-9],
            "a.csv.gz: cannot be read: Compressed file ended before the end-of-stream marker was reached",
        ),
        ("a.json.gz", b"\x1f\x8b\x08\0\0\0\0\0\0\3\xff\xff", "a.json.gz: cannot be read: Error -3 while decompressing"),
        ("a.txt", GOOD, "a.txt: expected a name that ends in .jsonl, .json, .csv, .tsv, .parquet"),
        ("jsonl", GOOD, "jsonl: expected a name that ends in .jsonl, .json, .csv, .tsv, .parquet"),
        ("a.jsonl.zip", GOOD, "a.jsonl.zip: expected a name that ends in .jsonl, .json, .csv, .tsv, .parquet"),
    ],
)
def test_an_invalid_file_is_refused(name: str, content: str | bytes, message: str) -> None:
    write(name, content)
    error = read_error(train=name)
    # the ends of these messages come from other libraries and vary between versions
    external = ("double quotes", "footer.", "0 bytes", "decompressing", ".parquet")
    assert str(error) == message or (message.endswith(external) and str(error).startswith(message))
    assert "\n" not in str(error)
    assert (error.hint, error.details) == (None, ())


@pytest.mark.parametrize("content", [GOOD, GOOD * 2])
def test_json_lines_in_a_json_file(content: str) -> None:
    write("a.json", content)
    error = read_error(train="a.json")
    assert error.lines() == (
        "error: a.json: found an object, expected a JSON list of objects\n"
        "hint: a file with an object on each line is named .jsonl"
    )


def test_missing_files() -> None:
    write("data/deep/a.jsonl", GOOD)
    assert read_error(train="absent.jsonl").lines() == "error: absent.jsonl: no such file"
    assert read_error(train="data/*.jsonl").lines() == "error: data.source.train: no file matches data/*.jsonl"
    assert (
        read_error(train="data/deep/a.jsonl", test="*.csv").lines() == "error: data.source.test: no file matches *.csv"
    )
    assert read_error(train="data/*").lines() == "error: data.source.train: no file matches data/*"
    folder = "error: data/deep: is a folder, expected a file\nhint: give its files: data/deep/*.jsonl"
    assert read_error(train="data/deep").lines() == folder


ASK = Task("ask", "Ask", "is it a question?", ("yes", "no"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "data.source: no file is given (train, validation or test)"),
        ({"train": "a.jsonl", "validation_share": 1}, "data.source: validation_share must be in [0, 1), got 1"),
        ({"train": "a.jsonl", "test_share": -0.1}, "data.source: test_share must be in [0, 1), got -0.1"),
        ({"train": "a.jsonl", "test_share": float("nan")}, "data.source: test_share must be in [0, 1), got nan"),
        (
            {"train": "a.jsonl", "test_share": 0.5, "validation_share": 0.5},
            "data.source: validation_share and test_share must sum to less than 1",
        ),
        (
            {"train": "a.jsonl", "test": "b.jsonl", "test_share": 0.1},
            "data.source: test and test_share are both set, expected only one of them",
        ),
        (
            {"train": "a.jsonl", "columns": Columns(labels={"requests": "label"})},
            "columns.labels: no task 'requests'; there are request, completion, response",
        ),
        (
            {"train": "a.jsonl", "columns": Columns(label_map={"ask": {1: "yes"}})},
            "columns.label_map: no task 'ask'; there are request, completion, response",
        ),
        (
            {"train": "a.jsonl", "tasks": [ASK], "columns": Columns(label_map={"ask": {1: "Yes"}})},
            "columns.label_map.ask: 1 is mapped to 'Yes', allowed are yes, no",
        ),
        (
            {"train": ["a.jsonl", "./a.jsonl"]},
            "data.source: a.jsonl is given twice, expected each file once, in one split",
        ),
        ({"train": "*.jsonl", "test": "x/../a.jsonl"}, "data.source: x/../a.jsonl is given twice, expected each file"),
    ],
)
def test_an_invalid_argument_is_refused(arguments: dict[str, Any], message: str) -> None:
    write("a.jsonl", GOOD)
    write("x/b.jsonl", GOOD)
    error = read_error(**arguments)
    assert str(error) == message if not message.endswith("each file") else str(error).startswith(message)
    assert (error.hint, error.details) == (None, ())


def test_keep_conditions_that_match_no_row() -> None:
    write("a.csv", "prompt,labels.request,part\nHello?,harmful,two\nWhat?,harmful,3\n")
    message = "a.csv: none of 2 rows matches data.source.keep (part: one, 2, true, null)"
    assert read_error(train="a.csv", keep={"part": ["one", 2, True, None]}).lines() == f"error: {message}"
    message = "a.csv: none of 2 rows matches data.source.keep (prompt: Hello?; part: 3)"
    assert read_error(train="a.csv", keep={"prompt": ["Hello?"], "part": [3]}).lines() == f"error: {message}"

    message = "data.source.keep: a.csv has no column 'nowhere'; there are 'prompt', 'labels.request', 'part'"
    for values in (["x"], [None], ["x", ""]):  # a row without the column would count as empty
        assert read_error(train="a.csv", keep={"part": ["two"], "nowhere": values}).lines() == f"error: {message}"
    write("b.jsonl", line("Hello?", request="harmful"))
    message = "data.source.keep: b.jsonl has no column 'labels.part'; there are 'prompt', 'response', 'id', 'labels'"
    assert read_error(train="b.jsonl", keep={"labels.part": [None]}).lines() == f"error: {message}"


def line(prompt: str, response: str | None = None, /, id: str | None = None, **labels: str) -> str:
    """Return a row as a line of JSONL."""
    return json.dumps({"prompt": prompt, "response": response, "id": id, "labels": labels}) + "\n"


def test_duplicate_ids() -> None:
    write("a.jsonl", line("One?", id="x", request="harmful") + line("Two?", id="x", request="harmful"))
    write("b.jsonl", line("Three?", id="a.jsonl:1", request="harmful") + line("Four?", id="x", request="harmful"))
    error = read_error(train="a.jsonl", test="b.jsonl")
    assert error.lines() == (
        "a.jsonl:2: id: found 'x', which is already the id of a.jsonl:1, expected a unique id\n"
        "b.jsonl:2: id: found 'x', which is already the id of a.jsonl:1, expected a unique id\n"
        f"error: data.source: 2 of 4 rows are faulty, nothing was started\nhint: {HINT}"
    )


def test_ids_shared_by_files_of_one_split_start_with_the_file() -> None:
    for model in ("a", "b", "c"):
        rows = [line(f"{number}?", f"{model} says so.", id=str(number), request="harmful") for number in range(3)]
        write(f"data/{model}.jsonl", "".join(rows))
    write("own.jsonl", line("One?", id="d.json:item 1", request="harmful") + line("Two?", id="7", request="harmful"))
    write("d.json", f"[{line('Two?', request='harmful')}]")
    ids = [record.id for record in Files(train=["data/*.jsonl", "own.jsonl", "d.json"]).records("train")]
    assert ids == [
        *(f"{model}.jsonl:{number}" for model in ("a", "b", "c") for number in range(3)),
        *("own.jsonl:d.json:item 1", "own.jsonl:7", "d.json:item 1"),
    ]
    alone = [record.id for record in Files(train=["data/a.jsonl", "own.jsonl"]).records("train")]
    assert alone == ["0", "1", "2", "d.json:item 1", "7"]


def test_an_id_twice_in_one_file_is_a_fault_also_if_files_share_ids() -> None:
    write("a.jsonl", line("One?", id="x", request="harmful") + line("Two?", id="x", request="harmful"))
    write("b.jsonl", line("Three?", id="x", request="harmful"))
    assert read_error(train=["a.jsonl", "b.jsonl"]).details == (
        "a.jsonl:2: id: found 'a.jsonl:x', which is already the id of a.jsonl:1, expected a unique id",
    )


def test_no_id_column() -> None:
    write("a.jsonl", line("One?", id="x", request="harmful") + line("Two?", id="x", request="harmful"))
    records = Files(train="a.jsonl", columns=Columns(id=None)).records("train")
    assert [record.id for record in records] == ["a.jsonl:1", "a.jsonl:2"]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"prompt": "text"}, "prompt: a.csv has no column 'text'"),
        ({"prompt": "q", "response": "answer"}, "response: a.csv has no column 'answer'"),
        ({"prompt": "q", "reasoning": "why"}, "reasoning: a.csv has no column 'why'"),
        ({"prompt": "q", "source": "set"}, "source: a.csv has no column 'set'"),
        ({"prompt": "q", "id": "key"}, "id: a.csv has no column 'key'"),
        ({"prompt": "q", "labels": {"request": "lable"}}, "labels.request: a.csv has no column 'lable'"),
        ({"prompt": "q", "labels": {"request": "a.b"}}, "labels.request: a.csv has no column 'a.b'"),
        ({"messages": "turns"}, "messages: a.csv has no column 'turns'"),
        (
            {"prompt": "q"},
            "labels: a.csv has none of the columns labels, labels.request, labels.completion, labels.response",
        ),
    ],
)
@pytest.mark.parametrize("quarantine", [None, "bad"])
def test_a_wrong_mapping_is_one_fault(columns: dict[str, Any], message: str, quarantine: str | None) -> None:
    write("a.csv", "q,label\n" + "How?,harmful\n" * 50)
    error = read_error(train="a.csv", columns=Columns(**columns), quarantine=quarantine)
    assert error.lines() == f"error: data.source.columns.{message}; there are 'q', 'label'"
    assert not Path("bad").exists()


def test_labels_that_the_map_lacks_are_one_fault() -> None:
    write("a.csv", "q,label\n" + "".join(f"How {number}?,safe\n" for number in range(50)))
    error = read_error(train="a.csv", columns=Columns(prompt="q", labels={"request": "label"}))
    assert error.lines() == (
        "error: a.csv: all rows are faulty in label; the first fault: a.csv:2: label: found 'safe', "
        "allowed are harmful, unharmful\nhint: check data.source.columns"
    )


def test_a_column_that_some_rows_lack_is_a_fault_of_those_rows() -> None:
    write("a.jsonl", GOOD + '{"labels": {"request": "harmful"}}\n')
    assert read_error(train="a.jsonl").details == ("a.jsonl:2: prompt: this column is missing; there are 'labels'",)


def test_repeated_conversations_with_contradicting_labels() -> None:
    rows = [
        line("One?", "So.", request="harmful"),
        line("One?", "So.", request="harmful"),  # an exact repetition
        line("One?", "No.", request="unharmful"),  # another response
        line("One?", request="unharmful"),  # no response
        line("One?", "So.", response="harmful"),  # a label for another task
        line("One?", "So.", request="harmful", response="harmful"),
        line("One?", "So.", request="unharmful", response="unharmful"),
        line("One?", "So.", completion="refusal"),
        line("One?", "So.", completion="compliance"),
    ]
    write("a.jsonl", "".join(rows))
    error = read_error(train="a.jsonl")
    again = "as for the same conversation at"
    assert error.details == (
        f"a.jsonl:7: labels: found request unharmful, expected harmful {again} a.jsonl:1",
        f"a.jsonl:7: labels: found response unharmful, expected harmful {again} a.jsonl:5",
        f"a.jsonl:9: labels: found completion compliance, expected refusal {again} a.jsonl:8",
    )
    assert str(error) == "data.source: 2 of 9 rows are faulty, nothing was started"


def test_contradictions_between_files_of_different_formats() -> None:
    write("a.csv", "prompt,labels.request\n\n\nOne?,harmful\n")
    write("b.json", '[{"prompt": "One?", "labels": {"request": "unharmful"}}]')
    pq.write_table(pa.table({"prompt": ["Two?", "One?"], "labels.request": ["harmful", "unharmful"]}), "c.parquet")
    again = "labels: found request unharmful, expected harmful as for the same conversation at a.csv:4"
    assert read_error(train=["a.csv", "b.json"], test="c.parquet").details == (
        f"b.json:item 1: {again}",
        f"c.parquet:row 2: {again}",
    )


def test_a_prompt_shared_by_training_and_validation() -> None:
    write("a.jsonl", line("How do I bake\u00a0Café bread?", request="harmful"))
    write("b.jsonl", line("how do i  bake CAFE\u0301 br\u200bead?", "So.", request="harmful"))
    error = read_error(train="a.jsonl", validation="b.jsonl")
    assert error.details == ("b.jsonl:1: prompt: also occurs in the training split, at a.jsonl:1",)


@pytest.mark.parametrize("splits", [{"validation": "a.jsonl"}, {"train": "c.jsonl", "validation": ["a.jsonl"]}])
@pytest.mark.parametrize("shared", [True, False])
def test_a_prompt_shared_by_validation_and_test(
    shared: bool, splits: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    write("a.jsonl", line("What?", request="harmful") + line("Mend a\u00a0Caf\u00e9 chair?", request="harmful"))
    again = line("mend  a CAFE\u0301 chair?", "So.", request="harmful")
    write("b.jsonl", line("Who?", request="harmful") + (again if shared else ""))
    write("c.jsonl", line("Where?", request="harmful"))
    assert len(list(Files(test="b.jsonl", **splits).records("test"))) == 1 + shared
    said = "test rows whose prompt is in the validation split too: 1, for example b.jsonl:2 and a.jsonl:2; "
    assert [message.startswith(said) for message in caplog.messages] == [True] * shared


def test_a_prompt_shared_by_test_and_the_share_for_validation(caplog: pytest.LogCaptureFixture) -> None:
    rows = "".join(line(f"How do I mend chair {number}?", request="harmful") for number in range(40))
    write("a.jsonl", rows)
    write("b.jsonl", rows)
    held_out = list(Files(train="a.jsonl", test="b.jsonl", validation_share=0.5).records("validation"))
    assert 0 < len(held_out) < 40
    assert f"test rows whose prompt is in the validation split too: {len(held_out)}, for example" in caplog.text


def test_many_faults_are_counted_and_the_first_thousand_listed() -> None:
    write("a.jsonl", GOOD + "{\n" * 1002)
    error = read_error(train="a.jsonl")
    assert len(error.details) == 1001
    assert error.details[999].startswith("a.jsonl:1001: not valid JSON: Expecting property name")
    assert error.details[1000] == "… and 2 more; data.source.quarantine lists them all"
    assert str(error) == "data.source: 1002 of 1003 rows are faulty, nothing was started"


def test_files_with_only_faulty_rows_are_refused() -> None:
    write("a.jsonl", "{}\n[]\n")
    error = read_error(train="a.jsonl", quarantine="bad")
    first = "a.jsonl:1: prompt: this column is missing; there are none"
    assert error.lines() == f"error: a.jsonl: all rows are faulty; the first fault: {first}"
    assert not Path("bad").exists()
