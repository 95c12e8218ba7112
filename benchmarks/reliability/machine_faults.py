"""Full disks, missing permissions and temp folders: one line, exit code above 0, nothing lost."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from reliability import children
from reliability.part import Outcome, Part, Trial


@contextmanager
def trials(folder: Path) -> Iterator[Iterable[Trial]]:
    """Yield a trial for each fault."""
    children.preload()
    from tests.support import machine_faults

    yield [Trial(case.name, partial(_meet, case=case)) for case in machine_faults.cases()]


def _meet(folder: Path, case: Any) -> Outcome:
    return Outcome(failure=case.check(folder))


PART = Part("machine-faults", "machine faults: one line, exit code above 0, nothing lost", 60, "faults", trials)
