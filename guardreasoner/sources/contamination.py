"""What counts as the same prompt, and the refusal to train or mine on a prompt that a benchmark holds."""

import logging
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from guardreasoner.errors import InputError
from guardreasoner.records import Record

log = logging.getLogger("guardreasoner")

_PIECE = 5
_PERMUTATIONS, _BANDS = 160, 20
_AT_ONCE = 100_000
_NAMED, _SHOWN = 10, 1000


def normalise(text: str) -> str:
    """Return the text as it is compared: without invisible characters, NFKC, case folded, white space collapsed.

    Invisible are the format characters of Unicode (zero-width ones, tags, direction marks) and the few that are
    invisible though another category: variation selectors, the grapheme joiner and fillers.
    """
    if not text.isascii():
        visible = "".join(c for c in text if unicodedata.category(c) != "Cf" and c not in _INVISIBLE)
        text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", visible).casefold())
    return " ".join(text.casefold().split())


_INVISIBLE = frozenset(
    chr(code)
    for codes in (
        *((0x34F, 0x34F), (0x115F, 0x1160), (0x17B4, 0x17B5), (0x180B, 0x180F)),
        *((0x3164, 0x3164), (0xFE00, 0xFE0F), (0xFFA0, 0xFFA0), (0xE0100, 0xE01EF)),
    )
    for code in range(codes[0], codes[1] + 1)
)


@dataclass(frozen=True, slots=True)
class ContaminationMatch:
    """A record whose prompt a benchmark holds.

    Args:
        record: id of the record.
        benchmark: id of the benchmark's record.
        similarity: Jaccard similarity of the two prompts' pieces; 1 where they are equal after normalisation.
    """

    record: str
    benchmark: str
    similarity: float

    def line(self) -> str:
        """Return the match as one line."""
        how = "the prompt of" if self.similarity == 1 else f"{self.similarity:.2f} like the prompt of"
        return f"record {self.record}: {how} {self.benchmark}"


class ContaminationIndex:
    """The prompts that benchmarks hold, ready to be looked up: equal ones after normalisation, and near-duplicates.

    Two prompts are near-duplicates when the sets of their pieces of five characters have a Jaccard similarity of at
    least ``similarity``. MinHash finds candidates (it misses one in 500 at 0.85, fewer above), which are then compared
    exactly, so nothing is reported wrongly.

    Args:
        benchmarks: what is to be tested on.
        similarity: from which similarity a prompt counts as held; 1: equal prompts only.

    Raises:
        InputError: a similarity out of range.
    """

    def __init__(self, benchmarks: Iterable[Record], similarity: float = 0.85) -> None:
        if not 0.5 <= similarity <= 1:
            raise InputError(f"data.similarity must be from 0.5 to 1, got {similarity}")
        self.similarity = similarity
        self._ids: dict[str, str] = {}
        for record in benchmarks:
            self._ids.setdefault(normalise(record.prompt), record.id)
        self._prompts = list(self._ids)

    @cached_property
    def _index(self) -> Any:
        from rensa import RMinHashLSH

        index = RMinHashLSH(self.similarity, _PERMUTATIONS, _BANDS)
        for key, prompt in enumerate(self._prompts):
            index.insert(key, _sketch(prompt))
        return index

    def match(self, record: Record) -> ContaminationMatch | None:
        """Return the benchmark record with the same prompt, or the one most like it; None where there is none."""
        prompt = normalise(record.prompt)
        if (equal := self._ids.get(prompt)) is not None:
            return ContaminationMatch(record.id, equal, 1.0)
        if self.similarity == 1 or not self._prompts:
            return None
        own, best = frozenset[str](), (0.0, "")
        for key in self._index.query(_sketch(prompt)):
            other = self._prompts[key]
            # Sets that differ much in size cannot be alike; pieces are about as many as characters.
            if min(len(prompt), len(other)) > 0.5 * self.similarity * max(len(prompt), len(other)):
                own = own or _pieces(prompt)
                theirs = _pieces(other)
                best = max(best, (len(own & theirs) / len(own | theirs), other))
        similarity, other = best
        return ContaminationMatch(record.id, self._ids[other], similarity) if similarity >= self.similarity else None

    def filter(
        self,
        records: Iterable[Record],
        where: str,
        leave_out: bool = False,
        allowed: bool = False,
    ) -> Iterator[Record]:
        """Yield the records; after the last, refuse them all if a benchmark holds one, and warn of near-duplicates.

        A near-duplicate is not refused: two attacks with one long template in common are alike, and yet two prompts.

        Args:
            records: what is to be trained or mined on.
            where: what to call them in messages.
            leave_out: pass over those that a benchmark holds, near-duplicates too, and say how many.
            allowed: yield those that a benchmark holds too, and warn instead of refusing.

        Raises:
            InputError: how many, and their ids.
        """
        matches: list[ContaminationMatch] = []
        for record in records:
            if found := self.match(record):
                matches.append(found)
                if leave_out:
                    continue
            yield record
        equal = [match for match in matches if match.similarity == 1]
        near = [match for match in matches if match.similarity < 1]
        if near:
            kind = f"at least {self.similarity:g} like a benchmark's"
            log.warning(f"{_message(near, where, kind)} ({'left out' if leave_out else 'kept; see the verb doctor'})")
        if not equal:
            return
        message = _message(equal, where, "that a benchmark of this run holds")
        if leave_out or allowed:
            log.warning(f"{message} ({'left out' if leave_out else 'allowed by --allow_contamination'})")
            return
        raise InputError(
            message,
            "data.skip_contaminated: true passes over them; --allow_contamination is stamped on all that is made",
            details=[match.line() for match in equal[:_SHOWN]],
        )


def _message(matches: Sequence[ContaminationMatch], where: str, kind: str) -> str:
    count = f"{len(matches)} record{'s' if len(matches) > 1 else ''}"
    return f"{where}: {count} with a prompt {kind}: {_names(matches)}"


def _names(matches: Sequence[ContaminationMatch]) -> str:
    return ", ".join(match.record for match in matches[:_NAMED]) + (", …" if len(matches) > _NAMED else "")


def _pieces(prompt: str) -> frozenset[str]:
    return frozenset(prompt[at : at + _PIECE] for at in range(max(1, len(prompt) - _PIECE + 1)))


def _sketch(prompt: str) -> Any:
    from rensa import RMinHash

    sketch = RMinHash(_PERMUTATIONS, 0)
    prompt = prompt.encode(errors="replace").decode()  # lone surrogates are no text for the library
    for start in range(0, max(1, len(prompt) - _PIECE + 1), _AT_ONCE):
        part = prompt[start : start + _AT_ONCE + _PIECE - 1]
        sketch.update([part[at : at + _PIECE] for at in range(max(1, len(part) - _PIECE + 1))])
    return sketch
