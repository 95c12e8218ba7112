"""Human ratings as tables, notes and JSON."""

import json
from io import StringIO

from rich.console import Console

from guardreasoner.report.rating_tables import rating_notes, rating_tables, summary_as_json
from guardreasoner.report.table import Table
from guardreasoner.review.rating_summary import Summary, summarize
from guardreasoner.review.ratings import TIE, Ratings
from tests.support.ratings import rating

EVIL = "<script>alert(1)</script>[red]\\b"


def rated(first: str = "R-SFT", second: str = "HS-DPO") -> Summary:
    answers = [({first: "yyny", second: "yyyy"}, second), ({first: "nyyy", second: "yyyy"}, TIE)]
    ratings = [
        rating(str(number), rater, better, **runs)
        for number, (runs, better) in enumerate(answers)
        for rater in ("ann", "bob")
    ]
    return summarize(Ratings(tuple(ratings), retracted=1), resamples=200)


def test_tables_show_raters_rates_wins_and_agreement() -> None:
    tables = {table.title: table for table in rating_tables(rated())}
    assert [*tables] == ["Raters", "Reasoning", "Which is better overall", "Agreement of raters"]
    assert [[cell.text for cell in row] for row in tables["Raters"].rows] == [["ann", "2", "0"], ["bob", "2", "0"]]
    rows = {row[0].text: [cell.text for cell in row[1:]] for row in tables["Reasoning"].rows}
    assert rows["R-SFT"] == ["2", "50.00", "100.00", "50.00", "100.00"]
    (win,) = tables["Which is better overall"].rows
    assert [cell.text for cell in win] == ["HS-DPO", "R-SFT", "1", "1", "0", "25.00", "1.000"]
    rows = {row[2].text: [cell.text for cell in row] for row in tables["Agreement of raters"].rows}
    assert rows["coherent"] == ["ann", "bob", "coherent", "4", "100.00", "1.00"]
    assert rows["fits the verdict"][-1] == "–"
    assert rows["which is better"][3] == "2"
    assert rating_notes(rated())[-1] == "Ratings and skips not counted: 1 retracted."


def test_tables_fit_a_terminal_and_names_are_escaped() -> None:
    console = Console(file=StringIO(), width=120)
    for table in rating_tables(rated(EVIL, "b")):
        assert isinstance(table, Table)
        table.show(console)
        assert "<script>" not in table.latex().replace("$<$", "")
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert EVIL in shown
    assert max(map(len, shown.splitlines())) <= 120


def test_without_ratings_there_is_only_a_note() -> None:
    empty = summarize(Ratings((), truncated=1))
    assert rating_tables(empty) == []
    assert rating_notes(empty) == [
        "No ratings.",
        "Ratings and skips not counted: 1 truncated in the file.",
    ]


def test_one_run_and_one_rater_have_no_comparisons() -> None:
    alone = summarize(Ratings((rating("r", a="yyyn"),)))
    assert [table.title for table in rating_tables(alone)] == ["Raters", "Reasoning"]
    assert len(rating_notes(alone)) == 1


def test_json_has_all_numbers() -> None:
    content = json.loads(json.dumps(summary_as_json(rated()), allow_nan=False))
    assert content["rubric"]["R-SFT"]["coherent"]["percent"] == 50
    assert len(content["rubric"]["R-SFT"]["coherent"]["percent_interval"]) == 2
    (win,) = content["wins"]
    assert (win["first"], win["first_better"], win["ties"], win["rate"], win["p"]) == ("HS-DPO", 1, 1, 25, 1)
    assert content["agreement"][0]["item"] == "coherent"
    assert content["agreement"][1]["kappa"] is None
    assert (content["records"], content["retracted"]) == (2, 1)
