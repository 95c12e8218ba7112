"""Find the trace in a teacher's answer: what is left without private thinking and without a preamble."""

import re
from dataclasses import dataclass

_TAG = re.compile(
    r"<(?P<close>/?)(?:think|thinking|thoughts?|seed:think|reasoning|reflection|scratchpad)>"
    r"|\[(?P<close2>/?)THINK\]|◁(?P<close3>/?)think▷|<\|(?:begin|(?P<close4>end))_of_thought\|>",
    re.IGNORECASE,
)
_CONTROL_TOKEN = re.compile(r"<[|｜][^|｜<>\s]{1,40}[|｜]>|<(?:start|end)_of_turn>|</s>")
_REFUSAL = re.compile(
    r"\W*(?:unfortunately\W+)?(?:(?:I['’]m|I am)\s+(?:\w+\s+)?(?:sorry|unable|not able|not comfortable)|sorry\b|"
    r"(?:I|we)\s+(?:apologi[sz]e|can['’]?t|can\s?not|won['’]t|will not|must decline|decline|refuse)\b|as an AI\b)",
    re.IGNORECASE,
)
_PREAMBLE = re.compile(
    r"\W*(?:(?:sure|certainly|of course|absolutely|okay|ok|alright|got it|understood|hmm+)\b"
    r"|(?:here(?:['’]s| is| are)|below (?:is|are)|this is)\s+(?:\w+\s+){0,4}?(?:reasoning|analysis|answer|trace|output|"
    r"classification|response|training)\b(?! from| of the (?:user|assistant|AI))"
    r"|as (?:you )?(?:requested|asked|instructed)\b"
    r"|(?:so |first,? )?I(?:['’]ll| will| need to| have to| must| should| am going to)\s+(?:now )?"
    r"(?:write|provide|produce|generate|create|draft)\b"
    r"|let me (?:write|think|see|start|begin|draft|produce)\b"
    r"|the user (?:wants|asks|asked|needs) me to\b)",
    re.IGNORECASE,
)
_MAX_QUOTED = 80  # characters


@dataclass(frozen=True, slots=True)
class Trace:
    """The trace in an answer.

    Args:
        text: the trace.
        removed: what was removed from the answer: "thinking", "preamble".
        faults: why the rest must not be used for training; details follow a colon.
    """

    text: str
    removed: tuple[str, ...] = ()
    faults: tuple[str, ...] = ()


def trace_of(answer: str, conversation: str, heading: re.Pattern[str] | None) -> Trace:
    """Return the trace in an answer.

    Thinking in tags at the start of the answer is removed, also if only its end tag is there. A preamble ("Sure! Here
    is the reasoning:") is removed if a heading follows it. Tags elsewhere, thinking without an end, control tokens, and
    a preamble without a heading are faults. A tag or token that the conversation contains may be quoted within a line.

    Args:
        answer: what the teacher wrote.
        conversation: the conversation that the answer is about.
        heading: pattern of the headings in a trace; None if the form of traces is unknown.
    """
    tags = list(_TAG.finditer(answer))
    start = _end_of_thinking(answer, tags, conversation)
    if start is None:
        return Trace("", faults=("thinking without an end",))
    removed = ["thinking"] if start else []
    text = answer[start:].lstrip() if start else answer
    faults = [
        f"{kind}: {match[0]}"
        for kind, pattern in (("thinking inside the answer", _TAG), ("control token in the answer", _CONTROL_TOKEN))
        for match in pattern.finditer(text)
        if not _is_quoted(text, match, conversation)
    ]
    if _PREAMBLE.match(text) or (heading and _REFUSAL.match(text)):
        first = heading.search(text) if heading else None
        if first and first.start():
            removed.append("preamble")
            text = text[first.start() :].lstrip()
        elif _PREAMBLE.match(text):
            faults.append(f"preamble: {_first_line(text)}")
    return Trace(text, tuple(removed), tuple(dict.fromkeys(faults)))


def refusal(text: str) -> str | None:
    """Return the first line of a text that begins as a refusal to answer does ("I'm sorry, but ..."); else None."""
    return _first_line(text) if _REFUSAL.match(text) else None


def _end_of_thinking(answer: str, tags: list[re.Match[str]], conversation: str) -> int | None:
    """Return where the thinking at the start of an answer ends, 0 if there is none; None if it has no end."""
    closing = [tag for tag in tags if any(tag.groups())]
    opens = bool(tags) and not any(tags[0].groups()) and not answer[: tags[0].start()].strip()
    if opens:
        return closing[0].end() if closing else None
    if closing and closing[0] is tags[0] and not _is_quoted(answer, closing[0], conversation):
        return closing[0].end()
    return 0


def _is_quoted(text: str, match: re.Match[str], conversation: str) -> bool:
    """Return whether a tag occurs in the conversation and stands within a line, not at its start or end."""
    before = text[max(0, match.start() - 100) : match.start()].rpartition("\n")[2]
    after = text[match.end() : match.end() + 100].partition("\n")[0]
    return match[0] in conversation and bool(before.strip()) and bool(after.strip())


def _first_line(text: str) -> str:
    return " ".join(text[: 4 * _MAX_QUOTED].strip().partition("\n")[0].split())[:_MAX_QUOTED]
