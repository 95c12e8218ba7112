"""The published rows are consistent with the printed means and with the released predictions."""

import json
from pathlib import Path

import pytest

from guardreasoner.evaluation.comparison.published import AVERAGES, MODELS, ROWS


@pytest.mark.parametrize("task", AVERAGES)
def test_printed_means_follow_from_the_rows(task: str) -> None:
    rows = [row for (_, row_task), row in ROWS.items() if row_task == task]
    assert sum(row.n for row in rows) == AVERAGES[task].n
    for model, printed in enumerate(AVERAGES[task].f1):
        assert sum(row.n * row.f1[model] for row in rows) / AVERAGES[task].n == pytest.approx(printed, abs=0.0051)


def test_rows_match_the_known_published_scores(shared_data: Path) -> None:
    known = json.loads((shared_data / "published_scores.json").read_text())
    by_benchmark = {benchmark: row for (benchmark, _), row in ROWS.items() if benchmark != "WildGuardTest"}
    for model, benchmarks in known.items():
        for benchmark, values in benchmarks.items():
            assert by_benchmark[benchmark].f1[MODELS.index(model)] == values["paper"]
