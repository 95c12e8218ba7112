"""Measure a model's reasoning by rules on its text: agreement with the verdicts, length, repetition, label leaks.

No judge model is involved; the time is linear in the length of the text. Intervals are 95 %: Wilson's for rates, a
bootstrap over records for means.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import ceil
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from guardreasoner.errors import InputError
from guardreasoner.evaluation.comparison.alignment import Answers
from guardreasoner.evaluation.conclusions import conclusions
from guardreasoner.evaluation.intervals import Estimate, estimate, generator_for, resampled_sums, wilson
from guardreasoner.formats import GuardFormat
from guardreasoner.formats.verdicts import read_reasoning, read_verdicts
from guardreasoner.prompts import conversation
from guardreasoner.records import Record
from guardreasoner.synthesis.prompt import label_leaks
from guardreasoner.tasks import Task

Agreement = Literal["agrees", "contradicts", "concludes nothing"]
"""Whether the reasoning on a task concludes the verdict that the answer block gives."""

REASONING_FAULTS = (
    "contradicts an answer",
    "no reasoning",
    "loops",
    "endless",
    "label leaked",
    "another script",
)
"""Names of the faults that the rules find in a completion's reasoning."""

FAULTLESS = "none of these"

_STEP = re.compile(r"^[^\w\n]*Reasoning Step \d+\b", re.IGNORECASE | re.MULTILINE)

_LOOP_WORDS, _LOOP_REPEATS = 12, 5
"""A run of this many words that occurs this often is a loop. Published guards repeat one up to four times, once a task
and in the summary."""

_TAIL, _MIN_REPEATED, _MIN_PERIODS = 4096, 200, 4
"""A completion is endless if, within its last 4,096 characters, at least 200 are at least 4 periods of one string."""

_UNSPACED = r"\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af"
_WORD = re.compile(rf"[^\W{_UNSPACED}]+|[{_UNSPACED}]")
"""A word; a single character in scripts that do not put spaces between words."""

_MAX_FOREIGN_SHARE = 0.01
_MEAN_RESAMPLES = 1000


@dataclass(frozen=True, slots=True)
class Inspection:
    """Properties of one completion's reasoning.

    Args:
        conclusions: by task with a verdict, whether the reasoning concludes that verdict.
        steps: number of steps ("Reasoning Step 2").
        characters: characters of the reasoning, without the answer block.
        words: words of the reasoning.
        loops: whether a run of twelve words occurs five times or more, ignoring case and numbers.
        endless: whether the completion ends in repetitions of one string, as text cut off at the length limit does.
        label_leaks: phrases that reveal that the label was given ("the ground truth") and are not in the conversation.
        foreign_share: share of letters in a script that is neither Latin nor in the conversation, 0 to 1.
    """

    conclusions: dict[str, Agreement]
    steps: int
    characters: int
    words: int
    loops: bool
    endless: bool
    label_leaks: tuple[str, ...]
    foreign_share: float

    def faults(self) -> tuple[str, ...]:
        """Return the names of the faults found, out of ``REASONING_FAULTS``."""
        present = (
            "contradicts" in self.conclusions.values(),
            not self.words,
            self.loops,
            self.endless,
            bool(self.label_leaks),
            self.foreign_share > _MAX_FOREIGN_SHARE,
        )
        return tuple(name for name, is_present in zip(REASONING_FAULTS, present, strict=True) if is_present)


@dataclass(frozen=True, slots=True)
class Quality:
    """Reasoning quality of one model, with intervals.

    Args:
        records: number of completions; of several training seeds, of one of them.
        verdicts: by task, number of completions with a verdict on it; tasks without any are left out.
        conclusions: by task and outcome, percentage of the completions with a verdict on the task.
        rates: by fault (and ``FAULTLESS``), percentage of all completions.
        means: by measure (steps, words, characters, tokens), mean over all completions.
    """

    records: int
    verdicts: Mapping[str, int]
    conclusions: Mapping[str, Mapping[Agreement, Estimate]]
    rates: Mapping[str, Estimate]
    means: Mapping[str, Estimate]

    def as_json(self) -> dict[str, Any]:
        """Return all numbers; each estimate as value, low, high and the number of completions n."""
        return {
            "records": self.records,
            "conclusions": {
                task: {outcome: _estimate_as_json(rate, self.verdicts[task]) for outcome, rate in outcomes.items()}
                for task, outcomes in self.conclusions.items()
            },
            "rates": {name: _estimate_as_json(rate, self.records) for name, rate in self.rates.items()},
            "means": {name: _estimate_as_json(mean, self.records) for name, mean in self.means.items()},
        }


