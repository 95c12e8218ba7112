"""The page of studies: what holds first, then tables, from stored results."""

import re
from pathlib import Path
from typing import Any

import pytest
from evidence.__main__ import STUDIES
from evidence.claims import judge
from evidence.results import write_result
from evidence.study import ROOT, Claim, Study

from guardreasoner.evaluation.intervals import Estimate
from tests.support.studies import STUDY, THREE_ARMS, result, start, store, study_file


def page_of(folder: Path, monkeypatch: pytest.MonkeyPatch, **changes: Any) -> str:
    """Return the page of a study with changes, from the results in a folder."""
    argv = ["--page-only", "--results", folder / "results", "--page", folder / "page.md"]
    assert start(monkeypatch, study_file(folder, **changes), *argv) == 0
    return (folder / "page.md").read_text()


def test_the_page_says_what_holds_first_and_is_the_same_each_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store(tmp_path / "results")
    page, plot = page_of(tmp_path, monkeypatch), (tmp_path / "page-toy-toy.svg").read_bytes()
    first = page.splitlines()[:10]
    assert "- A beats B on hard records: **holds** on toy, +75.0 (+75.0 to +75.0): above 0." in first
    assert any(line.startswith("- B beats A: **does not hold** on toy, -50.0 (-65.") for line in first)
    assert "R-SFT is **not saturated** here, since longer training helps: Arm A minus Arm B is +50.0" in page
    assert "| `a` | Arm A | 1, 2, 3 | 50.0 ± 0.0 | 75.0 ± 0.0 |" in page
    assert "| Arm A | 5 | 3 | 0 | 1,000 |" in page
    assert "| Arm B | +75.0 (+75.0 to +75.0) | < 0.001 | 3 of 3 |" in page
    assert "- arm C: needs an option" in page
    again = page_of(tmp_path, monkeypatch)
    assert (page, plot) == (again, (tmp_path / "page-toy-toy.svg").read_bytes())
    assert b"+75</text>" in plot  # beyond the border, so the value is written


