"""Checks of token ids: one BOS, one EOS, no control tokens from text, and no lost text."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import chain, takewhile
from typing import Any

from guardreasoner.model.batch import Example
from guardreasoner.model.prompt_tokenizer import PromptTokenizer, first_difference
from guardreasoner.records import Record, Speed
from guardreasoner.sources.contamination import normalize

Hit = tuple[str, tuple[str, ...]]
"""Name of a check, and details of the hit."""

_DECODING = {"skip_special_tokens": False, "clean_up_tokenization_spaces": False}


class IdCheck:
    """Compares token ids with the text that they were made from.

    Args:
        prompt_tokenizer: The tokenizer that made the ids.
    """

    def __init__(self, prompt_tokenizer: PromptTokenizer) -> None:
        self.prompt_tokenizer = prompt_tokenizer
        tokenizer = prompt_tokenizer.tokenizer
        added = getattr(tokenizer, "added_tokens_decoder", {})
        # Some added tokens control a model without being marked special (<tool_call>); runs of white space do not.
        control = {token_id for token_id, token in added.items() if token.special or token.content.strip()}
        control |= set(tokenizer.all_special_ids)
        self._control_ids = control - {tokenizer.unk_token_id}  # unknown text is reported as lost instead
        spellings = sorted(filter(None, (tokenizer.convert_ids_to_tokens(token_id) for token_id in control)), key=len)
        self._control_pattern = re.compile("|".join(map(re.escape, reversed(spellings)))) if spellings else None
        self._bos = tokenizer.bos_token_id
        template = None if prompt_tokenizer.chat_template is None else tokenizer.chat_template
        writes_bos = template is None or "bos_token" in str(template) or str(tokenizer.bos_token) in str(template)
        self._requires_bos = self._bos is not None and writes_bos and not prompt_tokenizer.writes_controls

    def hits(
        self,
        prompts: Sequence[str],
        completions: Sequence[Sequence[str]],
        examples: Sequence[Example],
        controls: Sequence[Sequence[int]] = (),
        truncated: Sequence[Sequence[bool]] = (),
    ) -> Iterator[tuple[list[str], list[Hit]]]:
        """Yield the decoded completions and the hits for each example.

        Args:
            prompts: Text of each prompt, between the ids of the frame.
            completions: Texts of each example's completions.
            examples: Token ids.
            controls: Control tokens that the format writes into each prompt, in order; empty if it writes none.
            truncated: Which of each example's completions need no end token; empty if all need one.
        """
        bos_counts = [
            len(list(takewhile(self._bos.__eq__, example.prompt))) if self._bos is not None else 0
            for example in examples
        ]
        prompt_bodies = [self._prompt_body(example, count) for example, count in zip(examples, bos_counts, strict=True)]
        completion_bodies = [[self._without_end(ids) for ids in example.completions] for example in examples]
        decoded = iter(self._decode([*prompt_bodies, *chain.from_iterable(completion_bodies)]))
        decoded_prompts = [next(decoded) for _ in prompt_bodies]
        for index, example in enumerate(examples):
            hits: list[Hit] = []
            if bos_counts[index] == 0 and self._requires_bos:
                hits.append(("BOS missing", ()))
            if bos_counts[index] > 1:
                hits.append(("BOS twice", ()))
            allowed = controls[index] if controls else ()
            hits += self._text_hits(prompt_bodies[index], prompts[index], decoded_prompts[index], allowed)
            bodies = completion_bodies[index]
            decoded_completions = [next(decoded) for _ in bodies]
            if self.prompt_tokenizer.writes_controls:
                decoded_completions = [self.prompt_tokenizer.decode(body) for body in bodies]  # as engines return them
            cut = (truncated[index] if truncated else ()) or [False] * len(bodies)
            rows = zip(example.completions, bodies, completions[index], decoded_completions, cut, strict=True)
            for ids, body, text, decoded_text, without_end in rows:
                if ids[-1:] != (self.prompt_tokenizer.end,) and not without_end:
                    hits.append(("EOS missing", ()))
                if self.prompt_tokenizer.end in body:
                    hits.append(("EOS inside", ()))
                else:
                    allowed = self.prompt_tokenizer.completion_controls(text)
                    hits += self._text_hits(body, text, decoded_text, allowed)
            yield decoded_completions, list({name: (name, details) for name, details in hits}.values())

    def control_tokens_in(self, text: str) -> list[str]:
        """Return the control tokens that a text contains as plain text."""
        return list(dict.fromkeys(self._control_pattern.findall(text))) if self._control_pattern else []

    def differs_if_joined(self, prompt: str, completion: str, example: Example) -> bool:
        """Return whether prompt and completion get other ids when tokenized as one text. Only for raw text."""
        joined = self.prompt_tokenizer.completion(prompt + completion)[:-1]
        before, after = map(len, self.prompt_tokenizer.frame)
        apart = [*example.prompt[before : len(example.prompt) - after], *self._without_end(example.completions[0])]
        return joined != apart

    def difference_to_server(self, record: Record, speed: Speed, example: Example) -> str | None:
        """Return where a chat server's ids of a prompt first differ from the example's; None if they are equal."""
        template = self.prompt_tokenizer.chat_template
        if template is None:
            return None
        ids = template.server_ids(self.prompt_tokenizer.text(record, speed))
        if ids == list(example.prompt):
            return None
        return first_difference(self.prompt_tokenizer.tokenizer, example.prompt, ids)

    def _prompt_body(self, example: Example, bos_count: int) -> Sequence[int]:
        """Return the ids of the prompt's text, without the frame and BOS tokens; all if the format writes them."""
        if self.prompt_tokenizer.writes_controls:
            return example.prompt
        before, after = self.prompt_tokenizer.frame
        framed = list(example.prompt[: len(before)]) == before
        return example.prompt[max(len(before) if framed else 0, bos_count) : len(example.prompt) - len(after)]

    def _without_end(self, ids: Sequence[int]) -> Sequence[int]:
        return ids[:-1] if ids[-1:] == (self.prompt_tokenizer.end,) else ids

    def _decode(self, sequences: list[Sequence[int]]) -> list[str]:
        tokenizer: Any = self.prompt_tokenizer.tokenizer
        return tokenizer.batch_decode([list(ids) for ids in sequences], **_DECODING)

    def _text_hits(self, ids: Sequence[int], text: str, decoded: str, allowed: Sequence[int]) -> Iterator[Hit]:
        found = Counter(one for one in ids if one in self._control_ids)
        if control := found - Counter(allowed):
            tokens = self.prompt_tokenizer.tokenizer.convert_ids_to_tokens(list(control))
            yield "control token from text", tuple(map(str, tokens))
        elif decoded != text:
            same_letters = _letters(decoded) == _letters(text)
            yield ("text changed" if same_letters else "text lost"), ()


def _letters(text: str) -> str:
    return "".join(normalize(text).split())
