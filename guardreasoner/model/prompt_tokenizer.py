"""Tokenization of records and completions, identical in training, mining and serving."""

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from guardreasoner.errors import InputError
from guardreasoner.model.chat_template import DEFAULT_DATE, ChatTemplate
from guardreasoner.prompts import PromptFormat
from guardreasoner.records import Record, Speed

_SHOWN = 8
"""Tokens shown of each of two sequences that differ."""


class PromptTokenizer:
    """Turn records and completions into token ids, identical in training, mining and serving.

    Prompt and completion are tokenized separately and joined as ids, so that no merge crosses the boundary. Text from a
    record never becomes a control token, even if it spells one. A chat template is applied to the prompt as a function:
    if it trims a message, the prompt is trimmed.

    Args:
        tokenizer: Hugging Face tokenizer with an end-of-sequence token.
        format: prompt format; if the chat template writes a date, the attribute ``format`` has it.

    Raises:
        InputError: the tokenizer has no end-of-sequence token, or no chat template that accepts a user message
            alone although the format needs one.
    """

    def __init__(self, tokenizer: Any, format: PromptFormat) -> None:
        if tokenizer.eos_token_id is None:
            raise InputError(f"the tokenizer {tokenizer.name_or_path} has no end-of-sequence token")
        self.tokenizer = tokenizer
        self.format = format
        self.chat_template: ChatTemplate | None = None
        """The chat template; None if prompts are raw text."""
        bos = tokenizer.bos_token_id
        self._before, self._after = [] if bos is None else [bos], list[int]()
        if format.chat_template:
            template = self.chat_template = ChatTemplate(tokenizer, format.date or DEFAULT_DATE)
            if template.writes_date:
                self.format = replace(format, date=template.day)
            self._before, self._after = (
                tokenizer(part, add_special_tokens=False)["input_ids"] for part in (template.before, template.after)
            )
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

    def text(self, record: Record, speed: Speed = "reasoned") -> str:
        """Return the prompt as text, without the chat template; with one, it is the text of the user's message."""
        return self.format.text(record, speed)

    def content(self, record: Record, speed: Speed = "reasoned") -> str:
        """Return the prompt as text between the ids of the frame: as the chat template writes it, if there is one.

        Raises:
            InputError: the chat template refuses the text.
        """
        text = self.text(record, speed)
        if self.chat_template is None:
            return text
        try:
            return self.chat_template.content(text)
        except InputError as error:
            raise InputError(f"record {record.id}: {error}", error.hint) from None

    def prompt(self, record: Record, speed: Speed = "reasoned") -> list[int]:
        """Return the ids of a prompt, including start-of-sequence and template tokens."""
        return self.prompts([record], [speed])[0]

    def prompts(self, records: Sequence[Record], speeds: Sequence[Speed] | None = None) -> list[list[int]]:
        """Return the ids of many prompts; a batch is tokenized in parallel.

        Args:
            records: the conversations.
            speeds: the speed that each prompt asks for; None: all are reasoned.
        """
        if speeds is None:
            texts = [self.content(record) for record in records]
        else:
            texts = [self.content(record, speed) for record, speed in zip(records, speeds, strict=True)]
        return [[*self._before, *ids, *self._after] for ids in self._plain(texts)]

    def completion(self, text: str) -> list[int]:
        """Return the ids of a completion with its end token."""
        return self.completions([text])[0]

    def completions(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the ids of many completions, each with its end token."""
        return [[*ids, self.end] for ids in self._plain(list(texts))]

    def require_embeddings(self, rows: int) -> None:
        """Require that a model has an embedding for every id that a prompt or completion may hold.

        Control tokens that only occur in text do not count, because text never becomes one.

        Args:
            rows: rows of the embedding; more than ids is fine.

        Raises:
            InputError: an id has none.
        """
        if beyond := self.ids_beyond(rows):
            token = self.tokenizer.convert_ids_to_tokens(beyond[0])
            raise InputError(
                f"{self.tokenizer.name_or_path}: the tokenizer has {len(beyond)} ids that the model has no embedding "
                f"for, first {beyond[0]} ({token}); the embedding has {rows} rows",
                "tokens were added without model.resize_token_embeddings(len(tokenizer)); save a resized model",
            )

    def ids_beyond(self, rows: int) -> list[int]:
        """Return the ids, ascending, that a prompt or completion may hold and that are ``rows`` or larger."""
        tokenizer = self.tokenizer
        control = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special or token.content.strip()}
        used = {*self._before, *self._after, self.end, self.padding}
        return sorted(i for i in (set(tokenizer.get_vocab().values()) - control) | used if i >= rows)

    def identity(self) -> object:
        """Return everything that determines the ids, for the key of cached ids."""
        fast = getattr(self.tokenizer, "backend_tokenizer", None)
        vocabulary = fast.to_str() if fast is not None else sorted(self.tokenizer.get_vocab().items())
        template = self.tokenizer.chat_template if self.format.chat_template else None
        name = type(self.tokenizer).__name__
        parts = [name, vocabulary, self._before, self._after, self.end, template, repr(self.format)]
        # earlier versions tokenized the text of a message without the template's changes
        return [*parts, "content by template"] if self.format.chat_template else parts

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of a completion without special tokens."""
        return self.tokenizer.decode(ids, skip_special_tokens=True)

    def _plain(self, texts: list[str]) -> list[list[int]]:
        if self._text is not None:
            return [encoding.ids for encoding in self._text.encode_batch_fast(texts, add_special_tokens=False)]
        return self.tokenizer(texts, add_special_tokens=False, split_special_tokens=True)["input_ids"] if texts else []


def first_difference(tokenizer: Any, ids: Sequence[int], others: Sequence[int]) -> str:
    """Return the texts of two sequences of ids where they first differ, in one line."""
    equal = (index for index, (one, other) in enumerate(zip(ids, others, strict=False)) if one != other)
    start = next(equal, min(len(ids), len(others)))
    texts = (tokenizer.decode(list(part[start : start + _SHOWN]), skip_special_tokens=False) for part in (ids, others))
    return "{!r}, not {!r}".format(*texts) + f", from token {start:,} on"


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
