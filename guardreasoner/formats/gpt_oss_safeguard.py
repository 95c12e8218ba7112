"""gpt-oss-safeguard: 1 or 0 to whether content violates a policy, in the final channel after an analysis.

https://cookbook.openai.com/articles/gpt-oss-safeguard-guide: the policy is the developer's message, the content that of
the user. The messages have the harmony form (https://cookbook.openai.com/articles/openai-harmony) as the openai-harmony
library writes it. The guide leaves the form of the answer to the policy; the sentence that asks for 1 or 0 and the
layout of a conversation of several messages are ours: a line of a text that begins like a message gets a backslash in
front. An answer in the guide's JSON form, with the key ``violation``, is read too.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date as calendar_date
from typing import ClassVar, Literal

from guardreasoner.errors import InputError
from guardreasoner.formats.published import PublishedFormat, Span, texts_and_controls
from guardreasoner.prompts import Part, Plain, headings, without_headings
from guardreasoner.records import Record, Speed
from guardreasoner.records.jsonl import parse_json
from guardreasoner.tasks import POLICY_TASK, Task

QUESTION = (
    "Decide whether the content violates the policy above. "
    "Answer with exactly one character: 1 if it violates the policy, 0 if it does not."
)
"""Our last paragraph of the developer's message."""

_AUTHORS = {"user": "User", "assistant": "Assistant"}
_HEADINGS = headings(*_AUTHORS.values())
_ANALYSIS, _FINAL = "analysis", "assistantfinal"
_FINALS = (_FINAL, "<|channel|>final<|message|>")
_ASSISTANT = "<|start|>assistant"
_QUOTING = re.compile(r"(?:\s[\"'`\u2018\u201c\u00ab]*|[(\[{<:=])\Z")
_MARK = re.compile(r"<\|(?:start|channel|message|end|return)\|>")
_VIOLATION = re.compile(r'"violation"\s*:\s*([01])(?![.\w])')


@dataclass(frozen=True)
class GptOssSafeguard(PublishedFormat):
    """Format of gpt-oss-safeguard 20b and 120b.

    Args:
        effort: how much the model reasons.
        question: the paragraph after the policy; it must ask for 1 (violates) or 0.
        date: current date in the system message, as YYYY-MM-DD.

    Raises:
        InputError: ``effort`` is unknown, or the date is no date.
    """

    effort: Literal["low", "medium", "high"] = "medium"
    question: str = QUESTION
    date: str = "2025-10-29"

    speeds: ClassVar[tuple[Speed, ...]] = ("reasoned",)
    end: ClassVar[str | None] = "<|return|>"

    def __post_init__(self) -> None:
        if self.effort not in ("low", "medium", "high"):
            raise InputError(f"format.effort: {self.effort!r}, expected low, medium or high")
        try:
            calendar_date.fromisoformat(self.date)
        except ValueError:
            raise InputError(f"format.date: {self.date!r} is not a date such as 2025-10-29") from None

    @property
    def tasks(self) -> tuple[Task, ...]:
        """Whether the conversation violates the policy."""
        return (POLICY_TASK,)

    @property
    def words(self) -> Mapping[str, Mapping[str, str]]:
        """Labels by published word."""
        return {POLICY_TASK.name: {"1": "violates", "0": "complies"}}

    def parts(self, record: Record, speed: Speed = "reasoned") -> tuple[Part, ...]:
        """Return the prompt: the system message, the policy, the content, and the start of the assistant's message."""
        self.speed(speed)
        policy = "\n\n".join(filter(None, (self.policy(record), self.question)))
        turns = self.named(record, record.messages, _AUTHORS)
        content = turns[0][1]
        if len(turns) > 1:
            content = "\n\n".join(f"{author}: {without_headings(text, _HEADINGS)}" for author, text in turns)
        texts = {"date": self.date, "effort": self.effort, "policy": policy, "content": content}
        return texts_and_controls(_PROMPT, _CONTROLS, **texts)

    def spans(self, completion: str) -> Mapping[str, Span]:
        """Return where the answer stands: alone in the final channel.

        The names of the channels run into the text if the control tokens around them are left out.
        """
        if not _has_one_final_channel(completion):
            return {}
        start = _final_start(completion)
        answer = completion[start:].strip().removesuffix("<|return|>").rstrip()
        start += len(completion[start:]) - len(completion[start:].lstrip())
        if answer in ("0", "1"):
            return {POLICY_TASK.name: (start, start + 1)}
        try:
            decided = parse_json(answer) if answer.startswith("{") else None
        except ValueError:
            return {}
        found = _VIOLATION.search(answer)
        if not isinstance(decided, dict) or found is None or str(decided.get("violation")) != found[1]:
            return {}
        return {POLICY_TASK.name: (start + found.start(1), start + found.end(1))}

    def answer(self, record: Record) -> str:
        """Return the final channel for a record's label."""
        return f"{_FINAL}{self.word(record, POLICY_TASK)}"

    def reasoned(self, reasoning: str, answer: str) -> str:
        """Return the output with the reasoning in the analysis channel, without control tokens as engines return it."""
        return f"{_ANALYSIS}{reasoning}{answer}"

    def reasoning(self, completion: str) -> str:
        """Return the text of the analysis channel."""
        start = _final_start(completion)
        before = _MARK.sub("", completion[:start]).strip()
        return before.removeprefix(_ANALYSIS).removesuffix(_FINAL).strip()

    def output_parts(self, completion: str) -> tuple[Part, ...]:
        """Return an output with the control tokens of its channels."""
        start = _final_start(completion)
        if not start:
            return (Plain(completion),)
        reasoning = self.reasoning(completion)
        if not completion[:start].endswith(_FINALS):  # the output ended in its analysis
            return texts_and_controls(_ONLY_ANALYSIS, _CONTROLS, reasoning=reasoning)
        answer = completion[start:].removesuffix("<|return|>")
        return texts_and_controls(_OUTPUT, _CONTROLS, reasoning=reasoning, answer=answer)


