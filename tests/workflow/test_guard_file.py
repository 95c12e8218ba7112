"""Calibrations in ``guard.json``: added without a change of the model's manifest or of its content hash."""

import json
from contextlib import suppress
from pathlib import Path

import pytest

from guardreasoner.errors import InputError
from guardreasoner.evaluation.calibration.stored import stored_calibrations
from guardreasoner.workflow.guard_file import GUARD_FILE, read_calibrations, without_calibrations, write_calibration
from guardreasoner.workflow.integrity import changed_files
from guardreasoner.workflow.manifest import content_hash
from tests.support.scored_predictions import model_folder


def test_a_calibration_changes_neither_hash_nor_manifest(tmp_path: Path) -> None:
    model = model_folder(tmp_path / "m")
    before, original = content_hash(model), (model / GUARD_FILE).read_bytes()
    write_calibration(model / GUARD_FILE, "request", {"threshold": 0.1})
    write_calibration(model / GUARD_FILE, "response", {"threshold": 0.3})
    write_calibration(model / GUARD_FILE, "request", {"threshold": 0.2})
    assert read_calibrations(model / GUARD_FILE) == {"request": [{"threshold": 0.2}], "response": [{"threshold": 0.3}]}
    assert json.loads((model / GUARD_FILE).read_text())["format"] == {"opening": None}
    assert without_calibrations((model / GUARD_FILE).read_bytes()) == original
    assert content_hash(model) == before
    assert list(changed_files(model)) == []


def test_other_changes_of_the_file_are_still_seen(tmp_path: Path) -> None:
    model = model_folder(tmp_path / "m")
    file, before = model / GUARD_FILE, content_hash(model)
    write_calibration(file, "request", {"threshold": 0.1})
    good = file.read_text()
    for text in (
        good.replace("null", '"Is it bad?"'),
        good.replace("calibration", "calibratiom"),
        good.replace('"format"', '"format": {"opening": "a"}, "format"'),
        good[:-4],
    ):
        file.write_text(text)
        assert content_hash(model) != before
        assert [changed.path for changed in changed_files(model)] == [file]


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"calibration": 1}', '{"calibration": {"request": [1]}}', '{"a": 1, "a": 1}']
)
def test_a_damaged_file_is_refused_and_left_alone(tmp_path: Path, text: str) -> None:
    file = tmp_path / GUARD_FILE
    file.write_text(text)
    with pytest.raises(InputError, match=GUARD_FILE):
        write_calibration(file, "request", {})
    assert file.read_text() == text


@pytest.mark.parametrize("depth", [200, 500, 900, 990, 100_000])
def test_deep_nesting_is_one_line(tmp_path: Path, depth: int) -> None:
    model = model_folder(tmp_path / "m")
    nested = "[" * depth + "]" * depth
    for text in (
        nested,
        f'{{"calibration": {{}}, "a": {nested}}}',
        f'{{"calibration": {{"request": {{"score": {nested}}}}}}}',
        f'{{"calibration": {{"request": {{"score": "direct", "more": {nested}}}}}}}',
    ):
        (model / GUARD_FILE).write_text(text)
        content_hash(model)
        with pytest.raises(InputError, match=GUARD_FILE):
            stored_calibrations(model)
        with suppress(InputError):  # nesting that can be read can also be kept
            write_calibration(model / GUARD_FILE, "response", {})
            assert read_calibrations(model / GUARD_FILE)["response"] == [{}]
            continue
        assert (model / GUARD_FILE).read_text() == text
