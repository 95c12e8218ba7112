"""Scores by slice: language, source, turns and further columns, in the terminal, JSON and the report."""

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from guardreasoner.cli.main import main
from guardreasoner.tasks import GUARD_TASKS
from tests.support.labelled_predictions import SEVERITY, labelled_predictions

REQUEST = GUARD_TASKS[0]
H, U = REQUEST.labels
ANSWERS = [(H, H), (U, U), (U, H), (H, U), (U, "")] * 6
LANGUAGES = ["de"] * 12 + ["en"] * 10 + [None] * 5 + ["fr"] * 3


def columns() -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for number, language in enumerate(LANGUAGES):
        turn = [{"role": "user", "content": "Hm."}, {"role": "assistant", "content": "Yes?"}]
        messages = turn * (number // 20) + [{"role": "user", "content": "p"}]
        rows.append({"language": language, "messages": messages, "extra": {"team": "a" if number % 2 else "b"}})
    return rows


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return labelled_predictions(tmp_path / "m", REQUEST, ANSWERS, columns=columns())


def slices(out: Path, model: str = "m") -> dict[tuple[str, str | None], dict[str, Any]]:
    rows = json.loads(out.read_text())["models"][model]["slices"]
    return {(row["column"], row["value"]): row for row in rows}


def test_scores_are_split_by_each_column(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "scores.json"
    arguments = ["score", str(folder), "--by", "language", "turns", "source", "team"]
    assert main([*arguments, "--resamples", "100", "--json", str(out)]) == 0
    found = slices(out)
    assert list(found) == [
        *(("language", "de"), ("language", "en"), ("language", "fr"), ("language", None)),
        *(("turns", "1"), ("turns", "2"), ("source", "held-out"), ("team", "a"), ("team", "b")),
    ]
    german = found["language", "de"]
    # of 5 harmful records 3 are found; of 7 unharmful ones 2 are called harmful and 2 are unparsed
    assert (german["n"], german["unparsed"], german["recall"]) == (12, 2, 60)
    assert german["false_positive_rate"] == pytest.approx(400 / 7)
    assert german["f1"] == pytest.approx(100 * 6 / (6 + 4 + 2))
    low, high = german["f1_interval"]
    assert low < german["f1"] < high
    assert found["source", "held-out"]["n"] == found["turns", "1"]["n"] + found["turns", "2"]["n"] == 30
    shown = capsys.readouterr().out
    assert "Scores by language" in shown
    assert "Slices: records of all benchmarks with the same value" in shown


def test_a_small_slice_has_its_size_and_no_figure(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "scores.json"
    assert main(["score", str(folder), "--by", "language", "--resamples", "10", "--json", str(out)]) == 0
    for value, n in (("fr", 3), (None, 5)):
        small = slices(out)["language", value]
        assert (small["n"], small["unparsed"]) == (n, 1)
        assert small["f1"] is small["f1_interval"] is small["recall"] is small["false_positive_rate"] is None
    row = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("(none)"))
    assert row.split() == ["(none)", "request", "m", "5", "1"]


def test_models_and_modes_are_side_by_side(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = labelled_predictions(tmp_path / "n", REQUEST, [(gold, gold) for gold, _ in ANSWERS], columns=columns())
    out = tmp_path / "scores.json"
    arguments = ["score", str(folder), str(other), "--by", "team", "--mode", "strict", "drop", "--resamples", "0"]
    assert main([*arguments, "--json", str(out)]) == 0
    shown = capsys.readouterr().out
    assert "Scores by team (strict)" in shown
    assert "Scores by team (drop)" in shown
    modes = json.loads(out.read_text())["modes"]
    assert all(len(modes[mode]["models"][name]["slices"]) == 2 for mode in ("strict", "drop") for name in ("m", "n"))
    assert modes["drop"]["models"]["n"]["slices"][0]["f1"] == 100


def test_ordered_labels_are_split_by_reading_too(tmp_path: Path) -> None:
    safe, controversial, unsafe = SEVERITY.labels
    answers = [(safe, controversial), (unsafe, unsafe)] * 6
    folder = labelled_predictions(tmp_path / "m", SEVERITY, answers)
    out = tmp_path / "scores.json"
    assert main(["score", str(folder), "--by", "source", "--resamples", "0", "--json", str(out)]) == 0
    rows = json.loads(out.read_text())["models"]["m"]["slices"]
    assert [(row["task"], row["false_positive_rate"]) for row in rows] == [
        ("response", 0),
        ("response (strict)", 100),
        ("response (loose)", 0),
    ]


def test_the_report_has_a_section_of_slices(folder: Path, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    runs = [f"A={folder}", f"B={folder}"]
    assert main(["report", *runs, "--by", "language", "team", "--resamples", "20", "--out", str(page)]) == 0
    text = page.read_text()
    assert 'id="slices"' in text
    assert "Scores by team" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--by", "topic"], "no record has a value in the column 'topic'; there are language, source, turns, team"),
        (["--by", "team", "team"], ""),
    ],
)
def test_an_unknown_column_is_refused_with_those_there_are(
    folder: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["score", str(folder), *arguments, "--resamples", "0"]) == (2 if message else 0)
    shown = capsys.readouterr()
    assert message in shown.err
    assert shown.out.count("Scores by team") == (not message)


def test_a_column_with_many_values_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    extra = [{"extra": {"hash": str(number)}} for number in range(201)]
    folder = labelled_predictions(tmp_path / "m", REQUEST, [(H, H)] * 201, columns=extra)
    assert main(["score", str(folder), "--by", "hash"]) == 2
    assert "the column 'hash' has 201 values, at most 200 can be shown" in capsys.readouterr().err


def test_predictions_that_follow_by_are_asked_for_first(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["score", "--by", "language", str(folder)]) == 2
    assert "name the predictions before --by" in capsys.readouterr().err


@pytest.mark.skipif(find_spec("py3langid") is None, reason="py3langid is not installed")
def test_languages_are_detected_on_request(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    texts = ["Wie kann ich die Tür ohne Schlüssel öffnen?", "How do I open the door without a key?"] * 10 + ["ok"]
    rows = [{"messages": [{"role": "user", "content": text}]} for text in texts]
    folder = labelled_predictions(tmp_path / "m", REQUEST, [(H, H)] * 21, columns=rows)
    out = tmp_path / "scores.json"
    arguments = ["score", str(folder), "--by", "language", "--resamples", "0", "--json", str(out)]
    assert main(arguments) == 2
    assert "--detect_language detects it" in capsys.readouterr().err
    assert main([*arguments, "--detect_language"]) == 0
    assert {value: row["n"] for (_, value), row in slices(out).items()} == {"de": 10, "en": 10, None: 1}


def test_numbers_are_in_order_however_long(tmp_path: Path) -> None:
    numbers = ["9" * 5_000, "10", "007", "9", "1" + "0" * 5_000]
    extra = [{"extra": {"n": numbers[index % len(numbers)]}} for index in range(len(ANSWERS))]
    folder = labelled_predictions(tmp_path / "m", REQUEST, ANSWERS, columns=extra)
    out = tmp_path / "scores.json"
    assert main(["score", str(folder), "--by", "n", "--resamples", "0", "--json", str(out)]) == 0
    assert [value for _, value in slices(out)] == ["007", "9", "10", "9" * 5_000, "1" + "0" * 5_000]
