import json
from collections.abc import Callable
from pathlib import Path

import pytest

from guardreasoner.errors import InputError
from guardreasoner.prompts import render
from guardreasoner.records import Record, write_jsonl
from guardreasoner.sources.named_predictions import (
    check_against_benchmarks,
    prediction_warnings,
    read_named_predictions,
)
from guardreasoner.tasks import GUARD_TASKS, Task, write_tasks

NAME = "SimpleSafetyTests"
ROWS = [(render(Record("", prompt), GUARD_TASKS), "harmful") for prompt in ("one", "two", "two")]


def released(folder: Path, rows: list[tuple[str, str]] = ROWS, name: str = NAME) -> Path:
    """Write predictions in the released form."""
    lines = [{"prompt": text, "label": label, "predict": ""} for text, label in rows]
    write_jsonl(folder / name / "generated_predictions.jsonl", lines)
    return folder


@pytest.fixture
def benchmark(tmp_path: Path) -> Path:
    """A folder with one released benchmark, whose last two samples are alike."""
    file = tmp_path / "data" / "benchmarks" / "0_0_SimpleSafetyTests.json"
    file.parent.mkdir(parents=True)
    samples = []
    for text, label in ROWS:
        place = text.index("\nHuman user:")
        samples.append({"instruction": text[:place], "input": text[place + 1 :], "output": label})
    file.write_text(json.dumps(samples))
    return tmp_path / "data"


def test_names_are_given_or_the_folders_or_the_paths(tmp_path: Path) -> None:
    one, two = released(tmp_path / "a" / "m"), released(tmp_path / "b" / "m")
    assert [of.name for of in read_named_predictions([str(one)], "score")] == ["m"]
    assert [of.name for of in read_named_predictions([str(one), str(two)], "score")] == [str(one), str(two)]
    assert [of.name for of in read_named_predictions([f"x={one}", str(two)], "score")] == ["x", str(two)]
    (run,) = read_named_predictions([f"x={one},{two}"], "compare", seeds=True)
    assert (run.paths, len(run.seeds)) == ((str(one), str(two)), 2)


def test_a_path_may_hold_what_parts_words(tmp_path: Path) -> None:
    folder = released(tmp_path / "a=b,c")
    (one,) = read_named_predictions([str(folder)], "compare", seeds=True)
    assert (one.name, one.paths) == ("a=b,c", (str(folder),))
    (one,) = read_named_predictions([f"x={folder}"], "compare", seeds=True)
    assert (one.name, one.paths) == ("x", (str(folder),))


def test_names_and_tasks_must_fit(tmp_path: Path) -> None:
    one, two = released(tmp_path / "a"), released(tmp_path / "b")
    with pytest.raises(InputError, match="compare: 'x' is given twice"):
        read_named_predictions([f"x={one}", f"x={two}"], "compare")
    write_tasks(two, [*GUARD_TASKS[:1], Task("kind", "Kind", "which?", ("a", "b"))])
    with pytest.raises(InputError, match=r"score: b was asked other tasks \(request, kind\) than a"):
        read_named_predictions([str(one), str(two)], "score")


def test_rows_that_repeat_are_remarked(tmp_path: Path) -> None:
    named = read_named_predictions([str(released(tmp_path / "a"))], "score")
    assert prediction_warnings(named) == [
        "a: rows that repeat another row's conversation, counted like any other: SimpleSafetyTests 1"
    ]
    assert prediction_warnings(read_named_predictions([str(released(tmp_path / "b", ROWS[:2]))], "score")) == []


@pytest.mark.parametrize(
    ("change", "absent", "other"),
    [
        (lambda rows: rows[:2], 1, 0),
        (lambda rows: [*rows, rows[0]], 0, 1),
        (lambda rows: [rows[0], rows[0], rows[1]], 1, 1),
        (lambda rows: [(rows[0][0], "unharmful"), *rows[1:]], 1, 1),
    ],
)
def test_other_records_than_the_benchmarks_are_refused(
    benchmark: Path,
    tmp_path: Path,
    change: Callable[[list[tuple[str, str]]], list[tuple[str, str]]],
    absent: int,
    other: int,
) -> None:
    named = read_named_predictions([str(released(tmp_path / "m", change(ROWS)))], "score")
    with pytest.raises(InputError) as caught:
        check_against_benchmarks(named, benchmark)
    what = f"{absent} of the benchmark's 3 records have no row, and {other} rows are not the benchmark's or repeat one"
    assert str(caught.value) == f"{tmp_path / 'm'}: SimpleSafetyTests: {what}"


def test_the_benchmarks_own_records_pass(benchmark: Path, tmp_path: Path) -> None:
    assert check_against_benchmarks(read_named_predictions([str(released(tmp_path / "m"))], "score"), benchmark) == []
    turned = read_named_predictions([str(released(tmp_path / "n", ROWS[::-1]))], "score")
    assert check_against_benchmarks(turned, benchmark) == [
        f"{tmp_path / 'n'}: SimpleSafetyTests: the rows are the benchmark's in another order"
    ]
    own = read_named_predictions([str(released(tmp_path / "o", name="mine"))], "score")
    assert "mine is none of the released benchmarks" in check_against_benchmarks(own, benchmark)[0]
    absent = read_named_predictions([str(released(tmp_path / "p", name="SafeRLHF"))], "score")
    with pytest.raises(InputError, match="no such file"):
        check_against_benchmarks(absent, benchmark)