def quality(
    completions: Sequence[str],
    tasks: Sequence[Task],
    conversations: Sequence[str] | None = None,
    tokens: Sequence[int] | None = None,
    seed: int = 0,
    format: GuardFormat | None = None,
    seeds: int = 1,
) -> Quality:
    """Inspect one model's completions and return rates and means.

    The answers of several training seeds to one record are not independent: intervals count records.

    Args:
        completions: one completion a record, as generated; those of several training seeds follow one another, with the
            records in the same order.
        tasks: tasks that the completions decide.
        conversations: text that each completion judges (:func:`judged_text`); what occurs in it is neither a label leak
            nor foreign.
        tokens: length of each completion in tokens, if known.
        seed: seed of the bootstrap.
        format: format of the outputs; None: GuardReasoner's own.
        seeds: number of training seeds.

    Raises:
        InputError: if there is no completion.
    """
    if not completions:
        raise InputError("reasoning quality: there are no completions to inspect")
    judged = conversations if conversations is not None else [""] * len(completions)
    inspections = [
        inspect(text, tasks, judged_text, format) for text, judged_text in zip(completions, judged, strict=True)
    ]
    outcomes = {
        task.name: [one.conclusions[task.name] for one in inspections if task.name in one.conclusions] for task in tasks
    }
    faults = [inspection.faults() for inspection in inspections]
    fault_counts = {name: sum(name in present for present in faults) for name in REASONING_FAULTS}
    fault_counts[FAULTLESS] = sum(not present for present in faults)
    measures: dict[str, Sequence[int]] = {
        "steps": [inspection.steps for inspection in inspections],
        "words": [inspection.words for inspection in inspections],
        "characters": [inspection.characters for inspection in inspections],
    }
    if tokens is not None:
        measures["tokens"] = tokens
    n = len(inspections)
    return Quality(
        records=n // seeds,
        verdicts={name: len(values) for name, values in outcomes.items() if values},
        conclusions={
            name: {outcome: _rate(values.count(outcome), len(values), seeds) for outcome in get_args(Agreement)}
            for name, values in outcomes.items()
            if values
        },
        rates={name: _rate(count, n, seeds) for name, count in fault_counts.items()},
        means=_means(measures, seed, seeds),
    )


def inspect(
    completion: str, tasks: Sequence[Task], conversation: str = "", format: GuardFormat | None = None
) -> Inspection:
    """Inspect one completion.

    Args:
        completion: the completion as generated.
        tasks: tasks that it decides.
        conversation: the conversation that it judges.
        format: its format; None: GuardReasoner's own.
    """
    reasoning, verdicts = read_reasoning(completion, tasks, format), read_verdicts(completion, tasks, format)
    concluded = conclusions(reasoning, tasks)
    words = _WORD.findall(_normalized(reasoning))
    return Inspection(
        conclusions={name: _agreement(concluded[name], verdict) for name, verdict in verdicts.items() if verdict},
        steps=len(_STEP.findall(reasoning)),
        characters=len(reasoning),
        words=len(words),
        loops=_max_repeats(words) >= _LOOP_REPEATS,
        endless=_is_endless(completion),
        label_leaks=tuple(label_leaks(reasoning, conversation)),
        foreign_share=_foreign_share(reasoning, conversation),
    )


def judged_text(record: Record) -> str:
    """Return what the reasoning on a record may quote: its policy, if there is one, and its conversation."""
    return "\n".join(filter(None, (record.policy, conversation(record))))


