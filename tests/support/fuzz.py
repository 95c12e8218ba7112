"""Check functions for fuzzing: a reader may refuse its input with an ``InputError``, and nothing else.

Each takes the raw input; ``STRATEGIES`` has a strategy that makes inputs for each.
"""

import gzip
import json
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from guardreasoner.errors import InputError
from guardreasoner.prompts import PARSERS, reasoning_of, render
from guardreasoner.records import Record, read_records, read_rollouts
from guardreasoner.sources.files import Files
from guardreasoner.sources.pair_files import PairColumns, read_pairs
from guardreasoner.sources.predictions import read_predictions
from guardreasoner.sources.row_parser import Columns, RowParser
from guardreasoner.sources.rows import read_file_rows
from guardreasoner.tasks import GUARD_TASKS

FORMATS = ("a.jsonl", "a.json", "a.csv", "a.tsv", "a.jsonl.gz", "a.parquet")


def check_record_reader(data: bytes) -> None:
    """Read bytes as the user's own file of every format, row by row and as records."""
    for name in FORMATS:
        content = gzip.compress(data, 1) if name.endswith(".gz") else data
        with _file(name, content) as path:
            with suppress(InputError):
                for row in read_file_rows(path):
                    assert (row.values is None) != (row.fault is None)
            for quarantine in (None, str(path.parent / "bad")):
                with _refused():
                    list(Files(train=str(path), quarantine=quarantine).records("train"))


def check_row_parser(row: dict[str, Any]) -> None:
    """Convert a row with several mappings."""
    for columns in (Columns(), Columns(messages="prompt"), Columns("a.b", "c", {"request": "labels.x"}, id=None)):
        result = RowParser(columns, GUARD_TASKS).parse(row, "id", "source")
        if isinstance(result, list):
            assert result
            assert all(isinstance(fault, str) and fault for fault in result)


def check_verdict_parsers(text: str) -> None:
    """Parse verdicts in every reading."""
    for parse in PARSERS.values():
        verdicts = parse(text, GUARD_TASKS)
        assert all(verdicts[task.name] in (None, *task.labels) for task in GUARD_TASKS)
    assert text.startswith(reasoning_of(text, GUARD_TASKS))


def check_rollout_reader(data: bytes) -> None:
    """Read bytes as records and as rollouts."""
    with _file("a.jsonl", data) as path:
        for read in (read_records, read_rollouts):
            with _refused():
                read(path)


def check_prediction_reader(data: bytes) -> None:
    """Read bytes as predictions, as JSON lines and as a JSON list."""
    for name in ("generated_predictions.jsonl", "a.json"):
        with _file(name, data) as path, _refused():
            read = read_predictions(path)
            assert len(read.records) == len(read.rollouts)


def check_pair_reader(data: bytes) -> None:
    """Read bytes as preference pairs."""
    for name in ("a.jsonl", "a.csv"):
        with _file(name, data) as path, _refused():
            for pair in read_pairs([path], PairColumns(), GUARD_TASKS):
                assert pair.weight > 0
                assert pair.chosen != pair.rejected


@contextmanager
def _file(name: str, content: bytes) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(content)
        yield path


@contextmanager
def _refused() -> Iterator[None]:
    """Expect no error, or an ``InputError`` whose every line is one line."""
    try:
        yield
    except InputError as error:
        for line in (str(error), error.hint or "-", *error.details):
            assert line
            assert "\n" not in line


_WORDS = (
    *("prompt", "response", "labels", "request", "label", "id", "source", "messages", "role", "content", "user"),
    *("assistant", "chosen", "rejected", "weight", "harmful", "unharmful", "record_id", "predict", "index", "seed"),
    *("model", "fingerprint", "completion", "from", "value", "human", "gpt", "record", "None", "</s>", "<|eot_id|>"),
    *(
        "Request: harmful",
        "Answers:",
        "Human user:\n",
        "\n\nAI assistant:\n",
        "\ud800",
        "\0",
        "",
        "<think>",
        "</think>",
    ),
    render(Record("", "How?"), GUARD_TASKS),
)
_words = st.sampled_from(_WORDS)
_texts = _words | st.text(max_size=8) | st.lists(_words, max_size=4).map("".join)
_scalars = st.none() | st.booleans() | st.integers() | st.floats() | _texts
_values = st.recursive(
    _scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_texts, inner, max_size=4), max_leaves=8
)
_rows = st.dictionaries(_words | st.sampled_from(["a", "c", "labels.request"]), _values, max_size=7)
_pieces = st.sampled_from(
    (
        *(b'"', b",", b"\t", b"\n", b"\r", b"{", b"}", b"[", b"]", b":", b"\\", b"\xef\xbb\xbf", b"\xff\xfe", b"\0"),
        *(b"1e999", b"NaN", b"[" * 3000, b"9" * 5000, b'"\\ud800"', b"PAR1"),
        *(b"prompt,labels.request\n", b"prompt\tlabel\n"),
    )
)
_bytes = st.lists(_pieces | st.binary(max_size=6) | _words.map(lambda text: text.encode(errors="replace")))
_json_rows = st.lists(_rows, max_size=3)
_lines = _json_rows.map(lambda rows: "".join(json.dumps(row) + "\n" for row in rows).encode())
_data = st.one_of(
    _bytes.map(b"".join),
    _lines,
    _json_rows.map(lambda rows: json.dumps(rows).encode()),
    st.tuples(_lines, st.integers(0, 200), st.binary(max_size=3)).map(lambda t: t[0][: t[1]] + t[2] + t[0][t[1] :]),
)
_outputs = st.lists(
    st.sampled_from(
        ["Answers:", "# Answers", "\n", " ", ",", ":", "Request", "request: ", "Completion:", "ı", "İ", "ſ"]
    )
    | _texts
).map("".join)

STRATEGIES: dict[Callable[[Any], None], st.SearchStrategy[Any]] = {
    check_record_reader: _data,
    check_row_parser: _rows,
    check_verdict_parsers: _outputs,
    check_rollout_reader: _data,
    check_prediction_reader: _data,
    check_pair_reader: _data,
}
"""A strategy for each check function; the campaign runs each for ten minutes."""
