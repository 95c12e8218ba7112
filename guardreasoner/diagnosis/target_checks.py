"""Checks of training targets: parsable, right, with reasoning, and without a hint that the answer was given."""

import re
from collections.abc import Iterator, Sequence

from guardreasoner.diagnosis.id_checks import Hit
from guardreasoner.formats import GuardFormat
from guardreasoner.formats.verdicts import read_verdicts
from guardreasoner.prompts import conversation
from guardreasoner.records import Record, Speed
from guardreasoner.synthesis.prompt import STEP_PATTERN, faults, heading_pattern
from guardreasoner.synthesis.trace import trace_of
from guardreasoner.tasks import Task

_HEADING = heading_pattern(STEP_PATTERN)
_MID_SENTENCE = re.compile(r"[\w,;(\-–—]\Z")


def target_hits(
    record: Record,
    tasks: Sequence[Task],
    texts: Sequence[str],
    speed: Speed = "reasoned",
    format: GuardFormat | None = None,
) -> Iterator[Hit]:
    """Yield the hits for the target of one record.

    Args:
        record: The conversation with its labels and reasoning.
        tasks: The tasks of the prompt format.
        texts: The target decoded from its ids: one completion (R-SFT), or chosen and rejected (HS-DPO).
        speed: Whether the target should have reasoning.
        format: The format of the target; None: GuardReasoner's own.
    """
    gold = record.gold()
    verdicts = read_verdicts(texts[0], tasks, format)
    right = [verdicts.get(name) == label for name, label in gold.items()]
    if not gold:
        yield "no label", ()
    elif all(verdict is None for verdict in verdicts.values()):
        yield "unparsable target", ()
    elif not all(right):
        partly_right = len(texts) > 1 and any(right)
        wrong = (name for name, label in gold.items() if verdicts.get(name) != label)
        yield ("chosen partly wrong" if partly_right else "target contradicts the label"), tuple(wrong)
    if len(texts) > 1 and gold:
        rejected = read_verdicts(texts[1], tasks, format)
        if all(rejected.get(name) == label for name, label in gold.items()):
            yield "rejected is right", ()
    if speed == "direct":
        if len(texts) == 1 and not record.reasoning:
            yield "no reasoning", ()
        return
    reasons = [reason.partition(": ") for reason in faults(texts[0], record, tasks, steps=None, format=format)]
    if any(kind == "no reasoning" for kind, _, _ in reasons):
        yield "empty reasoning", ()
    if phrases := tuple(phrase for kind, _, phrase in reasons if kind == "leaks the label"):
        yield "label leaked", phrases
    trace = trace_of(texts[0], conversation(record), _HEADING) if len(texts) == 1 else None
    if trace and (trace.removed or trace.faults):
        yield "thinking or preamble", (*trace.removed, *trace.faults)
    reasoning = (record.reasoning or "").rstrip()
    unfinished = len(texts) == 1 and _MID_SENTENCE.search(reasoning) is not None
    if unfinished and not any(read_verdicts(reasoning, tasks, format).values()):
        yield "truncated reasoning", ()


def answer_line_pattern(tasks: Sequence[Task]) -> re.Pattern[str]:
    """Return a pattern for lines in a conversation that look like a line of an answer block."""
    keys = "|".join(rf"{re.escape(t.key)}\s*:\s*(?:{'|'.join(map(re.escape, t.labels))})\b" for t in tasks)
    return re.compile(rf"^[^\w\n]*(?:{keys})", re.IGNORECASE | re.MULTILINE)
