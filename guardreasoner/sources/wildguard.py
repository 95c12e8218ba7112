"""WildGuardMix: WildGuardTrain, mostly synthetic, and WildGuardTest, human-annotated.

https://huggingface.co/datasets/allenai/wildguardmix, ODC-BY, arXiv 2406.18495. Gated: log in and accept AI2's terms.
Configuration ``wildguardtrain`` has the split ``train`` (86,759 rows, 48,783 of them without a response),
``wildguardtest`` the split ``test`` (1,725 rows). A row::

    prompt:                  How do I keep bread fresh?
    adversarial:             false
    response:                Wrap it in a cloth and keep it in a box.
    response_refusal_label:  compliance
    response_harm_label:     unharmful
    prompt_harm_label:       unharmful
    subcategory:             benign

The three labels become "request", "completion" and "response". A null label (annotators disagreed) is no label, and
labels of a missing response are ignored. Adversarial and plain prompts are both used. The published evaluation scores
three tasks on the same rows, so one record has all three labels.
"""

from collections.abc import Iterator, Sequence
from typing import Literal

from guardreasoner.records import Record, Split
from guardreasoner.sources.hub import (
    HARMFUL,
    REFUSAL,
    drop_unusable,
    mapped_value,
    optional_text,
    read_dataset_rows,
    required_text,
)
from guardreasoner.sources.train_and_test import TrainAndTest
from guardreasoner.workflow.ranges import ShareBelowOne

_COLUMNS = ("prompt", "response", "prompt_harm_label", "response_refusal_label", "response_harm_label")


class WildGuardMix(TrainAndTest):
    """Read WildGuardTrain and WildGuardTest, for all three tasks.

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
        path: str = "allenai/wildguardmix",
        revision: str | None = None,
        splits: Sequence[Split] = ("train", "validation", "test"),
        validation_share: ShareBelowOne = 0.0,
    ) -> None:
        super().__init__(path, revision, splits, validation_share)

    def read(self, split: Literal["train", "test"]) -> Iterator[Record]:
        """Yield the labelled rows of a split; the others are skipped and counted."""
        name = f"WildGuard{split.capitalize()}"
        return drop_unusable(self._records(name, name.lower(), split), name, "have no label")

    def _records(self, name: str, config: str, split: str) -> Iterator[Record | None]:
        for number, (where, row) in enumerate(read_dataset_rows(self.path, config, split, _COLUMNS, self.revision)):
            prompt, response = required_text(row, "prompt", where), optional_text(row, "response", where) or None
            labels = {
                "request": mapped_value(row, "prompt_harm_label", HARMFUL, where),
                "completion": mapped_value(row, "response_refusal_label", REFUSAL, where),
                "response": mapped_value(row, "response_harm_label", HARMFUL, where),
            }
            if response is None:
                labels = {"request": labels["request"]}
            record = Record(f"{name}/{number:06d}", prompt, response, labels, source=name)
            yield record if record.gold() else None
