"""Text to token ids, the same ones at training, mining and serving."""

import json
from collections.abc import Sequence
from typing import Any

from guardreasoner.errors import InputError
from guardreasoner.prompts import PromptFormat, render
from guardreasoner.records import Record

_SLOT = "\u2063user text\u2063"
"""Stands for the user's text while the chat template is rendered; its invisible separators keep it from being text."""


class PromptTokenizer:
    """Turn records and completions into ids, the same ones at training, mining and serving.

    Prompt and completion are tokenized apart and joined as ids, so that no merge crosses the boundary. Text from a
    record never becomes a control token, whatever it spells.

    Args:
        tokenizer: a Hugging Face tokenizer with an end-of-sequence token.
        format: how the model is asked.

    Raises:
        InputError: the tokenizer has no end-of-sequence token, or no chat template where one is asked for.
    """

    def __init__(self, tokenizer: Any, format: PromptFormat) -> None:
        if tokenizer.eos_token_id is None:
            raise InputError(f"the tokenizer {tokenizer.name_or_path} has no end-of-sequence token")
        self.tokenizer = tokenizer
        self.format = format
        self._before, self._after = self._frame()
        self._text = _of_text(tokenizer)

    @property
    def end(self) -> int:
        """Id of the token that ends a completion."""
        return self.tokenizer.eos_token_id

    @property
    def frame(self) -> tuple[list[int], list[int]]:
        """Ids that stand before and after the text of every prompt."""
        return list(self._before), list(self._after)

    @property
    def padding(self) -> int:
        """Id that fills the room beside shorter rows; it is always masked."""
        pad = self.tokenizer.pad_token_id
        return self.end if pad is None else pad

    def text(self, record: Record) -> str:
        """Return the prompt as text, without the chat template."""
        return render(record, self.format.tasks, self.format.opening)

    def prompt(self, record: Record) -> list[int]:
        """Return the ids of the prompt, with the tokens that open a sequence."""
        return self.prompts([record])[0]

    def prompts(self, records: Sequence[Record]) -> list[list[int]]:
        """Return the ids of many prompts; together they are tokenized side by side."""
        return [[*self._before, *ids, *self._after] for ids in self._plain([self.text(r) for r in records])]

    def completion(self, text: str) -> list[int]:
        """Return the ids of a completion and the end token."""
        return self.completions([text])[0]

    def completions(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the ids of many completions, each with its end token."""
        return [[*ids, self.end] for ids in self._plain(list(texts))]

    def identity(self) -> object:
        """Return what decides the ids, so that ids that were kept can be told from those that it would give now."""
        fast = getattr(self.tokenizer, "backend_tokenizer", None)
        words = fast.to_str() if fast is not None else sorted(self.tokenizer.get_vocab().items())
        template = self.tokenizer.chat_template if self.format.chat_template else None
        return [type(self.tokenizer).__name__, words, self._before, self._after, self.end, template, repr(self.format)]

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of a completion without special tokens."""
        return self.tokenizer.decode(ids, skip_special_tokens=True)

    def _plain(self, texts: list[str]) -> list[list[int]]:
        if self._text is not None:
            return [encoding.ids for encoding in self._text.encode_batch_fast(texts, add_special_tokens=False)]
        return self.tokenizer(texts, add_special_tokens=False, split_special_tokens=True)["input_ids"] if texts else []

    def _frame(self) -> tuple[list[int], list[int]]:
        if not self.format.chat_template:
            bos = self.tokenizer.bos_token_id
            return ([] if bos is None else [bos]), []
        if self.tokenizer.chat_template is None:
            raise InputError(
                f"the tokenizer {self.tokenizer.name_or_path} has no chat template; set chat_template: false"
            )
        text = self.tokenizer.apply_chat_template(
            [{"role": "user", "content": _SLOT}], tokenize=False, add_generation_prompt=True
        )
        before, after = text.split(_SLOT)
        return tuple(self.tokenizer(part, add_special_tokens=False)["input_ids"] for part in (before, after))


def _of_text(tokenizer: Any) -> Any:
    """Return a copy of a tokenizer for which no added token is more than text; None where the tokenizer can do so.

    ``split_special_tokens`` splits special tokens alone, and some models have added tokens that are not special and yet
    steer them (``<tool_call>``). Runs of white space stay: as added tokens they are how some models read code.
    """
    backend: Any = getattr(tokenizer, "backend_tokenizer", None)
    added = backend.get_added_tokens_decoder().values() if backend is not None else ()
    if all(token.special or not token.content.strip() for token in added):
        return None
    from tokenizers import Tokenizer

    content = json.loads(backend.to_str())
    for token in content["added_tokens"]:
        token["special"] = token["special"] or bool(token["content"].strip())
    copy = Tokenizer.from_str(json.dumps(content))
    copy.encode_special_tokens = True
    copy.no_padding()
    copy.no_truncation()
    return copy
