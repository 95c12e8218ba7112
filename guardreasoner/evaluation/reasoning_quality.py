"""What reasoning is like, measured without a judge: whether it concludes what is answered, its length, loops, leaks.

All of it is found by rules on the text, in time linear in its length. Intervals are of 95 %: Wilson's for rates, a
bootstrap over records for means.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from guardreasoner.errors import InputError
from guardreasoner.evaluation.comparison.alignment import Answers
from guardreasoner.evaluation.conclusions import conclusions
from guardreasoner.evaluation.shares import wilson
from guardreasoner.prompts import conversation, parse, reasoning_of
from guardreasoner.synthesis.prompt import betrayals
from guardreasoner.tasks import Task

Outcome = Literal["agrees", "contradicts", "concludes nothing"]

_STEP = re.compile(r"^[^\w\n]*Reasoning Step \d+\b", re.IGNORECASE | re.MULTILINE)

_RUN, _TIMES = 12, 5
"""A run of so many words that comes so often is a loop. Published guards say one up to four times, for three tasks."""

_TAIL, _LEAST, _TURNS = 4096, 200, 4
"""Of so many last characters, so many at least are one piece so many times over: the text does not end by itself."""

_UNPARTED = r"\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af"
_WORD = re.compile(rf"[^\W{_UNPARTED}]+|[{_UNPARTED}]")
"""A word; one character where words are not parted."""

FAULTS = ("contradicts an answer", "no reasoning", "loops", "endless", "answer betrayed", "another script")
"""What can be wrong with a completion's reasoning, as far as rules find it."""

FAULTLESS = "none of these"

_FOREIGN = 0.01
_RESAMPLES = 1000


@dataclass(frozen=True, slots=True)
class Inspection:
    """What one completion's reasoning is like.

    Args:
        conclusions: by task with a verdict: whether the reasoning on it concludes that verdict.
        steps: how many it has ("Reasoning Step 2").
        characters: of the reasoning, without the answer block.
        words: of the reasoning.
        loops: a run of twelve words comes five times or more, numbers aside.
        endless: the completion ends in one piece over and over, as text does that is cut off at the length limit.
        betrayed: phrases by which it shows that its answer was given ("the ground truth").
        foreign: share of its letters that are of a script that neither the conversation nor the instruction has.
    """

    conclusions: dict[str, Outcome]
    steps: int
    characters: int
    words: int
    loops: bool
    endless: bool
    betrayed: tuple[str, ...]
    foreign: float

    def faults(self) -> tuple[str, ...]:
        """Return what is wrong with it, by the names of ``FAULTS``."""
        wrong = (
            "contradicts" in self.conclusions.values(),
            not self.words,
            self.loops,
            self.endless,
            bool(self.betrayed),
            self.foreign > _FOREIGN,
        )
        return tuple(name for name, is_so in zip(FAULTS, wrong, strict=True) if is_so)


@dataclass(frozen=True, slots=True)
class QualityEstimate:
    """A rate (in percent) or a mean over n records, with its 95 % interval."""

    value: float
    low: float
    high: float
    n: int


@dataclass(frozen=True, slots=True)
class Quality:
    """What the reasoning of one model is like.

    Args:
        records: how many completions there were.
        conclusions: by task and outcome, in percent of the completions with a verdict on it; a task that none decides
            is left out.
        rates: in percent of all completions, by what is counted.
        means: over all completions, by what is measured.
    """

    records: int
    conclusions: dict[str, dict[Outcome, QualityEstimate]]
    rates: dict[str, QualityEstimate]
    means: dict[str, QualityEstimate]


def quality(
    completions: Sequence[str],
    tasks: Sequence[Task],
    conversations: Sequence[str] | None = None,
    tokens: Sequence[int] | None = None,
    seed: int = 0,
) -> Quality:
    """Inspect one model's completions and return rates and means.

    Args:
        completions: one a record, as generated.
        tasks: what they decide.
        conversations: what each is about, so that a quotation from it is no leak, and its script not foreign.
        tokens: length of each completion in tokens, where it is known.
        seed: of the bootstrap.

    Raises:
        InputError: no completion.
    """
    if not completions:
        raise InputError("no completion whose reasoning could be looked at")
    about = conversations if conversations is not None else [""] * len(completions)
    found = [inspect(text, tasks, conversation) for text, conversation in zip(completions, about, strict=True)]
    outcomes = {
        task.name: [one.conclusions[task.name] for one in found if task.name in one.conclusions] for task in tasks
    }
    faults = [one.faults() for one in found]
    counted = {name: [name in of for of in faults] for name in FAULTS} | {FAULTLESS: [not of for of in faults]}
    measured: dict[str, Sequence[int]] = {
        "steps": [one.steps for one in found],
        "words": [one.words for one in found],
        "characters": [one.characters for one in found],
    }
    if tokens is not None:
        measured["tokens"] = tokens
    return Quality(
        records=len(found),
        conclusions={
            name: {outcome: rate(said.count(outcome), len(said)) for outcome in get_args(Outcome)}
            for name, said in outcomes.items()
            if said
        },
        rates={name: rate(sum(hits), len(hits)) for name, hits in counted.items()},
        means=_means(measured, seed),
    )


