"""Cases to HTML. Everything from data is escaped; names of runs are not among what a template gets."""

from functools import cache
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from markupsafe import Markup

from guardreasoner import __version__
from guardreasoner.review.cases import ReviewItem
from guardreasoner.review.ratings import RUBRIC, TIE, Rating
from guardreasoner.review.session import FLAGS, NOTE_LENGTH, Filter, Session

if TYPE_CHECKING:
    from jinja2 import Environment

_MEANINGS = {
    "hard": "in the hard set",
    "flipped": "one run right, another wrong",
    "wrong": "some answer is wrong",
    "unparsed": "some answer has no verdict",
    "unrated": "neither rated nor skipped",
}


def page(
    session: Session, wanted: Filter, case: ReviewItem | None, token: str, nonce: str, notice: str, done: str
) -> str:
    """Return the page of a case.

    Args:
        session: where the rater stands.
        wanted: the filter.
        case: what to rate; None where no record matches.
        token: goes back with every form.
        nonce: of the page's own style.
        notice: what was just done, in words; may be empty.
        done: key of the case whose rating was just saved; may be empty.
    """
    found = session.matching(wanted)
    numbers = [one.number for one in found]
    rated, skipped = session.counts()
    answers = case.answers if case else ()
    latest = session.latest(case) if case else None
    several = len(session.cases.runs) > 1
    return (
        _environment()
        .get_template("review.html")
        .render(
            title=f"Review: record {case.number}" if case else "Review",
            version=__version__,
            nonce=nonce,
            token=token,
            notice=notice,
            done=done,
            case=case,
            key=case.key if case else "",
            latest=latest,
            given=_given(case, latest) if case and latest else {},
            tasks=session.cases.tasks,
            rubric=RUBRIC,
            choices=[*((one.slot, f"{one.slot} is better") for one in answers), (TIE, "tie")] if several else [],
            alike=_alike(case) if case else [],
            note_length=NOTE_LENGTH,
            total=len(session.cases.all),
            rated=rated,
            skipped=skipped,
            wanted=wanted,
            matching=len(found),
            place=numbers.index(case.number) + 1 if case and case.number in numbers else None,
            flags=_flags(session),
            benchmarks=sorted({shown(one.record.source) for one in session.cases.all}),
            query=query(wanted, case),
            previous=_link(wanted, case and next((one for one in reversed(found) if one.number < case.number), None)),
            following=_link(wanted, case and next((one for one in found if one.number > case.number), None)),
        )
    )


def query(wanted: Filter, case: ReviewItem | None) -> str:
    """Return what stands behind the ``?`` of the address that shows a case under a filter."""
    parts = {"benchmark": shown(wanted.benchmark)} if wanted.benchmark else {}
    parts |= {flag: "1" for flag in FLAGS if getattr(wanted, flag)}
    return urlencode(parts | ({"at": str(case.number)} if case else {}))


def shown(text: str) -> str:
    """Return a text with control characters as pictures (ESC as ␛), and half surrogate pairs as "�"."""
    return text.translate(_PICTURES)


class _Pictures(dict[int, int]):
    """What a character stands as, made when it first occurs; so all of Unicode needs no table."""

    def __missing__(self, code: int) -> int:
        stands = code
        if code < 0x20 and chr(code) not in "\n\t\r":
            stands = 0x2400 + code
        elif code == 0x7F:
            stands = 0x2421
        elif 0x80 <= code < 0xA0 or 0xD800 <= code < 0xE000:
            stands = 0xFFFD
        self[code] = stands
        return stands


_PICTURES = _Pictures()


def _alike(case: ReviewItem) -> list[str]:
    """Return which slots hold the same text: "A and C"."""
    slots: dict[str, list[str]] = {}
    for one in case.answers:
        slots.setdefault(one.text, []).append(one.slot)
    return [" and ".join(of) for of in slots.values() if len(of) > 1]


def _given(case: ReviewItem, latest: Rating) -> dict[str, str]:
    """Return what a rating says by the names of the form's fields; its answers may have stood in another order."""
    slots = {one.run: one.slot for one in case.answers}
    given = {
        f"{slots[one.run]}.{item}": "yes" if says else "no"
        for one in latest.answers.values()
        for item, says in one.says.items()
        if says is not None
    }
    if latest.better is not None:
        given["better"] = TIE if latest.better == TIE else slots[latest.answers[latest.better].run]
    return given


def _link(wanted: Filter, case: ReviewItem | None) -> str:
    return f"/?{query(wanted, case)}" if case else ""


def _flags(session: Session) -> list[tuple[str, str, int]]:
    """Return the flags that can be asked for, what they mean, and how many cases have them."""
    cases = session.cases.all
    counts = {flag: sum(getattr(case, flag) for case in cases) for flag in FLAGS[:-1]}
    counts["unrated"] = len(session.matching(Filter(unrated=True)))
    offered = [flag for flag in FLAGS if flag == "unrated" or counts[flag]]
    return [(flag, _MEANINGS[flag], counts[flag]) for flag in offered]


@cache
def _environment() -> "Environment":
    from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=ChoiceLoader([PackageLoader("guardreasoner.review"), PackageLoader("guardreasoner.report")]),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=lambda value: shown(value) if isinstance(value, str) and not isinstance(value, Markup) else value,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = lambda value: f"{value:,}"
    return environment
