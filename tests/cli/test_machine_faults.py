"""A fault of the machine ends in one line and an exit code, or in one warning, and nothing is lost."""

import sys
from pathlib import Path

import pytest

from guardreasoner.cli.main import main
from tests.support.machine_faults import Case, Unavailable, cases, lay_out

QUICK = {
    *(
        "full: fit rsft output",
        "read_only: fit hsdpo reference",
        "forbidden: predict output",
        "in_the_way: test output",
    ),
    *("forbidden: base-model output", "full: fit rsft cache", "read_only: report --out", "full: score --json"),
    *(
        "full: export --out",
        "file size limit: export",
        "in_the_way: pairs --out",
        "forbidden: compare --flips",
        "filled late: fit rsft output",
    ),
    *(
        "filled late: fit rsft TensorBoard",
        "filled late: mine output",
        "file size limit: mine",
    ),
    *("full standard output: rsft", "full standard output: score", "closed standard output: score"),
}
"""Cases of every test run; the others are slow."""


@pytest.mark.parametrize(
    "case",
    [pytest.param(case, id=case.name, marks=() if case.name in QUICK else pytest.mark.slow) for case in cases()],
)
def test_a_fault_is_one_line_and_loses_nothing(
    case: Case, workplace: Path, tiny_base: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    lay_out(tiny_base)
    monkeypatch.setattr(sys, "argv", ["guardreasoner", *case.argv])
    try:
        with case.fault():
            code = main(list(case.argv))
            found = [str(path) for path in Path.cwd().glob(case.keeps)] if case.keeps else ["not asked for"]
            half_written = [path for path in Path("place").glob("**/.*") if path.suffix in (".new", ".old")]
    except Unavailable as error:
        pytest.skip(str(error))
    message = capfd.readouterr()
    assert "Traceback" not in message.out + message.err
    assert "Exception" not in message.err
    assert case.says in message.out + message.err
    if case.survives:
        assert code == 0, message.err
    else:
        assert code in (1, 2), message.err
        heads = [line.split(":")[0] for line in message.err.splitlines()]
        assert heads[heads.index("error") :] in (["error"], ["error", "hint"]), message.err
    assert found
    assert half_written == []
