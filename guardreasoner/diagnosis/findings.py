"""What is looked for, how bad each finding is, and what it means for the run."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Literal

Severity = Literal["ok", "note", "warning", "fault"]
SEVERITIES: tuple[Severity, ...] = ("fault", "warning", "note", "ok")
"""Worst first. A fault would spoil the run, mostly without a word."""

_IDS, _WORDS, _WORDS_SHOWN = 20, 1000, 5


@dataclass(frozen=True)
class Check:
    """One thing to look for.

    Args:
        severity: of a hit.
        means: what a hit means, and what happens to the record.
    """

    severity: Severity
    means: str


@dataclass(frozen=True)
class Finding:
    """What one check found.

    Args:
        name: the check.
        severity: "ok" where there was no hit.
        count: hits.
        of: how many were looked at.
        message: what the hits mean, and what happens to the records.
        ids: the first of them; for prompts of a benchmark with the benchmark's.
    """

    name: str
    severity: Severity
    count: int
    of: int
    message: str
    ids: tuple[str, ...] = ()


@dataclass
class HitCounter:
    """The hits of one check: how many, the first ids, and which words were found how often."""

    count: int = 0
    ids: list[str] = field(default_factory=list)
    words: Counter[str] = field(default_factory=Counter)

    def add(self, identity: str, *words: str) -> None:
        """Count a hit."""
        self.count += 1
        if len(self.ids) < _IDS:
            self.ids.append(identity)
        # a million records may hold as many different words
        self.words.update(word for word in words if word in self.words or len(self.words) < _WORDS)

    def finding(self, name: str, of: int, severity: Severity | None = None, means: str = "", more: str = "") -> Finding:
        """Return what was found.

        Args:
            name: a key of :data:`CHECKS`.
            of: how many were looked at.
            severity: instead of the check's.
            means: instead of what the check says.
            more: to be said after it.
        """
        check = CHECKS[name]
        if not self.count:
            return Finding(name, "ok", 0, of, means or check.means)
        common = ", ".join(f"{word} ({count})" for word, count in self.words.most_common(_WORDS_SHOWN))
        message = "; ".join(part for part in (means or check.means, more, common) if part)
        return Finding(name, severity or check.severity, self.count, of, message, tuple(self.ids))


CHECKS: dict[str, Check] = {
    "nothing to train on": Check("fault", "no training example is left"),
    "too long": Check(
        "fault", "longer than data.max_length: the run would refuse to start; data.skip_too_long: true leaves them out"
    ),
    "BOS missing": Check("fault", "the prompt does not begin with the token that begins a sequence"),
    "BOS twice": Check("fault", "the prompt begins with more than one token that begins a sequence"),
    "EOS missing": Check("fault", "no end token after the completion: the model would not learn to stop"),
    "EOS inside": Check("fault", "an end token inside the completion: outputs would end there"),
    "control token from text": Check("fault", "text of a record became a control token, which no text may"),
    "text lost": Check("fault", "the ids do not hold the text: characters are missing or unknown to the tokenizer"),
    "text changed": Check("warning", "decoded, the ids differ in white space, case or Unicode form alone"),
    "unparsable target": Check("fault", "no verdict can be read from what is taught: such outputs count as wrong"),
    "target against the label": Check("fault", "what is taught answers otherwise than the label"),
    "chosen partly wrong": Check(
        "warning", "the chosen output meets a label and misses another (pairs graded on one task)"
    ),
    "rejected is right": Check("fault", "the rejected output meets every label: the pair teaches to avoid a right one"),
    "no reasoning": Check("fault", "nothing is taught but the answer block"),
    "answer betrayed": Check("fault", "the reasoning says that the answer was given, which at test time it never is"),
    "prompt of a benchmark": Check("fault", "a benchmark of the run holds the prompt: the run would refuse to start"),
    "prompt like a benchmark's": Check("warning", "nearly the prompt of a benchmark; kept"),
    "left out for a benchmark": Check(
        "note", "a benchmark holds the prompt, or nearly; left out (data.skip_contaminated)"
    ),
    "contradicting labels": Check("fault", "the same conversation has another label elsewhere"),
    "prompt in both splits": Check("fault", "trained and validated on: the validation loss would flatter"),
    "no label": Check("fault", "no task has a gold label: the answer taught is None everywhere"),
    "duplicate": Check("warning", "the same conversation again in training; it counts double"),
    "rare label": Check("warning", "fewer than 1 % of a task's training labels, or none"),
    "cut reasoning": Check(
        "warning",
        "reasoning that ends in mid-sentence, without an answer block: cut off? the gold answer is put after it",
    ),
    "spells a control token": Check("note", "the conversation spells a control token; it is encoded as plain text"),
    "holds an answer line": Check("note", "the conversation itself holds a line like an answer; it stays data"),
    "other ids as one text": Check(
        "note",
        "prompt and completion are tokenized apart, at training, mining and serving alike; as one text the ids differ",
    ),
    "chat template not used": Check(
        "note", "the tokenizer has a chat template, and the prompt is raw text: right for a base model"
    ),
}
