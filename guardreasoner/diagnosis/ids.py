"""What the ids of an example must be: one beginning, one end, no control token out of text, and the text itself."""

import re
from collections.abc import Iterator, Sequence
from itertools import chain, takewhile
from typing import Any

from guardreasoner.model.batch import Example
from guardreasoner.model.prompt_tokenizer import PromptTokenizer
from guardreasoner.sources.contamination import normalise

Hit = tuple[str, tuple[str, ...]]
"""Name of a check, and the words that were found."""

_DECODING = {"skip_special_tokens": False, "clean_up_tokenization_spaces": False}


class IdCheck:
    """Compare ids with the text that they were made from.

    Args:
        encoder: what made them.
    """

    def __init__(self, prompt_tokenizer: PromptTokenizer) -> None:
        self.prompt_tokenizer = prompt_tokenizer
        tokenizer = prompt_tokenizer.tokenizer
        added = getattr(tokenizer, "added_tokens_decoder", {})
        # Some that are not special steer a model all the same (<tool_call>); runs of white space do not.
        steers = {number for number, token in added.items() if token.special or token.content.strip()}
        special = steers | set(tokenizer.all_special_ids)
        self._control = special - {tokenizer.unk_token_id}  # unknown text is lost, not a control token
        words = sorted(filter(None, (tokenizer.convert_ids_to_tokens(number) for number in special)), key=len)
        self._spelt = re.compile("|".join(map(re.escape, reversed(words)))) if words else None
        self._bos = tokenizer.bos_token_id
        template = tokenizer.chat_template if prompt_tokenizer.format.chat_template else None
        begins = template is None or "bos_token" in str(template) or str(tokenizer.bos_token) in str(template)
        self._wants_bos = self._bos is not None and begins

    def hits(
        self, prompts: Sequence[str], completions: Sequence[Sequence[str]], examples: Sequence[Example]
    ) -> Iterator[tuple[list[str], list[Hit]]]:
        """Yield the decoded completions and what is wrong, for each example.

        Args:
            prompts: text of each prompt, without the chat template.
            completions: texts of its completions.
            examples: the ids.
        """
        begins = [len(list(takewhile(self._bos.__eq__, e.prompt))) if self._bos is not None else 0 for e in examples]
        bodies = [self._body(example, begin) for example, begin in zip(examples, begins, strict=True)]
        ends = [[self._without_end(ids) for ids in example.completions] for example in examples]
        decoded = iter(self._decode([*bodies, *chain.from_iterable(ends)]))
        prompts_back = [next(decoded) for _ in bodies]
        for place, example in enumerate(examples):
            hits: list[Hit] = []
            if begins[place] == 0 and self._wants_bos:
                hits.append(("BOS missing", ()))
            if begins[place] > 1:
                hits.append(("BOS twice", ()))
            hits += self._text_hits(bodies[place], prompts[place], prompts_back[place])
            back = [next(decoded) for _ in ends[place]]
            for ids, body, text, again in zip(example.completions, ends[place], completions[place], back, strict=True):
                if ids[-1:] != (self.prompt_tokenizer.end,):
                    hits.append(("EOS missing", ()))
                if self.prompt_tokenizer.end in body:
                    hits.append(("EOS inside", ()))
                else:
                    hits += self._text_hits(body, text, again)
            yield back, list({name: (name, words) for name, words in hits}.values())

    def spelt(self, text: str) -> list[str]:
        """Return the control tokens that a text spells."""
        return list(dict.fromkeys(self._spelt.findall(text))) if self._spelt else []

    def crosses(self, prompt: str, completion: str, example: Example) -> bool:
        """Return whether prompt and completion, tokenized as one text, had other ids. Raw text only."""
        whole = self.prompt_tokenizer.completion(prompt + completion)[:-1]
        before, after = map(len, self.prompt_tokenizer.frame)
        apart = [*example.prompt[before : len(example.prompt) - after], *self._without_end(example.completions[0])]
        return whole != apart

    def _body(self, example: Example, begins: int) -> Sequence[int]:
        """Return the ids of the prompt's text; tokens that begin a sequence are another check's."""
        before, after = self.prompt_tokenizer.frame
        framed = list(example.prompt[: len(before)]) == before
        return example.prompt[max(len(before) if framed else 0, begins) : len(example.prompt) - len(after)]

    def _without_end(self, ids: Sequence[int]) -> Sequence[int]:
        return ids[:-1] if ids[-1:] == (self.prompt_tokenizer.end,) else ids

    def _decode(self, bodies: list[Sequence[int]]) -> list[str]:
        tokenizer: Any = self.prompt_tokenizer.tokenizer
        return tokenizer.batch_decode([list(ids) for ids in bodies], **_DECODING)

    def _text_hits(self, ids: Sequence[int], text: str, back: str) -> Iterator[Hit]:
        if found := self._control.intersection(ids):
            yield (
                "control token from text",
                tuple(map(str, self.prompt_tokenizer.tokenizer.convert_ids_to_tokens(list(found)))),
            )
        elif back != text:
            same = _letters(back) == _letters(text)
            yield ("text changed" if same else "text lost"), ()


def _letters(text: str) -> str:
    return "".join(normalise(text).split())
