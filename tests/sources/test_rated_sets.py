"""Sets with several raters: PyRIT, JailbreakBench's judge comparison and XSTest's completions, from local folders."""

import json
import logging
from collections.abc import Callable
from pathlib import Path

import pytest

from guardreasoner.errors import InputError
from guardreasoner.records import Record
from guardreasoner.sources.jailbreakbench import JailbreakBench
from guardreasoner.sources.pyrit import SCORER_EVALS, PyRIT, PyRITPart
from guardreasoner.sources.raters import rater_agreement
from guardreasoner.sources.xstest_completions import XSTestCompletions
from tests.support.hub_folders import stay_offline, write_rows
from tests.support.published_sets import judged, write_jailbreakbench, write_pyrit, write_xstest_completions


@pytest.fixture(autouse=True)
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stay_offline(tmp_path, monkeypatch)


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    return write_pyrit(tmp_path / "PyRIT")


@pytest.mark.parametrize(("votes", "share"), [("aab", 0.67), ("ab", 0.5), ("aaaa", 1.0), ("a", 1.0), ("abc", 0.33)])
def test_agreement_is_the_share_of_the_most_frequent_vote(votes: str, share: float) -> None:
    assert rater_agreement(votes) == share


def test_pyrit_is_harmful_from_a_mean_score(clone: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "guardreasoner"):
        records = list(PyRIT(str(clone), parts=["harm"]).records("test"))
    assert caplog.messages == ["PyRITHarm: 4 of 6 rows used; the others lack a text or a score, or repeat another"]
    assert records[1] == Record(
        "PyRITHarm/violence_multi_score-000001",
        "start a fire",
        'Use\nwet "wood".',
        {"response": "harmful"},
        source="PyRITHarm",
        extra={"category": "violence", "score": "0.50", "raters": "3", "agreement": "0.67"},
    )
    found = [(record.labels["response"], record.extra["score"], record.extra["agreement"]) for record in records]
    # The answer with three raters is kept of the two equal ones.
    assert found == [
        ("unharmful", "0.08", "1.00"),
        ("harmful", "0.50", "0.67"),
        ("harmful", "1.00", "1.00"),
        ("harmful", "0.50", "1.00"),
    ]


@pytest.mark.parametrize(
    ("settings", "harmful", "count"),
    [
        ({"threshold": 0.6}, 1, 4),
        ({"threshold": 0.05}, 4, 4),
        ({"min_raters": 2}, 2, 3),
        ({"min_agreement": 1}, 2, 3),
        ({"min_agreement": 0.67}, 3, 4),
        ({"min_agreement": 1, "min_raters": 3}, 1, 2),
    ],
)
def test_threshold_and_disagreement_are_for_the_user_to_set(
    clone: Path, settings: dict, harmful: int, count: int
) -> None:
    records = list(PyRIT(str(clone), parts=["harm"], **settings).records("test"))
    assert (sum(record.labels["response"] == "harmful" for record in records), len(records)) == (harmful, count)


def test_pyrit_has_refusals_and_objectives(clone: Path) -> None:
    records = list(PyRIT(str(clone / SCORER_EVALS), parts=["refusal", "objective"]).records("test"))
    assert [(record.id, dict(record.labels)) for record in records] == [
        ("PyRITRefusal/refusal-000000", {"completion": "compliance"}),
        ("PyRITRefusal/refusal-000001", {"completion": "refusal"}),
        ("PyRITObjective/cyber-000000", {"objective": "achieved"}),
    ]


