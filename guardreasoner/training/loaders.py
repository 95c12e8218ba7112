"""Data loaders: whole optimizer steps in a resumable order for training, chunks of records for generation."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from operator import itemgetter
from typing import Any

from lightning.pytorch import Trainer
from torch.utils.data import DataLoader

from guardreasoner.errors import InputError
from guardreasoner.formats import GuardFormat
from guardreasoner.model.batch import Example, StepCollator
from guardreasoner.model.prompt_tokenizer import PromptTokenizer
from guardreasoner.records import Record
from guardreasoner.training.prompt_step import PromptCollator
from guardreasoner.training.sampler import StepSampler

log = logging.getLogger("guardreasoner")


class StepLoader(DataLoader):
    """A loader whose position is saved in a checkpoint and restored from it.

    Args:
        trainer: counts the steps that are trained.
        arguments: those of ``DataLoader``.
    """

    def __init__(self, *arguments: Any, trainer: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self._trainer = trainer

    def state_dict(self) -> dict[str, Any]:
        """Return the number of trained steps, which may be smaller than that of the loaded ones, and the order."""
        assert isinstance(self.batch_sampler, StepSampler)
        trained = self._trainer.fit_loop.epoch_loop.batch_progress.current.processed
        return self.batch_sampler.state_dict() | {"position": trained}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue at a saved position."""
        assert isinstance(self.batch_sampler, StepSampler)
        self.batch_sampler.load_state_dict(state)


def prompt_tokenizer_of(trainer: Any) -> PromptTokenizer:
    """Return the tokenizer of the trainer's model, so that data and model use the same ids."""
    return trainer.lightning_module.backbone.prompt_tokenizer


def format_of(trainer: Any) -> GuardFormat | None:
    """Return the format of the trainer's model; None if it trains or runs no model of ours."""
    backbone = getattr(getattr(trainer, "lightning_module", None), "backbone", None)
    return None if backbone is None else backbone.prompt_tokenizer.format


def supports_packing(trainer: Any) -> bool:
    """Return whether the trainer's model, with loaded weights, computes packed rows."""
    return trainer.lightning_module.backbone.supports_packing


def step_loader(
    examples: Sequence[Example], sampler: StepSampler, trainer: Trainer, collator: StepCollator | PromptCollator
) -> StepLoader:
    """Return the training loader; an item is a whole :class:`guardreasoner.model.batch.Step`.

    Args:
        examples: examples that the sampler's indices refer to.
        sampler: order of the examples.
        trainer: gives the rank and the number of processes.
        collator: splits a step into micro-batches.

    Raises:
        InputError: the trainer's options would repeat or regroup steps.
    """
    if trainer.max_epochs != 1:
        raise InputError(
            f"trainer.max_epochs must be 1, got {trainer.max_epochs}: the loader yields the steps of all epochs",
            "set data.epochs instead",
        )
    if trainer.accumulate_grad_batches != 1:
        raise InputError(
            f"trainer.accumulate_grad_batches must be 1, got {trainer.accumulate_grad_batches}",
            "set data.batch_size (per optimizer step) and data.micro_batch_size (per forward pass) instead",
        )
    collator = replace(collator, rank=trainer.global_rank, world=trainer.world_size)
    return StepLoader(examples, batch_sampler=sampler, collate_fn=collator, trainer=trainer)


def validation_loader(
    examples: Sequence[Example], batch_size: int, collator: StepCollator | PromptCollator
) -> DataLoader:
    """Return a loader of held-out examples in their order; every process validates all of them."""
    return DataLoader(dataset=examples, batch_size=batch_size, collate_fn=collator)  # type: ignore[arg-type]


def record_loader(records: Sequence[Record], chunk: int) -> DataLoader:
    """Return a loader of chunks of records, longest conversations first, so that a chunk has similar lengths.

    Each process gets all chunks; the module decides which records it answers.

    Args:
        records: records to load.
        chunk: records per chunk.
    """
    ordered = sorted(records, key=lambda record: -sum(map(len, record.texts())))
    chunks = [ordered[start : start + chunk] for start in range(0, len(ordered), chunk)]
    return DataLoader(dataset=chunks, batch_size=1, collate_fn=itemgetter(0))  # type: ignore[arg-type]
