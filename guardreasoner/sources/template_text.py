"""Remove what other tools write around a prompt and after an output: a chat template, and end tokens."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

_END_TOKENS = (
    "</s>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|end_of_text|>",
    "<|endoftext|>",
    "<|im_end|>",
    "<|end|>",
    "<|return|>",
    "<end_of_turn>",
    "<eos>",
    "<｜end▁of▁sentence｜>",
)
_END = re.compile(rf"(?:\s*(?:{'|'.join(map(re.escape, _END_TOKENS))}))+\s*\Z")
_END_SEARCHED = 1000
_SHOWN = 40


@dataclass(frozen=True, slots=True)
class KnownTemplate:
    """What a chat template writes around a user's message.

    Args:
        name: name for messages.
        before: pattern of the start of the text, up to the message.
        after: text between the message and the answer.
    """

    name: str
    before: str
    after: str


CHAT_TEMPLATES = (
    KnownTemplate(
        "Llama 3",
        r".*<\|start_header_id\|>user<\|end_header_id\|>\n\n",
        "<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
    ),
    KnownTemplate("ChatML", r".*<\|im_start\|>user\n", "<|im_end|>\n<|im_start|>assistant\n"),
    KnownTemplate("ChatML", r".*<\|im_start\|>user\n", "<|im_end|>\n<|im_start|>assistant\n<think>\n"),
    KnownTemplate("ChatML", r".*<\|im_start\|>user\n", "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"),
    KnownTemplate("Gemma", r".*<start_of_turn>user\n", "<end_of_turn>\n<start_of_turn>model\n"),
    KnownTemplate("Phi", r".*<\|user\|>\n", "<|end|>\n<|assistant|>\n"),
    KnownTemplate("Mistral", r".*\[INST\] ?", " [/INST]"),
    KnownTemplate("Mistral", r".*\[INST\] ?", "[/INST]"),
    KnownTemplate("Vicuna", r".*USER: ", " ASSISTANT:"),
    KnownTemplate("Alpaca", r".*### Instruction:\n", "\n\n### Response:\n"),
    # The same without special tokens. Without the pattern of the start, their ends could be ends of responses.
    KnownTemplate("Llama 3", r"(?:system\n\n.*?)?user\n\n", "assistant\n\n"),
    KnownTemplate("ChatML", r"(?:system\n.*?\n)?user\n", "\nassistant\n"),
    KnownTemplate("ChatML", r"(?:system\n.*?\n)?user\n", "\nassistant\n<think>\n"),
    KnownTemplate("ChatML", r"(?:system\n.*?\n)?user\n", "\nassistant\n<think>\n\n</think>\n\n"),
    KnownTemplate("Gemma", r"user\n", "\nmodel\n"),
)
"""Templates that are recognized, with and without their special tokens."""

_TEMPLATE_START = re.compile(
    r"\s*(?:<[|｜]|<s>|<bos>|<start_of_turn>|\[INST\]|(?:system|user|human)\s*[:\n])", re.IGNORECASE
)


def strip_end_tokens(output: str) -> str:
    """Return an output without the end-of-text tokens at its very end; elsewhere they are text of the model."""
    start = max(0, len(output) - _END_SEARCHED)
    match = _END.search(output, start)
    return output[: match.start()] if match else output


def chat_template_around(prompts: Sequence[str], message_start: str) -> KnownTemplate | None:
    """Return the chat template around every one of the prompts; None if there is none.

    Args:
        prompts: prompt texts of one file.
        message_start: text that every message contains, such as "Human user:".
    """
    for template in CHAT_TEMPLATES:
        before = re.compile(template.before, re.DOTALL)
        if all(
            text.rstrip(" ").endswith(template.after) and before.match(text, 0, text.find(message_start))
            for text in prompts
        ):
            return template
    return None


def without_template(prompt: str, template: KnownTemplate) -> str:
    """Return a prompt without the end of its chat template, and with the blank line that templates trim."""
    return prompt.rstrip(" ").removesuffix(template.after).rstrip("\n") + "\n\n"


def unknown_end(prompts: Sequence[str], separator: str) -> str | None:
    """Return the end of the prompts if an unknown template seems to be around all of them; None otherwise.

    A template is recognized by how the texts start, or by the same text after the word None in all of them.

    Args:
        prompts: prompt texts of one file.
        separator: text before the last part of a conversation, which is the word None if that part is missing.
    """
    if prompts and all(map(_TEMPLATE_START.match, prompts)):
        return prompts[0][-_SHOWN:]
    first, *others = {text.rpartition(separator)[2] for text in prompts} or {""}
    if len(prompts) > 1 and not others and re.match(r"None\n*[^\w\n]|None\n+\w", first):
        return prompts[0][-_SHOWN:]
    return None
