"""A table of bad input files, each with the command that reads it and the place that its message must name."""

import gzip
import io
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from guardreasoner.prompts import render
from guardreasoner.records import Record
from guardreasoner.records.jsonl import MAX_ROW
from guardreasoner.sources.files import Files
from guardreasoner.sources.pair_files import PairColumns, read_pairs
from guardreasoner.sources.row_parser import Columns
from guardreasoner.tasks import GUARD_TASKS


class BadFile(NamedTuple):
    """One case.

    Args:
        name: name of the case.
        write: writes the files into a folder, in which the command then runs.
        argv: the command.
        place: text of the message that says where the fault is.
    """

    name: str
    write: Callable[[Path], None]
    argv: tuple[str, ...]
    place: str


def cases() -> Iterator[BadFile]:
    """Yield every case; the names differ."""
    yield from _own_files()
    yield from _mappings()
    yield from _pairs()
    yield from _predictions()
    yield from _rollouts()


def read_directly(argv: tuple[str, ...]) -> None:
    """Read the file of a command that would first load a model, with the reader that the command uses."""
    if argv[0] == "base-model":
        source = yaml.safe_load(Path(argv[-1]).read_text())["data"]["init_args"]["source"]["init_args"]
        list(Files(**{**source, "columns": Columns(**source.get("columns", {}))}).records("train"))
    elif argv[0] == "fit":
        read_pairs([argv[argv.index("--data.pairs") + 1]], PairColumns(), GUARD_TASKS)
    else:
        raise ValueError(f"{argv[0]} reads no data before it loads a model")


GOOD = '{"prompt": "How do I bake bread?", "labels": {"request": "unharmful"}}\n'
TABLE = "prompt,labels.request\nHow do I bake bread?,unharmful\n"
PAIR = '{"prompt": "How?", "chosen": "Request: harmful", "rejected": "Request: unharmful"}\n'


def _writer(files: Mapping[str, str | bytes]) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        for name, content in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())

    return write


def _own(
    name: str, content: str | bytes, place: str, case: str = "", more: Mapping[str, str | bytes] = {}, **arguments: Any
) -> BadFile:
    """Return a case of the user's own file, read as training data."""
    source = {"class_path": "guardreasoner.Files", "init_args": {"train": name, **arguments}}
    overlay = yaml.safe_dump({"recipe": {"checkpoints": "made"}, "data": {"init_args": {"source": source}}})
    argv = ("base-model", "--config", "configs/base.yaml", "--config", "own.yaml")
    return BadFile(f"own {name} {case or place}", _writer({name: content, "own.yaml": overlay, **more}), argv, place)


