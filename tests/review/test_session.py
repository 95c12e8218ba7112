"""Rating, skipping, undo, filters, and what a file holds that does not count."""

import json
from pathlib import Path

import pytest

from guardreasoner.errors import InputError
from guardreasoner.review.ratings import TIE
from guardreasoner.review.ratings_file import RatingsFile
from guardreasoner.review.session import Filter, Session
from tests.support.review_runs import FIRST, SECOND, open_session, two_runs, write_run

YES = {"coherent": True, "consistent": True, "true": False, "complete": None}


def lines(session: Session) -> list[dict[str, object]]:
    return [json.loads(line) for line in session.file.path.read_text().splitlines()]


def ids(session: Session, wanted: Filter) -> set[str]:
    return {case.record.id for case in session.matching(wanted)}


def test_a_rating_is_on_the_disk_with_the_names(tmp_path: Path) -> None:
    session = open_session(tmp_path, two_runs(tmp_path))
    case = session.cases.all[0]
    session.rate(case, {"A": YES, "B": {}}, "B", "Hm. \ud800")
    (line,) = lines(session)
    assert (line["kind"], line["record_id"], line["better"], line["rater"]) == ("rating", case.record.id, "B", "ann")
    assert line["note"] == "Hm. \ud800"
    answers = line["answers"]
    assert isinstance(answers, dict)
    assert {slot: one["run"] for slot, one in answers.items()} == {one.slot: one.run for one in case.answers}
    assert {one["run"] for one in answers.values()} == {FIRST, SECOND}
    assert (answers["A"]["true"], answers["A"]["complete"], answers["B"]["coherent"]) == (False, None, None)
    assert session.counts() == (1, 0)


@pytest.mark.parametrize(
    ("says", "better", "note", "said"),
    [
        ({}, None, "only a note", "nothing is rated"),
        ({"A": {"coherent": None}}, None, "", "nothing is rated"),
        ({"C": YES}, None, "", "not on the page"),
        ({"A": {"nice": True}}, None, "", "not on the page"),
        ({"A": YES}, "C", "", "none of the answers"),
        ({"A": YES}, None, "x" * 10_001, "longer than 10,000"),
    ],
)
def test_what_cannot_be_rated(
    tmp_path: Path, says: dict[str, dict[str, bool]], better: str, note: str, said: str
) -> None:
    session = open_session(tmp_path, two_runs(tmp_path))
    with pytest.raises(ValueError, match=said):
        session.rate(session.cases.all[0], says, better, note)
    assert (lines(session), session.counts()) == ([], (0, 0))


def test_a_single_run_has_no_better_one(tmp_path: Path) -> None:
    session = open_session(tmp_path, [str(write_run(tmp_path / "a", "HU"))])
    with pytest.raises(ValueError, match="none of the answers"):
        session.rate(session.cases.all[0], {"A": YES}, TIE)
    session.rate(session.cases.all[0], {"A": YES})


def test_undo_goes_back_step_by_step_and_over_a_restart(tmp_path: Path) -> None:
    words = two_runs(tmp_path)
    session = open_session(tmp_path, words)
    first, second = session.cases.all[:2]
    session.rate(first, {"A": YES}, TIE, "before")
    session.rate(first, {"A": YES}, TIE, "after")
    session.skip(second)
    assert session.counts() == (1, 1)
    session.file.close()
    session = open_session(tmp_path, words)
    assert session.counts() == (1, 1)
    assert session.undo() == second
    assert session.undo() == first
    latest = session.latest(first)
    assert latest is not None
    assert latest.note == "before"
    assert session.counts() == (1, 0)
    session.file.close()
    session = open_session(tmp_path, words)
    assert session.counts() == (1, 0)
    assert session.undo() == first
    assert session.undo() is None
    assert session.counts() == (0, 0)
    assert [line["kind"] for line in lines(session)] == ["rating", "rating", "skip", *["retraction"] * 3]