@pytest.mark.parametrize("seeds", [[1], [1, 2]])
def test_fewer_than_three_seeds_decide_nothing(
    seeds: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store(tmp_path / "results", seeds)
    page, count = page_of(tmp_path, monkeypatch, data={"toy": {}, "other": {}}), len(seeds)
    first = page.splitlines()[:10]
    found = f"+75.0 (+75.0 to +75.0), {count} of 3 seeds: fewer than 3 seeds decide nothing."
    assert f"- A beats B on hard records: **undecided** on toy, {found}" in first
    assert "- Not run yet: other; some arms or seeds of toy." in first
    assert f"- toy: Arm A (seeds: {3 - count}); Arm B (seeds: {3 - count})\n- other: all 2 arms (seeds: 3)" in page
    assert "Whether R-SFT is saturated here is **undecided**" in page
    assert f"| Arm B | +75.0 (+75.0 to +75.0) | – | {count} of {count} |" in page


def test_results_in_another_folder_have_their_page_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store(tmp_path / "mine")
    before = (ROOT / "docs" / "evidence.md").read_text()
    assert start(monkeypatch, study_file(tmp_path), "--page-only", "--results", tmp_path / "mine") == 0
    page = (tmp_path / "mine" / "evidence.md").read_text()
    assert "**holds** on toy" in page
    assert f"from `{tmp_path / 'mine'}`; do not edit" in page
    assert (ROOT / "docs" / "evidence.md").read_text() == before


def test_a_verdict_from_former_configs_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store(tmp_path / "results")
    page = page_of(tmp_path, monkeypatch, data={"toy": {"former": ["b"]}})
    assert "- A beats B on hard records: **holds** on toy, +75.0 (+75.0 to +75.0) with former configs: above 0." in page


def test_the_page_counts_the_seeds_of_each_data_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store(tmp_path / "results", [1, 2])
    page = page_of(tmp_path, monkeypatch, data={"toy": {"seeds": [1, 2, 4, 5]}, "other": {"seeds": [7]}})
    assert ", 2 of 4 seeds: fewer than 3 seeds decide nothing." in page
    assert "- toy: Arm A (seeds: 2); Arm B (seeds: 2)\n- other: all 2 arms (seeds: 1)" in page


def test_the_claims_of_all_shipped_studies_are_in_the_first_ten_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = tmp_path / "page.md"
    argv = ["--page-only", "--results", tmp_path, "--page", page]
    assert start(monkeypatch, STUDIES / "arms.yaml", *argv) == 0
    first = page.read_text().splitlines()[:10]
    studies = [Study.load(path) for path in sorted(STUDIES.glob("*.yaml"))]
    claims = dict.fromkeys(claim.text for study in studies for claim in study.claims)
    assert first[1:-1] == [f"- {text}: not run yet." for text in claims]
    assert first[-1] == f"- Not run yet: {', '.join(name for study in studies for name in study.data)}."


# Difference or share with its interval; what is required; the state and the reason.
JUDGED: list[tuple[tuple[float, float, float], dict[str, float], str, str]] = [
    ((3.0, 0.5, 5.5), {}, "holds", "above 0"),
    ((-3.0, -5.5, -0.5), {}, "does not hold", "below 0"),
    ((3.0, -0.5, 6.5), {}, "undecided", "may be 0"),
    ((0.0, 0.0, 0.0), {}, "undecided", "may be 0"),
    ((6.0, 0.5, 11.0), {"at_least": 5}, "holds", "at least 5, above 0"),
    ((6.0, -0.5, 12.0), {"at_least": 5}, "undecided", "at least 5, may be 0"),
    ((3.1, 0.4, 5.9), {"at_least": 5}, "does not hold", "above 0, below 5"),
    ((-3.0, -5.0, -1.0), {"at_least": 5}, "does not hold", "below 0, below 5"),
    ((1.0, 0.5, 1.5), {"at_least": -2}, "holds", "above 0"),
    ((0.0, -1.5, 1.5), {"at_least": -2}, "holds", "above -2"),
    ((-1.0, -1.5, -0.5), {"at_least": -2}, "holds", "above -2, below 0"),
    ((-1.0, -2.5, 0.5), {"at_least": -2}, "undecided", "may be below -2"),
    ((-4.0, -5.0, -3.0), {"at_least": -2}, "does not hold", "below -2"),
    ((0.5, 0.1, 1.0), {"at_most": 1}, "holds", "at most 1 %"),
    ((0.5, 0.1, 1.1), {"at_most": 1}, "undecided", "may be above 1 %"),
    ((3.0, 1.1, 5.0), {"at_most": 1}, "does not hold", "above 1 %"),
]


@pytest.mark.parametrize(("found", "required", "state", "why"), JUDGED)
def test_claims_are_judged(found: tuple[float, float, float], required: dict[str, float], state: str, why: str) -> None:
    assert judge(Estimate(*found), Claim("", "a", **required)) == (state, why)  # type: ignore[arg-type]


def test_a_claim_that_does_not_hold_says_what_was_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store(tmp_path / "results")
    tried = "three learning rates."
    claims = [claim | {"tried": tried} for claim in STUDY["claims"]]
    lines = page_of(tmp_path, monkeypatch, claims=claims).splitlines()[:10]
    assert [line.endswith(" Tried: three learning rates.") for line in lines[1:3]] == [False, True]


def test_the_ratio_of_a_cost_is_named_with_the_difference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store(tmp_path / "results")
    costs = {"rsft": {"wall": 3.0, "cpu": 10.0, "starts": 1.0, "generated": 700.0}}
    for seed in (1, 2, 3):
        write_result(tmp_path / "results" / "toy", result("b", seed, "10" * 20, "1" * 40, costs=costs))
    more = {"rsft": {"cpu": 900.0, "starts": 1.0, "generated": 9.0}}
    write_result(tmp_path / "results" / "toy", result("a", 4, "1" * 40, "4" * 40, costs=more))  # a seed that b lacks
    claims = [{"text": f"A beats B, {cost}", "better": "a", "than": "b", "cost": cost} for cost in ("cpu", "generated")]
    lines = page_of(tmp_path, monkeypatch, claims=claims, seeds=[1, 2, 3, 4]).splitlines()
    assert lines[1].endswith(": above 0 (at 0.50 × its CPU time).")
    assert lines[2].endswith(": above 0 (at 0.00 × its generated tokens).")


def test_a_share_is_compared_with_its_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for seed in (1, 2, 3):
        write_result(tmp_path / "results" / "toy", result("a", seed, "1" * 39 + "?", "4" * 40))
    claim = {"text": "Unparsed", "better": "a", "figure": "unparsed", "at_most": 1}
    lines = page_of(tmp_path, monkeypatch, claims=[claim]).splitlines()
    assert lines[1] == "- Unparsed: **undecided** on toy, 2.5 (0.0 to 7.3): may be above 1 %."


def test_results_of_former_configs_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store(tmp_path / "results")
    line = "With former configs, and not run again yet: Arm B."
    assert line in page_of(tmp_path, monkeypatch, data={"toy": {"former": ["b"]}}).splitlines()
    assert "former configs" not in page_of(tmp_path, monkeypatch)


def test_claims_of_two_studies_with_the_same_text_share_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store(tmp_path / "results")
    path = study_file(tmp_path, data={"real": {}})
    path.rename(path.with_name("another.yaml"))
    lines = page_of(tmp_path, monkeypatch).splitlines()
    assert [line.partition(":")[0] for line in lines[1:4]] == [
        "- A beats B on hard records",
        "- B beats A",
        "- Not run yet",
    ]
    assert lines[3] == "- Not run yet: real."


def test_arms_that_sample_are_shown_beside_the_tokens_that_they_generated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for arm, generated, figures in (("a", 1000.0, {}), ("b", 1500.0, {"groups without signal": 62.5})):
        costs = {"rsft": {"cpu": 5.0, "starts": 1.0, "generated": generated}}
        changes: dict[str, Any] = {"costs": costs, "figures": {"hard": 50.0, "all": 75.0, **figures}}
        write_result(tmp_path / "results" / "toy", result(arm, 1, "1110", "44..", **changes))
    page = page_of(tmp_path, monkeypatch, sampled=["a", "b"])
    assert "| Arm A | 50.0 | 75.0 | 1,000 | 1.00 × | 5 | – |" in page
    assert "| Arm B | 50.0 | 75.0 | 1,500 | 1.50 × | 5 | 62.5 |" in page
    assert page.count("groups without signal") == 1
    without = page_of(tmp_path, monkeypatch)
    assert "| arm | seeds | hard records, sampled outputs | all right | groups without signal |" in without


def test_the_value_of_chosen_outputs_has_three_decimal_places_and_a_note(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store(tmp_path / "results")
    assert "π(chosen)" not in page_of(tmp_path, monkeypatch)
    write_result(tmp_path / "results" / "toy", result("a", 1, "1" * 40, "4" * 40, figures={"NLL of chosen": 0.1234}))
    page = page_of(tmp_path, monkeypatch)
    assert "| `a` | Arm A | 1, 2, 3 | 50.0 ± 0.0 | 75.0 ± 0.0 | 0.123 |" in page
    assert "\n\nπ(chosen) is the probability" in page


def test_a_data_set_has_its_own_compared_arm_and_may_lack_longer_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store(tmp_path / "results")
    toy = {"arms": ["a", "b"], "compare": "b"}
    page = page_of(tmp_path, monkeypatch, data={"toy": toy}, arms=THREE_ARMS, regime=["b", "c"])
    assert "| Arm B minus | hard records |" in page
    assert "| Arm A | -75.0 (-75.0 to -75.0) |" in page
    assert "saturated" not in page


@pytest.mark.parametrize("shorter", [990, 1000])
def test_longer_training_that_gains_little_is_saturation(
    shorter: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for seed in (1, 2, 3):
        right = {"a": "1" * 1000, "b": "1" * shorter + "0" * (1000 - shorter)}
        for arm, marks in right.items():
            write_result(tmp_path / "results" / "toy", result(arm, seed, marks, "4" * 1000))
    page = page_of(tmp_path, monkeypatch)
    assert "R-SFT is **saturated** here, since longer training gains less than 2 points: Arm A minus Arm B is +" in page


def test_an_arm_without_results_is_not_run_and_an_arm_of_other_data_is_not_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store(tmp_path / "results")
    data = {"toy": {"about": "Three arms."}, "part": {"arms": ["a", "b"]}}
    claim = {"text": "C beats A", "better": "c", "than": "a"}
    page = page_of(tmp_path, monkeypatch, data=data, arms=THREE_ARMS, claims=[claim])
    assert "- C beats A: not run yet." in page
    assert "### toy\n\nThree arms.\n\nHard test records: 40 to 40 a seed.\n\nR-SFT is" in page
    assert "| `c` |" not in page
    assert "- toy: Arm C (seeds: 3)\n- part: all 2 arms (seeds: 3)" in page


def test_a_verdict_on_some_of_the_seeds_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store(tmp_path / "results")
    page = page_of(tmp_path, monkeypatch, seeds=[1, 2, 3, 4])
    assert ": **holds** on toy, +75.0 (+75.0 to +75.0), 3 of 4 seeds: above 0.\n" in page


def test_a_vote_is_compared_with_greedy_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for seed in (1, 2, 3):  # greedy, A is right on both hard records; of its sampled outputs, half are
        write_result(tmp_path / "results" / "toy", result("a", seed, "1100", "22.."))
        write_result(tmp_path / "results" / "toy", result("b", seed, "1000", "10..", outputs=1))
    assert "| Arm B | +0.0 (" in page_of(tmp_path, monkeypatch)
    voting = STUDY["arms"] | {"b": STUDY["arms"]["b"] | {"answers": "votes"}}
    row = next(line for line in page_of(tmp_path, monkeypatch, arms=voting).splitlines() if "| Arm B | +" in line)
    assert row.startswith("| Arm B | +50.0 (")
    assert row.split("|")[2] == row.split("|")[8]


def test_arms_of_a_seed_come_from_the_same_models(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    store(tmp_path / "results")
    lineage = {"rsft": {"content": "y", "fingerprint": "f", "commit": "abc"}}
    write_result(tmp_path / "results" / "toy", result("b", 2, "10" * 20, "1" * 40, lineage=lineage))
    assert start(monkeypatch, study_file(tmp_path), "--page-only", "--results", tmp_path / "results") == 2
    message = "error: toy: a-2.json and b-2.json: they come from different rsft\nhint: run the study again"
    assert message in capsys.readouterr().err


def test_the_figures_of_the_readme_are_on_the_page() -> None:
    readme, page = ((ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "docs/evidence.md"))
    table = readme.partition("**What each part earns**")[2].partition("So train R-SFT")[0].replace("−", "-")
    figures = re.findall(r"[-+]\d+\.\d \([-+]\d+\.\d to [-+]\d+\.\d\)", table)
    assert len(figures) > 5
    assert [figure for figure in figures if figure not in page] == []
