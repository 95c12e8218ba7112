"""A key–value cache with preallocated buffers: appending a token does not copy the cache."""

from collections.abc import Callable
from typing import Any

from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer


class ReservedLayer(DynamicLayer):
    """Keys and values of one layer, in buffers with room for the tokens that will be generated.

    Args:
        room: maximum number of tokens that follow the prompt.
    """

    def __init__(self, room: int) -> None:
        super().__init__()
        self.room = room
        self.length = 0
        self._key_buffer: Tensor | None = None
        self._value_buffer: Tensor | None = None

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Append (rows, heads, tokens, head size) states; return views of all keys and values in the cache."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        end = self.length + key_states.shape[-2]
        if self._key_buffer is None or self._value_buffer is None or end > self._key_buffer.shape[-2]:
            self._key_buffer = _resized(self._key_buffer, key_states, self.length, end + self.room)
            self._value_buffer = _resized(self._value_buffer, value_states, self.length, end + self.room)
        self._key_buffer[:, :, self.length : end] = key_states
        self._value_buffer[:, :, self.length : end] = value_states
        self.length = end
        self._set_views()
        assert self.keys is not None
        assert self.values is not None
        return self.keys, self.values

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Repeat every row ``repeats`` times."""
        self._replace_rows(lambda buffer: buffer.repeat_interleave(repeats, dim=0))

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep the rows at ``indices``."""
        self._replace_rows(lambda buffer: buffer[indices])

    def _replace_rows(self, change: Callable[[Tensor], Tensor]) -> None:
        if self._key_buffer is not None and self._value_buffer is not None:
            self._key_buffer = change(self._key_buffer)
            self._value_buffer = change(self._value_buffer)
            self._set_views()

    def _set_views(self) -> None:
        assert self._key_buffer is not None
        assert self._value_buffer is not None
        self.keys = self._key_buffer[:, :, : self.length]
        self.values = self._value_buffer[:, :, : self.length]


def reserved_cache(config: Any, room: int) -> DynamicCache:
    """Return a cache in which full-attention layers have preallocated buffers; other layers keep transformers' own.

    Args:
        config: the model's configuration.
        room: maximum number of tokens that will be generated.
    """
    cache = DynamicCache(config=config)
    cache.layers = [ReservedLayer(room) if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache


def _resized(buffer: Tensor | None, states: Tensor, length: int, width: int) -> Tensor:
    """Return a buffer for ``width`` tokens that begins with the first ``length`` tokens of ``buffer``."""
    resized = states.new_empty(states.shape[0], states.shape[1], width, states.shape[3])
    if buffer is not None:
        resized[:, :, :length] = buffer[:, :, :length]
    return resized
