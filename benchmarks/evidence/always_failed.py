"""A source with the training records that no mined output is right about."""

from collections import defaultdict

from guardreasoner.mining import grade
from guardreasoner.records import Record, Split
from guardreasoner.sources import Source
from guardreasoner.sources.embedded import Embedded
from guardreasoner.sources.rollouts import read_rollouts_of, rollout_tasks


class AlwaysFailed:
    """The training records whose mined outputs are all wrong; the other splits are unchanged.

    Args:
        rollouts: Folder of rollouts of the training records.
        train: Training records of the embedded corpus, as :class:`Embedded` has them.
        validation: Validation records.
        test: Test records.
        seed: Seed of the corpus.
    """

    def __init__(self, rollouts: str, train: int = 2400, validation: int = 240, test: int = 480, seed: int = 0) -> None:
        self.rollouts = rollouts
        self.source: Source = Embedded(train, validation, test, seed=seed)

    def records(self, split: Split) -> list[Record]:
        """Return the records of a split."""
        records = list(self.source.records(split))
        if split != "train":
            return records
        tasks, by_id = rollout_tasks([self.rollouts]), {record.id: record for record in records}
        right: dict[str, bool] = defaultdict(bool)
        for rollout in read_rollouts_of([self.rollouts], self.source, tasks):
            if (record := by_id.get(rollout.record_id)) is not None:
                right[record.id] |= all(grade(record, rollout.completion, tasks).values())
        return [record for record in records if not right.get(record.id, True)]
