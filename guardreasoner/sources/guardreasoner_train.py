"""GuardReasonerTrain: conversations of four training sets with reasoning that GPT-4o wrote for their labels.

https://huggingface.co/datasets/yueliu1999/GuardReasonerTrain, MIT, arXiv 2501.18492; login required. Splits, each a
JSON list: ``WildGuardTrainR`` (86,759 rows), ``AegisTrainR`` (10,798), ``BeaverTailsTrainR`` (27,186) and
``ToxicChatTrainR`` (2,801). A row::

    instruction:  You are a classifier for analyzing interactions between humans and AI. …
    input:        Human user:\\nHow do I keep bread fresh?\\n\\nAI assistant:\\nNone\\n\\n
    output:       # Task 1\\n## Reasoning Step 1 …\\nAnswers: \\nRequest: unharmful\\nCompletion: None\\nResponse: None

``output`` becomes the reasoning, unchanged, and the verdicts of its final answer block become the labels. A row whose
output does not end in a parsable block is skipped. GPT-4o was given the labels of the original sets and followed them;
for a task without a label it wrote "None". The exception is BeaverTails, whose request and completion GPT-4o labelled
itself (``reasoning_data_synthesis.py`` of the released code): there, two of three labels come from a model.
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
from guardreasoner.workflow.ranges import ShareBelowOne

PARTS = ("WildGuardTrainR", "AegisTrainR", "BeaverTailsTrainR", "ToxicChatTrainR")


class GuardReasonerTrain:
    """Read the training data of GuardReasoner, with reasoning; there is no test split.

    Args:
        path: repository on the hub, or a folder with its files.
        revision: branch, tag or commit of the repository; None for the newest.
        parts: published splits to read, in this order.
        validation_share: share of the distinct prompts for the validation split.

    Raises:
        InputError: a part is unknown or given twice, or a share is out of range. Rows are read only when records are
            requested.
    """

    def __init__(
        self,
        path: str = "yueliu1999/GuardReasonerTrain",
        revision: str | None = None,
        parts: Sequence[str] = PARTS,
        validation_share: ShareBelowOne = 0.0,
    ) -> None:
        self.path = path
        self.revision = revision
        self.parts = require_distinct_choices("GuardReasonerTrain", "parts", parts, PARTS)
        self.validation_share = validation_share
        require_shares("GuardReasonerTrain", validation_share)

    def records(self, split: Split) -> Iterator[Record]:
        """Yield the records of a split, part by part, in the order of the rows.

        Raises:
            InputError: the data set cannot be read, or a row is invalid.
        """
        if split != "test":
            for name in self.parts:
                read = drop_unusable(self._records(name), name, "do not end in a parsable answer block")
                yield from select_training_split(read, split, self.validation_share)

    @property
    def cut_share(self) -> float:
        """Share of the prompts that the validation split has."""
        return self.validation_share

    def identity(self) -> object:
        """Return the arguments and, for a local folder, its content hashes."""
        return source_identity(self, self.path)

    def _records(self, name: str) -> Iterator[Record | None]:
        columns = ("instruction", "input", "output")
        for number, (where, row) in enumerate(read_dataset_rows(self.path, None, name, columns, self.revision)):
            instruction, conversation, output = (required_text(row, column, where) for column in columns)
            prompt, response = split_prompt(f"{instruction}\n{conversation}", GUARD_TASKS, where)
            labels = dict(parse(output, GUARD_TASKS))
            record = Record(f"{name}/{number:06d}", prompt, response, labels, output, name)
            yield record if record.gold() else None
