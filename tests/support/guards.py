"""Guards for tests: an engine that says what a function returns, and a tiny model trained for both speeds."""

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import torch

from guardreasoner.evaluation.calibration import Calibration, Identity
from guardreasoner.generators import Completion, Generator, Request
from guardreasoner.model.batch import Example, two_row
from guardreasoner.records import Record, ScoreKind
from tests.support.tiny import TinySource, load, make_tiny_base


class Saying(Generator):
    """An engine without weights that answers each prompt with what a function says, and cannot score.

    Args:
        say: the output by the text of the prompt.
    """

    needs_weights = False

    def __init__(self, say: Callable[[str], str]) -> None:
        self.say = say
        self.calls: list[list[str]] = []
        """The prompts of each call."""

    def generate_groups(self, requests: Iterable[Request]) -> Iterator[list[Completion]]:
        """Yield one output per request."""
        requests = list(requests)
        self.calls.append([request.text for request in requests])
        yield [Completion(one.record_id, 0, self.say(one.text), completion_tokens=3) for one in requests]


def make_both_speeds(folder: Path) -> Path:
    """Train a tiny model until it answers :func:`known_records` at both speeds; write it to a folder."""
    torch.manual_seed(0)
    make_tiny_base(folder, hidden_size=32)
    stored = json.loads((folder / "guard.json").read_text())
    stored["format"]["speeds"] = ["reasoned", "direct"]
    (folder / "guard.json").write_text(json.dumps(stored))
    backbone = load(folder)
    tokenizer = backbone.prompt_tokenizer
    examples = [
        Example(
            f"{record.id}/{speed}",
            tuple(tokenizer.prompt(record, speed)),
            (tuple(tokenizer.completion(tokenizer.format.target(record, speed))),),
        )
        for record in known_records()
        for speed in tokenizer.format.speeds
    ]
    batch = two_row(examples, tokenizer.padding)
    optimizer = torch.optim.AdamW(backbone.parameters())
    for step in range(_STEPS):
        optimizer.param_groups[0]["lr"] = 1e-2 * (1 - step / _STEPS)
        optimizer.zero_grad()
        (-backbone.completion_logps(batch).mean()).backward()
        optimizer.step()
    backbone.save(folder)
    return folder


def known_records() -> list[Record]:
    """Return the records that the tiny model of both speeds judges right."""
    return TinySource().records("train")[:8]


_STEPS = 80


def calibration(task: str, score: ScoreKind, block: float, review: float) -> Calibration:
    """Return a calibration with these thresholds."""
    return Calibration(task, score, Identity(), block, review, 0.01, 0.01, (0.0, 0.1), 100, 1, 200, "data")