def _own_files() -> Iterator[BadFile]:
    for line, what in {
        "{": "not valid JSON: Expecting property name",
        "prompt: How?": "not valid JSON: Expecting value at column 1",
        "[" * 50_000: "too deeply nested",
        '{"prompt": ' * 3000 + "1" + "}" * 3000: "too deeply nested",
        '{"prompt": ' + "9" * 5000 + "}": "a number with thousands of digits",
        '{"prompt": NaN}': "found NaN",
        '{"prompt": "a", "prompt": "b"}': "the key 'prompt' occurs twice",
        '{"prompt": "a\0"}': "Invalid control character",
        "\0\0": "Expecting value at column 1",
        '"text"': "found a text, expected a JSON object",
        "[1]": "found a list, expected a JSON object",
        "null": "found null, expected a JSON object",
        '{"labels": {"request": "harmful"}}': "prompt: this column is missing",
        '{"prompt": null, "labels": {"request": "harmful"}}': "prompt: found null",
        '{"prompt": " ", "labels": {"request": "harmful"}}': "prompt: found an empty text",
        '{"prompt": 7, "labels": {"request": "harmful"}}': "prompt: found a number",
        '{"prompt": "a", "labels": {"request": "bad"}}': "labels.request: found 'bad'",
        '{"prompt": "a", "labels": {"request": 1e999}}': "labels.request: found an infinite number",
        '{"prompt": "a", "labels": ["harmful"]}': "labels: found a list",
        '{"prompt": "a", "labels": {"requests": "harmful"}}': "labels: found 'requests'",
        '{"prompt": "a", "labels": {}}': "found no label",
        '{"prompt": "a\\ud800", "labels": {"request": "harmful"}}': "prompt: found a lone surrogate",
        '{"prompt": "a", "response": 1, "labels": {"request": "harmful"}}': "response: found a number",
        '{"prompt": "a", "id": 1.5, "labels": {"request": "harmful"}}': "id: found a number",
        '{"prompt": "a", "id": "x\\ny", "labels": {"request": "harmful"}}': "id: found a control character",
        '{"prompt": "a", "id": "' + "x" * 600 + '", "labels": {"request": "harmful"}}': "id: found 600 characters",
        '{"prompt": [{"role": "critic"}], "labels": {"request": "harmful"}}': "prompt: message 1: found the role",
        '{"prompt": [{"role": "user"}], "labels": {"request": "harmful"}}': "prompt: message 1: the content is missing",
    }.items():
        yield _own("a.jsonl", f"{GOOD}{line}\n", "a.jsonl:2: ", f"{what} {line[:9]}")
        if not line.startswith("\0") and line[0] in '{["n' and what.startswith(("prompt", "labels", "id", "resp")):
            yield _own("a.json", f"[{GOOD}, {line}]", "a.json:item 2: ", what)
    yield _own("a.jsonl", GOOD.encode() + b'{"prompt": "\xff"}\n', "a.jsonl:2: not valid UTF-8")
    yield _own("a.jsonl", GOOD.encode("utf-16"), "a.jsonl: found UTF-16")
    yield _own("a.jsonl", GOOD + GOOD.replace("unharmful", "harmful"), "a.jsonl:2: labels: found request harmful")
    yield _own("a.jsonl", GOOD.replace("{", '{"id": "x", ', 1) * 2, "a.jsonl:2: id: found 'x'")
    for content, place in {
        "": "a.json: the file has no rows",
        "[]": "a.json: the file has no rows",
        "17": "a.json: found a number",
        GOOD * 2: "a.json: found an object",
        "[\n{}": "a.json:2: not valid JSON",
        "[{},]": "a.json:1: not valid JSON",
        "[{} {}]": "a.json:1: not valid JSON",
        "[{}]\n[": "a.json:2: not valid JSON: Extra data",
        "[" * 50_000: "a.json:1: not valid JSON: too deeply nested",
    }.items():
        yield _own("a.json", content, place, f"{place} {content[:9]}")
    yield _own("a.json", b'[\n{"prompt": "\xe9"}]', "a.json:2: not valid UTF-8")
    for kind, delimiter in (("csv", ","), ("tsv", "\t")):
        for content, place in {
            "": "the file has no rows",
            "prompt,labels.request\n": "the file has no rows",
            "prompt,prompt\na,b\n": ":1: the column 'prompt' occurs twice",
            '"prompt,labels.request\na,harmful\n': ":1: not valid",
            f"{TABLE}a,harmful,b\n": ":3: found 3 cells",
            f"{TABLE}a\n": ":3: found 1 cell",
            f"{TABLE}a,bad\n": ":3: labels.request: found 'bad'",
            f"{TABLE},harmful\n": ":3: prompt: found null",
            f"{TABLE}a,\n": ":3: labels.request, labels.completion, labels.response: found no label",
            f'{TABLE}"a,harmful\nb\n': ":3: not valid CSV" if kind == "csv" else ":4: found 1 cell",
            "prompt,labels.request\ra,harmful\r": ":1: not valid",
        }.items():
            table = content.replace(",", delimiter)
            yield _own(
                f"a.{kind}", table, f"a.{kind}{'' if place[0] == ':' else ': '}{place}", f"{place} {content[-9:]}"
            )
        bad = TABLE.replace(",", delimiter).encode() + b"\xff" + delimiter.encode() + b"harmful\n"
        yield _own(f"a.{kind}", bad, f"a.{kind}:3: prompt: not valid UTF-8")
    yield _own("a.csv", f'{TABLE}"a"b,harmful\n', "a.csv:3: not valid CSV: found text after the closing quote")
    yield _own("a.csv", TABLE.encode("utf-16"), "a.csv: found UTF-16")
    yield _own("a.csv", f'{TABLE}"' + "x\n" * 70_000, "a.csv:3: the row is longer than")
    long = b'{"prompt": "' + b"x" * MAX_ROW + b'"}\n'
    yield _own("a.jsonl.gz", gzip.compress(GOOD.encode() + long, 1), "a.jsonl.gz:2: the line is longer than 16 MiB")
    yield _own("a.json.gz", gzip.compress(b"[" + long + b"]", 1), "a.json.gz:1: item 1 is longer than 16 MiB")
    yield _own("a.csv.gz", gzip.compress(TABLE.encode() + long, 1), "a.csv.gz:3: the line is longer than 16 MiB")
    yield _own("a.jsonl.gz", GOOD, "a.jsonl.gz: cannot be read", "no gzip")
    yield _own("a.jsonl.gz", gzip.compress(GOOD.encode() * 99)[:-9], "a.jsonl.gz: cannot be read", "cut gzip")
    damaged = bytearray(gzip.compress(bytes(range(256)) * 99))
    damaged[40] ^= 0xFF
    yield _own("a.csv.gz", bytes(damaged), "a.csv.gz", "damaged gzip")
    yield from _parquet_files()
    for name in ("a.txt", "a", "a.jsonl.zip", "a.xlsx"):
        yield _own(name, GOOD, f"{name}: expected a name that ends in")
    yield _own("a.jsonl", GOOD, "b.jsonl: no such file", more={}, test="b.jsonl")
    yield _own("a.jsonl", GOOD, "data.source.test: no file matches", more={}, test="*.csv")
    yield _own("a.jsonl", GOOD, "data.source: a.jsonl is given twice", more={}, test="./a.jsonl")


