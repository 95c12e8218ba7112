"""PolyGuard: conversations in 17 languages, most of them translations of WildGuardMix.

Two data sets on the hub, CC BY 4.0, arXiv 2504.04377. https://huggingface.co/datasets/ToxicityPrompts/PolyGuardMix has
the split ``train`` (1,910,372 rows, 2.3 GB), https://huggingface.co/datasets/ToxicityPrompts/PolyGuardPrompts the split
``test`` (29,325 rows: the 1,725 of WildGuardTest in 17 languages). Rows::

    prompt:                  How do I keep bread fresh?           prompt:                  How do I keep bread fresh?
    response:                Wrap it in a cloth.                  response:                Wrap it in a cloth.
    prompt_harm_label:       no     (or yes)                      prompt_harm_label:       unharmful
    response_refusal_label:  no                                   response_refusal_label:  compliance
    response_harm_label:     no                                   response_harm_label:     unharmful
    metadata:                {"language": "English", "source": …} language:                English

The three labels become "request", "completion" and "response". A null label is no label, and labels of a missing
response are ignored. The names of languages become their codes, the record's language.

Overlaps: the English test rows are those of WildGuardTest, and the other languages their translations. Contamination is
found by text, so it does not see that a training prompt is the translation of a benchmark's: test on other data if you
train on WildGuardMix or PolyGuardMix in other languages than those of the test. For the same reason, translations of
one prompt may lie in the training and the validation split.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

from guardreasoner.errors import InputError
from guardreasoner.records import Record, Split
from guardreasoner.sources.arguments import is_chosen
from guardreasoner.sources.hub import (
    HARMFUL,
    REFUSAL,
    drop_unusable,
    mapped_value,
    optional_text,
    read_dataset_rows,
    required_text,
    source_identity,
)
from guardreasoner.sources.train_and_test import TrainAndTest
from guardreasoner.workflow.ranges import ShareBelowOne

LANGUAGES = {
    "Arabic": "ar",
    "Chinese": "zh",
    "Czech": "cs",
    "Dutch": "nl",
    "English": "en",
    "French": "fr",
    "German": "de",
    "Hindi": "hi",
    "Italian": "it",
    "Japanese": "ja",
    "Korean": "ko",
    "Polish": "pl",
    "Portuguese": "pt",
    "Russian": "ru",
    "Spanish": "es",
    "Swedish": "sv",
    "Thai": "th",
}
"""Codes of the published names of languages."""

_HARMFUL = {**HARMFUL, "yes": "harmful", "no": "unharmful"}
_REFUSAL = {**REFUSAL, "yes": "refusal", "no": "compliance"}
_COLUMNS = ("prompt", "response", "prompt_harm_label", "response_refusal_label", "response_harm_label")


class PolyGuard(TrainAndTest):
    """Read PolyGuardMix and PolyGuardPrompts, for all three tasks.

    Args:
        path: repository of PolyGuardMix on the hub, or a folder with its files.
        test_path: repository of PolyGuardPrompts on the hub, or a folder with its files.
        revision: branch, tag or commit of PolyGuardMix; None for the newest.
        test_revision: branch, tag or commit of PolyGuardPrompts; None for the newest.
        splits: splits to provide; the others are empty.
        validation_share: share of the training set's distinct prompts for the validation split.
        languages: codes of the languages to use, such as ``[de, fr]``; None for all.

    Raises:
        InputError: a split is unknown, a share is out of range, or a language is not one of the 17. Rows are read only
            when records are requested.
    """

    def __init__(
        self,
        path: str = "ToxicityPrompts/PolyGuardMix",
        test_path: str = "ToxicityPrompts/PolyGuardPrompts",
        revision: str | None = None,
        test_revision: str | None = None,
        splits: Sequence[Split] = ("train", "validation", "test"),
        validation_share: ShareBelowOne = 0.0,
        languages: Sequence[str] | None = None,
    ) -> None:
        super().__init__(path, revision, splits, validation_share)
        self.test_path = test_path
        self.test_revision = test_revision
        if languages is not None and not is_chosen(languages, LANGUAGES.values()):
            codes = ", ".join(LANGUAGES.values())
            raise InputError(f"PolyGuard: languages must be one or more of {codes}, got {languages!r}")
        self.languages = None if languages is None else tuple(languages)

    def read(self, split: Literal["train", "test"]) -> Iterator[Record]:
        """Yield the labelled rows of a split in the chosen languages; the others are skipped and counted."""
        name = "PolyGuardMix" if split == "train" else "PolyGuardPrompts"
        return drop_unusable(self._records(name, split), name, "have no label or another language")

    def identity(self) -> object:
        """Return the arguments and, for local folders, their content hashes."""
        return [source_identity(self, self.path), source_identity(self, self.test_path)]

    def _records(self, name: str, split: str) -> Iterator[Record | None]:
        path, revision = (self.path, self.revision) if split == "train" else (self.test_path, self.test_revision)
        column = "metadata" if split == "train" else "language"
        for number, (where, row) in enumerate(read_dataset_rows(path, None, split, (*_COLUMNS, column), revision)):
            language = _language(row[column], f"{where}: {column}")
            if self.languages is not None and language not in self.languages:
                yield None
                continue
            prompt, response = required_text(row, "prompt", where), optional_text(row, "response", where) or None
            labels = {"request": mapped_value(row, "prompt_harm_label", _HARMFUL, where)}
            if response is not None:
                labels["completion"] = mapped_value(row, "response_refusal_label", _REFUSAL, where)
                labels["response"] = mapped_value(row, "response_harm_label", _HARMFUL, where)
            record = Record(f"{name}/{number:07d}", prompt, response, labels, source=name, language=language)
            yield record if record.gold() else None


def _language(cell: Any, where: str) -> str:
    name = cell.get("language") if isinstance(cell, Mapping) else cell
    if not isinstance(name, str) or name not in LANGUAGES:
        raise InputError(f"{where}: found {name!r}, expected one of {', '.join(LANGUAGES)}")
    return LANGUAGES[name]
