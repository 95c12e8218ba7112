"""WildGuardMix: WildGuardTrain, mostly synthetic, and WildGuardTest, annotated by people.

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

The three labels become "request", "completion" and "response". A label that is null, as the annotators' is where they
did not agree, is no label; one of a response that is not there counts for nothing. Adversarial and plain prompts are
both used. The published evaluation asks three questions of the same rows, so one record holds all three labels.
"""

from collections.abc import Iterator, Sequence

from guardreasoner.records import Record, Split
from guardreasoner.sources.hub import (
    HARMFUL,
    REFUSAL,
    identity_of,
    part,
    read_rows,
    require_splits,
    text,
    text_or_none,
    used,
    word,
)
from guardreasoner.splits import require_shares

_COLUMNS = ("prompt", "response", "prompt_harm_label", "response_refusal_label", "response_harm_label")


class WildGuardMix:
    """Read WildGuardTrain and WildGuardTest, for all three tasks.

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
        path: str = "allenai/wildguardmix",
        revision: str | None = None,
        splits: Sequence[Split] = ("train", "validation", "test"),
        validation_share: float = 0.0,
    ) -> None:
        self.path = path
        self.revision = revision
        self.splits = require_splits("WildGuardMix", splits)
        self.validation_share = validation_share
        require_shares("WildGuardMix", validation_share)

    def records(self, split: Split) -> Iterator[Record]:
        """Yield the records of a split, in the order of the rows.

        Raises:
            InputError: the set cannot be read, or a row is not as it must be.
        """
        if split not in self.splits:
            return
        if split == "test":
            yield from self._read("WildGuardTest", "wildguardtest", "test")
        else:
            yield from part(self._read("WildGuardTrain", "wildguardtrain", "train"), split, self.validation_share)

    def identity(self) -> object:
        """Return the arguments and what a local folder holds."""
        return identity_of(self, self.path)

    def _read(self, name: str, config: str, split: str) -> Iterator[Record]:
        return used(self._records(name, config, split), name, "have no label")

    def _records(self, name: str, config: str, split: str) -> Iterator[Record | None]:
        for number, (where, row) in enumerate(read_rows(self.path, config, split, _COLUMNS, self.revision)):
            prompt, response = text(row, "prompt", where), text_or_none(row, "response", where) or None
            labels = {
                "request": word(row, "prompt_harm_label", HARMFUL, where),
                "completion": word(row, "response_refusal_label", REFUSAL, where),
                "response": word(row, "response_harm_label", HARMFUL, where),
            }
            if response is None:
                labels = {"request": labels["request"]}
            record = Record(f"{name}/{number:06d}", prompt, response, labels, source=name)
            yield record if record.gold() else None
