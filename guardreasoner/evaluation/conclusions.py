"""Extract the label that the reasoning on each task concludes, by rules tuned on the outputs of published guards."""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import lru_cache

from guardreasoner.tasks import Task

_INFINITIVES = frozenset({"comply", "refuse", "decline"})
_VERBS = {
    **dict.fromkeys(
        ("refuse", "refuses", "refused", "refusing", "decline", "declines", "declined", "declining"), "refusal"
    ),
    **dict.fromkeys(("comply", "complies", "complied", "complying"), "compliance"),
}
SYNONYMS: Mapping[str, str] = {
    "harmless": "unharmful",
    "compliant": "compliance",
    **_VERBS,
}
"""Other words for the labels of the guard's built-in tasks."""

_USER = frozenset({"request", "requests", "question", "query", "prompt", "inquiry"})
_ASSISTANT = frozenset({"response", "responses", "assistant", "reply"})

_HEADING = re.compile(
    r"^[^\S\n]*(?:#+|\*\*)[^\S\n]*(?:Conclusion[^\S\n]+(?:for|of|on)[^\S\n]+)?Task[^\S\n]+(\d{1,3})\b", re.I | re.M
)
_STOP = re.compile(r"[.!?][\"'”’)*]*\s|\n")
_WINDOW = 160
_END = 5_000
"""Characters searched on either side of a label, and at the end of the text on a task. They bound the time on text
without sentence ends."""

_GAP = r"[^\w.;:!?]+"
_VERB = (
    r"(?:is|are|was|were)(?:n['’]t)?|be|been|being|as|remains?|becomes?|constitutes?|represents?|considered|deemed|"
    r"concluded?|makes?|making|renders?|rendering|belongs|falls|therefore|thus|hence|indicat(?:es?|ed|ing)|suggests?|"
    r"shows?|demonstrat(?:es|ed|ing)|(?:includes?|provides?|gives?)(?=\W+an?\b)"
)
_FILLER = (
    r"not|no|an?|the|it|this|to|under|into|in|as|be|been|being|considered|deemed|classified|categori[sz]ed|labell?ed|"
    r"evaluated|seen|viewed|regarded|interpreted|both|also|only|therefore|thus|still|indeed|\w+ly|or|and|"
    r"\w+(?=\s(?:and|or)\b)|clear|direct|polite|full|partial|form|example|case|act|of|illegal|dangerous|safe|"
    r"appropriate|neutral|common|request|response"
)
_STATED = re.compile(rf"(?:\b(?:{_VERB})(?:{_GAP}(?:{_FILLER})\b){{0,6}}{_GAP}|[:=→]\W*(?:\ban? )?\W*)$", re.I)
_NOT = r"(?:\b(?:not(?!\s(?:only|just|merely)\b)|no|nothing|never|cannot)\b|n['’]t\b)"
_INSTEAD = r"\b(?:without|avoid\w*|instead of|rather than)\b"
_NEGATED = re.compile(rf"{_NOT}|\b(?:instead of|rather than)\b", re.I)
_NOT_DOING = re.compile(rf"(?:{_NOT}|{_INSTEAD}){_GAP}(?:(?:\w+ly|itself){_GAP})?$", re.I)
_NOT_DO = re.compile(
    rf"(?:{_NOT}(?:{_GAP}(?!(?:but|because|since|however|and|it|therefore|which|that)\b)\w+){{0,7}}"
    rf"|\b(?:refus\w+|declin\w+|fail\w*|unable){_GAP}to(?:{_GAP}\w+ly)?){_GAP}$",
    re.I,
)
_TO_DO = re.compile(rf"\bto{_GAP}(?:\w+ly{_GAP})?$", re.I)
_WEIGHED = re.compile(
    r"\b(?:whether|if|determin(?:e|es|ed|ing)|evaluat(?:e|ing)|assess(?:ing)?|either|neither|nor)\b[^,;]*$", re.I
)
_OTHER_CLAUSE = re.compile(r"\b(?:that|which|who|because|since|due|explain\w*|stat(?:es|ing))\b", re.I)
_WORD = re.compile(r"\w+")


def conclusions(reasoning: str, tasks: Sequence[Task]) -> dict[str, str | None]:
    """Return the label that the reasoning on each task concludes; None if it states no label.

    If the text has a heading for each task (``# Task 2``), only the section of a task is read. The last sentence that
    states a label decides ("The response is unharmful", "Conclusion: refusal", "it does not comply"); sentences whose
    subject is the text that the task judges take precedence over all others. If a task has two labels, a negated label
    means the other one. A sentence that weighs labels ("whether it is harmful or unharmful") states none.

    Args:
        reasoning: text before the answer block.
        tasks: tasks to decide.
    """
    sections = _sections(reasoning, len(tasks))
    labels: dict[str, str | None] = {}
    for number, task in enumerate(tasks, start=1):
        last = {certain: label for label, certain in _statements(sections.get(number, "")[-_END:], task)}
        labels[task.name] = last.get(True, last.get(False))
    return labels


