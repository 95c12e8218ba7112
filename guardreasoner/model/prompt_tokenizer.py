"""Tokenization of records and completions, identical in training, mining and serving."""

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from guardreasoner.errors import InputError
from guardreasoner.formats import GuardFormat
from guardreasoner.model.chat_template import DEFAULT_DATE, ChatTemplate
from guardreasoner.prompts import Control, Part, Plain, PromptFormat
from guardreasoner.records import Record, Speed
from guardreasoner.workflow.manifest import code_of

_SHOWN = 8
"""Tokens shown of each of two sequences that differ."""


class PromptTokenizer:
    """Turn records and completions into token ids, identical in training, mining and serving.

    Prompt and completion are tokenized separately and joined as ids, so that no merge crosses the boundary. Text from a
    record never becomes a control token, even if it spells one. A chat template is applied to the prompt as a function:
    if it trims a message, the prompt is trimmed. The published format of another guard says itself which control tokens
    its prompts have.

    Args:
        tokenizer: Hugging Face tokenizer with an end-of-sequence token.
        format: format of the model; if the chat template writes a date, the attribute ``format`` has it.

    Raises:
        InputError: the tokenizer has no end-of-sequence token, no chat template that accepts a user message alone
            although the format needs one, or not the control token that ends the format's outputs.
    """

    def __init__(self, tokenizer: Any, format: GuardFormat) -> None:
        if tokenizer.eos_token_id is None:
            raise InputError(f"the tokenizer {tokenizer.name_or_path} has no end-of-sequence token")
        self.tokenizer = tokenizer
        self.format = format
        self.chat_template: ChatTemplate | None = None
        """The chat template; None if prompts are raw text, or the format writes control tokens itself."""
        self._controls = dict[str, int]()
        self._added = {token.content for token in tokenizer.added_tokens_decoder.values()}
        bos = tokenizer.bos_token_id if isinstance(format, PromptFormat) else None
        self._before, self._after = [] if bos is None else [bos], list[int]()
        if isinstance(format, PromptFormat) and format.chat_template:
            template = self.chat_template = ChatTemplate(tokenizer, format.date or DEFAULT_DATE)
            if template.writes_date:
                self.format = replace(format, date=template.day)
            self._before, self._after = (
                tokenizer(part, add_special_tokens=False)["input_ids"] for part in (template.before, template.after)
            )
        self._end: int = tokenizer.eos_token_id if format.end is None else self._control(Control(format.end))
        self._text = _text_tokenizer(tokenizer, follows_control=not isinstance(format, PromptFormat))

    @property
    def writes_controls(self) -> bool:
        """Whether the control tokens of prompts are those of the format, not a frame around every text."""
        return not isinstance(self.format, PromptFormat)

    @property
    def end(self) -> int:
        """Id of the token that ends an output."""
        return self._end

    @property
    def frame(self) -> tuple[list[int], list[int]]:
        """Ids before and after the text of every prompt."""
        return list(self._before), list(self._after)

    @property
    def padding(self) -> int:
        """Id that pads shorter rows; it is always masked."""
        pad = self.tokenizer.pad_token_id
        return self.end if pad is None else pad

    def text(self, record: Record, speed: Speed | None = None) -> str:
        """Return the prompt as text, without the chat template; with one, it is the text of the user's message.

        The control tokens of a published format are spelled out.
        """
        return self.format.text(record, self._speed(speed))

    def content(self, record: Record, speed: Speed | None = None) -> str:
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

    def prompt(self, record: Record, speed: Speed | None = None) -> list[int]:
        """Return the ids of a prompt, including start-of-sequence and template tokens."""
        return self.prompts([record], [self._speed(speed)])[0]

    def prompts(self, records: Sequence[Record], speeds: Sequence[Speed] | None = None) -> list[list[int]]:
        """Return the ids of many prompts; a batch is tokenized in parallel.

        Args:
            records: the conversations.
            speeds: the speed that each prompt asks for; None: all are reasoned, or as a published format has it.
        """
        asked = list(zip(records, speeds or [self._speed(None)] * len(records), strict=True))
        if self.writes_controls:
            return self._encoded([self.format.parts(record, speed) for record, speed in asked])
        texts = [self.content(record, speed) for record, speed in asked]
        return [[*self._before, *ids, *self._after] for ids in self._plain(texts)]

    def prompt_controls(self, record: Record, speed: Speed | None = None) -> list[int]:
        """Return the ids of the control tokens that the format itself writes into a prompt, in order."""
        return self._controls_in(self.format.parts(record, self._speed(speed)))

    def completion_controls(self, text: str) -> list[int]:
        """Return the ids of the control tokens that the format itself writes into a completion, in order."""
        return self._controls_in(self.format.output_parts(text))

    def completion(self, text: str) -> list[int]:
        """Return the ids of a completion with its end token."""
        return self.completions([text])[0]

    def completions(self, texts: Sequence[str], truncated: Sequence[bool] | None = None) -> list[list[int]]:
        """Return the ids of many completions, each with its end token.

        Args:
            texts: the completions.
            truncated: which of them the limit on tokens ended; these have no end token, unless they have no
                other token. None: none of them.
        """
        bodies = self._encoded([self.format.output_parts(text) for text in texts])
        cut = truncated or [False] * len(texts)
        return [ids if without_end and ids else [*ids, self.end] for ids, without_end in zip(bodies, cut, strict=True)]

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
        used = {*self._before, *self._after, *self._controls.values(), self.end, self.padding}
        return sorted(i for i in (set(tokenizer.get_vocab().values()) - control) | used if i >= rows)

    def identity(self) -> object:
        """Return everything that determines the ids, for the key of cached ids."""
        fast = getattr(self.tokenizer, "backend_tokenizer", None)
        vocabulary = fast.to_str() if fast is not None else sorted(self.tokenizer.get_vocab().items())
        template = None if self.chat_template is None else self.tokenizer.chat_template
        name = type(self.tokenizer).__name__
        parts = [name, vocabulary, self._before, self._after, self.end, template, repr(self.format)]
        parts += [own] if (own := code_of(self.format)) else []
        # earlier versions tokenized the text of a message without the template's changes
        return parts if self.chat_template is None else [*parts, "content by template"]

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of a completion without special tokens."""
        return self.tokenizer.decode(ids, skip_special_tokens=True)

    def _speed(self, wanted: Speed | None) -> Speed:
        """Return the wanted speed, or the default: reasoned, or the first of a published format."""
        return wanted or (self.format.speed() if self.writes_controls else "reasoned")

    def _controls_in(self, parts: Sequence[Part]) -> list[int]:
        return [self._control(part) for part in self._runs(parts) if isinstance(part, Control)]

    def _encoded(self, sequences: Sequence[Sequence[Part]]) -> list[list[int]]:
        """Return the ids of sequences of parts; all texts are tokenized together."""
        runs = [self._runs(parts) for parts in sequences]
        texts = iter(self._plain([part.text for parts in runs for part in parts if isinstance(part, Plain)]))
        return [
            [one for part in parts for one in ([self._control(part)] if isinstance(part, Control) else next(texts))]
            for parts in runs
        ]

    def _runs(self, parts: Sequence[Part]) -> list[Part]:
        """Return parts with adjacent texts joined, so that tokens may cross them as in one text."""
        runs: list[Part] = []
        for part in parts:
            if isinstance(part, Control) and (not part.optional or self._knows(part.text)):
                runs.append(part)
            elif runs and isinstance(runs[-1], Plain):
                runs[-1] = Plain(runs[-1].text + part.text)
            else:
                runs.append(Plain(part.text))
        return [part for part in runs if part.text]

    def _knows(self, spelling: str) -> bool:
        return spelling in self._added

    def _control(self, control: Control) -> int:
        """Return the id of a control token.

        Raises:
            InputError: the tokenizer has no such token.
        """
        if control.text not in self._controls:
            if not self._knows(control.text):
                name = type(self.format).__name__
                raise InputError(
                    f"{self.tokenizer.name_or_path}: no control token {control.text}, which the format {name} needs",
                    "model.backbone.format is the format of another model",
                )
            self._controls[control.text] = self.tokenizer.convert_tokens_to_ids(control.text)
        return self._controls[control.text]

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


def _text_tokenizer(tokenizer: Any, follows_control: bool = False) -> Any:
    """Return a copy of a tokenizer that treats added tokens as text; None if ``split_special_tokens`` does the same.

    A text that follows a control token does not get the space that some tokenizers put before the first word.

    ``split_special_tokens`` only splits special tokens, but some models have control tokens that are added and not
    special (``<tool_call>``). Added tokens of white space are kept, because some models read code that way.
    """
    backend: Any = getattr(tokenizer, "backend_tokenizer", None)
    added = backend.get_added_tokens_decoder().values() if backend is not None else ()
    if all(token.special or not token.content.strip() for token in added) and not (follows_control and backend):
        return None
    from tokenizers import Tokenizer

    content = json.loads(backend.to_str())
    for token in content["added_tokens"]:
        token["special"] = token["special"] or bool(token["content"].strip())
    if follows_control:
        _without_first_space(content.get("pre_tokenizer"))
    copy = Tokenizer.from_str(json.dumps(content))
    copy.encode_special_tokens = True
    copy.no_padding()
    copy.no_truncation()
    return copy


def _without_first_space(pre_tokenizer: Any) -> None:
    """Change a pre-tokenizer in JSON form so that it puts no space before the first word of a text."""
    for part in (pre_tokenizer or {}).get("pretokenizers", [pre_tokenizer]):
        if part is not None and part.get("prepend_scheme") == "first":
            part["prepend_scheme"] = "never"
