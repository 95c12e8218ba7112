"""The text of an output while it is generated, in pieces that never end within a character."""

from collections.abc import Callable, Sequence


class TextPieces:
    """Turns the growing token ids of one output into pieces of text.

    The pieces, joined, are a prefix of the text of all ids. Only the last few ids are decoded for each piece, so the
    cost of a long output is linear.

    Args:
        decode: returns the text of token ids.
    """

    def __init__(self, decode: Callable[[Sequence[int]], str]) -> None:
        self._decode = decode
        self._start = self._end = 0
        """Ids from ``_start`` to ``_end`` are in earlier pieces, and are decoded again because a decoder may treat the
        first token of a text otherwise than later ones."""

    def add(self, ids: Sequence[int]) -> str:
        """Return the text that is new; empty while the last character is incomplete.

        Args:
            ids: all ids of the output so far.
        """
        before, now = self._decode(ids[self._start : self._end]), self._decode(ids[self._start :])
        if now.endswith("\ufffd") or not now.startswith(before):
            return ""
        self._start, self._end = self._end, len(ids)
        return now[len(before) :]
