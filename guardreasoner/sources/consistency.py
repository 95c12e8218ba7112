"""What can be wrong with a row only because of another row: ids, labels and prompts that come again."""

from pathlib import Path

from guardreasoner.contamination import normalise
from guardreasoner.records import Record, Split
from guardreasoner.validation import describe

_LINE_BITS, _FILE_BITS = 40, 16


class Consistency:
    """Remembers rows by hash, and each row's labels, file and line in one number, so that a million of them fit.

    Args:
        apart: splits whose prompts must not occur in the training split.
    """

    def __init__(self, apart: frozenset[Split]) -> None:
        self.apart = apart
        self._ids: dict[int, int] = {}
        self._conversations: dict[int, int] = {}
        self._prompts: dict[int, int] = {}
        self._files: list[Path] = []
        self._gold: dict[tuple[tuple[str, str], ...], int] = {}

    def faults(self, record: Record, split: Split, path: Path, place: str) -> list[str]:
        """Return what contradicts the rows before, each fault "field: what was found, what is allowed"."""
        found = []
        here = self._pack(path, place)
        if (first := self._ids.setdefault(hash(record.id), here)) != here:
            found.append(f"id: found {describe(record.id)} again, expected another than at {self._place(first)}")
        gold = self._gold.setdefault(tuple(sorted(record.gold().items())), len(self._gold))
        conversation = hash((record.prompt, record.response))
        mine = gold << (_LINE_BITS + _FILE_BITS) | here
        first = self._conversations.setdefault(conversation, mine)
        if first >> (_LINE_BITS + _FILE_BITS) != gold:
            said = ", ".join(f"{task} {label}" for task, label in sorted(record.gold().items()))
            found.append(f"labels: found {said}, expected those of the same conversation at {self._place(first)}")
        if self.apart:
            prompt = hash(normalise(record.prompt))
            if split == "train":
                self._prompts.setdefault(prompt, here)
            elif split in self.apart and prompt in self._prompts:
                found.append(f"prompt: found one of the training split, that at {self._place(self._prompts[prompt])}")
        return found

    def _pack(self, path: Path, place: str) -> int:
        if not self._files or self._files[-1] != path:
            self._files.append(path)
        return (len(self._files) - 1) << _LINE_BITS | int(place.rpartition(" ")[2])

    def _place(self, packed: int) -> str:
        file = (packed >> _LINE_BITS) & ((1 << _FILE_BITS) - 1)
        return f"{self._files[file]}:{packed & ((1 << _LINE_BITS) - 1)}"
