"""What would silently spoil a run: looks once at all that would be trained on, a million records in little memory."""

import heapq
import re
from array import array
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from hashlib import blake2b
from typing import Any, Protocol

from guardreasoner.diagnosis.findings import CHECKS, SEVERITIES, Finding, HitCounter
from guardreasoner.diagnosis.ids import IdCheck
from guardreasoner.diagnosis.summary import Balance, Histogram, Lengths, balance, rare
from guardreasoner.diagnosis.targets import answer_line, target_hits
from guardreasoner.errors import InputError
from guardreasoner.model.batch import Example
from guardreasoner.model.prompt_tokenizer import PromptTokenizer
from guardreasoner.records import Record, Split
from guardreasoner.sources.contamination import ContaminationIndex, normalise

_AT_ONCE = 256
_JOINED = 1000
"""Examples that are tokenized once more, as one text: what that shows is the tokenizer's doing, not a record's."""
_LONGEST = 3


class Taught(Protocol):
    """One thing to learn: a record, what is taught as text, and the same as ids."""

    @property
    def record(self) -> Record: ...
    @property
    def completions(self) -> tuple[str, ...]: ...
    @property
    def example(self) -> Example: ...


@dataclass(frozen=True)
class Diagnosis:
    """What was found.

    Args:
        asked: how the model is asked, in a sentence.
        limit: ``data.max_length``, in tokens.
        train: training examples that would be trained on.
        validation: examples that would be validated on.
        lengths: of all examples, the too long included; empty where there is none.
        histogram: of their total lengths.
        balance: labels by source and task, of what would be trained on.
        findings: one for every check, worst first.
    """

    asked: str
    limit: int
    train: int
    validation: int
    lengths: tuple[Lengths, ...]
    histogram: Histogram | None
    balance: tuple[Balance, ...]
    findings: tuple[Finding, ...]

    @property
    def faults(self) -> int:
        """How many kinds of fault were found."""
        return sum(finding.severity == "fault" for finding in self.findings)

    def verdict(self) -> str:
        """Return the outcome as one line."""
        if not self.faults:
            return "nothing would spoil this run"
        return f"{self.faults} fault{'s' if self.faults > 1 else ''} would spoil this run"

    def as_json(self) -> dict[str, Any]:
        """Return everything as JSON can hold it."""
        return {"verdict": self.verdict(), "faults": self.faults, **asdict(self)}


