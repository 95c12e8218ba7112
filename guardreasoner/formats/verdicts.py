"""Read verdicts from outputs, whichever format they were written in."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from guardreasoner.errors import InputError
from guardreasoner.formats import GuardFormat
from guardreasoner.prompts import PARSERS, PromptFormat, Verdicts, reasoning_of
from guardreasoner.records import Record
from guardreasoner.tasks import Task


def read_verdicts(
    completion: str, tasks: Sequence[Task], format: GuardFormat | None = None, parser: str = "final-block"
) -> Verdicts:
    """Return the verdicts of an output.

    Args:
        completion: the output.
        tasks: tasks to look for.
        format: format of the output; None: GuardReasoner's own.
        parser: how the answer block of GuardReasoner is read; other formats have one parser each.

    Raises:
        InputError: the output is not in GuardReasoner's format, and the parser is the released one.
    """
    if format is None or isinstance(format, PromptFormat):
        return PARSERS[parser](completion, tasks)
    if parser != "final-block":
        raise InputError(
            f"the {parser} parser reads the answer block of GuardReasoner, not outputs of {type(format).__name__}"
        )
    verdicts = format.parse(completion)
    return {task.name: verdicts.get(task.name) for task in tasks}


def read_reasoning(completion: str, tasks: Sequence[Task], format: GuardFormat | None = None) -> str:
    """Return the reasoning in an output; arguments as in :func:`read_verdicts`."""
    if format is None or isinstance(format, PromptFormat):
        return reasoning_of(completion, tasks)
    return format.reasoning(completion)


class JudgedRecords:
    """Selects the records that a format can judge, keeps only the labels of its tasks, and counts the others.

    GuardReasoner's own format also judges records without any label. Without a format, all records keep all labels.

    Args:
        format: the format; None: GuardReasoner's own with unknown tasks.
    """

    def __init__(self, format: GuardFormat | None) -> None:
        self.own = format is None or isinstance(format, PromptFormat)
        self.names = None if format is None else [task.name for task in format.tasks]
        self.left_out = self.relabelled = self.seen = 0

    def of(self, records: Iterable[Record]) -> Iterator[Record]:
        """Yield the judged ones of some records."""
        for record in records:
            self.seen += 1
            gold = record.gold()
            if self.names is None or (self.own and gold.keys() <= set(self.names)):
                yield record
                continue
            labels = {name: label for name, label in record.labels.items() if name in self.names}
            if gold.keys().isdisjoint(labels):
                self.left_out += 1
                continue
            self.relabelled += not gold.keys() <= labels.keys()
            yield record if labels == record.labels else replace(record, labels=labels)

    def note(self) -> str | None:
        """Return what was left out in one sentence; None if nothing was."""
        tasks = ", ".join(self.names or ())
        parts = []
        if self.left_out:
            parts.append(f"{self.left_out:,} of {self.seen:,} records have no label for {tasks} and are left out")
        if self.relabelled:
            parts.append(f"labels of other tasks are ignored in {self.relabelled:,} records")
        return "; ".join(parts) or None
