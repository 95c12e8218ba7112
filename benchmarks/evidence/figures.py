"""The figures of one test: what its predictions score, record by record and in all."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from evidence.results import NOT_HARD
from evidence.study import AnswerKind
from guardreasoner.errors import InputError
from guardreasoner.evaluation.scoring import score
from guardreasoner.evaluation.scoring.hard_samples import hard_votes
from guardreasoner.evaluation.scoring.labels import collect_labels
from guardreasoner.evaluation.scoring.over_refusal import over_refusal
from guardreasoner.evaluation.scoring.probabilities import POOLED
from guardreasoner.prompts import answer_block
from guardreasoner.sources.predictions import Predictions, read_predictions
from guardreasoner.sources.rollouts import read_costs
from guardreasoner.workflow.manifest import fingerprint


def read_figures(folder: Path, answers: AnswerKind) -> dict[str, Any]:
    """Return the fields of a result that follow from a folder of predictions.

    Args:
        folder: What ``test`` wrote.
        answers: What answers a record.

    Raises:
        InputError: the folder has no outputs for hard records, or no votes although they answer.
    """
    found = read_predictions(folder)
    if answers == "votes":
        found = _voted(folder, found)
    tasks, format = found.tasks, found.format
    labels = collect_labels(folder.name, found.records, found.rollouts, tasks, format=format)
    right: dict[str, str] = {}
    for benchmark in labels:
        rows = zip(benchmark.ids, benchmark.correct(), benchmark.unparsed(), strict=True)
        right |= {name: "?" if unparsed else str(int(correct)) for name, correct, unparsed in rows}
    votes = hard_votes(found.hard_records, found.hard_rollouts, tasks, format=format)
    if votes is None:
        raise InputError(f"{folder}: no outputs for hard records")
    ids, outputs = sorted(right), votes.samples // len(votes.correct_share)
    counts = {name: round(outputs * (share or 0.0)) for name, share in votes.correct_share.items()}
    scored = score(
        *(folder.name, found.records, found.rollouts, tasks, "strict", found.hard_records, found.hard_rollouts),
        resamples=0,
        label_scores=found.scores,
        format=format,
    )
    assert scored.hard is not None
    hard_right = [right[name] == "1" for name in counts]
    figures: dict[str, float | None] = {
        "hard": scored.hard.accuracy.value,
        "hard, greedy": 100 * sum(hard_right) / len(hard_right),
        "all": scored.accuracy.value,
        "unparsed": 100 * scored.unparsed / scored.records,
        **{f"F1 {row.task}": row.positive_f1.value for row in scored.averages},
    }
    asked = next((task.name for task in tasks if task.flags), tasks[0].name)
    kind = "votes" if answers == "votes" else found.rollouts[0].speed
    for row in scored.probabilities:
        if (row.task, row.kind) == (asked, kind) and (row.benchmark == POOLED or len(labels) == 1):
            figures["recall at 1 % FPR"] = row.recall_at[0.01].value
    for row in over_refusal([[labels]], found.records, tasks, "strict", resamples=0):
        figures["over-refusal"] = row.rows[-1].false_positive_rate.value
    for row in scored.steerability:
        figures[f"steerability, {row.task}, {row.benchmark}"] = row.both_right.value
    if costs := read_costs([folder]):
        figures["tokens an output"] = sum(c.tokens for c in costs) / sum(c.outputs for c in costs)
    conversations = {record.id: replace(record, policy=None).content_key() for record in found.records}
    numbers: dict[str, int] = {}
    return {
        "groups": [numbers.setdefault(conversations[name], len(numbers)) for name in ids],
        "records": fingerprint(ids)[:16],
        "right": "".join(right[name] for name in ids),
        "hard": "".join(str(counts[name]) if name in counts else NOT_HARD for name in ids),
        "outputs": outputs,
        "figures": {name: None if value is None else round(value, 4) for name, value in figures.items()},
    }


def _voted(folder: Path, found: Predictions) -> Predictions:
    """Return predictions whose answer to each record is the most frequent verdict of the outputs that vote."""
    votes = found.scores.get("votes")
    if not votes:
        raise InputError(f"{folder}: no votes", "its test needs --model.votes")

    def verdict(shares: Mapping[str, Mapping[str, float]]) -> str:
        labels = {
            task.name: max(task.labels, key=lambda label: shares[task.name].get(label, 0.0))
            for task in found.tasks
            if shares.get(task.name)
        }
        return answer_block(labels, found.tasks)

    rollouts = [replace(one, completion=verdict(votes.get(one.record_id, {}))) for one in found.rollouts]
    by_id = {rollout.record_id: rollout for rollout in rollouts}
    hard = [by_id[record.id] for record in found.hard_records]
    return replace(found, rollouts=rollouts, hard_rollouts=hard)