class Examination:
    """Take in, one by one, what would be learned; then give the diagnosis.

    Args:
        encoder: what made the ids.
        asked_by: where the prompt format is written.
        limit: longest prompt and completion together, in tokens.
        skip_too_long: whether the run leaves longer ones out; otherwise it refuses them.
        held: the prompts of the run's benchmarks.
        skip_contaminated: whether the run leaves out what a benchmark holds.
        allowed: whether it may train on it.
    """

    def __init__(
        self,
        prompt_tokenizer: PromptTokenizer,
        asked_by: str,
        limit: int,
        skip_too_long: bool,
        held: ContaminationIndex,
        skip_contaminated: bool = False,
        allowed: bool = False,
    ) -> None:
        self.prompt_tokenizer = prompt_tokenizer
        self.asked_by = asked_by
        self.limit = limit
        self.skip_too_long = skip_too_long
        self.held = held
        self.skip_contaminated = skip_contaminated
        self.allowed = allowed
        self._tasks = prompt_tokenizer.format.tasks
        self._tallies: dict[str, HitCounter] = defaultdict(HitCounter)
        self._ids = IdCheck(prompt_tokenizer)
        self._answer_line = answer_line(self._tasks)
        self._waiting: list[tuple[Taught, Split]] = []
        self._lengths: dict[str, array[int]] = defaultdict(lambda: array("I"))
        self._longest: list[tuple[int, str, int, int]] = []
        self._too_long_prompts = 0
        self._seen = self._taken = self._joined = 0
        self._latest: tuple[Split, str] | None = None
        self._taken_of: Counter[Split] = Counter()
        self._labels: dict[str, dict[str, Counter[str | None]]] = defaultdict(lambda: defaultdict(Counter))
        self._conversations: dict[int, tuple[Split, Mapping[str, str]]] = {}
        self._prompts: dict[Split, set[int]] = defaultdict(set)
        self._label_sets: dict[tuple[Split, tuple[tuple[str, str], ...]], tuple[Split, Mapping[str, str]]] = {}

    def add(self, taught: Taught, split: Split) -> None:
        """Look at one thing to learn."""
        self._waiting.append((taught, split))
        if len(self._waiting) == _AT_ONCE:
            self._look()

    def unlearnable(self, record: Record, error: InputError) -> None:
        """Count a record from which nothing can be learned: it has no reasoning, or one against its label."""
        self._seen += 1
        self._taken += 1
        self._hit("target against the label" if record.reasoning else "no reasoning", record.id)

    def diagnosis(self) -> Diagnosis:
        """Return what was found in all that was added."""
        self._look()
        rows = balance(self._labels, self._tasks)
        for line in rare(rows, self._tasks) if self._taken_of["train"] else ():
            self._hit("rare label", line)
        if not self._taken_of["train"]:
            self._hit("nothing to train on", "")
        template = self.prompt_tokenizer.format.chat_template
        if not template and self.prompt_tokenizer.tokenizer.chat_template is not None:
            self._hit("chat template not used", self.asked_by)
        total = self._lengths.get("total", array("I"))
        return Diagnosis(
            asked=self._asked(),
            limit=self.limit,
            train=self._taken_of["train"],
            validation=self._taken_of["validation"],
            lengths=tuple(Lengths.of(part, values) for part, values in self._lengths.items()),
            histogram=Histogram.of(total, self.limit) if total else None,
            balance=rows,
            findings=tuple(sorted(map(self._finding, CHECKS), key=lambda one: SEVERITIES.index(one.severity))),
        )

    def _look(self) -> None:
        """Look at what has been waiting; what the run would leave out is only counted."""
        kept = [(taught, split) for taught, split in self._waiting if self._would_stay(taught)]
        self._waiting = []
        texts = [self.prompt_tokenizer.text(taught.record) for taught, _ in kept]
        found = self._ids.hits(texts, [t.completions for t, _ in kept], [t.example for t, _ in kept])
        for (taught, split), text, (back, hits) in zip(kept, texts, found, strict=True):
            self._taken += 1
            self._taken_of[split] += 1
            for name, words in (*hits, *target_hits(taught.record, self._tasks, back)):
                self._hit(name, taught.record.id, *words)
            if self._joined < _JOINED and not self.prompt_tokenizer.format.chat_template:
                self._joined += 1
                if self._ids.crosses(text, taught.completions[0], taught.example):
                    self._hit("other ids as one text", taught.record.id)
            self._look_at_record(taught.record, split)

    def _would_stay(self, taught: Taught) -> bool:
        self._seen += 1
        record, example = taught.record, taught.example
        if match := self.held.match(record):
            which = f"{match.record} ({match.similarity:.2f} {match.benchmark})"
            if self.skip_contaminated:
                self._hit("left out for a benchmark", which)
                return False
            self._hit("prompt of a benchmark" if match.similarity == 1 else "prompt like a benchmark's", which)
        parts = ("completion",) if len(example.completions) == 1 else ("chosen", "rejected")
        self._lengths["prompt"].append(len(example.prompt))
        for part, ids in zip(parts, example.completions, strict=True):
            self._lengths[part].append(len(ids))
        self._lengths["total"].append(example.length)
        if example.length <= self.limit:
            return True
        self._hit("too long", record.id)
        self._too_long_prompts += len(example.prompt) >= self.limit
        sizes = (example.length, record.id, len(example.prompt), max(map(len, example.completions)))
        self._longest = heapq.nlargest(_LONGEST, [*self._longest, sizes])
        return not self.skip_too_long

    def _look_at_record(self, record: Record, split: Split) -> None:
        if (split, record.id) == self._latest:
            return  # another pair of the same record
        self._latest = split, record.id
        texts = [record.prompt, *([] if record.response is None else [record.response])]
        if spelt := [word for text in texts for word in self._ids.spelt(text)]:
            self._hit("spells a control token", record.id, *dict.fromkeys(spelt))
        if any(self._answer_line.search(text) for text in texts):
            self._hit("holds an answer line", record.id)
        gold = record.gold()
        if split == "train":
            for task in self._tasks:
                self._labels[record.source or "(no source)"][task.name][gold.get(task.name)] += 1
        prompt = normalise(record.prompt)
        if _hash(prompt) in self._prompts["validation" if split == "train" else "train"]:
            self._hit("prompt in both splits", record.id)
        self._prompts[split].add(_hash(prompt))
        conversation = _hash(f"{prompt}\0{'' if record.response is None else '=' + normalise(record.response)}")
        before = self._conversations.get(conversation)
        if before is not None:
            where, known = before
            if against := [task for task, label in gold.items() if known.get(task, label) != label]:
                self._hit("contradicting labels", record.id, *against)
            elif split == where == "train":
                self._hit("duplicate", record.id)
            gold |= known
        # Few sets of labels for many conversations: each is kept once.
        key = (split, tuple(sorted(gold.items())))
        self._conversations[conversation] = self._label_sets.setdefault(key, (split, gold))

    def _finding(self, name: str) -> Finding:
        tally = self._tallies[name]
        if name == "too long":
            return self._too_long(tally)
        if name == "prompt of a benchmark" and self.allowed:
            means = "a benchmark of the run holds the prompt; allowed by allow_contamination, and stamped on the model"
            return tally.finding(name, self._seen, "warning", means)
        if name == "rare label":
            return tally.finding(name, sum(len(task.labels) for task in self._tasks))
        if name in ("nothing to train on", "chat template not used"):
            return tally.finding(name, 1)
        if name == "other ids as one text":
            return tally.finding(name, self._joined)
        seen = "benchmark" in name
        return tally.finding(name, self._seen if seen else self._taken)

    def _too_long(self, tally: HitCounter) -> Finding:
        sizes = (f"{identity}: {prompt:,} + {completion:,}" for _, identity, prompt, completion in self._longest)
        more = f"longest, prompt + completion: {', '.join(sizes)}"
        if self._too_long_prompts:
            more += f"; {self._too_long_prompts:,} by the prompt alone"
        if not self.skip_too_long:
            return tally.finding("too long", self._seen, more=more)
        means = (
            "longer than data.max_length: the whole record is left out; neither the user's text nor an answer is cut"
        )
        return tally.finding("too long", self._seen, "note", means, more)

    def _asked(self) -> str:
        everywhere = "training, mining, testing and serving ask alike, as all read it there"
        if not self.prompt_tokenizer.format.chat_template:
            return f"raw text, no chat template ({self.asked_by}); {everywhere}"
        return f"chat template of {self.prompt_tokenizer.tokenizer.name_or_path} ({self.asked_by}); {everywhere}"

    def _hit(self, name: str, identity: str, *words: str) -> None:
        self._tallies[name].add(re.sub(r"\s+", " ", identity), *words)


def _hash(text: str) -> int:
    return int.from_bytes(blake2b(text.encode(errors="surrogatepass"), digest_size=8).digest())


__all__: Sequence[str] = ("Balance", "Diagnosis", "Examination", "Finding", "Histogram", "Lengths", "Taught")
