"""The page that says whether a run is better, how sure that is, and what it does: complete in one file."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from guardreasoner.evaluation.comparison import Comparison
from guardreasoner.evaluation.comparison.criteria import Criterion
from guardreasoner.report.comparisons import comparison_notes, left_out_notes
from guardreasoner.report.origin_sections import curves_section, lineage_section, mining_section
from guardreasoner.report.origins import origins
from guardreasoner.report.rendering import render
from guardreasoner.report.score_sections import (
    confusion_section,
    criteria_section,
    f1_section,
    figures_section,
    flips_section,
    hard_section,
    pairs_section,
    published_section,
    ratings_section,
    reasoning_section,
)
from guardreasoner.report.tables import Table
from guardreasoner.report.verdict import verdict


@dataclass(frozen=True)
class Asked:
    """What a page of runs is made of beside their comparison.

    Args:
        runs: by name, where the predictions lie, one a seed.
        remarks: what a reader of the figures should know first.
        command: how the page is made, as words of a command line.
        created: when, date and time.
        resamples: how many the intervals are made of.
        seed: of those, and of the choice of examples.
        examples: most of them that are shown of a direction of flips.
        logs: folders of event files, instead of those that the lineage leads to.
        rollouts: folders of rollouts, instead of those.
        ratings: tables of what people thought of the reasoning; none where nobody rated it.
        rating_notes: what their figures mean.
    """

    runs: Mapping[str, Sequence[str]]
    remarks: Sequence[str]
    command: str
    created: str
    resamples: int
    seed: int
    examples: int
    logs: Sequence[Path] = ()
    rollouts: Sequence[Path] = ()
    ratings: Sequence[Table] = ()
    rating_notes: Sequence[str] = ()


def run_page(comparison: Comparison, criteria: Sequence[Criterion], asked: Asked) -> str:
    """Return the page.

    Args:
        comparison: of the runs; the last is held against the first.
        criteria: of the plan, where they were checked.
        asked: what else is shown.

    Raises:
        InputError: curves or rollouts that were named are not there, or a file cannot be read.
    """
    pairs = comparison.pairs()
    seeds = {name: len(paths) for name, paths in asked.runs.items()}
    found = origins(asked.runs)
    how = [
        f"Made with: python -m guardreasoner {asked.command}",
        f"Made at {asked.created}; {asked.resamples:,} resamples, seed {asked.seed}.",
    ]
    names = list(comparison.scores)
    return render(
        "report.html",
        title=f"{names[-1]} against {names[0]}",
        verdict=verdict(comparison, criteria),
        remarks=(*asked.remarks, *left_out_notes(comparison)),
        sections=(
            figures_section(comparison, pairs),
            f1_section(comparison),
            confusion_section(comparison, seeds),
            hard_section(comparison, pairs),
            pairs_section(comparison, pairs, comparison_notes(comparison, pairs, seeds, asked.resamples)),
            curves_section(found, asked.logs),
            mining_section(found, asked.rollouts),
            criteria_section(criteria),
            reasoning_section(comparison),
            ratings_section(asked.ratings, asked.rating_notes),
            flips_section(comparison, asked.examples, asked.seed),
            published_section(comparison),
            lineage_section(found, asked.runs, how),
        ),
    )
