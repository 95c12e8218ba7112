"""Render the review page as HTML. All data is escaped, and the names of the runs never reach the template."""

from dataclasses import asdict, dataclass
from functools import cache
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from markupsafe import Markup

from guardreasoner import __version__
from guardreasoner.review.items import ReviewItem
from guardreasoner.review.ratings import RUBRIC, TIE, Rating
from guardreasoner.review.session import FLAGS, MAX_NOTE_LENGTH, ItemFilter, Session
from guardreasoner.workflow.shown_parts import shown_parts
from guardreasoner.workflow.visible_text import visible_text

if TYPE_CHECKING:
    from jinja2 import Environment

_FLAG_MEANINGS = {
    "hard": "in the hard set",
    "flipped": "one run is right, another is wrong",
    "wrong": "at least one answer is wrong",
    "unparsed": "at least one answer has no verdict",
    "unrated": "neither rated nor skipped",
}


_DECISION_WORDS = {
    "label": "the label is right: {label}",
    "models": "the models are right: {verdict}",
    "unclear": "unclear",
}
_DECISION_KEYS = {"label": "l", "models": "m", "unclear": "c"}  # u is undo


@dataclass(frozen=True, slots=True)
class PageState:
    """State of the page besides the session.

    Args:
        token: token that every form sends back.
        nonce: nonce of the page's inline style.
        message: result of the last action; may be empty.
        saved_key: key of the item that was just saved, whose draft the browser drops; may be empty.
    """

    token: str
    nonce: str
    message: str = ""
    saved_key: str = ""


def review_page(session: Session, item_filter: ItemFilter, item: ReviewItem | None, state: PageState) -> str:
    """Return the page of an item.

    Args:
        session: the rater's session.
        item_filter: the filter.
        item: item to rate; None if no record matches the filter.
        state: token, nonce and messages.
    """
    matching = session.matching(item_filter)
    numbers = [match.number for match in matching]
    rated, skipped = session.counts()
    latest = session.latest(item) if item else None
    previous = item and next((match for match in reversed(matching) if match.number < item.number), None)
    following = item and next((match for match in matching if match.number > item.number), None)
    return (
        _environment()
        .get_template("review.html")
        .render(
            title=f"Review: record {item.number}" if item else "Review",
            version=__version__,
            nonce=state.nonce,
            token=state.token,
            message=state.message,
            saved_key=state.saved_key,
            item=item,
            parts=shown_parts(item.record, shorten=False) if item else [],
            key=item.key if item else "",
            latest=latest,
            given=_form_values(item, latest) if item and latest else {},
            tasks=session.review_set.tasks,
            rubric=() if item and (item.question or item.tasks) else RUBRIC,
            choices=_choices(item) if item else [],
            identical=_identical_answers(item) if item else [],
            max_note_length=MAX_NOTE_LENGTH,
            total=len(session.review_set.items),
            rated=rated,
            skipped=skipped,
            item_filter=item_filter,
            matching=len(matching),
            position=numbers.index(item.number) + 1 if item and item.number in numbers else None,
            flags=_flags(session),
            benchmarks=sorted({visible_text(one.record.source) for one in session.review_set.items}),
            query=query_string(item_filter, item),
            previous=_link(item_filter, previous),
            following=_link(item_filter, following),
        )
    )


def query_string(item_filter: ItemFilter, item: ReviewItem | None) -> str:
    """Return the query string of the address that shows an item under a filter."""
    parts = {"benchmark": visible_text(item_filter.benchmark)} if item_filter.benchmark else {}
    parts |= {flag: "1" for flag in FLAGS if getattr(item_filter, flag)}
    return urlencode(parts | ({"at": str(item.number)} if item else {}))


def _choices(item: ReviewItem) -> list[tuple[str, str, str]]:
    """Return value, words and key of each choice."""
    if item.question is None:
        return [(value, value if value == TIE else f"{value} is better", value[0].lower()) for value in item.choices]
    words = {name: text.format(**asdict(item.question)) for name, text in _DECISION_WORDS.items()}
    return [(value, words[value], _DECISION_KEYS[value]) for value in item.choices]


def _identical_answers(item: ReviewItem) -> list[str]:
    """Return the slots of answers with the same text, e.g. "A and C"."""
    slots: dict[str, list[str]] = {}
    for answer in item.answers:
        slots.setdefault(answer.text_hash, []).append(answer.slot)
    return [" and ".join(group) for group in slots.values() if len(group) > 1]


def _form_values(item: ReviewItem, latest: Rating) -> dict[str, str]:
    """Return a rating as values by form field; its answers may have been in another order when it was given."""
    slots = {answer.run: answer.slot for answer in item.answers}
    values = {
        f"{slots[answer.run]}.{question}": "yes" if mark else "no"
        for answer in latest.answers.values()
        for question, mark in answer.marks.items()
        if mark is not None
    }
    values |= {f"label.{task}": label for task, label in (latest.labels or {}).items() if label is not None}
    if latest.better is not None:
        is_slot = latest.better in latest.answers
        values["better"] = slots[latest.answers[latest.better].run] if is_slot else latest.better
    return values


def _link(item_filter: ItemFilter, item: ReviewItem | None) -> str:
    return f"/?{query_string(item_filter, item)}" if item else ""


def _flags(session: Session) -> list[tuple[str, str, int]]:
    """Return name, meaning and number of items of each flag that some item has, and of "unrated"."""
    counts = {flag: sum(getattr(item, flag) for item in session.review_set.items) for flag in FLAGS[:-1]}
    counts["unrated"] = len(session.matching(ItemFilter(unrated=True)))
    shown = [flag for flag in FLAGS if flag == "unrated" or counts[flag]]
    return [(flag, _FLAG_MEANINGS[flag], counts[flag]) for flag in shown]


@cache
def _environment() -> "Environment":
    from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=ChoiceLoader([PackageLoader("guardreasoner.review"), PackageLoader("guardreasoner.report")]),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=lambda value: (
            visible_text(value) if isinstance(value, str) and not isinstance(value, Markup) else value
        ),
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = lambda value: f"{value:,}"
    return environment
