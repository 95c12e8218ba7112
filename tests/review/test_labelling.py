"""Labels for conversations of a queue: the page, the ratings file, the records."""

import json
import re
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from starlette.testclient import TestClient

from guardreasoner.errors import InputError
from guardreasoner.guard.labelling_queue import KIND
from guardreasoner.records import Record
from guardreasoner.review.app import make_app
from guardreasoner.review.labelling import labelled_records, read_queue
from guardreasoner.review.ratings import read_ratings
from guardreasoner.review.ratings_file import RatingsFile
from guardreasoner.review.session import Session
from guardreasoner.tasks import GUARD_TASKS

HOST = "http://127.0.0.1:8123"


@pytest.fixture
def queue(tmp_path: Path) -> Path:
    records = [Record("a", "Hi", "Hello"), Record("b", "How?")]
    head = {"kind": KIND, "tasks": [task.as_json() for task in GUARD_TASKS]}
    rows = [{"reason": "review", "row": f"x:{r.id}", "record": r.as_json()} for r in records]
    path = tmp_path / "queue.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in [head, *rows]))
    return path


def session_of(queue: Path, rater: str) -> Session:
    return Session(read_queue(queue), RatingsFile(queue.with_name(f"{rater}.jsonl")), rater)


def post(client: TestClient, path: str, **fields: str) -> Any:
    token = re.search(r'name="token" value="([^"]+)"', client.get("/").text)
    assert token
    headers = {"origin": HOST, "content-type": "application/x-www-form-urlencoded"}
    return client.post(path, content=urlencode({"token": token[1]} | fields), headers=headers, follow_redirects=False)


def test_the_page_asks_for_the_labels_that_apply(queue: Path) -> None:
    client = TestClient(make_app(session_of(queue, "ann")), base_url=HOST)
    page = client.get("/?at=1").text
    assert 'data-key="1" name="label.request" value="harmful"' in page
    assert 'name="label.response"' in page
    assert "fits the verdict" not in page
    assert 'name="label.response"' not in client.get("/?at=2").text


def test_labels_are_saved_shown_again_skipped_and_undone(queue: Path) -> None:
    session = session_of(queue, "ann")
    client = TestClient(make_app(session), base_url=HOST)
    assert post(client, "/rate?at=1").status_code == 400
    assert post(client, "/rate?at=1", **{"label.request": "green"}).status_code == 400
    assert post(client, "/rate?at=1", **{"label.request": "harmful"}).status_code == 303
    assert 'value="harmful" checked' in client.get("/?at=1").text
    assert post(client, "/skip?at=2").status_code == 303
    assert session.counts() == (1, 1)
    assert post(client, "/undo").status_code == 303
    assert session.counts() == (1, 0)
    again = Session(read_queue(queue), _reopened(session), "ann")
    assert again.counts() == (1, 0)


def _reopened(session: Session) -> RatingsFile:
    session.file.close()
    return RatingsFile(session.file.path)


def test_labels_that_raters_differ_on_are_left_out(queue: Path) -> None:
    labels = {"request": "harmful", "completion": "compliance", "response": "harmful"}
    for rater, given in (("ann", labels), ("bob", {**labels, "response": "unharmful"})):
        session = session_of(queue, rater)
        session.rate(session.review_set.items[0], {}, labels=given)
        session.file.close()
    found = labelled_records(read_queue(queue), read_ratings([queue.with_name(f"{n}.jsonl") for n in ("ann", "bob")]))
    assert [record.labels for record in found.records] == [{"request": "harmful", "completion": "compliance"}]
    assert (found.conflicts, found.unlabelled) == (1, 1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"id": "1"}\n', "q.jsonl:1: not a labelling queue"),
        (json.dumps({"kind": KIND, "tasks": [{"x": 1}]}) + "\n", "q.jsonl:1: tasks: "),
        (json.dumps({"kind": KIND, "tasks": [GUARD_TASKS[0].as_json()]}) + "\n", "has no conversation to label"),
        (json.dumps({"kind": KIND, "tasks": [GUARD_TASKS[0].as_json()]}) + "\n{}\n", "q.jsonl:2: missing field 'rec"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "q.jsonl"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        read_queue(path)
