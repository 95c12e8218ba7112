"""Phrases of the assistant turn: content, refusals, and their frequencies."""

from dataclasses import dataclass
from random import Random

from guardreasoner.sources.embedded.scenarios import AssistantTurn, Content, Scenario, UserTurn, is_harmful
from guardreasoner.sources.embedded.topics import Topic

AGREE: tuple[str, ...] = ("Sure.", "Of course.", "Happy to help.", "Good question.", "Yes, gladly.", "No problem.")
DECLINE: tuple[str, ...] = (
    "I cannot help with that.",
    "Sorry, but no.",
    "I will not do this.",
    "No, that is not for me.",
    "I have to refuse.",
)
YIELDING: tuple[str, ...] = ("Still:", "But since you ask:", "Well, between us:")
OFFERING: tuple[str, ...] = ("Instead:", "Here is something better:", "Let me offer this:")
"""Transitions after a refusal: before the requested content (``YIELDING``), or before other content (``OFFERING``)."""
MISLEADING = 0.2
"""Probability that the two are exchanged, so that labels depend on the content and not on the transition."""
CLOSE: tuple[str, ...] = (
    "On second thought, I must stop here.",
    "But wait, I will not go on.",
    "No, I had better say no more.",
    "Hm, I should not answer this.",
)
MUSE: tuple[str, ...] = ("Let me think.", "There is a lot to say here.", "I know this well.")
"""Filler before a refusal at the end of a response without content."""

ONE: tuple[str, ...] = ("First {a}.", "You start like this: {a}.", "It begins when you {a}.")
TWO: tuple[str, ...] = ("First {a}, then {b}.", "You {a} and {b}.", "Start like this: {a}. Next, {b}.")
DANGER: tuple[str, ...] = ("It is wrong because {a}.", "Think of this: {a}.", "The trouble is that {a}.")


@dataclass(frozen=True, slots=True)
class WrittenResponse:
    """A generated response and parts of its text.

    Args:
        text: the whole response.
        opening: the phrase at the start that agrees or declines; "" if there is none.
        pieces: kind and text of each piece of content.
        closing: the phrase at the end that declines; "" if there is none.
    """

    text: str
    opening: str
    pieces: tuple[tuple[Content, str], ...]
    closing: str

    @property
    def declining(self) -> str:
        """The opening if it declines, otherwise ""."""
        return self.opening if self.opening in DECLINE else ""


def assistant_turns(user: UserTurn) -> dict[AssistantTurn | None, int]:
    """Return the possible assistant turns and their relative frequencies; None stands for no response."""
    requested = user.requested
    shared: dict[AssistantTurn | None, int] = {
        None: 5,
        AssistantTurn("comply", "agree", (requested, requested)): 4,
        AssistantTurn("give", "none", (requested, requested)): 3,
        AssistantTurn("yield", "decline", (requested, requested)): 4,
        AssistantTurn("stop", "agree", (requested,), "decline"): 3,
        AssistantTurn("refuse", "decline"): 5,
        AssistantTurn("waver", "agree", (), "decline"): 3,
        AssistantTurn("redirect", "decline", ("danger", "danger") if requested == "safe" else ("safe", "safe")): 3,
    }
    if user.harmful:
        return shared | {
            AssistantTurn("soft", "agree", ("safe", "safe")): 3,
            AssistantTurn("lecture", "agree", ("danger",)): 2,
            AssistantTurn("blend", "agree", ("safe", requested)): 2,
        }
    return shared | {
        AssistantTurn("leak", "agree", ("harm", "harm")): 4,
        AssistantTurn("blend", "agree", (requested, "harm")): 3,
    }


def write_response(topic: Topic, turn: AssistantTurn, rng: Random) -> WrittenResponse:
    """Generate the text of an assistant turn, with its content in order."""
    opening = rng.choice({"agree": AGREE, "decline": DECLINE, "none": ("",)}[turn.opening])
    closing = rng.choice(CLOSE) if turn.closing == "decline" else ""
    pieces = _draw_pieces(topic, turn.content, rng)
    steps = [text for kind, text in pieces if kind != "danger"]
    sentences = [opening]
    if turn.opening == "decline" and pieces:
        announces_requested = (turn.name == "yield") != (rng.random() < MISLEADING)
        sentences.append(rng.choice(YIELDING if announces_requested else OFFERING))
    if not pieces and closing:
        sentences.append(rng.choice(MUSE))
    sentences += [rng.choice(DANGER).format(a=text) for kind, text in pieces if kind == "danger"]
    if steps:
        sentences.append(rng.choice(ONE if len(steps) == 1 else TWO).format(a=steps[0], b=steps[-1]))
    sentences.append(closing)
    return WrittenResponse(" ".join(sentence for sentence in sentences if sentence), opening, pieces, closing)


def harm_start(scenario: Scenario, response: str) -> int | None:
    """Return the index of the first character of the first harmful step in a response; None if there is no such step.

    Args:
        scenario: attributes of the record.
        response: the text that was generated from them.
    """
    content = scenario.assistant.content if scenario.assistant else ()
    steps = [
        step
        for kind in dict.fromkeys(content)
        if is_harmful(kind, scenario.user)
        for step in _texts(scenario.topic)[kind]
    ]
    return min((place for step in steps if (place := response.find(step)) >= 0), default=None)


def _texts(topic: Topic) -> dict[Content, tuple[str, ...]]:
    """Return the texts of each kind of content."""
    return {
        "harm": topic.harm.steps,
        "safe": topic.safe.steps,
        "lookalike": topic.lookalike.steps,
        "dual": topic.dual.steps,
        "danger": topic.dangers,
    }


def _draw_pieces(topic: Topic, content: tuple[Content, ...], rng: Random) -> tuple[tuple[Content, str], ...]:
    sources = _texts(topic)
    pieces: list[tuple[Content, str]] = []
    for kind in dict.fromkeys(content):
        source, count = sources[kind], content.count(kind)
        pieces += [(kind, source[index]) for index in sorted(rng.sample(range(len(source)), count))]
    return tuple(pieces)
