"""What can be wrong with a row only because of another row: ids, labels and prompts that come again."""

from pathlib import Path

from guardreasoner.records import Record, Split
from guardreasoner.sources.contamination import normalise
from guardreasoner.sources.row_check import describe_value

_LINE_BITS, _FILE_BITS = 40, 24
_PLACE_BITS = _LINE_BITS + _FILE_BITS


class ConsistencyCheck:
    """Remembers rows by hash, and each row's labels, file and line in one number, so that a million of them fit.

    Args:
        apart: splits whose prompts must not occur in the training split.
    """

    def __init__(self, apart: frozenset[Split]) -> None:
        self.apart = apart
        self._ids: dict[int, int] = {}
        self._conversations: dict[int, int] = {}
        self._prompts: dict[int, int] = {}
        self._files: list[tuple[Path, str]] = []
        self._gold: list[dict[str, str]] = []
        self._numbers: dict[tuple[tuple[str, str], ...], int] = {}

    def faults(self, record: Record, split: Split, path: Path, place: str) -> list[str]:
        """Return what contradicts the rows before, each fault "field: what was found, what is allowed"."""
        found = []
        here = self._pack(path, place)
        if (first := self._ids.setdefault(hash(record.id), here)) != here:
            found.append(f"id: found {describe_value(record.id)} again, expected another than at {self._place(first)}")
        found += self._contradictions(record, here)
        if self.apart:
            prompt = hash(normalise(record.prompt))
            if split == "train":
                self._prompts.setdefault(prompt, here)
            elif split in self.apart and prompt in self._prompts:
                found.append(f"prompt: found one of the training split, that at {self._place(self._prompts[prompt])}")
        return found

    def _contradictions(self, record: Record, here: int) -> list[str]:
        gold = record.gold()
        number = self._numbers.setdefault(tuple(sorted(gold.items())), len(self._gold))
        if number == len(self._gold):
            self._gold.append(gold)
        mine = number << _PLACE_BITS | here
        conversation = (record.prompt, record.response)
        first = self._conversations.setdefault(hash(conversation), mine)
        if first >> _PLACE_BITS == number:
            return []
        faults = []
        for task, label in gold.items():
            before = first
            if task not in self._gold[before >> _PLACE_BITS]:
                # The first row has no label for this task, but another may have.
                before = self._conversations.setdefault(hash((*conversation, task)), mine)
            expected = self._gold[before >> _PLACE_BITS][task]
            if label != expected:
                faults.append(
                    f"labels: found {task} {label}, expected {expected} as for the same conversation at "
                    f"{self._place(before)}"
                )
        return faults

    def _pack(self, path: Path, place: str) -> int:
        kind, _, number = place.rpartition(" ")
        if not self._files or self._files[-1][0] != path:
            self._files.append((path, f"{kind} " if kind else ""))
        return (len(self._files) - 1) << _LINE_BITS | int(number)

    def _place(self, packed: int) -> str:
        path, kind = self._files[(packed >> _LINE_BITS) & ((1 << _FILE_BITS) - 1)]
        return f"{path}:{kind}{packed & ((1 << _LINE_BITS) - 1)}"
