"""Whether a model answers in the prompt format that it is given: sampled answers are parsed, known targets scored."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from guardreasoner.errors import InputError
from guardreasoner.formats.verdicts import read_verdicts
from guardreasoner.generators import Request, ScoreRequest
from guardreasoner.model.prompt_tokenizer import PromptTokenizer
from guardreasoner.prompts import PromptFormat
from guardreasoner.training.training_data import TrainingItem

if TYPE_CHECKING:
    from guardreasoner.generators.local import LocalGenerator
    from guardreasoner.model.backbone import Backbone

_SPARE = 32
"""Tokens that an answer may have beyond twice the longest target."""
_CLEARLY = 0.05
"""Least share by which the loss must be lower in another format."""
_BATCH_SIZE = 16


@dataclass(frozen=True)
class FormatCheck:
    """Answers of a model and losses of known targets, in the format that it is given.

    Args:
        answers: Number of answers.
        parsed: Number of answers with a verdict for every task that the record has a label for.
        unparsed: The records whose answer has none, with the end of the answer.
        loss: Mean negative log-likelihood of the targets, in nats a token.
        other: The other format that was tried, as a setting; None if there is none to try.
        other_loss: The same mean in that format.
        lower: Number of targets that are more probable in that format.
    """

    answers: int
    parsed: int
    unparsed: tuple[tuple[str, str], ...]
    loss: float
    other: str | None = None
    other_loss: float = 0.0
    lower: int = 0

    @property
    def other_fits_better(self) -> bool:
        """Whether the targets are clearly more probable in the other format."""
        clearly = self.other_loss < (1 - _CLEARLY) * self.loss
        return self.other is not None and clearly and self.lower >= 0.8 * self.answers


def check_format(backbone: "Backbone", items: Sequence[TrainingItem]) -> FormatCheck:
    """Let a model answer some records greedily, and score their targets in its format and with or without a template.

    Args:
        backbone: The model, which is loaded here.
        items: Records with targets; the first target of each is used.

    Raises:
        InputError: There are no items, or the model cannot be loaded.
    """
    from guardreasoner.generators.local import LocalGenerator

    if not items:
        raise InputError("doctor: --answers: no training example is left to answer")
    longest = max(len(item.example.completions[0]) for item in items)
    engine = LocalGenerator(backbone, 2 * longest + _SPARE, temperature=0.0, batch_size=_BATCH_SIZE)
    tokenizer = backbone.prompt_tokenizer
    requests = [
        Request(str(place), item.example.prompt, tokenizer.text(item.record, item.speed), (0,))
        for place, item in enumerate(items)
    ]
    texts = {int(answer.record_id): answer.text for answer in engine.generate(requests)}
    unparsed = []
    for place, item in enumerate(items):
        verdicts = read_verdicts(texts[place], tokenizer.format.tasks, tokenizer.format)
        if any(verdicts.get(name) is None for name in item.record.gold()):
            unparsed.append((item.record.id, " ".join(texts[place].split())[-80:]))
    found = FormatCheck(len(items), len(items) - len(unparsed), tuple(unparsed), 0.0)
    losses = _losses(engine, items, tokenizer)
    found = replace(found, loss=sum(losses) / len(losses))
    if (other := _other(tokenizer)) is None:
        return found
    others = _losses(engine, items, other)
    return replace(
        found,
        other=f"chat_template: {str(other.chat_template is not None).lower()}",
        other_loss=sum(others) / len(others),
        lower=sum(one < own for one, own in zip(others, losses, strict=True)),
    )


def _losses(engine: "LocalGenerator", items: Sequence[TrainingItem], tokenizer: PromptTokenizer) -> list[float]:
    """Return the negative log-likelihood of each target, in nats a token."""
    requests = []
    for item in items:
        target = tuple(tokenizer.completions(item.completions[:1], item.truncated[:1])[0])
        requests.append(ScoreRequest(item.record.id, tuple(tokenizer.prompt(item.record, item.speed)), (target,)))
    scores = engine.score(requests)
    return [-score.logps[0] / len(one.continuations[0]) for one, score in zip(requests, scores, strict=True)]


def _other(tokenizer: PromptTokenizer) -> PromptTokenizer | None:
    """Return the tokenizer with a chat template instead of raw text, or the reverse; None if there is no template."""
    format = tokenizer.format
    if not isinstance(format, PromptFormat) or tokenizer.tokenizer.chat_template is None:
        return None
    try:
        return PromptTokenizer(tokenizer.tokenizer, replace(format, chat_template=not format.chat_template))
    except InputError:  # the template refuses a user message alone, so no model was trained with it
        return None
