"""Exact search for the text whose set of shingles is most similar to that of another text."""

import math
from array import array
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_SHINGLE = 5
"""Characters per shingle."""
_DENSE_SHARE = 64
"""A shingle that more than one text in 64 contains is stored as a bit of every text, any other as a list of texts.
At this share, both take about the same memory."""
_NO_ROWS = np.empty(0, dtype=np.int32)


class ShingleIndex:
    """An index of texts that finds the one with the highest Jaccard similarity of shingles to a given text.

    A search is exact. It excludes texts that cannot be similar enough by their size and by the rarest shingles of the
    given text (prefix filter of Chaudhuri et al., "A primitive operator for similarity joins", 2006), and computes the
    similarity of all others together. Texts that share a long template cannot be excluded, because they are similar;
    they cost one bitwise operation per 64 of their common shingles.

    Args:
        texts: distinct texts.
        similarity: smallest similarity that is searched for, above 0, at most 1.
    """

    def __init__(self, texts: Sequence[str], similarity: float) -> None:
        self.similarity = similarity
        sets = [shingles(text) for text in texts]
        order = sorted(range(len(texts)), key=lambda number: len(sets[number]))
        self._texts = [texts[number] for number in order]
        self._sizes = np.array([len(sets[number]) for number in order], dtype=np.int64)
        self._lengths = np.array([len(text) for text in self._texts], dtype=np.int64)
        self._ids: dict[str, int] = {}
        rows_by_id: list[array[int]] = []
        for row, number in enumerate(order):
            for shingle in sets[number]:
                shingle_id = self._ids.setdefault(shingle, len(rows_by_id))
                if shingle_id == len(rows_by_id):
                    rows_by_id.append(array("i"))
                rows_by_id[shingle_id].append(row)
        self._counts = np.array([len(rows) for rows in rows_by_id], dtype=np.int64)
        self._rows: list[NDArray[np.int32]] = [np.frombuffer(rows, dtype=np.int32) for rows in rows_by_id]
        dense = np.flatnonzero(self._counts > max(8, len(texts) / _DENSE_SHARE))
        self._bit_by_id = np.full(len(rows_by_id), -1, dtype=np.int64)
        self._bit_by_id[dense] = np.arange(len(dense))
        bits = np.zeros((math.ceil(len(dense) / 64) * 64, len(texts)), dtype=bool)
        for bit, shingle_id in enumerate(dense.tolist()):
            bits[bit, self._rows[shingle_id]] = True
            self._rows[shingle_id] = _NO_ROWS
        self._bits = _packed(bits)

    def most_similar(self, text: str) -> tuple[float, str] | None:
        """Return the highest similarity and its text; of equally similar texts, the last in the order of strings.

        Texts whose lengths differ so much that only repetitions can make their shingles alike are left out.

        Returns:
            (Jaccard similarity, text); None if no text reaches the smallest similarity.
        """
        own = shingles(text)
        ids = np.array([found for shingle in own if (found := self._ids.get(shingle)) is not None], dtype=np.int64)
        rows = self._candidates(len(own), ids)
        shared = self._shared(ids, rows)
        similarities = shared / (len(own) + self._sizes[rows] - shared)
        lengths = self._lengths[rows]
        similarities[np.minimum(lengths, len(text)) <= 0.5 * self.similarity * np.maximum(lengths, len(text))] = 0
        best = float(similarities.max(initial=0))
        if best < self.similarity:
            return None
        best_rows = np.arange(len(self._texts))[rows][similarities == best]
        return best, max(self._texts[row] for row in best_rows)

    def _candidates(self, size: int, ids: NDArray[np.int64]) -> slice | NDArray[np.int32]:
        """Return the rows that may be similar enough to a text.

        Args:
            size: number of the text's shingles.
            ids: (known,) ids of those that the index has.
        """
        # The bounds have a margin for rounding: a row too many costs time, a row too few would be missed.
        needed = math.ceil(self.similarity * size - 1e-6)
        if len(ids) < needed:
            return slice(0)
        first = int(np.searchsorted(self._sizes, needed))
        last = int(np.searchsorted(self._sizes, size / self.similarity + 1e-6, side="right"))
        # A similar text has at least `needed` of the shingles, so it has at least one of any `len(ids) - needed + 1`.
        rarest = ids[np.argsort(self._counts[ids], kind="stable")][: len(ids) - needed + 1]
        if np.any(self._bit_by_id[rarest] >= 0):
            return slice(first, last)
        rows = np.unique(np.concatenate([self._rows[shingle_id] for shingle_id in rarest]))
        return rows[(rows >= first) & (rows < last)]

    def _shared(self, ids: NDArray[np.int64], rows: slice | NDArray[np.int32]) -> NDArray[np.int64]:
        """Return how many of the given shingles each of the given rows contains."""
        bits = self._bit_by_id[ids]
        listed = [self._rows[shingle_id] for shingle_id in ids[bits < 0]]
        shared = np.bincount(np.concatenate([*listed, _NO_ROWS]), minlength=len(self._texts))[rows]
        mask = np.zeros((len(self._bits) * 64, 1), dtype=bool)
        mask[bits[bits >= 0]] = True
        words = _packed(mask)
        for word in np.flatnonzero(words):
            shared += np.bitwise_count(self._bits[word, rows] & words[word])
        return shared


def shingles(text: str) -> frozenset[str]:
    """Return all substrings of five characters; the text itself if it is shorter."""
    return frozenset(text[start : start + _SHINGLE] for start in range(max(1, len(text) - _SHINGLE + 1)))


def _packed(bits: NDArray[np.bool_]) -> NDArray[np.uint64]:
    """Pack (64 · words, rows) booleans into (words, rows) words."""
    by_word = np.packbits(bits.reshape(len(bits) // 64, 64, bits.shape[1]), axis=1)  # (words, 8, rows) bytes
    return np.ascontiguousarray(by_word.transpose(0, 2, 1)).view(np.uint64)[:, :, 0]