def _parquet_files() -> Iterator[BadFile]:
    good = _parquet({"prompt": ["How?", "Why?"], "labels.request": ["harmful", "unharmful"]})
    yield _own("a.parquet", GOOD, "a.parquet: not a readable Parquet file", "JSON")
    yield _own("a.parquet", b"", "a.parquet: not a readable Parquet file", "empty")
    yield _own("a.parquet", good[:-9], "a.parquet: ", "cut")
    yield _own("a.parquet", good[:-8] + b"\xff\xff\xff\x7fPAR1", "a.parquet: ", "length of the footer")
    yield _own("a.parquet", good[:-40] + b"\xff" * 30 + good[-10:], "a.parquet: ", "footer")
    yield _own(
        "a.parquet", _parquet({"prompt": ["a", None], "labels.request": ["harmful"] * 2}), "a.parquet:row 2: prompt"
    )
    yield _own(
        "a.parquet", _parquet({"prompt": ["a", "b"], "labels.request": ["harmful", "x"]}), "a.parquet:row 2: labels"
    )
    yield _own(
        "a.parquet", _parquet({"prompt": [1, 2], "labels.request": ["harmful"] * 2}), "a.parquet: all rows are faulty"
    )
    yield _own("a.parquet", _parquet({"prompt": pa.array([], pa.string())}), "a.parquet: the file has no rows")
    yield _own("a.parquet", _parquet({"text": ["a"]}), "columns.prompt: a.parquet has none of the columns")


def _parquet(columns: Mapping[str, Any]) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.table(dict(columns)), buffer)
    return buffer.getvalue()


