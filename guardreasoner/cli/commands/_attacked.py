"""Predictions on original records and on attacked ones, which ``score``, ``compare`` and ``report`` keep apart."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from guardreasoner.evaluation.attacks import origin
from guardreasoner.records import Record
from guardreasoner.sources.named_predictions import NamedPredictions
from guardreasoner.sources.predictions import Predictions


def split_attacked(named: Sequence[NamedPredictions]) -> tuple[list[NamedPredictions], list[NamedPredictions]]:
    """Return the predictions on original records and those on attacked ones, each with all rows of ``named``.

    If a row has attacked records alone, someone named them on purpose: all records then count as originals.
    """
    originals = [_restricted(row, lambda record: origin(record) is None) for row in named]
    if not all(run.records for row in originals for run in row.seeds):
        return list(named), [_restricted(row, lambda record: False) for row in named]
    return originals, [_restricted(row, lambda record: origin(record) is not None) for row in named]


def attacked_notes(attacked: Sequence[NamedPredictions], where: str) -> list[str]:
    """Return a note on the attacked records of each path that has some.

    Args:
        attacked: the second result of :func:`split_attacked`.
        where: what becomes of these records; it follows "attacked records".
    """
    return [
        f"{path}: {len(run.records):,} attacked records {where}; robustness compares them with their originals"
        for row in attacked
        for path, run in zip(row.paths, row.seeds, strict=True)
        if run.records
    ]


def _restricted(row: NamedPredictions, is_kept: Callable[[Record], bool]) -> NamedPredictions:
    return replace(row, seeds=tuple(_predictions(run, is_kept) for run in row.seeds))


def _predictions(run: Predictions, is_kept: Callable[[Record], bool]) -> Predictions:
    records, hard = (list(filter(is_kept, some)) for some in (run.records, run.hard_records))
    ids, hard_ids = ({record.id for record in some} for some in (records, hard))
    return replace(
        run,
        records=records,
        rollouts=[rollout for rollout in run.rollouts if rollout.record_id in ids],
        more_rollouts=[rollout for rollout in run.more_rollouts if rollout.record_id in ids],
        hard_records=hard,
        hard_rollouts=[rollout for rollout in run.hard_rollouts if rollout.record_id in hard_ids],
    )
