"""Every bad input file ends with a message that names the place, and a fuzzed reader only ever refuses."""

import io
from collections.abc import Callable
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from guardreasoner.cli.main import main
from guardreasoner.errors import InputError
from tests.support.bad_files import BadFile, cases, read_directly
from tests.support.fuzz import STRATEGIES, check_record_reader

CASES = list(cases())


def test_the_table_is_large_and_its_names_differ() -> None:
    assert len({case.name for case in CASES}) == len(CASES) >= 120


@pytest.mark.parametrize("case", [pytest.param(case, id=case.name[:60]) for case in CASES])
def test_a_bad_file_is_refused_with_its_place(case: BadFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    case.write(tmp_path)
    before = set(tmp_path.rglob("*"))
    if case.argv[0] in ("base-model", "fit"):
        with pytest.raises(InputError) as caught:
            read_directly(case.argv)
        shown = caught.value.lines()
    else:
        with redirect_stderr(io.StringIO()) as stderr:
            assert main(case.argv) == 2
        shown = stderr.getvalue()
    lines = shown.splitlines()
    heads = [line.partition(": ")[0] for line in lines]
    assert heads[heads.index("error") :] in (["error"], ["error", "hint"])
    assert case.place in shown
    assert max(map(len, lines)) < 1000
    assert set(tmp_path.rglob("*")) == before


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["own a.jsonl not valid JSON: Expecting property", "own m.csv data.source.col"])
def test_the_command_says_the_same(name: str, workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    case = next(case for case in CASES if case.name.startswith(name))
    case.write(workplace)
    assert main(case.argv) == 2
    assert case.place in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("check", STRATEGIES, ids=lambda check: check.__name__)
def test_fuzzed_readers_only_refuse(check: Callable[[Any], None]) -> None:
    run = given(STRATEGIES[check])(lambda value: check(value))
    examples = 30 if check is check_record_reader else 80  # it reads each example as six formats
    settings(max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck), database=None)(run)()
