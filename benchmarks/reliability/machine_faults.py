"""Full disks, missing permissions and temp folders: one line, exit code above 0, nothing lost."""

from collections.abc import Iterable

from reliability.part import Part, Trial, cases
from reliability.suite import suite


def _listed() -> Iterable[Trial]:
    from tests.support import machine_faults

    return [suite("tests/cli/test_machine_faults.py", len(list(machine_faults.cases())))]


PART = Part("machine-faults", "machine faults: one line, exit code above 0, nothing lost", 60, "faults", cases(_listed))
