"""Wrong configs, damaged files and odd replies of servers: each is refused with its place, in one line."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from reliability import children
from reliability.part import Outcome, Part, Trial
from reliability.refusals import refusal, with_files
from reliability.suite import suite


@contextmanager
def trials(folder: Path) -> Iterator[Iterable[Trial]]:
    """Yield a trial for each wrong config and file, and one for all odd replies."""
    children.preload()
    yield _listed()


def _listed() -> Iterator[Trial]:
    from tests.support import bad_configs, bad_files, odd_replies

    for number, case in enumerate(bad_configs.cases()):
        yield Trial(f"config/{number:03d} {case.kind}", partial(_refused, case=case))
    yield suite("tests/sources/test_bad_files.py", len(list(bad_files.cases())))
    yield suite("tests/synthesis/test_odd_replies.py", len(odd_replies.cases()))


def _refused(folder: Path, case: Any) -> Outcome:
    work = with_files(folder / "work", dict(case.files))
    argv = [word.replace("{folder}", str(work)) for word in case.argv]
    return Outcome(failure=refusal(work, argv, (case.named, case.value)))


PART = Part(
    "bad-inputs",
    "bad inputs (data, config, files of other tools): each with its place and one line, no traceback",
    400,
    "cases",
    trials,
)