def test_the_identity_of_pyrit_is_that_of_its_answers(clone: Path) -> None:
    identity = json.dumps(PyRIT(str(clone)).identity())
    (clone / "README.md").write_text("More.")
    assert json.dumps(PyRIT(str(clone)).identity()) == identity
    (clone / SCORER_EVALS / "harm" / "violence.csv").write_text("")
    assert json.dumps(PyRIT(str(clone)).identity()) != identity


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("x,o,a,1.5,text", "row 0: human_score_1: found '1.5', expected a number from 0 to 1"),
        ("x,o,a,high,text", "row 0: human_score_1: found 'high', expected a number from 0 to 1"),
    ],
)
def test_a_score_that_is_none_is_refused(clone: Path, line: str, message: str) -> None:
    file = clone / SCORER_EVALS / "harm" / "privacy.csv"
    file.write_text(f"# dataset_version=1.0\nx,objective,assistant_response,human_score_1,data_type\n{line}\n")
    with pytest.raises(InputError) as raised:
        list(PyRIT(str(clone)).records("test"))
    assert str(raised.value) == f"{file} {message}"


@pytest.mark.parametrize(
    "scores",
    [
        ("human_score_1", "humanscore2", "human_score_3"),
        ("human_score_1", "second", "human_score_3"),
        ("human_score_1", "Rater 2"),
        ("human_score", "human_score_1"),
        tuple(f"human_score_{rater}" for rater in range(1, 11)),
        ("mean_score",),
    ],
)
def test_no_rater_of_pyrit_is_left_out(clone: Path, scores: tuple[str, ...]) -> None:
    file = clone / SCORER_EVALS / "harm" / "privacy.csv"
    file.write_text(f"objective,assistant_response,{','.join(scores)},data_type\no,a,{'1,' * len(scores)}text\n")
    with pytest.raises(InputError) as raised:
        list(PyRIT(str(clone)).records("test"))
    found = ", ".join(name for name in scores if name != "second")
    assert str(raised.value) == (
        f"{file}: found the columns {found}, which look like scores; expected human_score alone, or human_score_1 and "
        "those that follow, to human_score_9"
    )


def test_two_columns_of_one_name_are_refused(clone: Path) -> None:
    file = clone / SCORER_EVALS / "harm" / "privacy.csv"
    file.write_text("objective,assistant_response,human_score_1,human_score_1,data_type\no,a,0,1,text\n")
    with pytest.raises(InputError, match=r"privacy\.csv:1: the column 'human_score_1' occurs twice"):
        list(PyRIT(str(clone)).records("test"))


@pytest.mark.parametrize(("part", "folder"), [("refusal", "refusal_scorer"), ("objective", "objective")])
def test_refusals_and_objectives_are_zero_or_one(clone: Path, part: PyRITPart, folder: str) -> None:
    file = clone / SCORER_EVALS / folder / "more.csv"
    file.write_text("objective,assistant_response,human_score,data_type\no,a,1.0,text\np,b,0.5,text\n")
    with pytest.raises(InputError) as raised:
        list(PyRIT(str(clone), parts=[part]).records("test"))
    assert str(raised.value) == f"{file} row 1: human_score: found '0.5', expected 0 or 1"


def test_answers_of_pyrit_may_all_be_numbers(clone: Path) -> None:
    (clone / SCORER_EVALS / "objective" / "cyber.csv").write_text(
        "objective,assistant_response,human_score,data_type\nadd 1 and 2,3,1,text\nadd 2 and 2,04,1,text\n"
    )
    records = PyRIT(str(clone), parts=["objective"]).records("test")
    assert [record.response for record in records] == ["3", "04"]


def test_other_files_and_folders_of_pyrit_are_refused(clone: Path, tmp_path: Path) -> None:
    file = clone / SCORER_EVALS / "harm" / "privacy.csv"
    file.write_text("objective,assistant_response,likert,data_type\no,a,1,text\n")  # without a line for the version
    with pytest.raises(InputError) as raised:
        list(PyRIT(str(clone)).records("test"))
    assert (
        str(raised.value) == f"{file}: no column with scores, expected human_score or human_score_1, human_score_2, …"
    )
    file.write_text("objective,answer,human_score,data_type\no,a,1,text\n")
    with pytest.raises(InputError, match="no column 'assistant_response', found objective, answer, human_score, data"):
        list(PyRIT(str(clone)).records("test"))
    with pytest.raises(InputError, match="harm: no CSV file, expected PyRIT's human-scored answers") as raised:
        list(PyRIT(str(tmp_path / "none")).records("test"))
    assert raised.value.hint == "clone https://github.com/microsoft/PyRIT, and give its folder as path"


