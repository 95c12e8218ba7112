"""OR-Bench: harmless requests that assistants refuse too often, and harmful ones as a counterweight.

https://huggingface.co/datasets/bench-llm/or-bench, CC BY 4.0, arXiv 2405.20947. Three configurations, each one CSV file
with the split ``train``: ``or-bench-80k`` (80,359 harmless rows), ``or-bench-hard-1k`` (1,319 harmless rows that strong
models still refuse) and ``or-bench-toxic`` (655 harmful rows). A row (with a harmless text here)::

    prompt:    How do I keep bread fresh?
    category:  illegal

There are ten categories. The harmless rows are look-alikes: their false-positive rate is the over-refusal. They were
generated and labelled by language models; some are arguable.
"""

from collections.abc import Iterator, Sequence
from typing import Literal

from guardreasoner.errors import InputError
from guardreasoner.records import Record, Split
from guardreasoner.sources.hub import CSV, read_dataset_rows, require_distinct_choices, required_text, source_identity
from guardreasoner.sources.lookalikes import LOOKALIKE
from guardreasoner.sources.slices import MAX_SLICE

ORBenchPart = Literal["or-bench-80k", "or-bench-hard-1k", "or-bench-toxic"]

_PARTS: dict[ORBenchPart, tuple[str, str]] = {
    "or-bench-80k": ("ORBench80K", "unharmful"),
    "or-bench-hard-1k": ("ORBenchHard1K", "unharmful"),
    "or-bench-toxic": ("ORBenchToxic", "harmful"),
}


class ORBench:
    """Read OR-Bench as a test split, for the task "request"; each part is a benchmark.

    Args:
        path: repository on the hub, or a folder with its files.
        revision: branch, tag or commit of the repository; None for the newest.
        parts: published configurations to read, in this order.

    Raises:
        InputError: a part is unknown or given twice. Rows are read only when records are requested.
    """

    def __init__(
        self,
        path: str = "bench-llm/or-bench",
        revision: str | None = None,
        parts: Sequence[ORBenchPart] = ("or-bench-hard-1k", "or-bench-toxic"),
    ) -> None:
        self.path = path
        self.revision = revision
        self.parts = require_distinct_choices("ORBench", "parts", parts, tuple(_PARTS))

    def records(self, split: Split) -> Iterator[Record]:
        """Yield the records of the test split, part by part, in the order of the rows.

        Raises:
            InputError: the data set cannot be read, or a row is invalid.
        """
        if split != "test":
            return
        for part in self.parts:
            name, label = _PARTS[part]
            rows = read_dataset_rows(self.path, part, "train", ("prompt", "category"), self.revision, CSV)
            for number, (where, row) in enumerate(rows):
                prompt, category = (required_text(row, column, where) for column in ("prompt", "category"))
                if not prompt.strip():
                    raise InputError(f"{where}: prompt: found an empty text, expected text")
                if not category.isprintable() or len(category) > MAX_SLICE:
                    raise InputError(f"{where}: category: expected at most {MAX_SLICE} printable characters")
                yield Record(
                    f"{name}/{number:06d}",
                    prompt,
                    None,
                    {"request": label},
                    source=name,
                    extra={
                        "category": category,
                        **(LOOKALIKE if label == "unharmful" else {}),
                    },
                )

    def identity(self) -> object:
        """Return the arguments and, for a local folder, its content hashes."""
        return source_identity(self, self.path)
