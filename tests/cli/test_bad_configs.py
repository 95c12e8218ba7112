"""A wrong config ends the command with one line that names the key, before anything is built, loaded or written."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.bad_configs import BadConfig, cases

CASES = cases()
ONE_OF_EACH_KIND = list({case.kind: case for case in CASES}.values())


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Record each attempt to build a stage in a process of its own, and refuse it; libraries may start theirs."""
    attempts: list[object] = []

    class Refusing(subprocess.Popen):  # type: ignore[type-arg]
        def __init__(self, argv: Any, *more: Any, **options: Any) -> None:
            if "guardreasoner" in argv:
                attempts.append(argv)
                raise OSError("a test of wrong configs builds no stage")
            super().__init__(argv, *more, **options)

    monkeypatch.setattr(subprocess, "Popen", Refusing)
    return attempts


@pytest.mark.parametrize("case", ONE_OF_EACH_KIND, ids=lambda case: case.kind.replace(" ", "-"))
def test_a_wrong_config_is_one_line(
    case: BadConfig,
    started: list[object],
    refused: Callable[..., str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    case.write_files(tmp_path)
    before = sorted(os.listdir())
    message = refused(*case.command(tmp_path))
    assert case.fault(message) is None
    assert not started
    assert sorted(os.listdir()) == before


def test_there_are_many_cases_of_many_kinds() -> None:
    assert len(CASES) >= 250
    assert len(ONE_OF_EACH_KIND) >= 30
    assert len({(*case.argv, *map(str, case.files.items())) for case in CASES}) == len(CASES)
