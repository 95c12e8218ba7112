"""The checks of the training data: severity and meaning of each, and the findings that they produce."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Literal

Severity = Literal["ok", "note", "warning", "fault"]
SEVERITIES: tuple[Severity, ...] = ("fault", "warning", "note", "ok")
"""From worst to best. A fault stops the fit or silently spoils the model."""

_MAX_IDS, _MAX_COUNTED, _MAX_NAMED = 20, 1000, 5


@dataclass(frozen=True)
class Check:
    """One check of the training data.

    Args:
        severity: Severity of a hit.
        meaning: What a hit means, and what happens to the record.
    """

    severity: Severity
    meaning: str


@dataclass(frozen=True)
class Finding:
    """Result of one check.

    Args:
        name: Name of the check.
        severity: "ok" if there was no hit.
        count: Number of hits.
        of: Number of records or examples that were checked.
        message: What the hits mean, and what happens to the records.
        ids: Ids of the first hits; for contamination, with the id of the benchmark record.
    """

    name: str
    severity: Severity
    count: int
    of: int
    message: str
    ids: tuple[str, ...] = ()


@dataclass
class HitCounter:
    """Hits of one check.

    Args:
        count: Number of hits.
        ids: Ids of the first hits.
        details: How often each detail (such as a control token) was found.
    """

    count: int = 0
    ids: list[str] = field(default_factory=list)
    details: Counter[str] = field(default_factory=Counter)

    def add(self, record_id: str, *details: str) -> None:
        """Count a hit."""
        self.count += 1
        if len(self.ids) < _MAX_IDS:
            self.ids.append(record_id)
        # A million records may have as many different details.
        self.details.update(detail for detail in details if detail in self.details or len(self.details) < _MAX_COUNTED)

    def finding(
        self, name: str, of: int, severity: Severity | None = None, meaning: str = "", suffix: str = ""
    ) -> Finding:
        """Return the finding.

        Args:
            name: Name of the check, a key of :data:`CHECKS`.
            of: Number of records or examples that were checked.
            severity: Severity of the hits; by default that of the check.
            meaning: What the hits mean; by default the meaning of the check.
            suffix: Text to append to the message.
        """
        check = CHECKS[name]
        if not self.count:
            return Finding(name, "ok", 0, of, meaning or check.meaning)
        details = ", ".join(f"{detail} ({count})" for detail, count in self.details.most_common(_MAX_NAMED))
        message = "; ".join(part for part in (meaning or check.meaning, suffix, details) if part)
        return Finding(name, severity or check.severity, self.count, of, message, tuple(self.ids))


CHECKS: dict[str, Check] = {
    "nothing to train on": Check("fault", "no training examples are left"),
    "ids beyond the embedding": Check(
        "fault", "the tokenizer has ids that the model has no embedding for: fit will refuse to start"
    ),
    "too long": Check(
        "fault", "longer than data.max_length: fit will refuse to start; data.skip_too_long: true drops these records"
    ),
    "BOS missing": Check("fault", "the prompt does not start with the BOS token"),
    "BOS twice": Check("fault", "the prompt starts with more than one BOS token"),
    "EOS missing": Check("fault", "no end token after the completion: the model would not learn to stop"),
    "EOS inside": Check("fault", "an end token inside the completion: outputs would end there"),
    "control token from text": Check("fault", "text of a record was tokenized as a control token"),
    "text lost": Check("fault", "the decoded ids differ from the text: characters are missing or unknown"),
    "text changed": Check("warning", "the decoded ids differ from the text in white space, case or Unicode form only"),
    "unparsable target": Check("fault", "no verdict can be parsed from the target: such outputs count as wrong"),
    "target contradicts the label": Check("fault", "the verdict in the target differs from the gold label"),
    "chosen partly wrong": Check(
        "warning", "the chosen output matches one gold label and misses another (pairs graded on one task)"
    ),
    "rejected is right": Check("fault", "the rejected output matches every label: the pair penalizes a right output"),
    "empty reasoning": Check("fault", "the prompt asks for reasoning, and the target is an answer block alone"),
    "no reasoning": Check("note", "no reasoning: the record trains its verdicts alone (direct)"),
    "label leaked": Check("fault", "the reasoning mentions the given label, which no model sees at test time"),
    "thinking or preamble": Check(
        "warning",
        "the target holds an author's private thinking, a preamble ('Sure! Here is') or a control token as text",
    ),
    "prompt in a benchmark": Check(
        "fault", "the prompt also occurs in a benchmark of this run: fit will refuse to start"
    ),
    "prompt similar to a benchmark": Check("warning", "the prompt nearly equals a benchmark prompt; kept"),
    "dropped for contamination": Check(
        "note", "the prompt equals or nearly equals a benchmark prompt; dropped (data.skip_contaminated)"
    ),
    "contradicting labels": Check("fault", "the same conversation occurs with a different label"),
    "prompt in both splits": Check("fault", "the prompt is in training and validation: validation loss is too low"),
    "no label": Check("fault", "no task has a gold label: every verdict in the target is None"),
    "duplicate": Check("warning", "the same conversation occurs again in training and counts twice"),
    "rare label": Check("warning", "less than 1 % of a task's training labels, or none"),
    "truncated reasoning": Check(
        "warning",
        "the reasoning ends in mid-sentence without an answer block, possibly truncated; the gold answer follows it",
    ),
    "contains a control token": Check(
        "note", "the conversation contains a control token as text; encoded as plain text"
    ),
    "contains an answer line": Check(
        "note", "the conversation contains a line that looks like a verdict; kept as data"
    ),
    "joint tokenization differs": Check(
        "note",
        "prompt and completion tokenized together would give other ids; fit, mining and serving tokenize them apart",
    ),
    "chat server would differ": Check(
        "warning",
        "a chat server that applies the tokenizer's template today gives the prompt other ids than training does; send "
        "it ids through its completions endpoint (chat: false)",
    ),
    "chat template not used": Check(
        "note", "the tokenizer has a chat template, but the prompt is raw text: right for a base model"
    ),
}
"""Checks by name."""


ANSWER_CHECKS: dict[str, Check] = {
    "answers not in the format": Check(
        "fault",
        "the model's own answers have no verdict for a task with a label: it was trained in another format, or not as "
        "a guard (model.backbone.format, recipe.tasks)",
    ),
    "another format fits better": Check(
        "warning", "the model gives the known targets a lower loss in another prompt format (model.backbone.format)"
    ),
    "format not checked": Check(
        "note",
        "the adapter does not say which prompts it was trained with, so those of model.backbone.format are used; "
        "--answers 8 compares them with its own answers",
    ),
}
"""Checks of a model's answers by name, which need its weights and are only made on request."""