def faultless(seeds: Sequence[Answers], tasks: Sequence[Task]) -> list[list[float]]:
    """Return, for each training seed, 1 for each record whose reasoning has none of ``REASONING_FAULTS``, else 0.

    Args:
        seeds: answers of one run, one output a record for each training seed, all for the same records.
        tasks: tasks that the answers decide.
    """
    conversations = {record.id: judged_text(record) for record in seeds[0].records}
    rates = []
    for answers in seeds:
        found = dict.fromkeys(conversations, 0.0)
        for answer in answers.rollouts:
            inspection = inspect(answer.completion, tasks, conversations[answer.record_id], answers.format)
            found[answer.record_id] = float(not inspection.faults())
        rates.append(list(found.values()))
    return rates


def _estimate_as_json(value: Estimate, n: int) -> dict[str, Any]:
    return {"value": value.value, "low": value.low, "high": value.high, "n": n}


def _agreement(concluded: str | None, verdict: str) -> Agreement:
    if concluded is None:
        return "concludes nothing"
    return "agrees" if concluded == verdict else "contradicts"


def _normalized(text: str) -> str:
    """Return a text with case folded and every number replaced by 0."""
    return re.sub(r"\d+", "0", text.casefold())


def _max_repeats(words: Sequence[str]) -> int:
    """Return how often the most frequent run of ``_LOOP_WORDS`` words occurs."""
    if len(words) < _LOOP_WORDS:
        return 0
    ids: dict[str, int] = {}
    singles = np.array([ids.setdefault(word, len(ids)) for word in words])
    # Equal runs get equal ids, built by doubling: 12 words are 4 + 8 words, 8 are 4 + 4.
    twos = _pair_ids(singles[:-1], singles[1:])
    fours = _pair_ids(twos[:-2], twos[2:])
    twelves = _pair_ids(fours[:-8], _pair_ids(fours[:-4], fours[4:])[4:])
    return int(np.bincount(twelves).max())


def _pair_ids(first: NDArray[np.int_], second: NDArray[np.int_]) -> NDArray[np.int_]:
    """Return (N,) consecutive ids from 0 for pairs of ids (N,) and (N,); equal pairs get equal ids."""
    return np.unique(first * (int(second.max()) + 1) + second, return_inverse=True)[1]


def _is_endless(completion: str) -> bool:
    """Return whether the text ends in repetitions of one string."""
    tail = _normalized(completion[-_TAIL:])[::-1]
    # borders[i]: length of the longest proper prefix of tail[: i + 1] that is also its suffix (Knuth, Morris and Pratt,
    # https://doi.org/10.1137/0206024); the length minus the border is the period.
    borders = [0] * len(tail)
    border = 0
    for index in range(1, len(tail)):
        while border and tail[index] != tail[border]:
            border = borders[border - 1]
        border += tail[index] == tail[border]
        borders[index] = border
        length = index + 1
        if length >= _MIN_REPEATED and length >= _MIN_PERIODS * (length - border):
            return True
    return False


def _foreign_share(reasoning: str, conversation: str) -> float:
    if reasoning.isascii():
        return 0.0
    letters = {character: count for character, count in Counter(reasoning).items() if character.isalpha()}
    expected = {"LATIN", *(_script(character) for character in set(conversation) if character.isalpha())}
    foreign = sum(count for character, count in letters.items() if _script(character) not in expected)
    return foreign / sum(letters.values()) if letters else 0.0


@lru_cache(maxsize=10_000)
def _script(character: str) -> str:
    """Return a letter's script: the first word of its Unicode name, with the scripts of Japanese taken as one."""
    script = unicodedata.name(character, "UNNAMED").split()[0]
    return "CJK" if script in ("HIRAGANA", "KATAKANA") else script


def _rate(count: int, n: int, seeds: int) -> Estimate:
    """Return a share of n completions of several training seeds, with the interval of as many values as records."""
    return wilson(count / n, ceil(n / seeds))


def _means(measures: Mapping[str, Sequence[int]], seed: int, seeds: int) -> dict[str, Estimate]:
    completions = np.array(list(measures.values()), dtype=np.float64).T  # (seeds · N, measures)
    values = completions.reshape(seeds, -1, len(measures)).mean(axis=0)
    sums = resampled_sums(values, _MEAN_RESAMPLES, generator_for(seed, "means of reasoning measures"))
    return {name: estimate(sums[:, column] / len(values)) for column, name in enumerate(measures)}
