"""A tokenizer's chat template, applied to one user message with a fixed date."""

import re
from datetime import date, datetime
from typing import Any

from guardreasoner.errors import InputError
from guardreasoner.workflow.limited import run_limited

DEFAULT_DATE = "2024-07-26"
"""Date in the prompts of a template that writes one; the templates of Llama 3 fall back to it too."""

VERBATIM = "guardreasoner_prompt"
"""Template argument that tells the template of an exported guard that the message is a finished prompt."""

_SLOT = "\u2063user text\u2063"
"""Stands for the user's text while the frame around it is rendered."""
_QUOTED_FORMAT = re.compile(r"'([^'\n]*%[^'\n]*)'|\"([^\"\n]*%[^\"\n]*)\"")
# Defined in the template itself, because the tokenizer passes no functions to it. The line break is removed with the
# block, so that the template still begins at the start of a line.
_FIXED_DATE = (
    "{%- macro strftime_now(format) -%}{{ fixed_date[format] if format in fixed_date else "
    "raise_exception('date format ' ~ format ~ ' is not written in the template') }}{%- endmacro %}\n"
)


class ChatTemplate:
    """The chat template of a tokenizer, as a function of a user's text.

    A template is a program: it may trim the text, write today's date, want the text in parts, or refuse a message. The
    text around the user's is the same for every text, or a text is refused.

    Args:
        tokenizer: Hugging Face tokenizer.
        day: date to write instead of today's, as YYYY-MM-DD.

    Raises:
        InputError: the tokenizer has no chat template; the template raises an error, or leaves the user's text out or
            repeats it.
    """

    def __init__(self, tokenizer: Any, day: str) -> None:
        name = tokenizer.name_or_path
        if tokenizer.chat_template is None:
            raise InputError(f"the tokenizer {name} has no chat template; set chat_template: false")
        self._tokenizer = tokenizer
        self._parts = False
        self.day = day
        source = self._call(lambda: tokenizer.get_chat_template())
        self.writes_date = "strftime_now" in source
        """Whether the template writes the current date."""
        self._arguments: dict[str, Any] = {VERBATIM: True}
        if self.writes_date:
            start = datetime.combine(date.fromisoformat(day), datetime.min.time())
            formats = {first or second for first, second in _QUOTED_FORMAT.findall(source)}
            self._arguments |= {
                "chat_template": _FIXED_DATE + source,
                "fixed_date": {format: start.strftime(format) for format in formats},
            }
        self.before, self.after = self._frame()

    def content(self, text: str) -> str:
        """Return a user's text as the template writes it, for example trimmed.

        Raises:
            InputError: the template raises an error, or writes something else around this text than around others.
        """
        rendered = self._render(text)
        end = len(rendered) - len(self.after)
        if not (rendered.startswith(self.before) and rendered.endswith(self.after) and len(self.before) <= end):
            raise InputError(
                f"the chat template of {self._tokenizer.name_or_path} writes another frame around this text than "
                f"around others: {' '.join(text[:80].split())!r}",
                "set chat_template: false, or use a template whose frame does not depend on the text",
            )
        return rendered[len(self.before) : end]

    def server_ids(self, text: str) -> list[int]:
        """Return the ids that a chat server makes of a user's text: with today's date, and tokenized as a whole."""
        return self._call(
            lambda: self._tokenizer.apply_chat_template(
                self._messages(text), tokenize=True, add_generation_prompt=True, return_dict=True
            )["input_ids"]
        )

    def _frame(self) -> tuple[str, str]:
        """Return the text before and after the user's; find out whether the template wants parts."""
        error: InputError | None = None
        counts = []
        for self._parts in (False, True):
            try:
                # The template comes with the model and is not trusted: it must show first that it keeps to the limits.
                rendered = self._call(lambda: run_limited(lambda: self._apply(_SLOT)))
            except InputError as raised:
                error = error or raised
                continue
            before, *others = rendered.split(_SLOT)
            if len(others) == 1:
                return before, others[0]
            counts.append(len(others))
        if error is not None:
            raise error
        raise InputError(
            f"the chat template of {self._tokenizer.name_or_path} writes the user's text {counts[0]} times, not once",
            "set chat_template: false",
        )

    def _render(self, text: str) -> str:
        return self._call(lambda: self._apply(text))

    def _apply(self, text: str) -> Any:
        return self._tokenizer.apply_chat_template(
            self._messages(text), tokenize=False, add_generation_prompt=True, **self._arguments
        )

    def _messages(self, text: str) -> list[dict[str, Any]]:
        return [{"role": "user", "content": [{"type": "text", "text": text}] if self._parts else text}]

    def _call(self, apply: Any) -> Any:
        try:
            return apply()
        except Exception as error:  # a template may fail in any way
            message = " ".join(str(error).split())[:300] or type(error).__name__
            raise InputError(
                f"the chat template of {self._tokenizer.name_or_path} fails on a user message: {message}",
                "set chat_template: false, or use a template that accepts a user message alone",
            ) from None
