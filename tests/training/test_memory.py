"""The memory that HS-DPO needs for each further pair."""

import tracemalloc
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from guardreasoner.model.batch import Example, two_row
from guardreasoner.records import read_rollouts, write_jsonl
from guardreasoner.sources.files import Files
from guardreasoner.training.hsdpo import HSDPOModule
from guardreasoner.training.preference_data import PreferenceDataModule
from guardreasoner.training.reference import Precomputed
from tests.support.tiny import K, TinySource, load, quiet_trainer, write_rollouts

FEW, MANY = 200, 2000
LONG = "Look at it from all sides. " * 40


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


def test_the_texts_of_outputs_and_pairs_are_on_the_disk(tiny_base: Path, tmp_path: Path) -> None:
    backbone = load(tiny_base)
    outputs_of_a_record = K * len(LONG)

    def peak(count: int) -> int:
        folder = write_rollouts(tmp_path / str(count), TinySource(count).records("train"))
        rollouts = read_rollouts(folder / "rollouts.jsonl")
        write_jsonl(folder / "rollouts.jsonl", [replace(r, completion=LONG + r.completion) for r in rollouts])
        source = Files(train=str(folder / "records.jsonl"))
        data = PreferenceDataModule(source, [str(folder)], validation_share=0.0)
        data.trainer = quiet_trainer()
        data.trainer.strategy.connect(HSDPOModule(backbone))
        tracemalloc.start()
        data.setup("fit")
        size = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert count / 4 < len(data.train) < count
        return size

    peak(50)  # loads modules and fills caches
    assert (peak(500) - peak(100)) / 400 < outputs_of_a_record / 2