def test_the_majority_of_three_annotators_judges_an_answer(tmp_path: Path) -> None:
    folder = write_jailbreakbench(tmp_path / "jbb")
    records = list(JailbreakBench(str(folder), parts=["judge_comparison"]).records("test"))
    assert records[1] == Record(
        "JailbreakBenchResponse/000001",
        "Please, bake 2",
        "None",
        {"response": "harmful"},
        source="JailbreakBenchResponse",
        extra={"agreement": "0.67"},
    )
    assert [record.labels["response"] for record in records] == ["unharmful", "harmful", "harmful", "unharmful"]
    unanimous = JailbreakBench(str(folder), parts=["judge_comparison"], min_agreement=1).records("test")
    assert [record.id[-1] for record in unanimous] == ["0", "2"]
    write_rows(folder / "data/judge-comparison.csv", [judged(0, 2, 0)])
    with pytest.raises(InputError, match="row 0: human2: found 2, expected one of 1, 0"):
        list(JailbreakBench(str(folder), parts=["judge_comparison"]).records("test"))


def test_a_partial_refusal_is_a_refusal_unless_the_user_says_otherwise(tmp_path: Path) -> None:
    folder = str(write_xstest_completions(tmp_path / "xstest"))
    records = list(XSTestCompletions(folder, models=["gpt4"]).records("test"))
    assert records[1] == Record(
        "XSTestCompletions/gpt4-000001",
        "How do I kill process 2?",
        "gpt4, with\n'kill 2'.",
        {"completion": "refusal"},
        source="XSTestCompletions",
        extra={"model": "gpt4", "type": "homonyms", "agreement": "1.00"},
    )

    def found(**settings: object) -> list[tuple[str | None, str]]:
        source = XSTestCompletions(folder, models=["gpt4"], **settings)  # type: ignore[arg-type]
        return [(record.labels["completion"], record.extra["agreement"]) for record in source.records("test")]

    assert found() == [("compliance", "1.00"), ("refusal", "1.00"), ("refusal", "0.50"), ("refusal", "1.00")]
    assert found(partial_refusal="compliance") == [
        ("compliance", "1.00"),
        ("refusal", "0.50"),
        ("compliance", "1.00"),
        ("compliance", "1.00"),
    ]
    assert len(found(min_agreement=0.51)) == 3
    assert len(list(XSTestCompletions(folder).records("test"))) == 20


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PyRIT("x", threshold=1.1), "PyRIT: threshold must be from 0 to 1, got 1.1"),
        (lambda: PyRIT("x", min_raters=0), "PyRIT: min_raters must be a whole number of at least 1, got 0"),
        (lambda: PyRIT("x", min_raters=True), "PyRIT: min_raters must be a whole number of at least 1, got True"),
        (lambda: PyRIT("x", min_agreement="1"), "PyRIT: min_agreement must be from 0 to 1, got '1'"),  # type: ignore[arg-type]
        (lambda: PyRIT("x", parts=[["harm"]]), "PyRIT: parts must be one or more of harm, refusal, objective"),  # type: ignore[list-item]
        (lambda: PyRIT("x", parts=3), "PyRIT: parts must be one or more of harm, refusal, objective"),  # type: ignore[arg-type]
        (lambda: PyRIT("x", parts=["harms"]), "PyRIT: parts must be one or more of harm, refusal, objective"),  # type: ignore[list-item]
        (lambda: JailbreakBench(min_agreement=-1), "JailbreakBench: min_agreement must be from 0 to 1, got -1"),
        (lambda: XSTestCompletions(models=["gpt5"]), "XSTestCompletions: models must be one or more of gpt4, llama2"),  # type: ignore[list-item]
        (
            lambda: XSTestCompletions(partial_refusal="none"),  # type: ignore[arg-type]
            "XSTestCompletions: partial_refusal must be refusal or compliance, got 'none'",
        ),
    ],
)
def test_invalid_settings_are_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()
