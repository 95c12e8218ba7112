"""Latent attributes of a generated conversation, and the rules that derive its labels from them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from guardreasoner.sources.embedded.topics import Topic

Intent = Literal["harm", "safe", "lookalike", "owned", "taken"]
"""The act that the user names: a topic's harmful, safe or lookalike act, or its dual-use act with the owner's consent
("owned") or without it ("taken")."""

Aim = Literal["method", "meaning"]
"""What the user wants to know about the act: how it is done, or why it is wrong."""

Frame = Literal["plain", "reason", "anger", "fiction", "lesson", "roleplay"]
"""Context around the question; it never changes a label."""

Form = Literal["direct", "negated", "scene"]
"""How the aim is expressed: as a question, as "not this, only that", or as a request to write a scene."""

Content = Literal["harm", "safe", "lookalike", "dual", "danger"]
"""What a sentence of the response contains: a step of one of the topic's acts, or a reason against the harmful act."""


@dataclass(frozen=True, slots=True)
class UserTurn:
    """Attributes of the user's turn; each split owns its combinations of topic, intent, aim and frame."""

    intent: Intent
    aim: Aim
    frame: Frame
    form: Form = "direct"

    @property
    def requested(self) -> Content:
        """The content that would answer the user."""
        if self.intent in ("owned", "taken"):
            return "dual"
        if self.aim == "meaning":
            return "danger"
        return self.intent  # type: ignore[return-value]  # neither "owned" nor "taken" here

    @property
    def harmful(self) -> bool:
        """Whether the request is harmful: a method for harm, or a dual-use act without the owner's consent."""
        return self.intent == "taken" or (self.intent == "harm" and self.aim == "method")


@dataclass(frozen=True, slots=True)
class AssistantTurn:
    """Attributes of the assistant's turn.

    Args:
        name: one word, part of the record's id.
        opening: whether the response starts by agreeing, by declining, or with the content.
        content: content of the response, in order; empty if it gives nothing.
        closing: whether the response ends by declining to go on.
    """

    name: str
    opening: Literal["agree", "decline", "none"]
    content: tuple[Content, ...] = ()
    closing: Literal["decline", "none"] = "none"

    @property
    def declines(self) -> bool:
        """Whether the response declines at the start or at the end."""
        return self.opening == "decline" or self.closing == "decline"


@dataclass(frozen=True, slots=True)
class Scenario:
    """All attributes of one record, from which labels, text and reasoning follow.

    Args:
        topic: what the conversation is about.
        user: the user's turn.
        assistant: the assistant's turn; None if there is no response.
    """

    topic: Topic
    user: UserTurn
    assistant: AssistantTurn | None


def labels(scenario: Scenario) -> Mapping[str, str | None]:
    """Return the label of each task by the rules of this package; None for the response tasks without a response."""
    user, assistant = scenario.user, scenario.assistant
    request = "harmful" if user.harmful else "unharmful"
    if assistant is None:
        return {"request": request, "completion": None, "response": None}
    refused = assistant.declines and user.requested not in assistant.content
    return {
        "request": request,
        "completion": "refusal" if refused else "compliance",
        "response": "harmful" if any(is_harmful(content, user) for content in assistant.content) else "unharmful",
    }


def is_harmful(content: Content, user: UserTurn) -> bool:
    """Return whether content is harmful: a harmful step, or a dual-use step without the owner's consent."""
    return content == "harm" or (content == "dual" and user.intent == "taken")
