"""Render a tokenizer's chat template, a program that comes with the model and is not trusted.

transformers runs it in Jinja's sandbox, which keeps it from files and code, but not from using up time and memory.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from guardreasoner.errors import InputError
from guardreasoner.workflow.limited import LimitError, run_limited


def render_chats(tokenizer: Any, chats: Sequence[Sequence[Mapping[str, Any]]], **options: Any) -> list[str]:
    """Return the text of each chat, up to where the assistant's answer begins.

    Args:
        tokenizer: Hugging Face tokenizer with a chat template.
        chats: messages with ``role`` and ``content``.
        options: further arguments of ``apply_chat_template``, such as ``date_string``.

    Raises:
        InputError: the template fails, or exceeds the limits of time, memory and length.
    """

    def render() -> list[str]:
        arguments = {"tokenize": False, "add_generation_prompt": True, **options}
        return [tokenizer.apply_chat_template(list(chat), **arguments) for chat in chats]

    try:
        texts: list[str] = run_limited(render)
    except (LimitError, ValueError) as error:
        raise InputError(f"{tokenizer.name_or_path}: the chat template {_reason(error)}") from None
    return texts


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if isinstance(error, LimitError) else f"fails: {text}"
