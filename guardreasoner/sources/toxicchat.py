"""ToxicChat, version 0124: user messages from a chat demo, labelled toxic or not.

https://huggingface.co/datasets/lmsys/toxic-chat, CC BY-NC 4.0, arXiv 2310.17389. Configuration ``toxicchat0124``,
splits ``train`` (5,082 rows) and ``test`` (5,083). A row::

    conv_id:            0a1b2c…
    user_input:         How do I keep bread fresh?
    model_output:       Wrap it in a cloth and keep it in a box.
    human_annotation:   True
    toxicity:           0
    jailbreaking:       0
    openai_moderation:  [["sexual", 0.0001], …]

Only human-annotated rows are used, 2,853 of the test split; the labels of the others come from a classifier.
``toxicity`` judges the user's text and becomes the label "request". The model's output has no label. WildGuard's
evaluation and GuardReasoner's training data give a guard only the user's text, so the record has no response.
"""

from collections.abc import Iterator, Sequence
from typing import Literal

from guardreasoner.records import Record, Split
from guardreasoner.sources.hub import csv_options, drop_unusable, mapped_value, read_dataset_rows, required_text
from guardreasoner.sources.train_and_test import TrainAndTest
from guardreasoner.workflow.ranges import ShareBelowOne

_COLUMNS = ("user_input", "human_annotation", "toxicity")
_ANNOTATED = {True: True, False: False}
_TOXIC = {1: "harmful", 0: "unharmful"}


class ToxicChat(TrainAndTest):
    """Read ToxicChat's annotated rows, train and test, for the task "request".

    Args:
        path: repository on the hub, or a folder with its files.
        revision: branch, tag or commit of the repository; None for the newest.
        splits: splits to provide; the others are empty.
        validation_share: share of the training set's distinct prompts for the validation split.

    Raises:
        InputError: a split is unknown or a share is out of range. Rows are read only when records are requested.
    """

    def __init__(
        self,
        path: str = "lmsys/toxic-chat",
        revision: str | None = None,
        splits: Sequence[Split] = ("train", "validation", "test"),
        validation_share: ShareBelowOne = 0.0,
    ) -> None:
        super().__init__(path, revision, splits, validation_share)

    def read(self, split: Literal["train", "test"]) -> Iterator[Record]:
        """Yield the human-annotated rows of a split; the others are skipped and counted."""
        name = f"ToxicChat{split.capitalize()}"
        return drop_unusable(self._records(name, split), name, "are not human-annotated")

    def _records(self, name: str, split: str) -> Iterator[Record | None]:
        rows = read_dataset_rows(self.path, "toxicchat0124", split, _COLUMNS, self.revision, csv_options("user_input"))
        for number, (where, row) in enumerate(rows):
            if not mapped_value(row, "human_annotation", _ANNOTATED, where):
                yield None
                continue
            labels = {"request": mapped_value(row, "toxicity", _TOXIC, where)}
            # The row number, since conv_id is not documented to be unique.
            yield Record(f"{name}/{number:06d}", required_text(row, "user_input", where), None, labels, source=name)
