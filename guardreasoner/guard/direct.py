"""Direct answers from one forward pass: all texts that a guard could answer are scored, and the greedy one is found.

A direct answer has few possible texts, one for each combination of labels. Their probabilities show which of them
greedy decoding writes, without writing it token by token, as long as hardly any probability is left for other texts.
Where it is not certain, the engine has to write the answer.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from math import exp, isfinite, prod

from guardreasoner.errors import InputError
from guardreasoner.evaluation.label_scores import Probabilities, alternatives, probabilities
from guardreasoner.formats import Alternative
from guardreasoner.generators import Request, Scorer, ScoreRequest
from guardreasoner.guard.results import applies
from guardreasoner.model.prompt_tokenizer import PromptTokenizer
from guardreasoner.records import Record

_MOST_TEXTS = 64
"""Number of possible answers up to which they are scored."""

_ROUNDING = 1e-5
"""Error of the sum of the probabilities of all texts."""


@dataclass(frozen=True, slots=True)
class DirectAnswer:
    """The greedy answer to a record.

    Args:
        completion: its text.
        tokens: number of its tokens, without the end token.
        probabilities: probability by task and label.
    """

    completion: str
    tokens: int
    probabilities: Probabilities


@dataclass(frozen=True, slots=True)
class _Text:
    """A possible answer.

    Args:
        completion: its text.
        ids: its token ids, with the end token.
        alternatives: the alternatives of its labels, each with the index of its continuation.
    """

    completion: str
    ids: tuple[int, ...]
    alternatives: tuple[tuple[Alternative, int], ...]


@dataclass(frozen=True, slots=True)
class _Plan:
    """Everything to score for records to which the same tasks apply.

    Args:
        texts: the possible answers.
        continuations: token ids of the answers, in their order, and of their alternatives; none occurs twice.
    """

    texts: tuple[_Text, ...]
    continuations: tuple[tuple[int, ...], ...]


class DirectAnswers:
    """Finds direct answers without decoding.

    Args:
        prompt_tokenizer: tokenizer of the model.
    """

    def __init__(self, prompt_tokenizer: PromptTokenizer) -> None:
        self._prompt_tokenizer = prompt_tokenizer
        self._plans: dict[tuple[bool, ...], _Plan | None] = {}

    def find(
        self, records: Mapping[str, Record], requests: Sequence[Request], score: Scorer
    ) -> dict[str, DirectAnswer]:
        """Return the greedy answer by record id; records whose answer is not certain are left out.

        Args:
            records: records by id.
            requests: a request for the direct answer to each of them.
            score: scores continuations with the model.
        """
        plans = {request.record_id: plan for request in requests if (plan := self._plan(records[request.record_id]))}
        scored = score(
            ScoreRequest(request.record_id, request.prompt, plans[request.record_id].continuations)
            for request in requests
            if request.record_id in plans
        )
        return {one.record_id: found for one in scored if (found := _answer(plans[one.record_id], one.logps))}

    def _plan(self, record: Record) -> _Plan | None:
        """Return what to score for a record; None if too many answers are possible, or none without reasoning."""
        key = tuple(applies(task, record) for task in self._prompt_tokenizer.format.tasks)
        if key not in self._plans:
            completions = list(_completions(record, self._prompt_tokenizer))
            self._plans[key] = _made_plan(completions, self._prompt_tokenizer) if completions else None
        return self._plans[key]


def greedy_sequence(sequences: Sequence[Sequence[int]], logps: Sequence[float]) -> int | None:
    """Return the index of the sequence that greedy decoding writes; None if that cannot be told.

    The probability of a next token is bounded from below by the given sequences that contain it. The probability of
    any other next token is bounded from above by its own given sequences plus the probability of all other sequences.

    Args:
        sequences: distinct token ids, each with the end token.
        logps: log-probability of each, in nats.
    """
    masses = [exp(logp) for logp in logps]
    if not isfinite(sum(masses)):
        return None
    others = max(0.0, 1 - sum(masses)) + _ROUNDING
    left, place = list(range(len(sequences))), 0
    while True:
        by_token: dict[int, list[int]] = {}
        for index in left:
            by_token.setdefault(sequences[index][place], []).append(index)
        branches = sorted(by_token.values(), key=lambda branch: sum(masses[index] for index in branch), reverse=True)
        first, second = (sum(masses[index] for index in branch) for branch in (*branches, [])[:2])
        if first <= second + others:
            return None
        left, place = branches[0], place + 1
        if len(left) == 1:
            return left[0]


def _answer(plan: _Plan, logps: Sequence[float]) -> DirectAnswer | None:
    index = greedy_sequence([text.ids for text in plan.texts], logps[: len(plan.texts)])
    if index is None:
        return None
    text = plan.texts[index]
    found = [alternative for alternative, _ in text.alternatives]
    scores = probabilities(found, [logps[place] for _, place in text.alternatives]) if found else {}
    return DirectAnswer(text.completion, len(text.ids) - 1, scores)


def _completions(record: Record, prompt_tokenizer: PromptTokenizer) -> Iterator[str]:
    """Yield the direct answer for each combination of the labels of the tasks that apply to a record."""
    format = prompt_tokenizer.format
    tasks = [task for task in format.tasks if applies(task, record)]
    if prod(len(task.labels) for task in tasks) > _MOST_TEXTS:
        return
    for labels in product(*(task.labels for task in tasks)):
        verdicts = {task.name: label for task, label in zip(tasks, labels, strict=True)}
        try:
            yield format.target(replace(record, labels=verdicts), "direct")
        except InputError:  # the format has no such answer
            continue


def _made_plan(completions: Sequence[str], prompt_tokenizer: PromptTokenizer) -> _Plan:
    format = prompt_tokenizer.format
    answers = list(dict.fromkeys(map(tuple, prompt_tokenizer.completions(completions))))
    places = {ids: place for place, ids in enumerate(answers)}
    texts = []
    for ids in answers:
        completion = prompt_tokenizer.decode(ids[:-1])
        found = alternatives(completion, format.tasks, format)
        with_end = prompt_tokenizer.completions([one.text for one in found]) if found else []
        own = [tuple(one if other.ends else one[:-1]) for one, other in zip(with_end, found, strict=True)]
        numbered = [(other, places.setdefault(one, len(places))) for other, one in zip(found, own, strict=True)]
        texts.append(_Text(completion, ids, tuple(numbered)))
    return _Plan(tuple(texts), tuple(places))