def inspect(completion: str, tasks: Sequence[Task], conversation: str = "") -> Inspection:
    """Look at one completion.

    Args:
        completion: as generated.
        tasks: what it decides.
        conversation: what it is about.
    """
    reasoning, verdicts = reasoning_of(completion, tasks), parse(completion, tasks)
    concluded = conclusions(reasoning, tasks)
    words = _WORD.findall(_plain(reasoning))
    return Inspection(
        conclusions={name: _outcome(concluded[name], verdict) for name, verdict in verdicts.items() if verdict},
        steps=len(_STEP.findall(reasoning)),
        characters=len(reasoning),
        words=len(words),
        loops=_most_repeated(words) >= _TIMES,
        endless=_is_endless(completion),
        betrayed=tuple(betrayals(reasoning, conversation)),
        foreign=_foreign_share(reasoning, conversation),
    )


def faultless(seeds: Sequence[Answers], tasks: Sequence[Task]) -> list[float]:
    """Return for each record the share of outputs whose reasoning has none of ``FAULTS``, 0 to 1.

    Args:
        seeds: outputs of one run, an output a record from each seed; all for the same records.
        tasks: what they decide.
    """
    records = {record.id: conversation(record) for record in seeds[0].records}
    clean = dict.fromkeys(records, 0)
    for one in seeds:
        for answer in one.rollouts:
            clean[answer.record_id] += not inspect(answer.completion, tasks, records[answer.record_id]).faults()
    return [count / len(seeds) for count in clean.values()]


def rate(hits: int, n: int) -> QualityEstimate:
    """Return hits of n in percent, with Wilson's interval.

    Args:
        hits: 0 to n.
        n: at least 1.
    """
    low, high = wilson(hits / n, n)
    return QualityEstimate(100 * hits / n, low, high, n)


def _outcome(concluded: str | None, verdict: str) -> Outcome:
    if concluded is None:
        return "concludes nothing"
    return "agrees" if concluded == verdict else "contradicts"


def _plain(text: str) -> str:
    """Return a text in which case and numbers make no difference."""
    return re.sub(r"\d+", "0", text.casefold())


def _most_repeated(words: Sequence[str]) -> int:
    """Return how often the most frequent run of words comes."""
    if len(words) < _RUN:
        return 0
    known: dict[str, int] = {}
    numbers = np.array([known.setdefault(word, len(known)) for word in words])
    # Runs get numbers by halves, equal ones the same: twelve words are four and eight, eight are two times four.
    two = _joined(numbers[:-1], numbers[1:])
    four = _joined(two[:-2], two[2:])
    runs = _joined(four[:-8], _joined(four[:-4], four[4:])[4:])
    return int(np.bincount(runs).max())


def _joined(first: NDArray[np.int_], second: NDArray[np.int_]) -> NDArray[np.int_]:
    """Return a number a pair, equal ones for equal pairs, from 0 and without gaps; (N,) and (N,) to (N,)."""
    return np.unique(first * (int(second.max()) + 1) + second, return_inverse=True)[1]


def _is_endless(completion: str) -> bool:
    """Return whether the text ends in repetitions of one piece."""
    tail = _plain(completion[-_TAIL:])[::-1]
    # borders[i]: length of the longest proper prefix of the first i + 1 characters that also ends them (Knuth, Morris
    # and Pratt, https://doi.org/10.1137/0206024); what is left is the period of those characters.
    borders = [0] * len(tail)
    border = 0
    for place in range(1, len(tail)):
        while border and tail[place] != tail[border]:
            border = borders[border - 1]
        border += tail[place] == tail[border]
        borders[place] = border
        length = place + 1
        if length >= _LEAST and length >= _TURNS * (length - border):
            return True
    return False


def _foreign_share(reasoning: str, conversation: str) -> float:
    if reasoning.isascii():
        return 0.0
    letters = {character: count for character, count in Counter(reasoning).items() if character.isalpha()}
    known = {"LATIN", *(_script(character) for character in set(conversation) if character.isalpha())}
    foreign = sum(count for character, count in letters.items() if _script(character) not in known)
    return foreign / sum(letters.values()) if letters else 0.0


@lru_cache(maxsize=10_000)
def _script(character: str) -> str:
    """Return the first word of a letter's Unicode name, its script; one word for those that Japanese mixes."""
    script = unicodedata.name(character, "UNNAMED").split()[0]
    return "CJK" if script in ("HIRAGANA", "KATAKANA") else script


def _means(measured: dict[str, Sequence[int]], seed: int) -> dict[str, QualityEstimate]:
    values: NDArray[np.float64] = np.array(list(measured.values()), dtype=float).T  # (N, measures)
    draw, n = np.random.default_rng(seed), len(values)
    resampled = np.array([values[draw.integers(n, size=n)].mean(axis=0) for _ in range(_RESAMPLES)])
    low, high = np.percentile(resampled, [2.5, 97.5], axis=0)
    return {
        name: QualityEstimate(float(values[:, place].mean()), float(low[place]), float(high[place]), n)
        for place, name in enumerate(measured)
    }
