"""The probability of each label of a task, from the log-probabilities of the texts that a guard could have written.

For each task with a verdict, and for each of its labels, there is one alternative text: the guard's own reasoning, the
answer block with its own verdicts up to that task, then the label. An engine scores the texts
(:meth:`guardreasoner.generators.Generator.score`), and the scores are normalized over the labels of the task.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import takewhile

from guardreasoner.errors import InputError
from guardreasoner.formats import Alternative, GuardFormat
from guardreasoner.formats.published import PublishedFormat
from guardreasoner.generators import Generator, ScoreRequest
from guardreasoner.model.prompt_tokenizer import PromptTokenizer
from guardreasoner.prompts import answer_block, parse, reasoning_of
from guardreasoner.records import Answer
from guardreasoner.tasks import Task

Probabilities = Mapping[str, Mapping[str, float]]
"""Probability by task name and label; the labels of a task sum to 1."""


def alternatives(completion: str, tasks: Sequence[Task], format: GuardFormat | None = None) -> list[Alternative]:
    """Return the alternatives of every task that has a verdict in a completion, one per label.

    The reasoning is as the guard wrote it, and the answer block is in the form of training targets
    (:func:`guardreasoner.prompts.answer_block`), with "None" for earlier tasks without a verdict.

    Args:
        completion: a generated text.
        tasks: tasks of the answer block, in its order.
        format: format of the completion, which then says the alternatives itself; None: GuardReasoner's own.
    """
    if isinstance(format, PublishedFormat):
        return list(format.alternatives(completion))
    verdicts, reasoning = parse(completion, tasks), reasoning_of(completion, tasks)
    own_lines = answer_block(verdicts, tasks).split("\n")
    if reasoning:
        own_lines[0] = f"{reasoning}\n\n{own_lines[0]}"
    found = []
    for number, task in enumerate(tasks, start=1):
        if verdicts[task.name] is None:
            continue
        ends = number == len(tasks)
        rest = [] if ends else [f"{tasks[number].key}:"]
        for label in task.labels:
            text = "\n".join([*own_lines[:number], f"{task.key}: {label}", *rest])
            found.append(Alternative(task.name, label, text, ends))
    return found


def label_scores(
    answers: Sequence[Answer], engine: Generator, prompt_tokenizer: PromptTokenizer
) -> list[Probabilities]:
    """Return the probabilities of the labels of each answer; tasks without a verdict have none.

    Args:
        answers: answers of the model.
        engine: engine that scores the alternatives.
        prompt_tokenizer: tokenizer of the model.

    Raises:
        InputError: the engine cannot score, or does not return one score for each alternative.
    """
    format = prompt_tokenizer.format
    all_alternatives = [alternatives(answer.rollout.completion, format.tasks, format) for answer in answers]
    asked = [number for number, some in enumerate(all_alternatives) if some]

    def requests() -> Iterator[ScoreRequest]:
        for number in asked:
            record, speed = answers[number].record, answers[number].rollout.speed
            prompt, text = prompt_tokenizer.prompt(record, speed), prompt_tokenizer.text(record, speed)
            yield score_request(record.id, prompt, text, all_alternatives[number], prompt_tokenizer)

    found: list[Probabilities] = [{} for _ in answers]
    scored = engine.score(requests())
    for number in asked:
        scores = next(scored, None)
        if scores is None or (scores.record_id, len(scores.logps)) != (
            answers[number].record.id,
            len(all_alternatives[number]),
        ):
            raise InputError(f"{type(engine).__name__} returned other scores than were requested")
        found[number] = probabilities(all_alternatives[number], scores.logps)
    return found


def vote_shares(verdicts: Sequence[Mapping[str, str | None]]) -> Probabilities:
    """Return the share of outputs with each verdict, by task and label; shares of unparsed outputs are missing.

    Args:
        verdicts: verdicts of the outputs for one record.
    """
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for output in verdicts:
        for task, label in output.items():
            if label is not None:
                counts[task][label] += 1
    return {task: {label: n / len(verdicts) for label, n in labels.items()} for task, labels in counts.items()}


def score_request(
    record_id: str,
    prompt: Sequence[int],
    text: str,
    alternatives: Sequence[Alternative],
    prompt_tokenizer: PromptTokenizer,
) -> ScoreRequest:
    """Return the request for the scores of alternatives.

    The tokens that all alternatives begin with count as part of the prompt, because their log-probabilities are the
    same for all and cancel out.

    Args:
        record_id: identifies the record.
        prompt: token ids of the prompt.
        text: the prompt as text.
        alternatives: alternatives of the completion; at least one.
        prompt_tokenizer: tokenizer of the model.
    """
    texts = [alternative.text for alternative in alternatives]
    with_end = prompt_tokenizer.completions(texts)
    ids = [one if other.ends else one[:-1] for one, other in zip(with_end, alternatives, strict=True)]
    columns = zip(*(one[:-1] for one in ids), strict=False)  # each keeps a last token of its own
    shared = [column[0] for column in takewhile(lambda column: len(set(column)) == 1, columns)]
    shared_text = prompt_tokenizer.decode(shared)
    if not all(one.startswith(shared_text) for one in texts):
        shared, shared_text = [], ""  # the text of these tokens depends on what follows them
    end_text = prompt_tokenizer.tokenizer.eos_token
    return ScoreRequest(
        record_id,
        (*prompt, *shared),
        tuple(tuple(one[len(shared) :]) for one in ids),
        text + shared_text,
        tuple(other.text[len(shared_text) :] + end_text * other.ends for other in alternatives),
    )


def probabilities(alternatives: Sequence[Alternative], logps: Sequence[float]) -> Probabilities:
    """Return the probability of each label among the labels of its task.

    Args:
        alternatives: alternatives of one completion.
        logps: the score of each, in nats.

    Returns:
        Probabilities by task and label. A task is left out if one of its scores is not a number or all are -∞.
    """
    by_task: dict[str, dict[str, list[float]]] = {}
    for alternative, logp in zip(alternatives, logps, strict=True):
        by_task.setdefault(alternative.task, {}).setdefault(alternative.label, []).append(logp)
    return {task: softmax for task, scores in by_task.items() if (softmax := _softmax(scores)) is not None}


def _softmax(scores: Mapping[str, Sequence[float]]) -> dict[str, float] | None:
    most = max(logp for logps in scores.values() for logp in logps)
    weights = {label: sum(math.exp(logp - most) for logp in logps) for label, logps in scores.items()}
    total = sum(weights.values())
    return {label: weight / total for label, weight in weights.items()} if math.isfinite(total) else None