def _mappings() -> Iterator[BadFile]:
    table = "q,label,n\n" + "How?,harmful,1\n" * 9
    for columns, place in (
        ({"prompt": "text"}, "data.source.columns.prompt: m.csv has no column 'text'"),
        ({"prompt": "q", "response": "r"}, "data.source.columns.response: m.csv has no column 'r'"),
        ({"prompt": "q", "reasoning": "r"}, "data.source.columns.reasoning: m.csv has no column 'r'"),
        ({"prompt": "q", "source": "s"}, "data.source.columns.source: m.csv has no column 's'"),
        ({"prompt": "q", "id": "i"}, "data.source.columns.id: m.csv has no column 'i'"),
        ({"prompt": "q"}, "data.source.columns.labels: m.csv has none of the columns"),
        ({"prompt": "q", "labels": {"request": "l"}}, "data.source.columns.labels.request: m.csv has no column 'l'"),
        ({"messages": "m"}, "data.source.columns.messages: m.csv has no column 'm'"),
        ({"messages": "q", "labels": {"request": "label"}}, "m.csv: all rows are faulty in q"),
        ({"prompt": "q", "labels": {"request": "n"}}, "m.csv: all rows are faulty in n"),
        ({"prompt": "q", "labels": {"requests": "label"}}, "columns.labels: no task 'requests'"),
        ({"prompt": "q", "label_map": {"ask": {"1": "harmful"}}}, "columns.label_map: no task 'ask'"),
        ({"prompt": "q", "label_map": {"request": {"1": "bad"}}}, "columns.label_map.request: '1' is mapped to 'bad'"),
    ):
        yield _own("m.csv", table, place, columns=columns)


def _pair_file(name: str, content: str | bytes, place: str, case: str = "") -> BadFile:
    argv = ("fit", "--config", "configs/hsdpo.yaml", "--auto_build", "false")
    argv = (*argv, "--data.rollouts", "[]", "--data.pairs", name)
    return BadFile(f"pairs {name} {case or place}", _writer({name: content}), argv, place)


def _pairs() -> Iterator[BadFile]:
    good = json.loads(PAIR)
    user = {"role": "user", "content": "How?"}
    for change, what in (
        ({"prompt": None}, "prompt: found null"),
        ({"prompt": ""}, "prompt: found an empty text"),
        ({"prompt": 1}, "prompt: found a number"),
        ({"prompt": [1]}, "prompt: message 1: expected an object"),
        ({"prompt": [{"role": "critic", "content": ""}]}, "prompt: message 1: found the role 'critic'"),
        ({"prompt": [{"role": "assistant", "content": "a"}]}, "prompt: found no message of the user"),
        ({"chosen": None}, "chosen: found null"),
        ({"chosen": ""}, "chosen: found an empty text"),
        ({"chosen": "</s>"}, "chosen: found an empty text"),
        ({"chosen": [user]}, "chosen: the last message is of the user"),
        ({"chosen": good["rejected"]}, "rejected: is the same text as chosen"),
        ({"rejected": 1}, "rejected: found a number"),
        ({"rejected": "\ud800"}, "rejected: found a lone surrogate"),
        ({"weight": 0}, "weight: found a number (0)"),
        ({"weight": -1}, "weight: found a number (-1)"),
        ({"weight": "x"}, "weight: found 'x'"),
        ({"id": []}, "id: found a list"),
        ({"response": 1}, "response: found a number"),
    ):
        yield _pair_file("p.jsonl", PAIR + json.dumps({**good, **change}), f"p.jsonl:2: {what}", f"{what} {change}")
    yield _pair_file(
        "p.jsonl", PAIR + PAIR.replace("{", '{"weight": 1e999, ', 1), "p.jsonl:2: weight: found an infinite"
    )
    yield _pair_file("p.jsonl", PAIR.replace("{", '{"id": "x", ', 1) * 2, "p.jsonl:2: id: found 'x'")
    yield _pair_file("p.jsonl", PAIR + '{"record": {"id": 1}}\n', "p.jsonl:2: record: id: expected str")
    yield _pair_file("p.jsonl", PAIR + "{\n", "p.jsonl:2: not valid JSON")
    yield _pair_file("p.jsonl", "", "p.jsonl: the file has no rows")
    yield _pair_file("p.jsonl", '{"a": 1}\n' * 9, "data.pair_columns.chosen: p.jsonl has no column 'chosen'")
    yield _pair_file("p.csv", "prompt,chosen,rejected\na,b\n", "p.csv:2: found 2 cells")
    yield _pair_file("p.txt", PAIR, "p.txt: expected a name that ends in")
    yield _pair_file("p.jsonl.gz", PAIR, "p.jsonl.gz: cannot be read")