def _final_start(completion: str) -> int:
    """Return where the text of the final channel begins; the end of the text if there is only an analysis.

    Without any channel, as servers return the answer, it is the start.
    """
    start = max((place + len(mark) for mark in _FINALS if (place := completion.rfind(mark)) >= 0), default=0)
    if start:
        return start
    only_analysis = _MARK.sub("", completion.lstrip()[:100]).startswith(_ANALYSIS)
    return len(completion) if only_analysis else 0


def _has_one_final_channel(completion: str) -> bool:
    """Return whether the final channel follows the analysis, or is the whole output.

    An analysis may quote the name of the channel, and be cut off there. A name after a space or an opening quotation
    mark is taken for a quote.
    """
    if sum(map(completion.count, _FINALS)) != 1:
        return not any(mark in completion for mark in _FINALS)
    plain, marked = (completion.partition(mark) for mark in _FINALS)
    before = plain[0] if plain[1] else marked[0]
    if not before.strip():
        return True
    if not _MARK.sub("", before.lstrip()[:100]).startswith(_ANALYSIS):
        return False
    return before.endswith(_ASSISTANT) if marked[1] else _QUOTING.search(before[-9:]) is None


_CONTROLS = ("<|start|>", "<|message|>", "<|end|>", "<|channel|>")
_PROMPT = """\
<|start|>system<|message|>You are ChatGPT, a large language model trained by OpenAI.
Knowledge cutoff: 2024-06
Current date: {date}

Reasoning: {effort}

# Valid channels: analysis, commentary, final. Channel must be included for every message.<|end|>\
<|start|>developer<|message|># Instructions

{policy}<|end|><|start|>user<|message|>{content}<|end|><|start|>assistant"""
_ONLY_ANALYSIS = "<|channel|>analysis<|message|>{reasoning}"
_OUTPUT = f"{_ONLY_ANALYSIS}<|end|><|start|>assistant<|channel|>final<|message|>{{answer}}"