def test_filters(tmp_path: Path) -> None:
    session = open_session(tmp_path, two_runs(tmp_path))
    assert ids(session, Filter()) == {"home/0", "home/1", "away/2", "home/3", "home/4", "away/5"}
    assert ids(session, Filter("away")) == {"away/2", "away/5"}
    assert ids(session, Filter("away", flipped=True)) == {"away/2"}
    assert ids(session, Filter(hard=True)) == {"home/0", "home/1"}
    assert ids(session, Filter(unparsed=True)) == {"away/2"}
    assert ids(session, Filter(hard=True, unparsed=True)) == ids(session, Filter("nowhere")) == set()
    rated, skipped = session.matching(Filter(hard=True))
    session.rate(rated, {"A": YES})
    session.skip(skipped)
    assert ids(session, Filter(unrated=True)) == {"away/2", "home/3", "home/4", "away/5"}
    session.undo()
    assert ids(session, Filter(hard=True, unrated=True)) == {skipped.record.id}


def test_what_does_not_count_is_counted(tmp_path: Path) -> None:
    words = two_runs(tmp_path)
    session = open_session(tmp_path, words)
    for case in session.cases.all:
        session.rate(case, {"A": YES})
    session.file.close()
    write_run(tmp_path / "two", "UH-UHU", texts=["Other."])
    session = open_session(tmp_path, words)
    assert (session.counts(), session.of_other_texts) == ((5, 0), 1)
    session.file.close()
    session = open_session(tmp_path, words[:1])
    assert (session.counts(), session.of_other_texts) == ((0, 0), 6)
    session.file.close()
    session = open_session(tmp_path, words, rater="bob")
    assert (session.counts(), session.of_others) == ((0, 0), 6)
    assert session.undo() is None
    session.file.close()
    session = open_session(tmp_path, words, sample=2)
    assert session.not_drawn == 4
    assert session.counts()[0] + session.of_other_texts == 2


def test_a_file_has_one_writer(tmp_path: Path) -> None:
    path = tmp_path / "new" / "r.jsonl"
    file = RatingsFile(path)
    with pytest.raises(InputError, match=r"r\.jsonl: another review is writing here"):
        RatingsFile(path)
    file.close()
    RatingsFile(path).close()


def test_a_torn_line_is_removed_and_a_whole_one_kept(tmp_path: Path) -> None:
    words = two_runs(tmp_path)
    session = open_session(tmp_path, words)
    for case in session.cases.all[:3]:
        session.rate(case, {"A": YES})
    session.file.close()
    path = session.file.path
    content = path.read_bytes()
    first, second, third = content.splitlines(keepends=True)
    for kept in (*range(3), *range(20, len(third) - 2, 71), len(third) - 2, len(third) - 1):
        path.write_bytes(first + second + third[:kept])
        file = RatingsFile(path)
        whole = kept == len(third) - 1  # all but the line's end
        assert (file.torn, len(file.found.standing)) == (int(kept > 0 and not whole), 2 + whole)
        file.append(json.loads(third) | {"id": "another"})
        file.close()
        assert [json.loads(line)["id"] for line in path.read_bytes().splitlines()][2 + whole :] == ["another"]


def test_a_line_is_forced_to_the_disk_before_it_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    session = open_session(tmp_path, two_runs(tmp_path))
    forced: list[tuple[int, tuple[int, int]]] = []
    monkeypatch.setattr("os.fsync", lambda _: forced.append((len(lines(session)), session.counts())))
    session.rate(session.cases.all[0], {"A": YES})
    session.skip(session.cases.all[1])
    session.undo()
    assert forced == [(1, (0, 0)), (2, (1, 0)), (3, (1, 1))]


def test_a_file_that_was_taken_away_takes_no_rating(tmp_path: Path) -> None:
    session = open_session(tmp_path, two_runs(tmp_path))
    moved = session.file.path.rename(tmp_path / "moved")
    for path in (None, session.file.path):
        if path:
            path.touch()
        with pytest.raises(OSError, match="has been taken away"):
            session.rate(session.cases.all[0], {"A": YES})
    assert (session.counts(), moved.read_text(), session.file.path.read_text()) == ((0, 0), "", "")
    session.file.path.unlink()
    moved.rename(session.file.path)
    session.rate(session.cases.all[0], {"A": YES})
    assert len(lines(session)) == 1


@pytest.mark.parametrize("content", ["secret", "a\nb\n", '{"a": 1}\n', "[1]\nhello"])
def test_a_file_of_something_else_stays_as_it_is(tmp_path: Path, content: str) -> None:
    path = tmp_path / "x"
    path.write_text(content)
    with pytest.raises(InputError):
        RatingsFile(path)
    assert path.read_text() == content
