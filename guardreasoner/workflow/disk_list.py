"""A list whose items are in a temporary file, so that its memory hardly grows with its length."""

import os
import pickle
import tempfile
from array import array
from collections.abc import Iterable, Sequence
from typing import TypeVar, overload

from guardreasoner.errors import MachineFault

Item = TypeVar("Item")


class DiskList(Sequence[Item]):
    """Items in a file without a name; each needs eight bytes of memory.

    The items are pickled: reading one twice gives two equal objects. The file is in the system's folder for temporary
    files (``TMPDIR``) and is deleted with the list, or with the process if that is killed. After a fork, both processes
    can read; only one of them may append.

    Args:
        items: the first items.

    Raises:
        MachineFault: the file cannot be made or written.
    """

    def __init__(self, items: Iterable[Item] = ()) -> None:
        try:
            self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 - closed with the list
        except OSError as error:
            raise _fault(error) from None
        self._ends = array("q", [0])
        """Position in the file after each item, after a first 0."""
        self.extend(items)

    def append(self, item: Item) -> None:
        """Add an item; after an error, the list is as before."""
        data = memoryview(pickle.dumps(item, pickle.HIGHEST_PROTOCOL))
        position = self._ends[-1]
        try:
            while data:  # a disk that becomes full takes the first part without an error
                written = os.pwrite(self._file.fileno(), data, position)
                data, position = data[written:], position + written
        except OSError as error:
            raise _fault(error) from None
        self._ends.append(position)

    def extend(self, items: Iterable[Item]) -> None:
        """Add items one by one, as they come."""
        for item in items:
            self.append(item)

    def __len__(self) -> int:
        return len(self._ends) - 1

    @overload
    def __getitem__(self, index: int) -> Item: ...
    @overload
    def __getitem__(self, index: slice) -> list[Item]: ...
    def __getitem__(self, index: int | slice) -> Item | list[Item]:
        if isinstance(index, slice):
            return [self[position] for position in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        index %= len(self)
        start, end = self._ends[index], self._ends[index + 1]
        # pread, unlike read, does not move the position, which processes share after a fork.
        item: Item = pickle.loads(os.pread(self._file.fileno(), end - start, start))
        return item

    def __eq__(self, other: object) -> bool:
        """Return whether the other is a sequence of equal items, such as a list."""
        if not isinstance(other, Sequence) or len(self) != len(other):
            return False
        return all(own == its for own, its in zip(self, other, strict=True))


def _fault(error: OSError) -> MachineFault:
    place = f"a temporary file in {tempfile.tempdir}" if tempfile.tempdir else "a temporary file"
    return MachineFault(f"{place} cannot be written: {error.strerror}", "TMPDIR=FOLDER names another folder")
