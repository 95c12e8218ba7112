"""Normalize prompts, and find training records whose prompt also occurs in a benchmark.

Of a conversation of more than one turn, all before the response but system messages counts as a prompt, and so does
each message of the user of at least five words: a shorter one, such as "yes, please", occurs in many conversations.
"""

import logging
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from guardreasoner.errors import InputError
from guardreasoner.records import Record
from guardreasoner.sources.shingle_index import ShingleIndex

log = logging.getLogger("guardreasoner")

SIMILARITY = 0.85
"""Default similarity from which two prompts count as near-duplicates."""

_WORDS = 5
"""Words from which a message of the user in a longer conversation counts as a prompt."""
_UNSPACED = re.compile(r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\U00020000-\U0003ffff]")
"""Characters of scripts without spaces between words; two count as a word."""

_NAMED, _LISTED = 10, 1000
"""Largest numbers of record ids in a message and in the details of an error."""


def normalize(text: str) -> str:
    """Normalize a text for comparison: no invisible characters, NFKC, case-folded, white space collapsed.

    Invisible characters are the format characters of Unicode (zero-width characters, tags, direction marks) and a few
    of other categories: variation selectors, the combining grapheme joiner and fillers.
    """
    if not text.isascii():
        visible = "".join(c for c in text if unicodedata.category(c) != "Cf" and c not in _INVISIBLE)
        text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", visible).casefold())
    return " ".join(text.casefold().split())


_INVISIBLE = frozenset(
    chr(code)
    for first, last in (
        *((0x34F, 0x34F), (0x115F, 0x1160), (0x17B4, 0x17B5), (0x180B, 0x180F)),
        *((0x3164, 0x3164), (0xFE00, 0xFE0F), (0xFFA0, 0xFFA0), (0xE0100, 0xE01EF)),
    )
    for code in range(first, last + 1)
)


@dataclass(frozen=True, slots=True)
class ContaminationMatch:
    """A record whose prompt also occurs in a benchmark.

    Args:
        record: id of the record.
        benchmark: id of the benchmark's record.
        similarity: Jaccard similarity of the two prompts' shingles; 1 if the normalized prompts are equal.
    """

    record: str
    benchmark: str
    similarity: float

    def line(self) -> str:
        """Return the match as one line."""
        relation = "same prompt as" if self.similarity == 1 else f"prompt {self.similarity:.2f} similar to that of"
        return f"record {self.record}: {relation} {self.benchmark}"


def prompts_of(record: Record) -> list[str]:
    """Return the texts of a record that count as prompts, normalized and distinct, in time linear in its turns."""
    texts = [record.context()]
    if not record.is_one_turn:
        texts += [m.content for m in record.messages if m.role == "user" and _is_long(m.content)]
    return list(dict.fromkeys(map(normalize, texts)))


def _is_long(text: str) -> bool:
    return len(text.split()) + len(_UNSPACED.findall(text)) // 2 >= _WORDS


class ContaminationIndex:
    """An index of benchmark prompts that finds equal prompts (after normalization) and near-duplicates.

    Two prompts are near-duplicates if the sets of their shingles of five characters have a Jaccard similarity of at
    least ``similarity``. The search is exact.

    Args:
        benchmarks: records that the model will be tested on.
        similarity: smallest similarity that counts as a match, 0.5 to 1; 1 matches only equal prompts.

    Raises:
        InputError: ``similarity`` is out of range.
    """

    def __init__(self, benchmarks: Iterable[Record], similarity: float = SIMILARITY) -> None:
        if not 0.5 <= similarity <= 1:
            raise InputError(f"data.similarity must be from 0.5 to 1, got {similarity}")
        self.similarity = similarity
        self._ids: dict[str, str] = {}
        for record in benchmarks:
            for prompt in prompts_of(record):
                self._ids.setdefault(prompt, record.id)

    @cached_property
    def _shingle_index(self) -> ShingleIndex:
        return ShingleIndex(list(self._ids), self.similarity)

    def match(self, record: Record) -> ContaminationMatch | None:
        """Return the benchmark record with the same or the most similar prompt; None if there is no match."""
        prompts = prompts_of(record)
        equal = next((self._ids[prompt] for prompt in prompts if prompt in self._ids), None)
        if equal is not None:
            return ContaminationMatch(record.id, equal, 1.0)
        if self.similarity == 1 or not self._ids:
            return None
        found = [match for prompt in prompts if (match := self._shingle_index.most_similar(prompt)) is not None]
        if not found:
            return None
        similarity, similar = max(found)
        return ContaminationMatch(record.id, self._ids[similar], similarity)

    def filter(
        self, records: Iterable[Record], where: str, skip: bool = False, allow: bool = False
    ) -> Iterator[Record]:
        """Yield the records; after the last, raise an error if any prompt equals a benchmark's.

        Near-duplicates give a warning and no error: two attacks that share a long template are different prompts.

        Args:
            records: records to train or mine on.
            where: name of the data in messages.
            skip: drop matching records, near-duplicates too, and log how many.
            allow: yield records with equal prompts too, and warn instead of raising.

        Raises:
            InputError: some prompts equal a benchmark's, and neither ``skip`` nor ``allow`` is set; the details list
                the matches.
        """
        matches: list[ContaminationMatch] = []
        for record in records:
            if match := self.match(record):
                matches.append(match)
                if skip:
                    continue
            yield record
        equal = [match for match in matches if match.similarity == 1]
        similar = [match for match in matches if match.similarity < 1]
        if similar:
            problem = f"at least {self.similarity:g} similar to a benchmark's"
            log.warning(f"{_message(similar, where, problem)} ({'left out' if skip else 'kept; see the verb doctor'})")
        if not equal:
            return
        message = _message(equal, where, "that also occurs in a benchmark of this run")
        if skip or allow:
            log.warning(f"{message} ({'left out' if skip else 'allowed by --allow_contamination'})")
            return
        raise InputError(
            message,
            "--recipe.skip_contaminated true drops them; --allow_contamination keeps them and marks all results",
            details=[match.line() for match in equal[:_LISTED]],
        )


def _message(matches: Sequence[ContaminationMatch], where: str, problem: str) -> str:
    count = f"{len(matches)} record{'s' if len(matches) > 1 else ''}"
    ids = ", ".join(match.record for match in matches[:_NAMED]) + (", …" if len(matches) > _NAMED else "")
    return f"{where}: {count} with a prompt {problem}: {ids}"
