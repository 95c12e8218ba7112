"""BeaverTails, the 30k version: questions with answers of a language model, labelled safe or unsafe by people.

https://huggingface.co/datasets/PKU-Alignment/BeaverTails, CC BY-NC 4.0, arXiv 2307.04657. Splits ``30k_train`` (27,186
rows) and ``30k_test`` (3,021, of which 1,733 harmful); the 330k version is not used. A row::

    prompt:    How do I keep bread fresh?
    response:  Wrap it in a cloth and keep it in a box.
    category:  {"animal_abuse": false, …}
    is_safe:   true

``is_safe`` judges the answer given the question; it becomes the label "response". The question itself has no label.
Many questions have several answers, so a question may occur in both splits.
"""

from collections.abc import Iterator, Sequence
from typing import Literal

from guardreasoner.records import Record, Split
from guardreasoner.sources.hub import mapped_value, read_dataset_rows, required_text
from guardreasoner.sources.train_and_test import TrainAndTest
from guardreasoner.workflow.ranges import ShareBelowOne

_SAFE = {True: "unharmful", False: "harmful"}


class BeaverTails(TrainAndTest):
    """Read BeaverTails-30k, train and test, for the task "response".

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
        path: str = "PKU-Alignment/BeaverTails",
        revision: str | None = None,
        splits: Sequence[Split] = ("train", "validation", "test"),
        validation_share: ShareBelowOne = 0.0,
    ) -> None:
        super().__init__(path, revision, splits, validation_share)

    def read(self, split: Literal["train", "test"]) -> Iterator[Record]:
        """Yield the rows of a split as conversations with a label "response"."""
        name, columns = f"BeaverTails{split.capitalize()}", ("prompt", "response", "is_safe")
        for number, (where, row) in enumerate(
            read_dataset_rows(self.path, None, f"30k_{split}", columns, self.revision)
        ):
            prompt, answer = required_text(row, "prompt", where), required_text(row, "response", where)
            labels = {"response": mapped_value(row, "is_safe", _SAFE, where)}
            yield Record(f"{name}/{number:06d}", prompt, answer, labels, source=name)
