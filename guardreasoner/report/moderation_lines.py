"""A moderation in lines: counts by task, rankings, drift."""

from collections.abc import Iterator, Sequence

from guardreasoner.evaluation.calibration import BANDS
from guardreasoner.guard.moderation_summary import Drift, ModerationSummary, Ranked, TaskSummary


def moderation_lines(summary: ModerationSummary) -> Iterator[str]:
    """Yield what was flagged, in all and by task."""
    yield (
        f"{summary.rows:,} conversations: {_share(summary.flagged, summary.rows)} flagged, "
        f"of them {summary.unparsed:,} without a clear verdict"
    )
    if summary.refused:
        yield f"  {summary.refused:,} could not be judged, such as too long ones; they are flagged and say why"
    for name, task in summary.tasks.items():
        yield f"{name}: {_task(task)}" if task.count else f"{name}: applies to none"
    if len(summary.speeds) > 1:
        yield "answers: " + ", ".join(f"{_share(n, summary.rows)} {speed}" for speed, n in summary.speeds.most_common())
    if summary.disagreeing is not None:
        yield f"second answers: {_share(summary.disagreeing, summary.rows)} differ in what they flag"
    yield from _ranking("highest scores", summary.by_score)
    yield from _ranking("largest disagreements", summary.by_disagreement)


def drift_line(drift: Drift) -> str:
    """Return the drift of a task."""
    (positive, positive_now), (unparsed, unparsed_now) = drift.positive, drift.unparsed
    distance = "no scores to compare"
    if drift.kolmogorov_smirnov is not None:
        distance = "KS {:.3f} (p {:.2g})".format(*drift.kolmogorov_smirnov)
    return (
        f"drift of {drift.task}, {drift.speed}, against {drift.records:,} records: PSI {drift.stability_index:.3f} "
        f"(by chance up to {drift.by_chance:.3f}), "
        f"{distance}, positive {100 * positive:.1f} % → {100 * positive_now:.1f} %, "
        f"without a score {100 * unparsed:.1f} % → {100 * unparsed_now:.1f} %"
    )


def _task(task: TaskSummary) -> str:
    parts = [f"{_share(task.positive, task.count)} positive"]
    if task.bands.keys() - {"unparsed"}:
        parts += [f"{band} {task.bands[band]:,}" for band in BANDS if task.bands[band]]
    else:
        verdicts = sorted(task.verdicts.items(), key=lambda item: -item[1])
        parts += [f"{verdict or 'no verdict'} {count:,}" for verdict, count in verdicts]
    return ", ".join(parts)


def _ranking(title: str, ranking: Sequence[Ranked]) -> Iterator[str]:
    if ranking:
        yield f"{title}:"
        for ranked in ranking:
            place = "" if ranked.row == ranked.id else f"  {ranked.row}"
            yield f"  {ranked.value:.4f}  {ranked.id}{place}"


def _share(count: int, total: int) -> str:
    return f"{count:,} ({100 * count / total:.1f} %)" if total else f"{count:,}"