def _prediction_row(**change: Any) -> str:
    row = {"prompt": render(Record("", "How?"), GUARD_TASKS), "label": "harmful", "predict": "Request: harmful"}
    return json.dumps({**row, **change}) + "\n"


def _predictions() -> Iterator[BadFile]:
    good, file = _prediction_row(), "run/Bench/generated_predictions.jsonl"

    def scored(content: str | bytes, place: str, case: str = "", name: str = file) -> BadFile:
        argv = ("score", name.partition("/")[0], "--resamples", "0")
        return BadFile(f"predictions {name} {case or place}", _writer({name: content}), argv, place)

    for line, what in {
        "{": "not valid JSON",
        "[" * 50_000: "not valid JSON: too deeply nested",
        '{"prompt": ' + "9" * 5000 + "}": "found a number with thousands of digits",
        '{"prompt": NaN}': "found NaN",
        '{"predict": 1, "predict": 2}': "the key 'predict' occurs twice",
        "[]": "expected a JSON object",
        "{}": "missing field 'prompt'",
        _prediction_row(predict=None): "predict: ",
        _prediction_row(predict=["a"]): "predict: ",
        _prediction_row(label=""): "label ''",
        _prediction_row(label="safe"): "label 'safe'",
        _prediction_row(label=None): "label: ",
        _prediction_row(prompt="How?"): "expected 'Human user:",
        _prediction_row(prompt=render(Record("", "How?"), GUARD_TASKS).rstrip()): "expected 'Human user: … AI",
        _prediction_row(id=7): "unknown field 'id'",
        _prediction_row(labels={"ask": "yes"}): "labels: unknown task 'ask'",
        _prediction_row(labels={"request": "bad"}): "labels: request: 'bad'",
        _prediction_row(labels={}): "no label for any task",
        _prediction_row(record_id=1): "record_id: ",
    }.items():
        yield scored(good + line, f"{file}:2: {what}", what + line[-30:])
    yield scored(good.encode() + b'{"prompt": "\xff"}', f"{file}:2: not valid UTF-8")
    yield scored(good.encode("utf-16"), f"{file}: found UTF-16")
    yield scored(b'{"prompt": "' + b"x" * MAX_ROW, f"{file}:1: the line is longer than 16 MiB")
    yield scored("", f"{file}: the file has no predictions")
    yield scored(_prediction_row(record_id="x") * 2, "record id 'x' occurs twice")
    unknown = "<|turn|>guard"
    rows = [_prediction_row(prompt=f"<|turn|>user {render(Record('', text), GUARD_TASKS)}{unknown}") for text in "ab"]
    yield scored("".join(rows), f"{file}: every prompt ends with text that is not the conversation")
    yield scored("[" + good, "a.json:2: not valid JSON", name="a.json")
    yield scored(f"[{good}, {_prediction_row(label='safe')}]", "a.json:item 2: label 'safe'", name="a.json")
    yield scored(good, "a.json: found an object", name="a.json")
    hard = {"record_id": "Bench/00000", "labels": {"request": "harmful"}, "index": 0, "seed": 0, "predict": ""}
    beside = "run/Bench/hard_samples.jsonl"
    for rows_, what in (
        ([{**hard, "index": "0"}], ":1: index"),
        ([{**hard, "labels": {"request": "unharmful"}}], ":1: record 'Bench/00000' has other labels"),
        ([hard, hard], ":2: record 'Bench/00000': output 0 of seed 0 occurs twice"),
        ([{}], ":1: missing field 'record_id'"),
    ):
        content = "".join(json.dumps(row) + "\n" for row in rows_)
        argv = ("score", "run", "--resamples", "0")
        yield BadFile(f"hard samples {what}", _writer({file: good, beside: content}), argv, f"{beside}{what}")
    outputs = {
        f"m/Bench/{n}/generated_predictions.jsonl": _prediction_row(label=label)
        for n, label in enumerate(("harmful", "unharmful"))
    }
    place = "m/Bench/1/generated_predictions.jsonl:1: another record than row 1"
    yield BadFile("k outputs of different records", _writer(outputs), ("score", "m"), place)
    yield BadFile(
        "predictions that are missing", _writer({"a": ""}), ("score", "absent"), "absent: no such file or folder"
    )


