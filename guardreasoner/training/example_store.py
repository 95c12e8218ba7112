"""Tokenized examples in an Arrow file, read from disk on demand, so that a million of them need little memory.

The file is not memory-mapped: pages of a mapping that have been read count as memory of the process.
"""

from array import array
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, overload

import numpy as np
import pyarrow as pa

from guardreasoner.model.batch import Example

_BATCH = 16
"""Examples per record batch, all of which are read for one of them."""
_IDS = pa.large_list(pa.int32())
_SCHEMA = pa.schema(
    {
        "id": pa.string(),
        "prompt": _IDS,
        "completions": pa.large_list(_IDS),
        "weights": pa.large_list(pa.float64()),
        "token_weights": pa.large_list(pa.large_list(pa.float64())),
        "length": pa.int64(),
        "tokens": pa.int64(),
    }
)


class ExampleStore(Sequence[Example]):
    """The examples of a file by index; only requested ones are read.

    Args:
        path: file written by :func:`write_examples`.

    Raises:
        pyarrow.ArrowInvalid: the file is damaged.
    """

    def __init__(self, path: Path) -> None:
        self._reader = pa.ipc.open_file(pa.OSFile(str(path)))
        if self._reader.schema != _SCHEMA:
            raise pa.ArrowInvalid(f"{path}: other columns than {', '.join(_SCHEMA.names)}")
        self._last: tuple[int, Any] = (-1, None)
        """Number and content of the batch that was read last."""
        self.lengths = _numbers(path, "length")
        """(examples,) int64, tokens of each example's prompt and longest completion."""
        self.tokens = _numbers(path, "tokens")
        """(examples,) int64, tokens of each example's prompt and all completions."""

    def __len__(self) -> int:
        return len(self.lengths)

    @overload
    def __getitem__(self, index: int) -> Example: ...
    @overload
    def __getitem__(self, index: slice) -> list[Example]: ...
    def __getitem__(self, index: int | slice) -> Example | list[Example]:
        if isinstance(index, slice):
            return [self[position] for position in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        batch, row = divmod(index % len(self), _BATCH)
        number, columns = self._last
        if number != batch:
            columns = self._reader.get_batch(batch)
            self._last = (batch, columns)
        return Example(
            id=columns.column("id")[row].as_py(),
            prompt=_values(columns.column("prompt")[row]),
            completions=tuple(_values(completion) for completion in columns.column("completions")[row]),
            weights=_values(columns.column("weights")[row]),
            token_weights=tuple(_values(weights) for weights in columns.column("token_weights")[row]),
        )


def write_examples(path: Path, examples: Iterable[Example]) -> int:
    """Write examples in batches as they come, without reference log-probabilities; return their number."""
    remaining, count = iter(examples), 0
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, _SCHEMA) as writer:
        while chunk := list(islice(remaining, _BATCH)):
            writer.write_batch(pa.record_batch(list(_columns(chunk)), schema=_SCHEMA))
            count += len(chunk)
    return count


def _numbers(path: Path, column: str) -> np.ndarray:
    """Read a column of numbers, (examples,) int64, and no other."""
    options = pa.ipc.IpcReadOptions(included_fields=[_SCHEMA.get_field_index(column)])
    reader = pa.ipc.open_file(pa.OSFile(str(path)), options=options)
    numbers = array("q")
    for batch in range(reader.num_record_batches):
        numbers.frombytes(np.from_dlpack(reader.get_batch(batch).column(0)).tobytes())
    return np.array(numbers, dtype=np.int64)


def _columns(examples: Sequence[Example]) -> Iterator[Any]:
    yield pa.array([e.id for e in examples], pa.string())
    yield _lists([e.prompt for e in examples])
    completions = [completion for e in examples for completion in e.completions]
    yield pa.LargeListArray.from_arrays(_offsets([e.completions for e in examples]), _lists(completions))
    weights = [weight for e in examples for weight in e.weights]
    yield pa.LargeListArray.from_arrays(_offsets([e.weights for e in examples]), pa.array(weights, pa.float64()))
    by_token = [row for e in examples for row in e.token_weights]
    yield pa.LargeListArray.from_arrays(_offsets([e.token_weights for e in examples]), _lists(by_token, np.float64))
    yield pa.array([e.length for e in examples], pa.int64())
    yield pa.array([e.tokens for e in examples], pa.int64())


def _lists(rows: Sequence[Sequence[float]], dtype: type[np.number] = np.int32) -> Any:
    """Return rows of numbers as one Arrow array, through numpy, which takes half the time of Arrow's conversion."""
    flat = np.fromiter((value for row in rows for value in row), dtype=dtype, count=sum(map(len, rows)))
    return pa.LargeListArray.from_arrays(_offsets(rows), pa.array(flat))


def _offsets(rows: Sequence[Sequence[Any]]) -> Any:
    return pa.array(np.cumsum([0, *map(len, rows)]), pa.int64())


def _values(value: Any) -> tuple[Any, ...]:
    """Return the numbers of a list; not by ``to_numpy()``, which imports pandas."""
    return tuple(np.from_dlpack(value.values).tolist())
