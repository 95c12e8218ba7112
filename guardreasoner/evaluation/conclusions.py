"""What the reasoning on each task concludes, read from its words alone; rules tuned on outputs of published guards."""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import lru_cache

from guardreasoner.tasks import Task

_BARE = frozenset({"comply", "refuse", "decline"})
_VERBS = {
    **dict.fromkeys(
        ("refuse", "refuses", "refused", "refusing", "decline", "declines", "declined", "declining"), "refusal"
    ),
    **dict.fromkeys(("comply", "complies", "complied", "complying"), "compliance"),
}
FORMS: Mapping[str, str] = {
    "harmless": "unharmful",
    "compliant": "compliance",
    **_VERBS,
}
"""Other words for labels of the guard's own tasks."""

_USER = frozenset({"request", "requests", "question", "query", "prompt", "inquiry"})
_ASSISTANT = frozenset({"response", "responses", "assistant", "reply"})

_HEADING = re.compile(
    r"^[^\S\n]*(?:#+|\*\*)[^\S\n]*(?:Conclusion[^\S\n]+(?:for|of|on)[^\S\n]+)?Task[^\S\n]+(\d{1,3})\b", re.I | re.M
)
_STOP = re.compile(r"[.!?][\"'”’)*]*\s|\n")
_WINDOW = 160
_END = 5_000
"""Characters looked at on either side of a label, and at the end of what is said on a task: bounds on the time that
text without stops, or without an end, can take."""

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
    """Return the label that the reasoning on each task ends on; None where it states none.

    Where the text has a heading a task (``# Task 2``), a task's own part is read. Of the sentences that state a label
    the last one decides, those about what is judged before all others: "The response is unharmful", "Conclusion:
    refusal", "it does not comply". A negated label of two is the other one. A sentence that weighs labels ("whether it
    is harmful or unharmful") states none.

    Args:
        reasoning: the text before the answer block.
        tasks: what is decided.
    """
    parts = _parts(reasoning, len(tasks))
    found: dict[str, str | None] = {}
    for number, task in enumerate(tasks, start=1):
        last = {certain: label for label, certain in _statements(parts.get(number, "")[-_END:], task)}
        found[task.name] = last.get(True, last.get(False))
    return found


def _parts(reasoning: str, count: int) -> dict[int, str]:
    """Return the text on each task by its number, pieces joined; without a heading all of it for each."""
    pieces = _HEADING.split(reasoning)
    if len(pieces) == 1:
        return dict.fromkeys(range(1, count + 1), reasoning)
    parts: dict[int, list[str]] = {}
    for number, piece in zip(pieces[1::2], pieces[2::2], strict=True):
        parts.setdefault(int(number), []).append(piece)
    return {number: "\n".join(texts) for number, texts in parts.items()}


@lru_cache(maxsize=256)
def _words(task: Task) -> tuple[re.Pattern[str], dict[str, str], frozenset[str], frozenset[str]]:
    """Return what finds a task's labels, the label by word, and words for what it judges and for what it does not."""
    labels = {label.casefold(): label for label in task.labels}
    labels |= {form: label for form, label in FORMS.items() if label in task.labels}
    mention = "|".join(re.escape(word) for word in sorted(labels, key=len, reverse=True))
    asked = {word.casefold() for word in _WORD.findall(task.question)}
    sides = [
        (own, other) for own, other in ((_USER, _ASSISTANT), (_ASSISTANT, _USER)) if asked & own and not asked & other
    ]
    return re.compile(rf"\b(?:{mention})\b", re.I), labels, *(sides[0] if sides else (frozenset(), frozenset()))


def _statements(part: str, task: Task) -> Iterator[tuple[str, bool]]:
    """Yield (label, whether it seems said of what is judged) for each that a text states, in order."""
    mention, labels, own, other = _words(task)
    start = 0
    for stop in [*(match.end() for match in _STOP.finditer(part)), len(part)]:
        sentence, start = part[start:stop], stop
        for match in mention.finditer(sentence):
            before = sentence[max(0, match.start() - _WINDOW) : match.start()]
            after = sentence[match.end() : match.end() + _WINDOW]
            word = match[0].casefold()
            negated = None if _weighed(before, after, mention) else _negated(before, word, after)
            label = labels.get(word)
            next_word = _WORD.search(after)
            if negated is None or label is None or (next_word and next_word[0].casefold() in other):
                continue
            if negated:
                if len(task.labels) != 2:
                    continue
                label = next(one for one in task.labels if one != label)
            certain = _certain(before, own, other)
            # "It holds no content that could be harmful" does not say that it is harmful.
            if certain or negated or not _NEGATED.search(before):
                yield label, certain


def _weighed(before: str, after: str, mention: re.Pattern[str]) -> bool:
    """Return whether a label is named as one of several, or as what is to be found out."""
    first = re.match(r"\W+(?:or|nor)\b", after) and mention.search(after[:60])
    second = re.search(r"\b(?:or|nor)\W+(?:\w+\W+){0,2}$", before[-60:]) and mention.search(before[-60:])
    return bool(first or second or _WEIGHED.search(before))


def _negated(before: str, word: str, after: str) -> bool | None:
    """Return whether a word is stated (False) or denied (True); None where it is neither."""
    if word in _BARE:
        return True if _NOT_DO.search(before) else None if _TO_DO.search(before) else False
    if word in _VERBS:
        return _NOT_DOING.search(before) is not None
    stated = _STATED.search(before)
    if stated is None:
        alone = not _WORD.search(before) and not _WORD.search(after)
        return False if alone else None
    # The verb may be denied from before: "cannot be considered harmful", "does not make it harmful".
    return bool(_NEGATED.search(before, stated.start()) or _NOT_DOING.search(before[: stated.start()]))


def _certain(before: str, own: Collection[str], other: Collection[str]) -> bool:
    """Return whether what was named last is what is judged, and no other clause has begun since."""
    nouns = [found for found in _WORD.finditer(before) if found[0].casefold() in own or found[0].casefold() in other]
    if nouns and nouns[-1][0].casefold() in other:
        return False
    return _OTHER_CLAUSE.search(before, nouns[-1].start() if nouns else 0) is None
