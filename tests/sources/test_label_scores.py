"""Probabilities in prediction rows: what is read, and what is refused with its line."""

import json
from pathlib import Path
from typing import Any

import pytest

from guardreasoner.errors import InputError
from guardreasoner.sources.named_predictions import match_by_content, read_named_predictions
from guardreasoner.sources.predictions import read_predictions
from tests.support.output_files import predictions


def with_scores(folder: Path, scores: Any) -> Path:
    """Write predictions of two records; the second has these scores."""
    predictions(folder, "HH UU")
    file = folder / "held-out" / "generated_predictions.jsonl"
    first, second = (json.loads(line) for line in file.read_text().splitlines())
    file.write_text(json.dumps(first) + "\n" + json.dumps({**second, "scores": scores}) + "\n")
    return folder


def test_scores_are_read_by_kind_and_record(tmp_path: Path) -> None:
    votes = {"request": {"harmful": 0.25, "unharmful": 0}}
    direct = {"request": {"harmful": 1, "unharmful": 0.0}}
    read = read_predictions(with_scores(tmp_path, {"votes": votes, "direct": direct}))
    assert read.scores == {"direct": {"1": direct}, "votes": {"1": votes}}
    assert list(read.scores) == ["direct", "votes"]
    assert read_predictions(predictions(tmp_path / "none", "HH")).scores == {}


@pytest.mark.parametrize(
    ("scores", "problem"),
    [
        ({"fast": {}}, "unknown kind 'fast'"),
        ({"direct": {"mood": {}}}, "scores.direct.mood: unknown task"),
        ({"direct": {"request": {"bad": 1.0}}}, "'bad' is none of harmful, unharmful"),
        ({"direct": {"request": {"harmful": 1.2, "unharmful": 0.0}}}, "from 0 to 1, found 1.2"),
        ({"direct": {"request": {"harmful": -0.1, "unharmful": 1.0}}}, "from 0 to 1, found -0.1"),
        ({"direct": {"request": {"harmful": 0.5, "unharmful": 0.1}}}, "a sum of 1, found 0.6"),
        ({"direct": {"request": {}}}, "a sum of 1, found 0"),
        ({"votes": {"request": {"harmful": 0.75, "unharmful": 0.5}}}, "a sum of at most 1, found 1.25"),
        ({"direct": {"request": {"harmful": "0.5", "unharmful": 0.5}}}, "valid number"),
        ({"direct": {"request": {"harmful": True, "unharmful": 0}}}, "valid number"),
        ({"direct": {"request": 0.5}}, "scores.direct.request"),
        ([], "scores"),
    ],
)
def test_what_is_no_probability_is_refused_with_its_line(tmp_path: Path, scores: Any, problem: str) -> None:
    with pytest.raises(InputError) as error:
        read_predictions(with_scores(tmp_path, scores))
    assert "generated_predictions.jsonl:2: " in str(error.value)
    assert problem in str(error.value)
    assert "\n" not in str(error.value)


def test_nan_is_refused_with_its_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"jsonl:2"):
        read_predictions(with_scores(tmp_path, {"direct": {"request": {"harmful": float("nan")}}}))


def test_scores_follow_records_that_get_other_ids(tmp_path: Path) -> None:
    for name in "ab":
        predictions(tmp_path, "HH UU", benchmark=name)
        rows = map(json.loads, (tmp_path / name / "generated_predictions.jsonl").read_text().splitlines())
        kept = [{key: row[key] for key in ("prompt", "label", "predict")} for row in rows]
        scores = {"direct": {"request": {"harmful": 0.5, "unharmful": 0.5}}}
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps({**row, "scores": scores}) + "\n" for row in kept))
    named = match_by_content(read_named_predictions([str(tmp_path / f"{name}.jsonl") for name in "ab"], "score"))
    first, second = (row.seeds[0] for row in named)
    assert [record.id for record in second.records] == [record.id for record in first.records]
    assert second.scores == first.scores
    assert set(second.scores["direct"]) == {record.id for record in second.records}
