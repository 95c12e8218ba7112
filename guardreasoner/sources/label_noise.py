"""Change a share of the training labels at random, to measure what wrong labels cost."""

import logging
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from random import Random

from guardreasoner.errors import InputError
from guardreasoner.prompts import answer_block, parse, reasoning_of
from guardreasoner.records import Record, Split
from guardreasoner.sources import ExcludesContaminated, Identified, Source, cut_share
from guardreasoner.tasks import GUARD_TASKS, Task
from guardreasoner.workflow.ranges import Seed, ShareBelowOne

log = logging.getLogger("guardreasoner")

_SECTION = re.compile(r"^\W{0,8}task (\d{1,3})\b", re.IGNORECASE | re.MULTILINE)
"""Heading of the reasoning on a task, such as "# Task 1"."""


class LabelNoise:
    """Replace each gold label of the training split by another one of its task with a fixed probability.

    Mining reads the training split too, so its grades follow the changed labels. Validation and test records stay as
    they are. A teacher that is told a wrong label argues for it: therefore the last mention of the label in the
    reasoning on the task changes with it, and so does an answer block at the end. Reasoning that names the label
    nowhere stays, and is counted. The choice depends only on the seed, the record's id and the task. The source has an
    identity if the inner one has one.

    Args:
        source: source of the records.
        share: probability that a label is changed, 0 ≤ share < 1.
        seed: seed of the random choices.
        tasks: tasks whose labels may change, in the order of the instruction; empty: the three of GuardReasoner.

    Raises:
        InputError: the share is out of range.
    """

    def __init__(self, source: Source, share: ShareBelowOne = 0.1, seed: Seed = 0, tasks: Sequence[Task] = ()) -> None:
        if not 0 <= share < 1:
            raise InputError(f"LabelNoise: share must be in [0, 1), got {share}")
        self.source = source
        self.share = share
        self.seed = seed
        self.tasks = tuple(tasks) or GUARD_TASKS
        self._shown = False
        if isinstance(source, Identified):
            # Set as an attribute so that isinstance(…, Identified) depends on the source.
            self.identity = self._identity

    def records(self, split: Split) -> Iterator[Record]:
        """Yield the records of a split; at the end of the first pass over the training split, log what was changed."""
        if split != "train":
            yield from self.source.records(split)
            return
        labels: Counter[str] = Counter()
        changed: Counter[str] = Counter()
        records = touched = unnamed = 0
        for record in self.source.records(split):
            other = self._other_labels(record)
            labels.update(task.name for task in self.tasks if task.name in record.gold())
            changed.update(other.keys())
            records += 1
            touched += bool(other)
            reasoning, count = _argue_for(record, other, self.tasks)
            unnamed += count
            yield replace(record, labels={**record.labels, **other}, reasoning=reasoning) if other else record
        if not self._shown:
            self._shown = True
            by_task = ", ".join(f"{task.name} {changed[task.name]:,}" for task in self.tasks if labels[task.name])
            log.info(
                f"label noise: {changed.total():,} of {labels.total():,} training labels changed ({by_task}), on "
                f"{touched:,} of {records:,} records; {unnamed:,} not named in the reasoning"
            )

    @property
    def excluded_ids(self) -> list[str]:
        """Ids of the records that the source excludes because a benchmark contains their prompt."""
        return list(self.source.excluded_ids) if isinstance(self.source, ExcludesContaminated) else []

    @property
    def cut_share(self) -> float:
        """Share of the prompts that the source has cut out of its training split."""
        return cut_share(self.source)

    def _other_labels(self, record: Record) -> dict[str, str]:
        """Return the labels that replace those of a record, by task."""
        gold, other = record.gold(), {}
        for task in self.tasks:
            rng = Random(f"{self.seed}/{record.id}/{task.name}")
            if task.name in gold and rng.random() < self.share:
                other[task.name] = rng.choice([label for label in task.labels if label != gold[task.name]])
        return other

    def _identity(self) -> object:
        assert isinstance(self.source, Identified)
        tasks = [task.as_json() for task in self.tasks]
        return {"class": "LabelNoise", "options": [self.share, self.seed, tasks], "source": self.source.identity()}


def _argue_for(record: Record, other: dict[str, str], tasks: Sequence[Task]) -> tuple[str | None, int]:
    """Return the reasoning of a record with other labels, and for how many of these it names no label to replace."""
    if not (record.reasoning and other):
        return record.reasoning, 0
    verdicts = parse(record.reasoning, tasks)
    has_block = any(verdicts.values())
    text = reasoning_of(record.reasoning, tasks) if has_block else record.reasoning
    unnamed = 0
    for number, task in enumerate(tasks, start=1):
        if task.name in other:
            renamed = _rename_last(text, number if len(tasks) > 1 else None, record.gold()[task.name], other[task.name])
            unnamed += renamed is None
            text = text if renamed is None else renamed
    return (f"{text}\n\n{answer_block({**verdicts, **other}, tasks)}" if has_block else text), unnamed


def _rename_last(text: str, section: int | None, old: str, new: str) -> str | None:
    """Replace the last mention of a label in a section, or in the whole text; None if there is none."""
    start, end = 0, len(text)
    if section is not None:
        heads = [(int(head[1]), head.start()) for head in _SECTION.finditer(text)]
        places = [index for index, (number, _) in enumerate(heads) if number == section]
        if not places:
            return None
        start = heads[places[-1]][1]
        end = heads[places[-1] + 1][1] if places[-1] + 1 < len(heads) else end
    mentions = list(re.finditer(rf"(?<!\w){re.escape(old)}(?!\w)", text[start:end], re.IGNORECASE))
    if not mentions:
        return None
    first, last = (start + place for place in mentions[-1].span())
    return text[:first] + new + text[last:]
