"""The examples of each optimizer step, a function of (seed, epoch, step), so that a run can resume at any step."""

from collections.abc import Iterator, Sequence
from functools import lru_cache

import numpy as np

from guardreasoner.errors import InputError

_ORDER = ("size", "batch_size", "seed", "start_epoch", "bucket_steps")
"""Attributes that determine the order, and so the meaning of a position."""


class StepSampler:
    """Yield the indices of one whole optimizer step at a time, over all epochs.

    Each epoch is a permutation drawn from (seed, epoch) and cut into steps; its last step may be smaller. With
    ``bucket_steps`` above 1, the examples of that many steps are sorted by length before they are cut, and the steps
    are shuffled, so that a step holds similar lengths and needs little padding. The order does not depend on the number
    of processes, the micro-batch size or interruptions.

    Args:
        lengths: tokens of each example.
        batch_size: examples per optimizer step, over all processes.
        epochs: epochs of the whole schedule.
        start_epoch: first epoch of this run, above 0 if it continues a finished run.
        seed: seed of the order.
        bucket_steps: steps whose examples are sorted by length together; 1 keeps the drawn order.

    Raises:
        InputError: there are no examples, or a number is out of range.
    """

    def __init__(
        self,
        lengths: Sequence[int] | np.ndarray,
        batch_size: int,
        epochs: int,
        start_epoch: int = 0,
        seed: int = 0,
        bucket_steps: int = 1,
    ) -> None:
        if not len(lengths):
            raise InputError("there are no examples to train on")
        if batch_size < 1:
            raise InputError(f"data.batch_size must be at least 1, got {batch_size}")
        if not 0 <= start_epoch < epochs:
            raise InputError(f"data.start_epoch must be from 0 to below data.epochs ({epochs}), got {start_epoch}")
        if bucket_steps < 1:
            raise InputError(f"data.bucket_steps must be at least 1, got {bucket_steps}")
        self.lengths = np.asarray(lengths)
        self.size = len(lengths)
        self.batch_size = batch_size
        self.epochs = epochs
        self.start_epoch = start_epoch
        self.seed = seed
        self.bucket_steps = bucket_steps
        self._order = lru_cache(maxsize=1)(self._draw_order)
        self.position = 0

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps in one epoch."""
        return -(-self.size // self.batch_size)

    def __len__(self) -> int:
        """Optimizer steps of the whole run."""
        return self.steps_per_epoch * (self.epochs - self.start_epoch)

    def __iter__(self) -> Iterator[list[int]]:
        """Continue at ``position``, the number of steps yielded so far."""
        while self.position < len(self):
            step = self.position
            self.position += 1
            yield self.step(step)
        self.position = 0

    def step(self, index: int) -> list[int]:
        """Return the examples of step ``index``, from 0 over all epochs of this run."""
        epoch, position = divmod(index, self.steps_per_epoch)
        return self._order(self.start_epoch + epoch)[position].tolist()

    def _draw_order(self, epoch: int) -> list[np.ndarray]:
        """Return the steps of an epoch, counted over the whole schedule."""
        rng = np.random.default_rng((self.seed, epoch))
        order = rng.permutation(self.size)
        if self.bucket_steps == 1:
            return [order[i : i + self.batch_size] for i in range(0, self.size, self.batch_size)]
        steps = []
        width = self.batch_size * self.bucket_steps
        for start in range(0, self.size, width):
            bucket = order[start : start + width]
            bucket = bucket[np.argsort(self.lengths[bucket], kind="stable")]
            steps += [bucket[i : i + self.batch_size] for i in range(0, len(bucket), self.batch_size)]
        return [steps[index] for index in rng.permutation(len(steps))]

    def state_dict(self) -> dict[str, int]:
        """Return the position and the attributes that determine the order."""
        return {"position": self.position, **{name: getattr(self, name) for name in _ORDER}}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go to a saved position; raise ``InputError`` if it belongs to a different order."""
        for name in _ORDER:
            if state[name] != getattr(self, name):
                raise InputError(
                    f"the checkpoint was made with {name} {state[name]}, this run has {getattr(self, name)}"
                )
        self.position = state["position"]
