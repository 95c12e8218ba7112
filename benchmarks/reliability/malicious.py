"""Artefacts that try to run code or to write outside their folder: none does."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from reliability import children
from reliability.fits import lay_out
from reliability.part import Outcome, Part, Trial
from reliability.refusals import refusal


@contextmanager
def trials(folder: Path) -> Iterator[Iterable[Trial]]:
    """Yield a trial for each artefact."""
    children.preload()
    from tests.support import malicious

    yield [Trial(case.name, partial(_harmless, case=case)) for case in malicious.cases()]


def _harmless(folder: Path, case: Any) -> Outcome:
    work = lay_out(folder / "alone" / "work")
    argv = case.setup(work)
    before = {path for path in folder.rglob("*") if not path.is_relative_to(work)}
    if case.harmless:
        child = children.start(argv, work)
        failure = f"exit code {child.exit_code}: {children.last_line(child.log)}" if child.end() else None
    else:
        failure = refusal(work, argv, exit_code=None)
    if case.canary(work).exists():
        return Outcome(failure="its code was run")
    log = work.with_name("work.log")
    outside = {path for path in folder.rglob("*") if not path.is_relative_to(work)} - before - {log}
    if outside:
        return Outcome(failure=f"written outside its folder: {sorted(outside)[0].relative_to(folder)}")
    return Outcome(failure=failure)


PART = Part(
    "malicious",
    "malicious artefacts (pickles, URLs, polyglots, traversal, remote code): none executed, no file outside the folder",
    40,
    "artefacts",
    trials,
)
