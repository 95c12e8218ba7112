"""Sessions: rating, skipping, undo, filters, and lines of the file that do not count."""

import json
from pathlib import Path

import pytest

from guardreasoner.errors import InputError
from guardreasoner.review.ratings import TIE
from guardreasoner.review.ratings_file import RatingsFile
from guardreasoner.review.session import ItemFilter, Session
from tests.support.review_runs import FIRST, SECOND, open_session, two_runs, write_run

YES = {"coherent": True, "consistent": True, "true": False, "complete": None}


def lines(session: Session) -> list[dict[str, object]]:
    return [json.loads(line) for line in session.file.path.read_text().splitlines()]


def ids(session: Session, item_filter: ItemFilter) -> set[str]:
    return {item.record.id for item in session.matching(item_filter)}


def test_rating_is_written_with_run_names(tmp_path: Path) -> None:
    session = open_session(tmp_path, two_runs(tmp_path))
    item = session.review_set.items[0]
    session.rate(item, {"A": YES, "B": {}}, "B", "Hm. \ud800")
    (line,) = lines(session)
    assert (line["kind"], line["record_id"], line["better"], line["rater"]) == ("rating", item.record.id, "B", "ann")
    assert line["note"] == "Hm. \ud800"
    answers = line["answers"]
    assert isinstance(answers, dict)
    assert {slot: one["run"] for slot, one in answers.items()} == {one.slot: one.run for one in item.answers}
    assert {one["run"] for one in answers.values()} == {FIRST, SECOND}
    assert (answers["A"]["true"], answers["A"]["complete"], answers["B"]["coherent"]) == (False, None, None)
    assert session.counts() == (1, 0)


@pytest.mark.parametrize(
    ("marks", "better", "note", "message"),
    [
        ({}, None, "only a note", "nothing is rated"),
        ({"A": {"coherent": None}}, None, "", "nothing is rated"),
        ({"C": YES}, None, "", "unknown answer or question"),
        ({"A": {"nice": True}}, None, "", "unknown answer or question"),
        ({"A": YES}, "C", "", "not one of the answers"),
        ({"A": YES}, None, "x" * 10_001, "longer than 10,000"),
    ],
)
def test_invalid_ratings_are_refused(
    tmp_path: Path, marks: dict[str, dict[str, bool]], better: str, note: str, message: str
) -> None:
    session = open_session(tmp_path, two_runs(tmp_path))
    with pytest.raises(ValueError, match=message):
        session.rate(session.review_set.items[0], marks, better, note)
    assert (lines(session), session.counts()) == ([], (0, 0))


def test_single_run_takes_no_better_answer(tmp_path: Path) -> None:
    session = open_session(tmp_path, [str(write_run(tmp_path / "a", "HU"))])
    with pytest.raises(ValueError, match="not one of the answers"):
        session.rate(session.review_set.items[0], {"A": YES}, TIE)
    session.rate(session.review_set.items[0], {"A": YES})


def test_undo_step_by_step_across_restarts(tmp_path: Path) -> None:
    runs = two_runs(tmp_path)
    session = open_session(tmp_path, runs)
    first, second = session.review_set.items[:2]
    session.rate(first, {"A": YES}, TIE, "before")
    session.rate(first, {"A": YES}, TIE, "after")
    session.skip(second)
    assert session.counts() == (1, 1)
    session.file.close()
    session = open_session(tmp_path, runs)
    assert session.counts() == (1, 1)
    assert session.undo() == second
    assert session.undo() == first
    latest = session.latest(first)
    assert latest is not None
    assert latest.note == "before"
    assert session.counts() == (1, 0)
    session.file.close()
    session = open_session(tmp_path, runs)
    assert session.counts() == (1, 0)
    assert session.undo() == first
    assert session.undo() is None
    assert session.counts() == (0, 0)
    assert [line["kind"] for line in lines(session)] == ["rating", "rating", "skip", *["retraction"] * 3]


