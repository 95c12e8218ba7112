"""DynaBench: conversations with an agent, each judged by a policy of its own.

https://huggingface.co/datasets/tomg-group-umd/DynaBench (also montehoover/DynaBench), arXiv 2509.02563. Configuration
``DynaBench`` has the split ``test`` (543 rows, written and checked by people), ``DynaBenchTrain`` the split ``train``
(about 40,000, generated), and ``DynaBenchSafetyMix`` a split ``train`` of other safety data in the same form. A row::

    policy:      1. Do not promise refunds.
                 2. Answer in one sentence.
    transcript:  User: My lamp came broken.

                 Agent: You get your money back.
    label:       FAIL

``PASS`` becomes complies and ``FAIL`` violates, the label "policy"; the broken rule is not published in a column of its
own, so "rule" has no label. A policy may also be a list of rules, which are then numbered. A line that starts with
"User:" or "Agent:", with or without quotation marks around the name, starts a message; a message that repeats such a
line in its text is therefore cut there. Rows without a policy or a label, and transcripts that start without an
author, are skipped and counted.

Other implementations: the published evaluation puts policy and transcript into the prompt as they are.
"""

import re
from collections.abc import Iterator, Sequence
from typing import Any, Literal

from guardreasoner.errors import InputError
from guardreasoner.records import Message, Record, Role, Split
from guardreasoner.sources.hub import (
    drop_unusable,
    mapped_value,
    optional_text,
    read_dataset_rows,
    require_distinct_choices,
)
from guardreasoner.sources.train_and_test import TrainAndTest
from guardreasoner.workflow.ranges import ShareBelowOne

TrainingPart = Literal["DynaBenchTrain", "DynaBenchSafetyMix"]

_LABELS = {"PASS": "complies", "FAIL": "violates", None: None}
_ROLES: dict[str, Role] = {"User": "user", "Agent": "assistant"}
_AUTHOR = re.compile(r"^[ \t]*(['\"]?)(User|Agent)\1:[ \t]*", re.MULTILINE)


class DynaBench(TrainAndTest):
    """Read DynaBench, train and test, for the task "policy".

    Args:
        path: repository on the hub, or a folder with its files.
        revision: branch, tag or commit of the repository; None for the newest.
        splits: splits to provide; the others are empty.
        validation_share: share of the training set's distinct prompts for the validation split.
        parts: configurations to train on, in this order.

    Raises:
        InputError: a split or part is unknown or given twice, or a share is out of range. Rows are read only when
            records are requested.
    """

    def __init__(
        self,
        path: str = "tomg-group-umd/DynaBench",
        revision: str | None = None,
        splits: Sequence[Split] = ("train", "validation", "test"),
        validation_share: ShareBelowOne = 0.0,
        parts: Sequence[TrainingPart] = ("DynaBenchTrain",),
    ) -> None:
        super().__init__(path, revision, splits, validation_share)
        permitted: tuple[TrainingPart, ...] = ("DynaBenchTrain", "DynaBenchSafetyMix")
        self.parts = require_distinct_choices("DynaBench", "parts", parts, permitted)

    def read(self, split: Literal["train", "test"]) -> Iterator[Record]:
        """Yield the rows of a split as conversations with a policy; rows that lack something are counted."""
        for part in ("DynaBench",) if split == "test" else self.parts:
            yield from drop_unusable(self._records(part, split), part, "lack a policy, a label or an author")

    def _records(self, part: str, split: str) -> Iterator[Record | None]:
        columns = ("policy", "transcript", "label")
        for number, (where, row) in enumerate(read_dataset_rows(self.path, part, split, columns, self.revision)):
            policy = _policy(row["policy"], where)
            messages = transcript_messages(optional_text(row, "transcript", where) or "")
            label = mapped_value(row, "label", _LABELS, where)
            if not policy or not messages or label is None:
                yield None
                continue
            record_id = f"{part}/{number:06d}"
            yield Record(record_id, labels={"policy": label}, source=part, messages=messages, policy=policy)


def transcript_messages(transcript: str) -> tuple[Message, ...]:
    """Return the messages of a transcript; messages of one author in a row are joined.

    Args:
        transcript: text with an author, "User:" or "Agent:", at the start of each message.

    Returns:
        No message if no author is named, or if text stands before the first author, which nobody can be said to have
        written.
    """
    starts = list(_AUTHOR.finditer(transcript))
    if not starts or transcript[: starts[0].start()].strip():
        return ()
    messages: list[Message] = []
    for start, end in zip(starts, [*(match.start() for match in starts[1:]), len(transcript)], strict=True):
        role, text = _ROLES[start[2]], transcript[start.end() : end].strip()
        if messages and messages[-1].role == role:
            text = f"{messages.pop().content}\n\n{text}"
        messages.append(Message(role, text))
    return tuple(messages)


def _policy(value: Any, where: str) -> str:
    if value is None or isinstance(value, str):
        return (value or "").strip()
    if not isinstance(value, list) or not all(isinstance(rule, str) for rule in value):
        raise InputError(f"{where}: policy: found {type(value).__name__}, expected text or a list of texts")
    rules = [rule.strip() for rule in value if rule.strip()]
    numbered = all(re.match(r"\d+[.:)]\s", rule) for rule in rules)
    return "\n".join(rule if numbered else f"{number}. {rule}" for number, rule in enumerate(rules, start=1))
