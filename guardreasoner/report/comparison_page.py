"""The HTML page that compares runs (``report``): is the last better than its nearest baseline?"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from guardreasoner.evaluation.comparison import Comparison
from guardreasoner.evaluation.comparison.criteria import Criterion
from guardreasoner.evaluation.scoring.probabilities import ProbabilityScore
from guardreasoner.evaluation.scoring.slices import SliceScore
from guardreasoner.report.comparison_summary import nearest_baseline, summarize_comparison
from guardreasoner.report.comparison_tables import comparison_notes, left_out_notes
from guardreasoner.report.lineage_sections import curves_section, lineage_section, mining_section
from guardreasoner.report.page_template import render_page
from guardreasoner.report.run_lineage import lineage_of_runs
from guardreasoner.report.score_sections import (
    confusion_section,
    criteria_section,
    f1_section,
    flips_section,
    hard_section,
    over_refusal_section,
    pairs_section,
    probabilities_section,
    published_section,
    ratings_section,
    reasoning_section,
    scores_section,
    slices_section,
    steerability_sections,
)
from guardreasoner.report.table import Table


@dataclass(frozen=True)
class PageInputs:
    """What a comparison page shows besides the comparison.

    Args:
        runs: Paths of the predictions by run name, one path per training seed.
        remarks: Remarks shown at the top of the page.
        command: Arguments of the command line that makes the page.
        created: Date and time at which the page is made.
        resamples: Number of bootstrap resamples.
        seed: Seed of the resampling and of the sample of examples.
        examples: Largest number of flipped records shown per direction.
        logs: Folders of event files, instead of those of the lineage.
        rollouts: Folders of rollouts, instead of those of the lineage.
        ratings: Tables of human ratings; may be empty.
        rating_notes: Explanations of the ratings.
        probabilities: Quality of the probabilities by run, or by file of a run with several training seeds.
        slices: Scores by slice of each run; may be empty.
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
    probabilities: Mapping[str, Sequence[ProbabilityScore]] = field(default_factory=dict)
    slices: Mapping[str, Sequence[SliceScore]] = field(default_factory=dict)


def comparison_page(comparison: Comparison, criteria: Sequence[Criterion], inputs: PageInputs) -> str:
    """Return the page.

    Args:
        comparison: Comparison of the runs; the page compares the last run with its nearest baseline.
        criteria: Checked criteria of the plan; may be empty.
        inputs: What else the page shows.

    Raises:
        InputError: Given event files or rollouts are missing, or a file cannot be read.
    """
    pairs = comparison.pairs()
    seeds = {name: len(paths) for name, paths in inputs.runs.items()}
    run_lineage = lineage_of_runs(inputs.runs)
    provenance = [
        f"Made with: python -m guardreasoner {inputs.command}",
        f"Made at {inputs.created}; {inputs.resamples:,} resamples, seed {inputs.seed}.",
    ]
    names = list(comparison.scores)
    return render_page(
        "comparison.html",
        title=f"{names[-1]} against {nearest_baseline(comparison)}",
        summary=summarize_comparison(comparison, criteria),
        remarks=(*inputs.remarks, *left_out_notes(comparison)),
        sections=(
            scores_section(comparison, pairs),
            f1_section(comparison),
            confusion_section(comparison, seeds),
            probabilities_section(inputs.probabilities, inputs.resamples),
            hard_section(comparison, pairs),
            *steerability_sections(comparison),
            *([over_refusal_section(comparison, pairs)] if comparison.over_refusal else []),
            *([slices_section(inputs.slices)] if inputs.slices else []),
            pairs_section(comparison, pairs, comparison_notes(comparison, pairs, seeds, inputs.resamples)),
            curves_section(run_lineage, inputs.logs),
            mining_section(run_lineage, inputs.rollouts),
            criteria_section(criteria),
            reasoning_section(comparison),
            ratings_section(inputs.ratings, inputs.rating_notes),
            flips_section(comparison, inputs.examples, inputs.seed),
            published_section(comparison),
            lineage_section(run_lineage, inputs.runs, provenance),
        ),
    )
