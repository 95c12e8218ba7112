"""What a synthesis run would cost, told before a request is sent."""

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch import LightningModule

from guardreasoner.errors import InputError
from guardreasoner.records import Record

if TYPE_CHECKING:
    from guardreasoner.modules.teacher import TeacherModule

log = logging.getLogger("guardreasoner")


@dataclass(frozen=True)
class Prices:
    """Prices in any currency; 0 where nothing is paid.

    Args:
        input: of a million prompt tokens.
        output: of a million generated tokens.

    Raises:
        InputError: a price below 0.
    """

    input: float = 0.0
    output: float = 0.0

    def __post_init__(self) -> None:
        if self.input < 0 or self.output < 0:
            raise InputError(f"model.prices: must be 0 or above, got {self.input} and {self.output}")

    @property
    def known(self) -> bool:
        """Whether there is a price."""
        return bool(self.input or self.output)

    def of(self, prompt_tokens: float, completion_tokens: float) -> float:
        """Return what tokens cost."""
        return (prompt_tokens * self.input + completion_tokens * self.output) / 1e6


class Estimate(LightningModule):
    """Goes over the records that a teacher would be asked about, sends nothing and writes nothing.

    Args:
        teacher: whose prompts, ledger and prices are meant.
    """

    writes_output = True

    def __init__(self, teacher: "TeacherModule") -> None:
        super().__init__()
        # in a list, so that it does not become a part of this module, with hooks of its own
        self._teacher = [teacher]
        self.to_ask = self.answered = self.characters = 0

    def transfer_batch_to_device(self, batch: list[Record], device: torch.device, dataloader_idx: int) -> list[Record]:
        """Leave records where they are."""
        return batch

    def on_predict_start(self) -> None:
        """Read what was answered before."""
        self._teacher[0].ledger.read()

    def predict_step(self, records: list[Record], index: int) -> list[Any]:
        """Count a chunk."""
        teacher = self._teacher[0]
        for record in records:
            case = teacher.case(record)
            if teacher.is_over(case):
                self.answered += 1
            else:
                self.to_ask += 1
                self.characters += len(case.text)
        return []

    def on_predict_end(self) -> None:
        """Say it."""
        for line in self.lines():
            log.info("%s", line)

    def lines(self) -> list[str]:
        """Return the estimate, for one answer a record and for as many as may be asked."""
        teacher = self._teacher[0]
        ledger, most = teacher.ledger, 1 + teacher.ask_again
        if ledger.counted and ledger.prompt_tokens and ledger.completion_tokens:
            per_token = ledger.characters / ledger.prompt_tokens
            written = ledger.completion_tokens / ledger.counted
            how = f"as {ledger.counted:,} answers in {ledger.path} measure"
        else:
            per_token, written = teacher.characters_per_token, float(teacher.expected_tokens)
            how = f"at {per_token:g} characters a token and {written:g} tokens an answer, which are guesses"
        read, wrote = self.characters / per_token, self.to_ask * written
        lines = [
            f"{self.to_ask:,} records to ask {teacher.generator.model}, {self.answered:,} already answered",
            f"about {read:,.0f} prompt tokens and {wrote:,.0f} output tokens, {how}",
        ]
        if teacher.prices.known:
            cost = teacher.prices.of(read, wrote)
            lines.append(f"cost about {cost:,.2f}; up to {most * cost:,.2f} if every record were asked {most} times")
        else:
            lines.append(f"cost not known without model.prices; a refused record is asked up to {most} times")
        rate = teacher.generator.requests_per_minute
        if rate is not None:
            minutes = self.to_ask / rate
            lines.append(f"at least {minutes:,.1f} minutes at {rate:g} requests a minute")
        return [*lines, "nothing was sent or written"]
