"""GuardReasonerTrain: the conversations of four training sets with the reasoning that GPT-4o wrote to their labels.

https://huggingface.co/datasets/yueliu1999/GuardReasonerTrain, MIT, arXiv 2501.18492; log in to read it. Splits, each a
JSON list: ``WildGuardTrainR`` (86,759 rows), ``AegisTrainR`` (10,798), ``BeaverTailsTrainR`` (27,186) and
``ToxicChatTrainR`` (2,801). A row::

    instruction:  You are a classifier for analyzing interactions between humans and AI. …
    input:        Human user:\\nHow do I keep bread fresh?\\n\\nAI assistant:\\nNone\\n\\n
    output:       # Task 1\\n## Reasoning Step 1 …\\nAnswers: \\nRequest: unharmful\\nCompletion: None\\nResponse: None

``output`` becomes the reasoning as it is, and the verdicts of its final answer block the labels. A row whose output
ends in no block that can be read is left out. GPT-4o was told the labels of the original sets and kept to them; where
there was none it wrote "None", but for BeaverTails, whose request and completion it judged by itself
(``reasoning_data_synthesis.py`` of the released code): there, two labels of three are a model's.
"""

from collections.abc import Iterator, Sequence

from guardreasoner.prompts import parse
from guardreasoner.records import Record, Split
from guardreasoner.sources.hub import (
    drop_unusable,
    read_dataset_rows,
    require_distinct_choices,
    required_text,
    select_training_split,
    source_identity,
)
from guardreasoner.sources.predictions import split_prompt
from guardreasoner.sources.splits import require_shares
from guardreasoner.tasks import GUARD_TASKS

PARTS = ("WildGuardTrainR", "AegisTrainR", "BeaverTailsTrainR", "ToxicChatTrainR")


class GuardReasonerTrain:
    """Read the training data of GuardReasoner, with reasoning. It has no test split.

    Args:
        path: repository of the hub, or a folder with its files.
        revision: of the repository; None for the newest.
        parts: which of its four splits to give, in this order.
        validation_share: share of the distinct prompts that validate.

    Raises:
        InputError: an unknown part or one named twice, or a share out of range. Rows are read when records are asked
            for.
    """

    def __init__(
        self,
        path: str = "yueliu1999/GuardReasonerTrain",
        revision: str | None = None,
        parts: Sequence[str] = PARTS,
        validation_share: float = 0.0,
    ) -> None:
        self.path = path
        self.revision = revision
        self.parts = require_distinct_choices("GuardReasonerTrain", "parts", parts, PARTS)
        self.validation_share = validation_share
        require_shares("GuardReasonerTrain", validation_share)

    def records(self, split: Split) -> Iterator[Record]:
        """Yield the records of a split, part by part, in the order of the rows.

        Raises:
            InputError: the set cannot be read, or a row is not as it must be.
        """
        if split != "test":
            for name in self.parts:
                read = drop_unusable(self._records(name), name, "end in no answer block that can be read")
                yield from select_training_split(read, split, self.validation_share)

    def identity(self) -> object:
        """Return the arguments and what a local folder holds."""
        return source_identity(self, self.path)

    def _records(self, name: str) -> Iterator[Record | None]:
        columns = ("instruction", "input", "output")
        for number, (where, row) in enumerate(read_dataset_rows(self.path, None, name, columns, self.revision)):
            instruction, conversation, output = (required_text(row, column, where) for column in columns)
            prompt, response = split_prompt(f"{instruction}\n{conversation}", GUARD_TASKS, where)
            labels = dict(parse(output, GUARD_TASKS))
            record = Record(f"{name}/{number:06d}", prompt, response, labels, output, name)
            yield record if record.gold() else None
