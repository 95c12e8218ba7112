import json
from pathlib import Path

import pytest

from guardreasoner.evaluation.comparison.published import AVERAGES, MODELS, ROWS


@pytest.mark.parametrize("task", AVERAGES)
def test_the_printed_means_follow_from_the_rows(task: str) -> None:
    rows = [row for (_, of), row in ROWS.items() if of == task]
    assert sum(row.n for row in rows) == AVERAGES[task].n
    for place, printed in enumerate(AVERAGES[task].f1):
        assert sum(row.n * row.f1[place] for row in rows) / AVERAGES[task].n == pytest.approx(printed, abs=0.0051)


def test_the_rows_are_those_that_are_known_of_the_released_predictions(shared_data: Path) -> None:
    known = json.loads((shared_data / "published_scores.json").read_text())
    by_benchmark = {benchmark: row for (benchmark, _), row in ROWS.items() if benchmark != "WildGuardTest"}
    for model, benchmarks in known.items():
        for benchmark, values in benchmarks.items():
            assert by_benchmark[benchmark].f1[MODELS.index(model)] == values["paper"]
