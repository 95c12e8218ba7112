"""The memory that HS-DPO needs for each further pair."""

import tracemalloc
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from guardreasoner.model.batch import Example, two_row
from guardreasoner.sources.rollouts import read_training_rollouts
from guardreasoner.training.reference import Precomputed
from tests.support.tiny import TinySource, load, write_rollouts

FEW, MANY = 200, 2000


def bytes_per_pair(measure: Callable[[int], int]) -> float:
    """Return the slope of a number of bytes in the number of pairs."""
    return (measure(MANY) - measure(FEW)) / (MANY - FEW)


class Numbered(Sequence[Example]):
    """Examples that are made on demand, as those of a file are."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Example:  # type: ignore[override]
        return Example(f"made/pairs/{index:08}", (3, 4), ((5, 6), (7 + index % 50,)))


def test_the_reference_keeps_a_few_numbers_per_pair(tiny_base: Path, tmp_path: Path) -> None:
    backbone = load(tiny_base)

    def kept(count: int) -> int:
        examples = Numbered(count)
        Precomputed(str(tmp_path), batch_size=500).prepare(backbone, examples)
        reference = Precomputed(str(tmp_path))  # reads the values of the first one
        tracemalloc.start()
        reference.prepare(backbone, examples)
        size = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        chosen = examples[count - 3]
        values = reference.sequence_logps(two_row([chosen], 0))
        with torch.no_grad():
            tokens = backbone(two_row([chosen], 0))
        torch.testing.assert_close(values.float(), torch.stack([tokens[:2].sum(), tokens[2]]))
        return size

    assert bytes_per_pair(kept) < 40


def test_rollouts_are_read_with_one_copy_of_their_records(tmp_path: Path) -> None:
    def peak(count: int) -> int:
        source = TinySource(count)
        (tmp_path / str(count)).mkdir()
        folder = write_rollouts(tmp_path / str(count), source.records("train"))
        tracemalloc.start()
        records, rollouts = read_training_rollouts([folder], source)
        size = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert len(records) == count < len(rollouts)
        return size

    assert bytes_per_pair(peak) < 2600  # with a second copy 3,000, with three 3,850
