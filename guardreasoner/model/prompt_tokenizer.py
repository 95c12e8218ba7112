"""Tokenization of records and completions, identical in training, mining and serving."""

import json
from collections.abc import Sequence
from typing import Any

from guardreasoner.errors import InputError
from guardreasoner.model.chat_template import render_chats
from guardreasoner.prompts import PromptFormat, render
from guardreasoner.records import Record

_SLOT = "\u2063user text\u2063"
"""Placeholder for the user's text while the chat template is rendered; real text does not contain its separators."""


class PromptTokenizer:
    """Turn records and completions into token ids, identical in training, mining and serving.

    Prompt and completion are tokenized separately and joined as ids, so that no merge crosses the boundary. Text from a
    record never becomes a control token, even if it spells one.

    Args:
        tokenizer: Hugging Face tokenizer with an end-of-sequence token.
        format: prompt format.

    Raises:
        InputError: the tokenizer has no end-of-sequence token, or no chat template although the format needs one.
    """

    def __init__(self, tokenizer: Any, format: PromptFormat) -> None:
        if tokenizer.eos_token_id is None:
            raise InputError(f"the tokenizer {tokenizer.name_or_path} has no end-of-sequence token")
        self.tokenizer = tokenizer
        self.format = format
        self._before, self._after = self._frame()
        self._text = _text_tokenizer(tokenizer)

    @property
    def end(self) -> int:
        """Id of the end-of-sequence token."""
        return self.tokenizer.eos_token_id

    @property
    def frame(self) -> tuple[list[int], list[int]]:
        """Ids before and after the text of every prompt."""
        return list(self._before), list(self._after)

    @property
    def padding(self) -> int:
        """Id that pads shorter rows; it is always masked."""
        pad = self.tokenizer.pad_token_id
        return self.end if pad is None else pad

    def text(self, record: Record) -> str:
        """Return the prompt as text, without the chat template."""
        return render(record, self.format.tasks, self.format.opening)

    def prompt(self, record: Record) -> list[int]:
        """Return the ids of a prompt, including start-of-sequence and template tokens."""
        return self.prompts([record])[0]

    def prompts(self, records: Sequence[Record]) -> list[list[int]]:
        """Return the ids of many prompts; a batch is tokenized in parallel."""
        return [[*self._before, *ids, *self._after] for ids in self._plain([self.text(r) for r in records])]

    def completion(self, text: str) -> list[int]:
        """Return the ids of a completion with its end token."""
        return self.completions([text])[0]

    def completions(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the ids of many completions, each with its end token."""
        return [[*ids, self.end] for ids in self._plain(list(texts))]

    def identity(self) -> object:
        """Return everything that determines the ids, for the key of cached ids."""
        fast = getattr(self.tokenizer, "backend_tokenizer", None)
        vocabulary = fast.to_str() if fast is not None else sorted(self.tokenizer.get_vocab().items())
        template = self.tokenizer.chat_template if self.format.chat_template else None
        name = type(self.tokenizer).__name__
        return [name, vocabulary, self._before, self._after, self.end, template, repr(self.format)]

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
        (text,) = render_chats(self.tokenizer, [[{"role": "user", "content": _SLOT}]])
        before, after = text.split(_SLOT)
        return tuple(self.tokenizer(part, add_special_tokens=False)["input_ids"] for part in (before, after))


def _text_tokenizer(tokenizer: Any) -> Any:
    """Return a copy of a tokenizer that treats added tokens as text; None if ``split_special_tokens`` does the same.

    ``split_special_tokens`` only splits special tokens, but some models have control tokens that are added and not
    special (``<tool_call>``). Added tokens of white space are kept, because some models read code that way.
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
