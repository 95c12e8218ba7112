"""ToxicChat, version 0124: what people wrote to a chat demo, judged toxic or not.

https://huggingface.co/datasets/lmsys/toxic-chat, CC BY-NC 4.0, arXiv 2310.17389. Configuration ``toxicchat0124``,
splits ``train`` (5,082 rows) and ``test`` (5,083). A row::

    conv_id:            0a1b2c…
    user_input:         How do I keep bread fresh?
    model_output:       Wrap it in a cloth and keep it in a box.
    human_annotation:   True
    toxicity:           0
    jailbreaking:       0
    openai_moderation:  [["sexual", 0.0001], …]

Only rows that a person annotated are used, 2,853 of the test split; the labels of the others are a classifier's.
``toxicity`` judges the user's text and becomes the label "request". The model's output has no label, and WildGuard's
evaluation and GuardReasoner's training data show a guard the user's text alone: the record has no response either.
"""

from collections.abc import Iterator, Sequence
from typing import Literal

from guardreasoner.records import Record, Split
from guardreasoner.sources.hub import CSV, drop_unusable, mapped_value, read_dataset_rows, required_text
from guardreasoner.sources.train_and_test import TrainAndTest

_COLUMNS = ("user_input", "human_annotation", "toxicity")
_ANNOTATED = {True: True, False: False}
_TOXIC = {1: "harmful", 0: "unharmful"}


class ToxicChat(TrainAndTest):
    """Read ToxicChat's annotated rows, train and test, for the task "request".

    Args:
        path: repository of the hub, or a folder with its files.
        revision: of the repository; None for the newest.
        splits: which splits to give; the others are empty.
        validation_share: share of the training set's distinct prompts that validate.

    Raises:
        InputError: an unknown split, or a share out of range. Rows are read when records are asked for.
    """

    def __init__(
        self,
        path: str = "lmsys/toxic-chat",
        revision: str | None = None,
        splits: Sequence[Split] = ("train", "validation", "test"),
        validation_share: float = 0.0,
    ) -> None:
        super().__init__(path, revision, splits, validation_share)

    def read(self, split: Literal["train", "test"]) -> Iterator[Record]:
        """Yield the human-annotated rows of a split; the others are counted."""
        name = f"ToxicChat{split.capitalize()}"
        return drop_unusable(self._records(name, split), name, "are not human-annotated")

    def _records(self, name: str, split: str) -> Iterator[Record | None]:
        rows = read_dataset_rows(self.path, "toxicchat0124", split, _COLUMNS, self.revision, CSV)
        for number, (where, row) in enumerate(rows):
            if not mapped_value(row, "human_annotation", _ANNOTATED, where):
                yield None
                continue
            labels = {"request": mapped_value(row, "toxicity", _TOXIC, where)}
            # The row's number, not conv_id: nothing says that a conversation is there once.
            yield Record(f"{name}/{number:06d}", required_text(row, "user_input", where), None, labels, source=name)