def _rollouts() -> Iterator[BadFile]:
    record = {"id": "r", "prompt": "How?", "labels": {"request": "harmful"}}
    rollout = {"record_id": "r", "model": "m", "fingerprint": "f", "index": 0, "seed": 0, "completion": ""}

    def mined(records: str, rollouts: str, place: str, case: str = "") -> BadFile:
        files = {"run/records.jsonl": records, "run/rollouts.jsonl": rollouts}
        argv = ("pairs", "--rollouts", "run", "--out", "pairs.jsonl")
        return BadFile(f"rollouts {case or place}", _writer(files), argv, place)

    good_record, good = json.dumps(record) + "\n", json.dumps(rollout) + "\n"
    for line, what in {
        "{\n": "not valid JSON",
        "[" * 50_000 + "\n": "not valid JSON: too deeply nested",
        "3\n": "expected a JSON object",
        '{"index": ' + "9" * 5000 + "}\n": "found a number with thousands of digits",
        '{"index": NaN}\n': "found NaN",
        '{"seed": 1, "seed": 2}\n': "the key 'seed' occurs twice",
        json.dumps({**rollout, "index": True}) + "\n": "index: expected int, found bool",
        json.dumps({**rollout, "index": 0.5}) + "\n": "index: expected int, found float",
        json.dumps({**rollout, "completion": None}) + "\n": "completion: expected str, found NoneType",
        json.dumps({**rollout, "score": 1}) + "\n": "unknown field 'score'",
        json.dumps({"record_id": "r"}) + "\n": "missing field 'model'",
    }.items():
        yield mined(good_record, good + line, f"run/rollouts.jsonl:2: {what}")
    for line, what in {
        "{\n": "not valid JSON",
        json.dumps({**record, "id": 7}) + "\n": "id: expected str, found int",
        json.dumps({**record, "labels": []}) + "\n": "labels: expected dict, found list",
        json.dumps({"id": "s"}) + "\n": "missing field 'prompt'",
        json.dumps({**record, "gold": 1}) + "\n": "unknown field 'gold'",
    }.items():
        yield mined(good_record + line, good, f"run/records.jsonl:2: {what}")
    yield mined(good_record * 2, good, "run/records.jsonl: record id 'r' occurs twice")
    yield mined("", good, "run/records.jsonl: the file has no record")
    yield mined(good_record, "", "run/rollouts.jsonl: the file has no rollout")
    yield mined(good_record, good.replace('"r"', '"s"') * 2, "m answered 's'")
    yield mined(good_record, good * 2, "record 'r': m (seed 0) gives output 0 twice")
    yield mined(json.dumps({**record, "labels": {}}) + "\n", good, "record r: no label for any task")
    yield mined(json.dumps({**record, "labels": {"request": "bad"}}) + "\n", good, "record r: request: 'bad'")
