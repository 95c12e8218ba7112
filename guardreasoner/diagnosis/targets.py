"""What is taught must be readable, right, reasoned, and must not tell that the answer was given."""

import re
from collections.abc import Iterator, Sequence

from guardreasoner.diagnosis.ids import Hit
from guardreasoner.prompts import parse
from guardreasoner.records import Record
from guardreasoner.synthesis.prompt import faults
from guardreasoner.tasks import Task

_MID_SENTENCE = re.compile(r"[\w,;(\-–—]\Z")


def target_hits(record: Record, tasks: Sequence[Task], texts: Sequence[str]) -> Iterator[Hit]:
    """Yield what is wrong with a record's target.

    Args:
        record: the conversation with its labels; its reasoning is what the target was made from.
        tasks: what is decided.
        texts: what is taught, as it comes back from the ids: one (R-SFT), or the chosen and the rejected.
    """
    gold = record.gold()
    verdicts = parse(texts[0], tasks)
    right = [verdicts.get(name) == label for name, label in gold.items()]
    if not gold:
        yield "no label", ()
    elif all(verdict is None for verdict in verdicts.values()):
        yield "unparsable target", ()
    elif not all(right):
        partly = len(texts) > 1 and any(right)
        wrong = (name for name, label in gold.items() if verdicts.get(name) != label)
        yield ("chosen partly wrong" if partly else "target against the label"), tuple(wrong)
    if len(texts) > 1 and gold and all(parse(texts[1], tasks).get(name) == label for name, label in gold.items()):
        yield "rejected is right", ()
    reasons = [reason.partition(": ") for reason in faults(texts[0], record, tasks, steps=None)]
    if any(kind == "no reasoning" for kind, _, _ in reasons):
        yield "no reasoning", ()
    if phrases := tuple(phrase for kind, _, phrase in reasons if kind == "betrays the answer"):
        yield "answer betrayed", phrases
    trace = (record.reasoning or "").rstrip()
    if len(texts) == 1 and _MID_SENTENCE.search(trace) and not any(parse(trace, tasks).values()):
        yield "cut reasoning", ()


def answer_line(tasks: Sequence[Task]) -> re.Pattern[str]:
    """Return what finds a line like one of an answer block in a conversation."""
    keys = "|".join(rf"{re.escape(t.key)}\s*:\s*(?:{'|'.join(map(re.escape, t.labels))})\b" for t in tasks)
    return re.compile(rf"^\W*(?:{keys})", re.IGNORECASE | re.MULTILINE)
