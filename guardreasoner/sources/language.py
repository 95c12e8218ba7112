"""Detect the language of conversations with py3langid: offline, in a fraction of a millisecond a text.

https://github.com/adbar/py3langid, BSD-3-Clause; the optional dependency ``guardreasoner[language]``.
"""

import logging
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from importlib.util import find_spec
from typing import Any

from guardreasoner.errors import InputError
from guardreasoner.records import Record, Split
from guardreasoner.sources import ExcludesContaminated, Identified, Source, cut_share

log = logging.getLogger("guardreasoner")

_MIN_PROBABILITY = 0.3
"""Wrong languages of short texts stay below it; right ones reach 0.4 with five words."""


class DetectLanguage:
    """Fill in the language of records that have none, from the user's messages.

    A text whose language is unclear, such as "ok", gets none. The source has an identity if the inner one has one.

    Args:
        source: source of the records.

    Raises:
        InputError: the package py3langid is missing.
    """

    def __init__(self, source: Source) -> None:
        require_detector()
        self.source = source
        if isinstance(source, Identified):
            # Set as an attribute so that isinstance(…, Identified) depends on the source.
            self.identity = self._identity

    def records(self, split: Split) -> Iterator[Record]:
        """Yield the records of a split; at the end, log how many languages were detected."""
        missing = detected = 0
        for record in self.source.records(split):
            filled = with_language(record)
            missing += record.language is None
            detected += filled is not record
            yield filled
        if missing:
            log.info("%s: the language of %s of %s records was detected", split, f"{detected:,}", f"{missing:,}")

    @property
    def excluded_ids(self) -> list[str]:
        """Ids of the records that the source excludes because a benchmark contains their prompt."""
        return list(self.source.excluded_ids) if isinstance(self.source, ExcludesContaminated) else []

    @property
    def cut_share(self) -> float:
        """Share of the prompts that the source has cut out of its training split."""
        return cut_share(self.source)

    def _identity(self) -> object:
        assert isinstance(self.source, Identified)
        return {"class": "DetectLanguage", "source": self.source.identity()}


def with_language(record: Record) -> Record:
    """Return a record with its detected language; itself if it has a language, or if its language is unclear."""
    if record.language is not None:
        return record
    language = detect_language("\n".join(message.content for message in record.messages if message.role == "user"))
    return record if language is None else replace(record, language=language)


def detect_language(text: str) -> str | None:
    """Return the ISO 639-1 code of a text's language; None if it is unclear."""
    language, probability = _identifier().classify(text)
    return str(language) if probability >= _MIN_PROBABILITY and any(map(str.isalpha, text)) else None


def require_detector() -> None:
    """Raise ``InputError`` if the package that detects languages is missing."""
    if find_spec("py3langid") is None:
        raise InputError(
            "detecting languages needs the package py3langid", 'pip install "guardreasoner[language]" installs it'
        )


@cache
def _identifier() -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
