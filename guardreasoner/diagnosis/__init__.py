"""Diagnosis of the training data: finds what would spoil a fit, in one pass and with little memory per record."""

import heapq
import re
from array import array
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from hashlib import blake2b
from typing import Any

from guardreasoner.diagnosis.findings import CHECKS, SEVERITIES, Finding, HitCounter
from guardreasoner.diagnosis.id_checks import IdCheck
from guardreasoner.diagnosis.summary import Balance, Histogram, Lengths, label_balance, rare_labels
from guardreasoner.diagnosis.target_checks import answer_line_pattern, target_hits
from guardreasoner.errors import InputError
from guardreasoner.model.prompt_tokenizer import PromptTokenizer
from guardreasoner.prompts import PromptFormat
from guardreasoner.records import Record, Split
from guardreasoner.sources.contamination import ContaminationIndex, normalize
from guardreasoner.training.training_data import TrainingItem

_BATCH_SIZE = 256
_MAX_JOINED = 1000
"""Examples whose ids are compared with those of the joined text, or of a chat server; these depend on the tokenizer and
hardly on the record."""
_LONGEST = 3
_CONTAMINATION = ("prompt in a benchmark", "prompt similar to a benchmark", "dropped for contamination")


@dataclass(frozen=True)
class Diagnosis:
    """Results of all checks.

    Args:
        asked: How the model is prompted, in one sentence.
        limit: ``data.max_length``, in tokens.
        train: Number of training examples.
        validation: Number of validation examples.
        lengths: Lengths of all examples, including those that are too long; empty if there are no examples.
        histogram: Histogram of total lengths; None if there are no examples.
        balance: Training labels by source and task.
        findings: One finding per check, worst first.
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
        """Number of checks that found a fault."""
        return sum(finding.severity == "fault" for finding in self.findings)

    def verdict(self) -> str:
        """Return the result in one line."""
        if not self.faults:
            return "no faults found"
        return f"{self.faults} fault{'s' if self.faults > 1 else ''} found"

    def as_json(self) -> dict[str, Any]:
        """Return all results as JSON."""
        return {"verdict": self.verdict(), "faults": self.faults, **asdict(self)}


class DiagnosisBuilder:
    """Checks training items one by one, then returns the diagnosis.

    Args:
        prompt_tokenizer: The tokenizer that made the ids.
        format_source: File or config key that defines the prompt format, for messages.
        limit: Longest prompt and completion together, in tokens.
        skip_too_long: Whether the fit drops longer examples; otherwise it refuses to start.
        benchmark_prompts: Prompts of the run's benchmarks.
        skip_contaminated: Whether the fit drops records whose prompt occurs in a benchmark.
        allow_contamination: Whether the fit may train on such records.
        embedding_rows: Number of token ids that the model has an embedding for; None if it is not known.
    """

    def __init__(
        self,
        prompt_tokenizer: PromptTokenizer,
        format_source: str,
        limit: int,
        skip_too_long: bool,
        benchmark_prompts: ContaminationIndex,
        skip_contaminated: bool = False,
        allow_contamination: bool = False,
        embedding_rows: int | None = None,
    ) -> None:
        self.prompt_tokenizer = prompt_tokenizer
        self.format_source = format_source
        self.limit = limit
        self.skip_too_long = skip_too_long
        self.benchmark_prompts = benchmark_prompts
        self.embedding_rows = embedding_rows
        self.skip_contaminated = skip_contaminated
        self.allow_contamination = allow_contamination
        self._tasks = prompt_tokenizer.format.tasks
        self._hit_counters: dict[str, HitCounter] = defaultdict(HitCounter)
        self._id_check = IdCheck(prompt_tokenizer)
        self._answer_line = answer_line_pattern(self._tasks)
        self._pending: list[tuple[TrainingItem, Split]] = []
        self._lengths: dict[str, array[int]] = defaultdict(lambda: array("I"))
        self._longest: list[tuple[int, str, int, int]] = []
        self._too_long_prompts = 0
        self._seen = self._checked = self._joined = 0
        self._checked_by_split: Counter[Split] = Counter()
        self._previous: tuple[Split, str] | None = None
        self._labels: dict[str, dict[str, Counter[str | None]]] = defaultdict(lambda: defaultdict(Counter))
        self._conversations: dict[int, tuple[Split, Mapping[str, str]]] = {}
        self._prompts: dict[Split, set[int]] = defaultdict(set)
        self._label_sets: dict[tuple[Split, tuple[tuple[str, str], ...]], tuple[Split, Mapping[str, str]]] = {}

    def add(self, item: TrainingItem, split: Split) -> None:
        """Check one training item."""
        self._pending.append((item, split))
        if len(self._pending) == _BATCH_SIZE:
            self._check_pending()

    def add_unusable(self, record: Record, error: InputError) -> None:
        """Count a record without a target: its reasoning contradicts its label."""
        self._seen += 1
        self._checked += 1
        self._hit("target contradicts the label", record.id)

    def build(self) -> Diagnosis:
        """Return the diagnosis of all items added so far."""
        self._check_pending()
        balance = label_balance(self._labels, self._tasks)
        for line in rare_labels(balance, self._tasks) if self._checked_by_split["train"] else ():
            self._hit("rare label", line)
        if not self._checked_by_split["train"]:
            self._hit("nothing to train on", "")
        rows = self.embedding_rows
        for token_id in () if rows is None else self.prompt_tokenizer.ids_beyond(rows):
            token = self.prompt_tokenizer.tokenizer.convert_ids_to_tokens(token_id)
            self._hit("ids beyond the embedding", f"{token_id} {token}")
        tokenizer = self.prompt_tokenizer
        uses_template = tokenizer.chat_template is not None or tokenizer.writes_controls
        if not uses_template and tokenizer.tokenizer.chat_template is not None:
            self._hit("chat template not used", self.format_source)
        total = self._lengths.get("total", array("I"))
        findings = sorted(map(self._finding, CHECKS), key=lambda finding: SEVERITIES.index(finding.severity))
        return Diagnosis(
            asked=self._prompt_format(),
            limit=self.limit,
            train=self._checked_by_split["train"],
            validation=self._checked_by_split["validation"],
            lengths=tuple(Lengths.of(part, values) for part, values in self._lengths.items()),
            histogram=Histogram.of(total, self.limit) if total else None,
            balance=balance,
            findings=tuple(findings),
        )

    def _check_pending(self) -> None:
        """Check the pending items; items that the fit drops are only counted."""
        items = [(item, split) for item, split in self._pending if self._is_used(item)]
        self._pending = []
        texts = [self.prompt_tokenizer.content(item.record, item.speed) for item, _ in items]
        completions, examples = [i.completions for i, _ in items], [i.example for i, _ in items]
        tokenizer, writes_controls = self.prompt_tokenizer, self.prompt_tokenizer.writes_controls
        controls = [tokenizer.prompt_controls(i.record, i.speed) for i, _ in items] if writes_controls else []
        truncated = [i.truncated for i, _ in items]
        results = self._id_check.hits(texts, completions, examples, controls, truncated)
        for (item, split), text, (decoded, id_hits) in zip(items, texts, results, strict=True):
            self._checked += 1
            self._checked_by_split[split] += 1
            target = target_hits(item.record, self._tasks, decoded, item.speed, tokenizer.format)
            for name, details in (*id_hits, *target):
                self._hit(name, item.record.id, *details)
            if self._joined < _MAX_JOINED:
                self._joined += 1
                if self.prompt_tokenizer.chat_template is not None:
                    if difference := self._id_check.difference_to_server(item.record, item.speed, item.example):
                        self._hit("chat server would differ", item.record.id, difference)
                elif not writes_controls and self._id_check.differs_if_joined(text, item.completions[0], item.example):
                    self._hit("joint tokenization differs", item.record.id)
            self._check_record(item.record, split)

    def _is_used(self, item: TrainingItem) -> bool:
        """Check contamination and length, and return whether the fit would use the item."""
        self._seen += 1
        record, example = item.record, item.example
        if match := self.benchmark_prompts.match(record):
            ids = f"{match.record} ({match.similarity:.2f} {match.benchmark})"
            if self.skip_contaminated:
                self._hit("dropped for contamination", ids)
                return False
            self._hit("prompt in a benchmark" if match.similarity == 1 else "prompt similar to a benchmark", ids)
        parts = ("completion",) if len(example.completions) == 1 else ("chosen", "rejected")
        self._lengths["prompt"].append(len(example.prompt))
        for part, ids_of_part in zip(parts, example.completions, strict=True):
            self._lengths[part].append(len(ids_of_part))
        self._lengths["total"].append(example.length)
        if example.length <= self.limit:
            return True
        self._hit("too long", record.id)
        self._too_long_prompts += len(example.prompt) >= self.limit
        sizes = (example.length, record.id, len(example.prompt), max(map(len, example.completions)))
        self._longest = heapq.nlargest(_LONGEST, [*self._longest, sizes])
        return not self.skip_too_long

    def _check_record(self, record: Record, split: Split) -> None:
        if (split, record.id) == self._previous:
            return  # another pair of the same record
        self._previous = split, record.id
        texts = record.texts()
        if tokens := [token for text in texts for token in self._id_check.control_tokens_in(text)]:
            self._hit("contains a control token", record.id, *dict.fromkeys(tokens))
        if any(self._answer_line.search(text) for text in texts):
            self._hit("contains an answer line", record.id)
        gold = record.gold()
        if split == "train":
            for task in self._tasks:
                self._labels[record.source or "(no source)"][task.name][gold.get(task.name)] += 1
        prompt = _hash(normalize(record.context()))
        if prompt in self._prompts["validation" if split == "train" else "train"]:
            self._hit("prompt in both splits", record.id)
        self._prompts[split].add(prompt)
        conversation = _hash(_normalized_content(record))
        known = self._conversations.get(conversation)
        if known is not None:
            known_split, known_gold = known
            if tasks := [task for task, label in gold.items() if known_gold.get(task, label) != label]:
                self._hit("contradicting labels", record.id, *tasks)
            elif split == known_split == "train":
                self._hit("duplicate", record.id)
            gold |= known_gold
        # Many conversations share few sets of labels; storing each set once saves memory.
        key = (split, tuple(sorted(gold.items())))
        self._conversations[conversation] = self._label_sets.setdefault(key, (split, gold))

    def _finding(self, name: str) -> Finding:
        counter = self._hit_counters[name]
        if name == "too long":
            return self._too_long_finding(counter)
        if name == "prompt in a benchmark" and self.allow_contamination:
            meaning = (
                "the prompt also occurs in a benchmark of this run; allowed by allow_contamination and recorded in the "
                "model's manifest"
            )
            return counter.finding(name, self._seen, "warning", meaning)
        if name == "rare label":
            return counter.finding(name, sum(len(task.labels) for task in self._tasks))
        if name in ("nothing to train on", "chat template not used"):
            return counter.finding(name, 1)
        if name == "ids beyond the embedding":
            return counter.finding(name, len(self.prompt_tokenizer.tokenizer))
        if name in ("joint tokenization differs", "chat server would differ"):
            return counter.finding(name, self._joined)
        return counter.finding(name, self._seen if name in _CONTAMINATION else self._checked)

    def _too_long_finding(self, counter: HitCounter) -> Finding:
        sizes = (f"{record_id}: {prompt:,} + {completion:,}" for _, record_id, prompt, completion in self._longest)
        suffix = f"longest, prompt + completion: {', '.join(sizes)}"
        if self._too_long_prompts:
            suffix += f"; {self._too_long_prompts:,} because of the prompt alone"
        if not self.skip_too_long:
            return counter.finding("too long", self._seen, suffix=suffix)
        meaning = "longer than data.max_length: the whole record is dropped; neither prompt nor answer is truncated"
        return counter.finding("too long", self._seen, "note", meaning, suffix)

    def _prompt_format(self) -> str:
        scope = "used by training, mining, testing and serving alike"
        format = self.prompt_tokenizer.format
        if not isinstance(format, PromptFormat):
            return f"published prompt of {type(format).__name__} ({self.format_source}); {scope}"
        if not format.chat_template:
            return f"raw text, no chat template ({self.format_source}); {scope}"
        day = format.date
        dated = f", with the date {day}" if day else ""
        return f"chat template of {self.prompt_tokenizer.tokenizer.name_or_path}{dated} ({self.format_source}); {scope}"

    def _hit(self, name: str, record_id: str, *details: str) -> None:
        self._hit_counters[name].add(re.sub(r"\s+", " ", record_id), *details)


def _normalized_content(record: Record) -> str:
    """Return a text that two records share if their normalized messages and policies are the same."""
    response = "" if record.response is None else f"={normalize(record.response)}"
    if record.is_one_turn and record.policy is None:
        return f"{normalize(record.prompt)}\0{response}"
    policy = "" if record.policy is None else normalize(record.policy)
    return "\0".join([policy, *(f"{author}={normalize(text)}" for author, text in record.parts())])


def _hash(text: str) -> int:
    return int.from_bytes(blake2b(text.encode(errors="surrogatepass"), digest_size=8).digest())


__all__: Sequence[str] = ("Balance", "Diagnosis", "DiagnosisBuilder", "Finding", "Histogram", "Lengths")
