"""Qwen3GuardTest: answers of reasoning models, with their thoughts, labelled by people.

https://huggingface.co/datasets/Qwen/Qwen3GuardTest, CC BY-NC 4.0, arXiv 2510.14276. Splits ``thinking`` (1,059 rows,
569 of them unsafe), ``response_loc`` (813 rows, all unsafe) and ``thinking_loc`` (569: the unsafe rows of
``thinking``). A row (with harmless texts here)::

    unique_id:    0a1b2c…
    source:       Qwen/Qwen3-8B
    message:      [{"role": "user", "content": "How do I keep bread fresh?"},
                   {"role": "assistant", "content": "<think>…</think>Wrap it in a cloth."}]
    label:        Safe     (or Unsafe)
    unsafe_type, input_ids, unsafe_start_index, unsafe_end_index

``label`` judges the answer with its thoughts; it becomes the label "response". The request has no label. The two splits
``…_loc`` say where an answer becomes unsafe, for guards that judge while a text is written; this is not read. Of
``response_loc``, only the share of unsafe answers that a guard misses can be measured. ``thinking_loc`` repeats
``thinking`` and is therefore no part. Rows that do not end with an answer are skipped.
"""

from collections.abc import Iterator, Sequence
from typing import Literal

from guardreasoner.errors import InputError
from guardreasoner.records import Record, messages_of
from guardreasoner.sources.benchmark import Benchmark
from guardreasoner.sources.hub import drop_unusable, mapped_value, read_dataset_rows, require_distinct_choices
from guardreasoner.sources.request_rows import slice_text

Qwen3GuardPart = Literal["thinking", "response_loc"]

_PARTS: dict[Qwen3GuardPart, str] = {"thinking": "Qwen3GuardThinking", "response_loc": "Qwen3GuardResponse"}
_SAFE = {"Safe": "unharmful", "Unsafe": "harmful"}


class Qwen3GuardTest(Benchmark):
    """Read Qwen3GuardTest as a test split, for the task "response".

    Args:
        path: repository on the hub, or a folder with its files.
        revision: branch, tag or commit of the repository; None for the newest.
        parts: published splits to read, in this order.

    Raises:
        InputError: a part is unknown or given twice. Rows are read only when records are requested.
    """

    def __init__(
        self,
        path: str = "Qwen/Qwen3GuardTest",
        revision: str | None = None,
        parts: Sequence[Qwen3GuardPart] = ("thinking", "response_loc"),
    ) -> None:
        super().__init__(path, revision)
        self.parts = require_distinct_choices("Qwen3GuardTest", "parts", parts, tuple(_PARTS))

    def read(self) -> Iterator[Record]:
        """Yield the conversations of each part, with the model that answered."""
        for part in self.parts:
            yield from drop_unusable(self._conversations(part), _PARTS[part], "do not end with an answer")

    def _conversations(self, part: Qwen3GuardPart) -> Iterator[Record | None]:
        name = _PARTS[part]
        rows = read_dataset_rows(self.path, None, part, ("message", "label", "source"), self.revision)
        for number, (where, row) in enumerate(rows):
            if not isinstance(row["message"], list):
                raise InputError(f"{where}: message: found {type(row['message']).__name__}, expected a list")
            labels = {"response": mapped_value(row, "label", _SAFE, where)}
            messages = messages_of(row["message"], f"{where}: message")
            extra = {"model": slice_text(row, "source", where)}
            record = Record(f"{name}/{number:06d}", labels=labels, source=name, messages=messages, extra=extra)
            yield record if record.response is not None else None
