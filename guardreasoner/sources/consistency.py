"""Check rows against each other: duplicate ids, contradicting labels, and prompts shared between splits."""

from pathlib import Path

from guardreasoner.records import Record, Split
from guardreasoner.sources.contamination import normalize
from guardreasoner.sources.row_parser import describe_value

_LINE_BITS, _FILE_BITS = 40, 24
_LOCATION_BITS = _LINE_BITS + _FILE_BITS
_FILE_MASK = (1 << _FILE_BITS) - 1


class ConsistencyCheck:
    """Checks each row against all earlier rows.

    Rows are stored as hashes, and each row's labels, file and line as one integer, so that a million rows fit in
    memory.

    Args:
        disjoint_splits: splits whose prompts must not occur in the training split.
    """

    def __init__(self, disjoint_splits: frozenset[Split]) -> None:
        self.disjoint_splits = disjoint_splits
        self._ids: dict[int, int] = {}
        self._conversations: dict[int, int] = {}
        self._training_prompts: dict[int, int] = {}
        self._validation_prompts: dict[int, int] = {}
        self._files: list[tuple[Path, str]] = []
        self._label_sets: list[dict[str, str]] = []
        self._label_set_indices: dict[tuple[tuple[str, str], ...], int] = {}

    def file_with_id(self, record: Record, path: Path, location: str) -> Path | None:
        """Return the file of the earlier row with the same id; None if there is none."""
        packed = self._pack(path, location)
        first = self._ids.setdefault(hash(record.id), packed)
        return None if first == packed else self._files[first >> _LINE_BITS & _FILE_MASK][0]

    def id_fault(self, record: Record) -> str:
        """Return the fault that an earlier row has the same id."""
        first = self._unpack(self._ids[hash(record.id)])
        return f"id: found {describe_value(record.id)}, which is already the id of {first}, expected a unique id"

    def faults(self, record: Record, split: Split, path: Path, location: str) -> list[str]:
        """Return how a row contradicts earlier rows, each fault as "field: what was found, what was expected"."""
        packed = self._pack(path, location)
        faults = self._label_faults(record, packed)
        if self.disjoint_splits:
            prompt = hash(normalize(record.context()))
            if split == "train":
                self._training_prompts.setdefault(prompt, packed)
            elif split in self.disjoint_splits and prompt in self._training_prompts:
                faults.append(
                    f"prompt: also occurs in the training split, at {self._unpack(self._training_prompts[prompt])}"
                )
        return faults

    def validation_row(self, record: Record, split: Split, path: Path, location: str) -> str | None:
        """Return the place of an earlier validation row with the prompt of a test row; None if there is none."""
        if split == "train":
            return None
        prompt = hash(normalize(record.context()))
        if split == "validation":
            self._validation_prompts.setdefault(prompt, self._pack(path, location))
        first = self._validation_prompts.get(prompt) if split == "test" else None
        return None if first is None else self._unpack(first)

    def _label_faults(self, record: Record, packed: int) -> list[str]:
        gold = record.gold()
        labels = self._label_set_indices.setdefault(tuple(sorted(gold.items())), len(self._label_sets))
        if labels == len(self._label_sets):
            self._label_sets.append(gold)
        entry = labels << _LOCATION_BITS | packed
        conversation = record.content_key()
        first = self._conversations.setdefault(hash(conversation), entry)
        if first >> _LOCATION_BITS == labels:
            return []
        faults = []
        for task, label in gold.items():
            earlier = first
            if task not in self._label_sets[earlier >> _LOCATION_BITS]:
                # The first row of this conversation has no label for the task, but a later one may have.
                earlier = self._conversations.setdefault(hash((conversation, task)), entry)
            expected = self._label_sets[earlier >> _LOCATION_BITS][task]
            if label != expected:
                faults.append(
                    f"labels: found {task} {label}, expected {expected} as for the same conversation at "
                    f"{self._unpack(earlier)}"
                )
        return faults

    def _pack(self, path: Path, location: str) -> int:
        kind, _, number = location.rpartition(" ")
        if not self._files or self._files[-1][0] != path:
            self._files.append((path, f"{kind} " if kind else ""))
        return (len(self._files) - 1) << _LINE_BITS | int(number)

    def _unpack(self, packed: int) -> str:
        path, kind = self._files[packed >> _LINE_BITS & _FILE_MASK]
        return f"{path}:{kind}{packed & ((1 << _LINE_BITS) - 1)}"
