"""The table of docs/plan.md is that of the stored result."""

import json
import shutil
from pathlib import Path

import pytest
from plan_memory import BEGIN, DOCS, END, merged, write_table

ROWS = json.loads(Path(DOCS).parents[1].joinpath("benchmarks", "results", "plan", "memory.json").read_text())


def test_the_page_has_the_table_of_the_result(tmp_path: Path) -> None:
    page = tmp_path / "plan.md"
    shutil.copy(DOCS, page)
    write_table(ROWS, page)
    assert page.read_text() == DOCS.read_text()


def test_only_the_table_is_replaced(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{BEGIN}old\n{END}after\n")
    row = {"name": "rsft nano LoRA", "predicted": 0.66e9, "measured": 0.6e9, "process": 0.5e9}
    row |= {"measured_process": 0.4e9}
    write_table([row], page)
    before, table, after = page.read_text().partition(
        "| R-SFT, 0.02 M parameters (the process), LoRA | 0.66 | 0.60 | 1.10 "
    )
    assert before.startswith(f"before\n{BEGIN}| fit |")
    assert table
    assert after == f"| 0.16, 0.20 |\n{END}after\n"


def test_a_page_without_a_table_is_refused(tmp_path: Path) -> None:
    (tmp_path / "page.md").write_text("nothing\n")
    with pytest.raises(SystemExit, match=r"page\.md: no table between"):
        write_table(ROWS, tmp_path / "page.md")


def test_every_measured_fit_is_predicted_within_15_percent() -> None:
    assert all(abs(row["predicted"] / row["measured"] - 1) < 0.15 for row in ROWS)


def test_a_new_measurement_keeps_the_other_rows_and_the_order_of_the_fits() -> None:
    old = [{"name": "one", "measured": 1}, {"name": "three", "measured": 3}, {"name": "removed", "measured": 0}]
    new = [{"name": "two", "measured": 2}, {"name": "one", "measured": 9}]
    assert [row["measured"] for row in merged(old, new, ["one", "two", "three"])] == [9, 2, 3]
