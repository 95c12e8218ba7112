"""The page of studies: what holds first, then tables, from stored results."""

from pathlib import Path

import pytest
from evidence.__main__ import STUDIES
from evidence.study import Study

from tests.support.studies import THREE_ARMS, start, store, study_file

SHIPPED = sorted(STUDIES.glob("*.yaml"))


def test_the_page_says_what_holds_first_and_is_the_same_each_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store(tmp_path / "results")
    argv = [study_file(tmp_path), "--page-only", "--results", tmp_path / "results", "--page", tmp_path / "page.md"]
    assert start(monkeypatch, *argv) == 0
    page, plot = (tmp_path / "page.md").read_text(), (tmp_path / "page-toy-toy.svg").read_bytes()
    first = page.splitlines()[:10]
    assert (
        "- A beats B on hard records: toy: **holds**, +75.0 (+75.0 to +75.0), 2 seeds, at 1.0 × the CPU time." in first
    )
    assert any(line.startswith("- B beats A: toy: **does not hold**, -50.0 (-65.") for line in first)
    assert "R-SFT is **not saturated** here: Arm A minus Arm B is +50.0" in page
    assert "| Arm A | 1, 2 | 50.0 ± 0.0 | 75.0 ± 0.0 |" in page
    assert "| Arm A | 5 | 3 | 0 | 1,000 |" in page
    assert "- arm C: needs an option" in page
    assert start(monkeypatch, *argv) == 0
    assert (page, plot) == ((tmp_path / "page.md").read_text(), (tmp_path / "page-toy-toy.svg").read_bytes())


def test_one_seed_or_none_decides_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store(tmp_path / "results", seeds=[1])
    argv = ["--page-only", "--results", tmp_path / "results", "--page", tmp_path / "page.md"]
    assert start(monkeypatch, study_file(tmp_path, data={"toy": {}, "other": {}}), *argv) == 0
    page = (tmp_path / "page.md").read_text()
    assert (
        "- A beats B on hard records: toy: **not decided**, +75.0 (+75.0 to +75.0), 1 seed, at 1.0 × the CPU time; "
        "other: not run yet." in page
    )
    assert "- toy: Arm A (seeds: 1); Arm B (seeds: 1)\n- other: all 2 arms (seeds: 2)" in page
    assert "Whether R-SFT is saturated here is **not decided**" in page


def test_the_claims_of_all_shipped_studies_are_in_the_first_ten_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in SHIPPED:
        page = tmp_path / f"{path.stem}.md"
        assert start(monkeypatch, path, "--page-only", "--results", tmp_path / "none", "--page", page) == 0
        lines = page.read_text().splitlines()
        claims = [claim.text for claim in Study.load(path).claims]
        assert all(any(line.startswith(f"- {text}: ") for line in lines[:10]) for text in claims)


def test_an_arm_without_results_is_not_run_and_an_arm_of_other_data_is_not_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store(tmp_path / "results")
    data = {"toy": {"about": "Three arms."}, "part": {"arms": ["a", "b"]}}
    claim = {"text": "C beats A", "better": "c", "than": "a"}
    path = study_file(tmp_path, data=data, arms=THREE_ARMS, claims=[claim])
    argv = ["--page-only", "--results", tmp_path / "results", "--page", tmp_path / "page.md"]
    assert start(monkeypatch, path, *argv) == 0
    page = (tmp_path / "page.md").read_text()
    assert "- C beats A: toy: not run yet." in page
    assert "### toy\n\nThree arms.\n\nR-SFT is" in page
    assert "| Arm C | not run | – | – |" in page
    assert "- toy: Arm C (seeds: 2)\n- part: all 2 arms (seeds: 2)" in page
