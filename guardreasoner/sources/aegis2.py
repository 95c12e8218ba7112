"""Aegis AI Content Safety Dataset 2.0 (now Nemotron Content Safety Dataset V2): conversations labelled by people.

https://huggingface.co/datasets/nvidia/Aegis-AI-Content-Safety-Dataset-2.0, CC BY 4.0, paper
https://aclanthology.org/2025.naacl-long.306. Splits ``train`` (30,007 rows), ``validation`` (1,445) and ``test``
(1,964). A row::

    id:                            0a1b2c…
    reconstruction_id_if_redacted: null
    prompt:                        How do I keep bread fresh?
    response:                      Wrap it in a cloth and keep it in a box.     (or null)
    prompt_label:                  safe     (or unsafe)
    response_label:                safe     (or unsafe, or null)
    violated_categories:           (empty, or the categories with commas between them)
    prompt_label_source:           human
    response_label_source:         human     (or llm_jury, or refusal_data_augmentation)

``prompt_label`` becomes the label "request", ``response_label`` "response"; a label of an empty response is ignored.
Prompts are labelled by people. Responses are labelled by people, by a jury of three language models, or are refusals
that a model wrote on purpose (5,200 rows, none of them in the test split); the column ``labelled_by`` of a record says
which, and ``response_labels_by`` chooses. Redacted rows (about 360, whose text has to be fetched from another data set)
and rows without a label are skipped.

Overlaps: an extension of Aegis 1.0, whose prompts also come from Anthropic's hh-rlhf; do not test on one of the two and
train on the other without ``recipe.skip_contaminated``.
"""

from collections.abc import Iterator, Sequence
from typing import Literal

from guardreasoner.records import Record, Split
from guardreasoner.sources.hub import (
    drop_unusable,
    mapped_value,
    optional_text,
    read_dataset_rows,
    require_distinct_choices,
    require_splits,
    required_text,
    source_identity,
)

LabelledBy = Literal["human", "llm_jury", "refusal_data_augmentation"]

_SAFE: dict[object, str | None] = {"safe": "unharmful", "unsafe": "harmful", None: None}
_SOURCES: tuple[LabelledBy, ...] = ("human", "llm_jury", "refusal_data_augmentation")
_LABELLED_BY: dict[object, str | None] = {**{source: source for source in _SOURCES}, None: None}
_COLUMNS = ("prompt", "response", "prompt_label", "response_label", "response_label_source")
_REDACTED = "REDACTED"


class Aegis2:
    """Read Aegis 2.0, train, validation and test, for the tasks "request" and "response".

    Args:
        path: repository on the hub, or a folder with its files.
        revision: branch, tag or commit of the repository; None for the newest.
        splits: splits to provide; the others are empty.
        response_labels_by: whose labels of responses to use; others are no labels.

    Raises:
        InputError: a split or a source of labels is unknown or given twice. Rows are read only when records are
            requested.
    """

    def __init__(
        self,
        path: str = "nvidia/Aegis-AI-Content-Safety-Dataset-2.0",
        revision: str | None = None,
        splits: Sequence[Split] = ("train", "validation", "test"),
        response_labels_by: Sequence[LabelledBy] = _SOURCES,
    ) -> None:
        self.path = path
        self.revision = revision
        self.splits = require_splits("Aegis2", splits)
        self.response_labels_by = require_distinct_choices("Aegis2", "response_labels_by", response_labels_by, _SOURCES)

    def records(self, split: Split) -> Iterator[Record]:
        """Yield the records of a published split, in the order of the rows.

        Raises:
            InputError: the data set cannot be read, or a row is invalid.
        """
        if split in self.splits:
            name = f"Aegis2{split.capitalize()}"
            yield from drop_unusable(self._records(name, split), name, "are redacted or have no label")

    def identity(self) -> object:
        """Return the arguments and, for a local folder, its content hashes."""
        return source_identity(self, self.path)

    def _records(self, name: str, split: str) -> Iterator[Record | None]:
        for number, (where, row) in enumerate(read_dataset_rows(self.path, None, split, _COLUMNS, self.revision)):
            prompt, response = required_text(row, "prompt", where), optional_text(row, "response", where) or None
            labels = {"request": mapped_value(row, "prompt_label", _SAFE, where)}
            extra = {}
            if response is not None:
                labelled_by = mapped_value(row, "response_label_source", _LABELLED_BY, where)
                if labelled_by in self.response_labels_by:
                    labels["response"] = mapped_value(row, "response_label", _SAFE, where)
                    extra = {"labelled_by": str(labelled_by)}
            record = Record(f"{name}/{number:06d}", prompt, response, labels, source=name, extra=extra)
            yield record if record.gold() and prompt.strip() != _REDACTED else None
