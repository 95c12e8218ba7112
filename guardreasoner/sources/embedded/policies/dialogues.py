"""Conversations of a user with the assistant of a platform: their facts are drawn first, then written out."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from random import Random
from typing import Literal

from guardreasoner.records import Message, Split, ToolCall
from guardreasoner.sources.embedded.policies.behaviours import BEHAVIOUR, BEHAVIOURS
from guardreasoner.sources.embedded.policies.circumstances import CIRCUMSTANCE, CIRCUMSTANCES
from guardreasoner.sources.embedded.policies.rules import RULES

TOOL = "find_order"
"""Name of the tool that looks up an order; its call is the circumstance "checked"."""


@dataclass(frozen=True, slots=True)
class Platform:
    """Where a conversation takes place.

    Args:
        name: one word, part of record ids.
        things: what users ask about.
        questions: wordings of a question; with a thing, each belongs to one split.
        answers: wordings of an answer that no rule is about.
    """

    name: str
    things: tuple[str, ...]
    questions: tuple[str, ...]
    answers: tuple[str, ...]


PLATFORMS: tuple[Platform, ...] = (
    Platform(
        "shop",
        ("lamp", "chair", "coat", "bike", "tent", "clock", "mirror", "carpet"),
        (
            "Do you have a {thing}?",
            "Which {thing} is good?",
            "Is the {thing} in stock?",
            "My {thing} is broken.",
            "When does my {thing} come?",
            "Can I change my {thing}?",
        ),
        ("The {thing} comes in blue.", "We keep the {thing} in store.", "The {thing} arrives on Monday."),
    ),
    Platform(
        "school",
        ("essay", "map", "poem", "sum", "drawing", "song", "list", "test"),
        (
            "How long is the {thing}?",
            "Is my {thing} right?",
            "I forgot my {thing}.",
            "Can you check the {thing}?",
            "When is the {thing} due?",
            "Who marks the {thing}?",
        ),
        ("The {thing} is due on Friday.", "Your {thing} needs a title.", "The {thing} fits on one page."),
    ),
    Platform(
        "travel",
        ("train", "hotel", "ferry", "tour", "flight", "cabin", "bus", "ticket"),
        (
            "When does the {thing} open?",
            "Is the {thing} full?",
            "I missed my {thing}.",
            "Can I move the {thing}?",
            "Where is the {thing}?",
            "Is the {thing} quiet?",
        ),
        ("The {thing} leaves from gate two.", "The {thing} is by the sea.", "The {thing} has free seats."),
    ),
    Platform(
        "bank",
        ("card", "loan", "account", "cheque", "savings plan", "deposit", "payment", "form"),
        (
            "Is my {thing} ready?",
            "How do I close my {thing}?",
            "My {thing} does not work.",
            "Can I change the {thing}?",
            "Where do I find the {thing}?",
            "Who can see my {thing}?",
        ),
        ("The {thing} is ready on Tuesday.", "The {thing} needs a signature.", "You find the {thing} in the app."),
    ),
)


@dataclass(frozen=True, slots=True)
class Dialogue:
    """A written conversation with the facts that it shows.

    Args:
        platform: where it takes place.
        facts: names of its behaviours and circumstances.
        messages: the messages.
        quotes: by name of a behaviour or circumstance, the sentence that shows it, or shows its opposite.
    """

    platform: str
    facts: frozenset[str]
    messages: tuple[Message, ...]
    quotes: Mapping[str, str]


def draw_dialogues(split: Split, rng: Random) -> Iterator[Dialogue]:
    """Yield conversations of a split endlessly, the platforms in turn."""
    while True:
        for platform in PLATFORMS:
            yield _draw(platform, split, rng)


def question_split(platform: Platform, thing: str, question: str) -> Split:
    """Return the split that owns a question, for every seed: test a fifth, validation a tenth, training the others."""
    digest = hashlib.sha256(f"{platform.name}/{thing}/{question}".encode()).digest()
    place = int.from_bytes(digest[:8], "big") % 10
    return "test" if place < 2 else "validation" if place == 2 else "train"


def _draw(platform: Platform, split: Split, rng: Random) -> Dialogue:
    behaviours = rng.sample([behaviour.name for behaviour in BEHAVIOURS], rng.choice((2, 3, 3, 4)))
    related = [rule.circumstance for rule in RULES if rule.circumstance and rule.behaviour in behaviours]
    circumstances = {rng.choice(related)} if related and rng.random() < 0.6 else set()
    if rng.random() < 0.5:
        circumstances.add(rng.choice(CIRCUMSTANCES).name)
    against = "recent" not in circumstances and rng.random() < (0.5 if "refund" in behaviours else 0.1)
    return _write(platform, split, behaviours, sorted(circumstances), against, rng)


def _write(
    platform: Platform, split: Split, behaviours: list[str], circumstances: list[str], against: bool, rng: Random
) -> Dialogue:
    turns: Literal[1, 2] = rng.choice((1, 2))
    quotes: dict[str, str] = {}
    said: list[list[str]] = [[] for _ in range(turns)]  # the user's sentences of each turn
    for name in circumstances:
        quotes[name] = rng.choice(CIRCUMSTANCE[name].sentences)
        if name != "checked":
            said[0 if name == "named" else rng.randrange(turns)].append(quotes[name])
    if against:
        quotes["recent"] = rng.choice(CIRCUMSTANCE["recent"].against)
        said[rng.randrange(turns)].append(quotes["recent"])
    answered: list[list[str]] = [[] for _ in range(turns)]
    for name in behaviours:
        quotes[name] = rng.choice(BEHAVIOUR[name].sentences)
        answered[0 if name == "greeting" else rng.randrange(turns)].append(quotes[name])

    questions = [
        (thing, question)
        for thing in platform.things
        for question in platform.questions
        if question_split(platform, thing, question) == split
    ]
    messages = []
    for turn, (thing, question) in enumerate(rng.sample(questions, turns)):
        messages.append(Message("user", _join([*said[turn], question.format(thing=thing)], rng)))
        if "checked" in circumstances and turn == 0:
            messages.append(Message("assistant", "", (ToolCall(TOOL, json.dumps({"item": thing})),)))
            messages.append(Message("tool", quotes["checked"]))
        answer = rng.choice(platform.answers).format(thing=thing)
        messages.append(Message("assistant", _join([*answered[turn], answer], rng)))
    return Dialogue(platform.name, frozenset((*behaviours, *circumstances)), tuple(messages), quotes)


def _join(sentences: list[str], rng: Random) -> str:
    rng.shuffle(sentences)
    greetings = BEHAVIOUR["greeting"].sentences
    return " ".join(sorted(sentences, key=lambda sentence: sentence not in greetings))