def _sections(reasoning: str, count: int) -> dict[int, str]:
    """Return the text on each task by task number; without headings, all of the text for each task."""
    pieces = _HEADING.split(reasoning)
    if len(pieces) == 1:
        return dict.fromkeys(range(1, count + 1), reasoning)
    sections: dict[int, list[str]] = {}
    for number, piece in zip(pieces[1::2], pieces[2::2], strict=True):
        sections.setdefault(int(number), []).append(piece)
    return {number: "\n".join(texts) for number, texts in sections.items()}


@lru_cache(maxsize=256)
def _vocabulary(task: Task) -> tuple[re.Pattern[str], dict[str, str], frozenset[str], frozenset[str]]:
    """Return a task's vocabulary.

    Returns:
        A pattern that matches its labels and their synonyms; the label by word; the nouns for the text that the task
        judges; the nouns for the other side of the conversation.
    """
    label_by_word = {label.casefold(): label for label in task.labels}
    label_by_word |= {synonym: label for synonym, label in SYNONYMS.items() if label in task.labels}
    mention = "|".join(re.escape(word) for word in sorted(label_by_word, key=len, reverse=True))
    question = {word.casefold() for word in _WORD.findall(task.question)}
    sides = [
        (judged, other)
        for judged, other in ((_USER, _ASSISTANT), (_ASSISTANT, _USER))
        if question & judged and not question & other
    ]
    nouns = sides[0] if sides else (frozenset(), frozenset())
    return re.compile(rf"\b(?:{mention})\b", re.I), label_by_word, *nouns


def _statements(section: str, task: Task) -> Iterator[tuple[str, bool]]:
    """Yield (label, whether its subject is what the task judges) for each statement of a label, in order."""
    mention, label_by_word, judged, other = _vocabulary(task)
    start = 0
    for stop in [*(match.end() for match in _STOP.finditer(section)), len(section)]:
        sentence, start = section[start:stop], stop
        for match in mention.finditer(sentence):
            before = sentence[max(0, match.start() - _WINDOW) : match.start()]
            after = sentence[match.end() : match.end() + _WINDOW]
            word = match[0].casefold()
            negated = None if _weighed(before, after, mention) else _negated(before, word, after)
            label = label_by_word.get(word)
            next_word = _WORD.search(after)
            if negated is None or label is None or (next_word and next_word[0].casefold() in other):
                continue
            if negated:
                if len(task.labels) != 2:
                    continue
                label = next(candidate for candidate in task.labels if candidate != label)
            certain = _is_about_judged_text(before, judged, other)
            # "It has no content that could be harmful" does not state "harmful".
            if certain or negated or not _NEGATED.search(before):
                yield label, certain


def _weighed(before: str, after: str, mention: re.Pattern[str]) -> bool:
    """Return whether a label is mentioned as one of several alternatives or as an open question."""
    first = re.match(r"\W+(?:or|nor)\b", after) and mention.search(after[:60])
    second = re.search(r"\b(?:or|nor)\W+(?:\w+\W+){0,2}$", before[-60:]) and mention.search(before[-60:])
    return bool(first or second or _WEIGHED.search(before))


def _negated(before: str, word: str, after: str) -> bool | None:
    """Return whether a label is negated (True) or stated (False); None if it is neither."""
    if word in _INFINITIVES:
        return True if _NOT_DO.search(before) else None if _TO_DO.search(before) else False
    if word in _VERBS:
        return _NOT_DOING.search(before) is not None
    stated = _STATED.search(before)
    if stated is None:
        alone = not _WORD.search(before) and not _WORD.search(after)
        return False if alone else None
    # The negation may come before the verb: "cannot be considered harmful", "does not make it harmful".
    return bool(_NEGATED.search(before, stated.start()) or _NOT_DOING.search(before[: stated.start()]))


def _is_about_judged_text(before: str, judged: Collection[str], other: Collection[str]) -> bool:
    """Return whether the last noun before a label is the judged text and no other clause begins after that noun."""
    words = _WORD.finditer(before)
    nouns = [word for word in words if word[0].casefold() in judged or word[0].casefold() in other]
    if nouns and nouns[-1][0].casefold() in other:
        return False
    return _OTHER_CLAUSE.search(before, nouns[-1].start() if nouns else 0) is None
