import json
from collections.abc import Callable
from pathlib import Path

import pytest

from guardreasoner.errors import InputError
from guardreasoner.prompts import render
from guardreasoner.records import Record, write_jsonl
from guardreasoner.sources.named_predictions import (
    check_against_benchmarks,
    match_by_content,
    prediction_warnings,
    read_named_predictions,
)
from guardreasoner.tasks import GUARD_TASKS, Task, write_tasks

NAME = "SimpleSafetyTests"
ROWS = [(render(Record("", prompt), GUARD_TASKS), "harmful") for prompt in ("one", "two", "two")]


def write_released(folder: Path, rows: list[tuple[str, str]] = ROWS, name: str = NAME) -> Path:
    """Write predictions in the released format; return the folder."""
    lines = [{"prompt": text, "label": label, "predict": ""} for text, label in rows]
    write_jsonl(folder / name / "generated_predictions.jsonl", lines)
    return folder


@pytest.fixture
def benchmark(tmp_path: Path) -> Path:
    """A folder with one released benchmark whose last two samples are equal."""
    file = tmp_path / "data" / "benchmarks" / "0_0_SimpleSafetyTests.json"
    file.parent.mkdir(parents=True)
    samples = []
    for text, label in ROWS:
        split = text.index("\nHuman user:")
        samples.append({"instruction": text[:split], "input": text[split + 1 :], "output": label})
    file.write_text(json.dumps(samples))
    return tmp_path / "data"


def test_default_names_are_folders_or_paths(tmp_path: Path) -> None:
    first, second = write_released(tmp_path / "a" / "m"), write_released(tmp_path / "b" / "m")
    assert [row.name for row in read_named_predictions([str(first)], "score")] == ["m"]
    assert [row.name for row in read_named_predictions([str(first), str(second)], "score")] == [str(first), str(second)]
    assert [row.name for row in read_named_predictions([f"x={first}", str(second)], "score")] == ["x", str(second)]
    (run,) = read_named_predictions([f"x={first},{second}"], "compare", seeds=True)
    assert (run.paths, len(run.seeds)) == ((str(first), str(second)), 2)


def test_a_path_may_contain_separators(tmp_path: Path) -> None:
    folder = write_released(tmp_path / "a=b,c")
    (row,) = read_named_predictions([str(folder)], "compare", seeds=True)
    assert (row.name, row.paths) == ("a=b,c", (str(folder),))
    (row,) = read_named_predictions([f"x={folder}"], "compare", seeds=True)
    assert (row.name, row.paths) == ("x", (str(folder),))


def test_duplicate_names_and_different_tasks_are_refused(tmp_path: Path) -> None:
    first, second = write_released(tmp_path / "a"), write_released(tmp_path / "b")
    with pytest.raises(InputError, match="compare: 'x' is given twice"):
        read_named_predictions([f"x={first}", f"x={second}"], "compare")
    write_tasks(second, [*GUARD_TASKS[:1], Task("kind", "Kind", "which?", ("a", "b"))])
    with pytest.raises(InputError, match=r"score: b has other tasks \(request, kind\) than a"):
        read_named_predictions([str(first), str(second)], "score")


def test_repeated_rows_give_a_warning(tmp_path: Path) -> None:
    named = read_named_predictions([str(write_released(tmp_path / "a"))], "score")
    assert prediction_warnings(named) == [
        "a: rows that repeat another row's conversation, counted like any other: SimpleSafetyTests 1"
    ]
    assert prediction_warnings(read_named_predictions([str(write_released(tmp_path / "b", ROWS[:2]))], "score")) == []


@pytest.mark.parametrize(
    ("change", "missing", "extra"),
    [
        (lambda rows: rows[:2], 1, 0),
        (lambda rows: [*rows, rows[0]], 0, 1),
        (lambda rows: [rows[0], rows[0], rows[1]], 1, 1),
        (lambda rows: [(rows[0][0], "unharmful"), *rows[1:]], 1, 1),
    ],
)
def test_records_that_differ_from_the_benchmark_are_refused(
    benchmark: Path,
    tmp_path: Path,
    change: Callable[[list[tuple[str, str]]], list[tuple[str, str]]],
    missing: int,
    extra: int,
) -> None:
    named = read_named_predictions([str(write_released(tmp_path / "m", change(ROWS)))], "score")
    with pytest.raises(InputError) as caught:
        check_against_benchmarks(named, benchmark)
    what = (
        f"{missing} of the benchmark's 3 records have no row, and {extra} rows are not in the benchmark or repeat one"
    )
    assert str(caught.value) == f"{tmp_path / 'm'}: SimpleSafetyTests: {what}"


def test_the_records_of_the_benchmark_pass(benchmark: Path, tmp_path: Path) -> None:
    assert (
        check_against_benchmarks(read_named_predictions([str(write_released(tmp_path / "m"))], "score"), benchmark)
        == []
    )
    reordered = read_named_predictions([str(write_released(tmp_path / "n", ROWS[::-1]))], "score")
    assert check_against_benchmarks(reordered, benchmark) == [
        f"{tmp_path / 'n'}: SimpleSafetyTests: the rows are in another order than in the benchmark"
    ]
    own = read_named_predictions([str(write_released(tmp_path / "o", name="mine"))], "score")
    assert "mine is none of the released benchmarks" in check_against_benchmarks(own, benchmark)[0]
    absent = read_named_predictions([str(write_released(tmp_path / "p", name="SafeRLHF"))], "score")
    with pytest.raises(InputError, match="no such file"):
        check_against_benchmarks(absent, benchmark)


def test_runs_that_differ_in_the_name_of_their_file_alone_have_the_same_ids(tmp_path: Path) -> None:
    lines = [{"prompt": text, "label": label, "predict": ""} for text, label in ROWS]
    write_jsonl(tmp_path / "base.jsonl", lines)
    write_jsonl(tmp_path / "dpo.jsonl", [lines[1], lines[0], lines[2]])
    for name in ("eval_base", "eval_dpo"):
        write_jsonl(tmp_path / name / "generated_predictions.jsonl", lines)
    for names in (("base.jsonl", "dpo.jsonl"), ("eval_base", "eval_dpo")):
        named = read_named_predictions([str(tmp_path / name) for name in names], "compare")
        first, second = (row.seeds[0] for row in match_by_content(named))
        assert {record.id for record in first.records} == {record.id for record in second.records}
        assert {record.source for record in (*first.records, *second.records)} == {first.records[0].source}
        assert first == named[0].seeds[0]
    ids = {record.prompt: record.id for record in first.records}
    assert all(ids[record.prompt][:-1] == record.id[:-1] for record in second.records)
    assert [rollout.record_id for rollout in second.rollouts] == [record.id for record in second.records]


def test_runs_on_other_records_keep_their_ids(tmp_path: Path) -> None:
    write_released(tmp_path / "a", ROWS[:1], "One")
    write_released(tmp_path / "b", ROWS[1:], "Two")
    named = read_named_predictions([str(tmp_path / "a"), str(tmp_path / "b")], "compare")
    assert match_by_content(named) == named


@pytest.mark.parametrize("argument", ["x=,", ",", "x=", "", "x={folder},", "x=,{folder}"])
def test_an_empty_path_is_refused(argument: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_released(tmp_path / "a")
    monkeypatch.chdir(folder)
    with pytest.raises(InputError, match="found an empty path"):
        read_named_predictions([argument.format(folder=folder)], "compare", seeds=True)
