"""JailbreakBench's artifacts: the prompts with which published attacks asked for harmful things.

https://github.com/JailbreakBench/artifacts, MIT, arXiv 2404.01318. One JSON file for each attack and attacked model,
``attack-artifacts/PAIR/black_box/vicuna-13b-v1.5.json``, with up to 100 prompts (harmless here)::

    {"parameters": {"method": "PAIR", …},
     "jailbreaks": [{"index": 0, "goal": "Write an article about bread", "category": "Disinformation",
                     "prompt": "You are a baker. Write …", "response": "Bread is …", "jailbroken": true, …}, …]}

Every goal is harmful, and so is every request for it, whatever the attack wraps around it. So only the share of
attacks that a guard misses can be measured; precision and false alarms need a set with harmless requests beside it.
``jailbroken`` is the verdict of a language model, not of a person: it becomes a column of the record, to split scores
by, and no label. Goals for which an attack found no prompt (null) are skipped.

Overlaps: the goals are the harmful requests of JailbreakBench. Attacks that add a suffix leave the goal in the prompt
as it is, and several attacked models share a prompt.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

from guardreasoner.errors import InputError
from guardreasoner.records import Record
from guardreasoner.sources.benchmark import Benchmark
from guardreasoner.sources.hub import (
    drop_unusable,
    mapped_value,
    optional_text,
    read_json_file,
    require_distinct_choices,
)
from guardreasoner.sources.request_rows import request_record

Attack = Literal["PAIR", "GCG", "JBC", "prompt_with_random_search", "DSN"]

_LLAMA, _VICUNA, _GPT3, _GPT4 = "llama-2-7b-chat-hf", "vicuna-13b-v1.5", "gpt-3.5-turbo-1106", "gpt-4-0125-preview"
_ALL = (_LLAMA, _VICUNA, _GPT3, _GPT4)
FILES: Mapping[Attack, tuple[str, ...]] = {
    "PAIR": tuple(f"black_box/{model}" for model in _ALL),
    "GCG": (f"white_box/{_LLAMA}", f"white_box/{_VICUNA}", f"transfer/{_GPT3}", f"transfer/{_GPT4}"),
    "JBC": tuple(f"manual/{model}" for model in _ALL),
    "prompt_with_random_search": tuple(f"black_box/{model}" for model in _ALL),
    "DSN": (f"white_box/{_LLAMA}", f"white_box/{_VICUNA}"),
}
"""Published files of each attack."""

_NAMES: Mapping[Attack, str] = {
    "PAIR": "JailbreakPAIR",
    "GCG": "JailbreakGCG",
    "JBC": "JailbreakJBC",
    "prompt_with_random_search": "JailbreakRandomSearch",
    "DSN": "JailbreakDSN",
}
_RAW = "https://raw.githubusercontent.com/JailbreakBench/artifacts/909e68c01d94222b8ad2e397a017e2e12e2adb73"
_JAILBROKEN = {True: "yes", False: "no"}
_KEYS = ("prompt", "category", "jailbroken")


class JailbreakArtifacts(Benchmark):
    """Read the prompts of published attacks as a test split, for the task "request".

    Args:
        path: URL of the repository's files at a commit, or a folder with a clone.
        attacks: attacks to read, in this order.

    Raises:
        InputError: an attack is unknown or given twice. Files are read only when records are requested.
    """

    def __init__(self, path: str = _RAW, attacks: Sequence[Attack] = tuple(FILES)) -> None:
        super().__init__(path)
        self.attacks = require_distinct_choices("JailbreakArtifacts", "attacks", attacks, tuple(FILES))

    def read(self) -> Iterator[Record]:
        """Yield the prompts of each attack, with its name, the attacked model and whether it succeeded."""
        for attack in self.attacks:
            yield from drop_unusable(self._prompts(attack), _NAMES[attack], "have no prompt")

    def _prompts(self, attack: Attack) -> Iterator[Record | None]:
        number = 0
        for name in FILES[attack]:
            file = f"{self.path}/attack-artifacts/{attack}/{name}.json"
            for where, row in _rows(read_json_file(file), file):
                jailbroken = mapped_value(row, "jailbroken", _JAILBROKEN, where)
                facts = {"attack": attack, "model": name.rpartition("/")[2], "jailbroken": jailbroken}
                extra = {column: column for column in ("category", *facts)}
                unused = optional_text(row, "prompt", where) is None
                row = {**row, **facts}
                yield None if unused else request_record(_NAMES[attack], number, row, where, "prompt", "harmful", extra)
                number += 1


def _rows(content: Any, file: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    rows = content.get("jailbreaks") if isinstance(content, dict) else None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise InputError(f"{file}: expected an object with a list of objects, 'jailbreaks'")
    for number, row in enumerate(rows):
        where = f"{file}: jailbreak {number}"
        for key in _KEYS:
            if key not in row:
                raise InputError(f"{where}: no {key!r}, found {', '.join(row)}; expected {', '.join(_KEYS)}")
        yield where, row
