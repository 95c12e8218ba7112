"""A key–value cache with room set aside once: a new token copies one column, and not the whole cache."""

from collections.abc import Callable
from typing import Any

from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer


class ReservedLayer(DynamicLayer):
    """One layer's keys and values in a buffer that is longer than what it holds.

    Args:
        room: tokens that may follow the prompt.
    """

    def __init__(self, room: int) -> None:
        super().__init__()
        self.room = room
        self.length = 0
        self._key_buffer: Tensor | None = None
        self._value_buffer: Tensor | None = None

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Append (rows, heads, tokens, head size) and return all that is held, as views."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        end = self.length + key_states.shape[-2]
        if self._key_buffer is None or self._value_buffer is None or end > self._key_buffer.shape[-2]:
            self._key_buffer = _widened(self._key_buffer, key_states, self.length, end + self.room)
            self._value_buffer = _widened(self._value_buffer, value_states, self.length, end + self.room)
        self._key_buffer[:, :, self.length : end] = key_states
        self._value_buffer[:, :, self.length : end] = value_states
        self.length = end
        self._show()
        assert self.keys is not None
        assert self.values is not None
        return self.keys, self.values

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Repeat every row ``repeats`` times."""
        self._rows(lambda buffer: buffer.repeat_interleave(repeats, dim=0))

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep the rows at ``indices``."""
        self._rows(lambda buffer: buffer[indices])

    def _rows(self, change: Callable[[Tensor], Tensor]) -> None:
        if self._key_buffer is not None and self._value_buffer is not None:
            self._key_buffer = change(self._key_buffer)
            self._value_buffer = change(self._value_buffer)
            self._show()

    def _show(self) -> None:
        assert self._key_buffer is not None
        assert self._value_buffer is not None
        self.keys = self._key_buffer[:, :, : self.length]
        self.values = self._value_buffer[:, :, : self.length]


def reserved_cache(config: Any, room: int) -> DynamicCache:
    """Return a cache for a model whose layers all attend to everything; layers of other kinds keep their own cache.

    Args:
        config: the model's configuration.
        room: tokens that will be generated at most.
    """
    cache = DynamicCache(config=config)
    cache.layers = [ReservedLayer(room) if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache


def _widened(buffer: Tensor | None, states: Tensor, length: int, width: int) -> Tensor:
    wider = states.new_empty(states.shape[0], states.shape[1], width, states.shape[3])
    if buffer is not None:
        wider[:, :, :length] = buffer[:, :, :length]
    return wider
