"""Formats of guards: what a model is asked, what it answers, and how verdicts are read from the answer.

GuardReasoner's own format is :class:`guardreasoner.prompts.PromptFormat`. Each other file of this package is the
published format of another guard.
"""

from dataclasses import dataclass
from typing import Any, Protocol

from guardreasoner.prompts import Part, Verdicts
from guardreasoner.records import Record, Speed
from guardreasoner.tasks import Task


@dataclass(frozen=True, slots=True)
class Alternative:
    """A text that a guard could have written, up to the answer of one task.

    The answer is followed by the key of the next task, or by the end token. So a label that begins like another one
    ("harmful" and "harmful intent") has a text that does not begin like the other's.

    Args:
        task: name of the task.
        label: the label that is answered.
        text: the completion up to and including the label and, unless it ends there, the key of the next task.
        ends: whether the end token follows the text.
    """

    task: str
    label: str
    text: str
    ends: bool


class GuardFormat(Protocol):
    """Format of a guard, stored with its model so that training, mining and serving use the same."""

    @property
    def tasks(self) -> tuple[Task, ...]:
        """Tasks that an output answers."""
        ...

    @property
    def speeds(self) -> tuple[Speed, ...]:
        """Speeds that can be asked for, the default first; empty if that is not known."""
        ...

    @property
    def end(self) -> str | None:
        """Control token that ends an output; None: the tokenizer's end-of-sequence token."""
        ...

    def has(self, speed: Speed) -> bool:
        """Return whether outputs of a speed exist in the format, whatever a model was trained for."""
        ...

    def speed(self, wanted: Speed | None = None) -> Speed:
        """Return the speed to ask for: the wanted one, or else the default.

        Raises:
            InputError: the format does not have the wanted speed.
        """
        ...

    def parts(self, record: Record, speed: Speed = "reasoned") -> tuple[Part, ...]:
        """Return the prompt of a record; texts of the record are plain.

        Raises:
            InputError: the format cannot ask about this record.
        """
        ...

    def text(self, record: Record, speed: Speed = "reasoned") -> str:
        """Return the prompt of a record as text."""
        ...

    def target(self, record: Record, speed: Speed = "reasoned") -> str:
        """Return the output that training teaches for a record.

        Raises:
            InputError: the record lacks a label or the reasoning, or its reasoning contradicts a label.
        """
        ...

    def output_parts(self, completion: str) -> tuple[Part, ...]:
        """Return an output as the model writes it, with the control tokens in it."""
        ...

    def parse(self, completion: str) -> Verdicts:
        """Return the verdicts of an output, None for each task without a clear one."""
        ...

    def reasoning(self, completion: str) -> str:
        """Return the reasoning in an output; empty if there is none."""
        ...

    def as_json(self) -> dict[str, Any]:
        """Return the format as it is stored with a model."""
        ...
