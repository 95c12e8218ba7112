"""Topics of the conversations: three parts of seven topics."""

from guardreasoner.sources.embedded.topics.digital import DIGITAL
from guardreasoner.sources.embedded.topics.health import HEALTH
from guardreasoner.sources.embedded.topics.home import HOME
from guardreasoner.sources.embedded.topics.topic import Act, Topic

PARTS: dict[str, tuple[Topic, ...]] = {"home": HOME, "digital": DIGITAL, "health": HEALTH}
"""The topics of each part, in a fixed order."""

__all__ = ["PARTS", "Act", "Topic"]
