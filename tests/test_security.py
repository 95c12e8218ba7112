"""No malicious artefact runs code, writes outside its folder, or ends a command with anything but one line."""

import logging
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from guardreasoner.cli.main import main
from tests.support.malicious import Case, cases, files_outside

CASES = list(cases())


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty working folder with the project's configs, alone in its parent; nothing can be downloaded."""
    from tests.support.hub_folders import stay_offline

    folder = tmp_path / "alone" / "work"
    folder.mkdir(parents=True)
    stay_offline(tmp_path, monkeypatch)
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setenv("OPENAI_API_KEY", "unused")
    monkeypatch.setattr("guardreasoner.workflow.limited._SECONDS", 1.0)
    Path("configs").symlink_to(Path(__file__).parents[1] / "configs")
    yield folder
    logging.getLogger("guardreasoner").handlers.clear()  # its handler writes to the captured stream of this test


def test_there_are_enough_cases() -> None:
    assert len(CASES) >= 40
    assert len({case.name for case in CASES}) == len(CASES)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_nothing_is_executed(
    case: Case, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = case.setup(folder)
    monkeypatch.setattr(sys, "argv", ["guardreasoner", *argv])
    code = main(argv)
    shown = capsys.readouterr()
    assert files_outside(folder) == set()
    assert not case.canary(folder).exists()
    assert "Traceback" not in shown.err
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e]", shown.out + shown.err)
    if case.harmless:
        assert code == 0, shown.err
        case.check(folder)
    else:
        assert code
        heads = [line.split(":")[0] for line in shown.err.splitlines()]
        assert code == 1 or heads[heads.index("error") :] in (["error"], ["error", "hint"]), shown.err