def test_filters(tmp_path: Path) -> None:
    session = open_session(tmp_path, two_runs(tmp_path))
    assert ids(session, ItemFilter()) == {"home/0", "home/1", "away/2", "home/3", "home/4", "away/5"}
    assert ids(session, ItemFilter("away")) == {"away/2", "away/5"}
    assert ids(session, ItemFilter("away", flipped=True)) == {"away/2"}
    assert ids(session, ItemFilter(hard=True)) == {"home/0", "home/1"}
    assert ids(session, ItemFilter(unparsed=True)) == {"away/2"}
    assert ids(session, ItemFilter(hard=True, unparsed=True)) == ids(session, ItemFilter("nowhere")) == set()
    rated, skipped = session.matching(ItemFilter(hard=True))
    session.rate(rated, {"A": YES})
    session.skip(skipped)
    assert ids(session, ItemFilter(unrated=True)) == {"away/2", "home/3", "home/4", "away/5"}
    session.undo()
    assert ids(session, ItemFilter(hard=True, unrated=True)) == {skipped.record.id}


def test_ignored_lines_are_counted(tmp_path: Path) -> None:
    runs = two_runs(tmp_path)
    session = open_session(tmp_path, runs)
    for item in session.review_set.items:
        session.rate(item, {"A": YES})
    session.file.close()
    write_run(tmp_path / "two", "UH-UHU", texts=["Other."])
    session = open_session(tmp_path, runs)
    assert (session.counts(), session.other_texts) == ((5, 0), 1)
    session.file.close()
    session = open_session(tmp_path, runs[:1])
    assert (session.counts(), session.other_texts) == ((0, 0), 6)
    session.file.close()
    session = open_session(tmp_path, runs, rater="bob")
    assert (session.counts(), session.by_other_raters) == ((0, 0), 6)
    assert session.undo() is None
    session.file.close()
    session = open_session(tmp_path, runs, sample=2)
    assert session.not_sampled == 4
    assert session.counts()[0] + session.other_texts == 2


def test_file_has_one_writer(tmp_path: Path) -> None:
    path = tmp_path / "new" / "r.jsonl"
    file = RatingsFile(path)
    with pytest.raises(InputError, match=r"r\.jsonl: another review is writing here"):
        RatingsFile(path)
    file.close()
    RatingsFile(path).close()


def test_cut_off_line_is_removed_and_complete_line_is_kept(tmp_path: Path) -> None:
    runs = two_runs(tmp_path)
    session = open_session(tmp_path, runs)
    for item in session.review_set.items[:3]:
        session.rate(item, {"A": YES})
    session.file.close()
    path = session.file.path
    content = path.read_bytes()
    first, second, third = content.splitlines(keepends=True)
    for length in (*range(3), *range(20, len(third) - 2, 71), len(third) - 2, len(third) - 1):
        path.write_bytes(first + second + third[:length])
        file = RatingsFile(path)
        complete = length == len(third) - 1  # only the newline is missing
        assert (file.truncated, len(file.ratings.active)) == (int(length > 0 and not complete), 2 + complete)
        file.append(json.loads(third) | {"id": "another"})
        file.close()
        assert [json.loads(line)["id"] for line in path.read_bytes().splitlines()][2 + complete :] == ["another"]


def test_line_is_synced_to_disk_before_it_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    session = open_session(tmp_path, two_runs(tmp_path))
    synced: list[tuple[int, tuple[int, int]]] = []
    monkeypatch.setattr("os.fsync", lambda _: synced.append((len(lines(session)), session.counts())))
    session.rate(session.review_set.items[0], {"A": YES})
    session.skip(session.review_set.items[1])
    session.undo()
    assert synced == [(1, (0, 0)), (2, (1, 0)), (3, (1, 1))]


def test_removed_file_takes_no_rating(tmp_path: Path) -> None:
    session = open_session(tmp_path, two_runs(tmp_path))
    moved = session.file.path.rename(tmp_path / "moved")
    for path in (None, session.file.path):
        if path:
            path.touch()
        with pytest.raises(OSError, match="was removed or replaced"):
            session.rate(session.review_set.items[0], {"A": YES})
    assert (session.counts(), moved.read_text(), session.file.path.read_text()) == ((0, 0), "", "")
    session.file.path.unlink()
    moved.rename(session.file.path)
    session.rate(session.review_set.items[0], {"A": YES})
    assert len(lines(session)) == 1


@pytest.mark.parametrize("content", ["secret", "a\nb\n", '{"a": 1}\n', "[1]\nhello"])
def test_other_file_is_refused_and_unchanged(tmp_path: Path, content: str) -> None:
    path = tmp_path / "x"
    path.write_text(content)
    with pytest.raises(InputError):
        RatingsFile(path)
    assert path.read_text() == content
