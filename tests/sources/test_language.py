"""Languages and further columns of files; languages that are detected."""

import json
import logging
import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from guardreasoner.errors import InputError
from guardreasoner.records import Record
from guardreasoner.sources import Identified
from guardreasoner.sources.concat import Concat
from guardreasoner.sources.files import Files
from guardreasoner.sources.language import DetectLanguage, detect_language, require_detector
from guardreasoner.sources.row_parser import Columns
from tests.support.tiny import TinySource

needs_detector = pytest.mark.skipif(find_spec("py3langid") is None, reason="py3langid is not installed")


def read(path: Path, rows: list[dict[str, Any]], columns: Columns) -> list[Record]:
    path.write_text("".join(json.dumps({"labels": {"request": "harmful"}} | row) + "\n" for row in rows))
    return list(Files(test=str(path), columns=columns).records("test"))


def test_a_file_has_a_language_and_further_columns(tmp_path: Path) -> None:
    rows = [
        {"prompt": "a", "lang": "de", "meta": {"team": "x"}, "year": 2024, "ok": True},
        {"prompt": "b", "lang": " ", "meta": {"team": None}, "year": 2.5, "ok": False},
    ]
    columns = Columns(language="lang", extra=["meta.team", "year", "ok"])
    first, second = read(tmp_path / "a.jsonl", rows, columns)
    assert (first.language, dict(first.extra)) == ("de", {"meta.team": "x", "year": "2024", "ok": "true"})
    assert (second.language, dict(second.extra)) == (None, {"year": "2.5", "ok": "false"})


def test_a_column_of_language_is_read_only_if_it_is_named(tmp_path: Path) -> None:
    (record,) = read(tmp_path / "a.jsonl", [{"prompt": "a", "language": "de"}], Columns())
    assert (record.language, dict(record.extra)) == (None, {})


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"team": ["x"]}, "team: found a list, expected text, a number"),
        ({"team": "a\nb"}, "team: found 'a\\\\nb', expected at most 100 printable characters"),
        ({}, "columns.extra.team: .* has no column 'team'"),
    ],
)
def test_a_wrong_cell_is_a_fault_of_its_row(tmp_path: Path, row: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as raised:
        read(tmp_path / "a.jsonl", [{"prompt": "a"} | row], Columns(extra=["team"]))
    assert re.search(message, "\n".join([str(raised.value), *raised.value.details]))


@pytest.mark.parametrize(("extra", "message"), [(["turns"], "'turns' is a column"), (["a", "a"], "'a' is given twice")])
def test_a_further_column_has_a_name_of_its_own(extra: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Files(test="a.jsonl", columns=Columns(extra=extra))


@needs_detector
@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("How do I kill a process?", "en"),
        ("Wie koche ich Nudeln?", "de"),
        ("¿Cómo mato un proceso?", "es"),
        ("怎么杀死进程", "zh"),
        ("ok", None),
        ("123", None),
        ("", None),
    ],
)
def test_the_language_of_a_text_is_detected_if_it_is_clear(text: str, language: str | None) -> None:
    assert detect_language(text) == language


@needs_detector
def test_a_source_fills_in_missing_languages(caplog: pytest.LogCaptureFixture) -> None:
    class Mixed:
        def records(self, split: str) -> list[Record]:
            texts = ("Wie koche ich Nudeln?", "ok")
            return [Record("given", texts[0], language="xx"), *(Record(text, text) for text in texts)]

    caplog.set_level(logging.INFO, "guardreasoner")
    source = DetectLanguage(Mixed())
    assert [record.language for record in source.records("test")] == ["xx", "de", None]
    assert "the language of 1 of 2 records was detected" in caplog.text
    assert not isinstance(source, Identified)
    assert isinstance(DetectLanguage(Concat([Files(test="a.jsonl")])), Identified)
    assert len(list(DetectLanguage(TinySource()).records("test"))) == 6


def test_a_missing_detector_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("guardreasoner.sources.language.find_spec", lambda name: None)
    with pytest.raises(InputError, match="py3langid") as raised:
        require_detector()
    assert "guardreasoner[language]" in str(raised.value.hint)
