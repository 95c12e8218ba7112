"""Decisions on labels that all models contradict: the page, the ratings file, the summary."""

import json
import re
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from starlette.testclient import TestClient

from guardreasoner.cli.main import main
from guardreasoner.errors import InputError
from guardreasoner.records import Record
from guardreasoner.review.app import make_app
from guardreasoner.review.audit import read_audit
from guardreasoner.review.ratings import read_ratings
from guardreasoner.review.ratings_file import RatingsFile
from guardreasoner.review.session import Session
from tests.support.output_files import rollouts
from tests.support.serving import Serving

HOST = "http://127.0.0.1:8123"


@pytest.fixture
def audit_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    folders = [rollouts(tmp_path / "1", "UU U- UU", "Zebrafish-1B"), rollouts(tmp_path / "2", "UU UU UU", "Quokka-3B")]
    path = tmp_path / "audit.jsonl"
    assert main(["pairs", "--rollouts", *folders, "--audit", str(path)]) == 0
    capsys.readouterr()
    return path


@pytest.fixture
def session(audit_file: Path, tmp_path: Path) -> Session:
    return Session(read_audit(audit_file), RatingsFile(tmp_path / "ratings.jsonl"), "ann")


def post(client: TestClient, path: str, **fields: str) -> int:
    token = re.search(r'name="token" value="([^"]+)"', client.get("/").text)
    assert token
    headers = {"origin": HOST, "content-type": "application/x-www-form-urlencoded"}
    return client.post(path, content=urlencode({"token": token[1]} | fields), headers=headers).status_code


def lines(session: Session) -> list[dict[str, Any]]:
    return [json.loads(line) for line in session.file.path.read_text().splitlines()]


def test_the_page_asks_who_is_right_and_names_no_model(session: Session) -> None:
    page = TestClient(make_app(session), base_url=HOST).get("/").text
    assert "The label of the task request says harmful." in page
    assert "All 4 outputs of 2 models with a verdict say unharmful." in page
    for key, value in (("l", "label"), ("m", "models"), ("c", "unclear")):
        assert f'data-key="{key}" name="better" value="{value}"' in page
    assert "fits the verdict" not in page
    assert "Zebrafish" not in page
    assert "Quokka" not in page


def test_a_decision_names_record_task_label_and_verdict(session: Session) -> None:
    client = TestClient(make_app(session), base_url=HOST, follow_redirects=False)
    assert post(client, "/rate?at=1", better="models", note="A joke.") == 303
    assert post(client, "/skip?at=2") == 303
    assert post(client, "/rate?at=3", better="A") == 400
    assert post(client, "/rate?at=3") == 400
    first, second = lines(session)
    shown = {
        name: first[name] for name in ("kind", "record_id", "task", "label", "verdict", "decision", "note", "rater")
    }
    assert shown == {
        **{"kind": "label", "record_id": "0", "task": "request", "label": "harmful", "verdict": "unharmful"},
        **{"decision": "models", "note": "A joke.", "rater": "ann"},
    }
    assert second["decision"] is None
    assert session.counts() == (1, 1)
    assert 'value="models" checked' in client.get("/?at=1").text
    assert post(client, "/undo") == 303
    assert session.counts() == (1, 0)


def test_a_later_session_knows_the_decisions_even_if_other_outputs_are_shown(
    session: Session, audit_file: Path, tmp_path: Path
) -> None:
    session.rate(session.review_set.items[0], {}, "label")
    session.file.close()
    audit_file.write_text(audit_file.read_text().replace('"index": 0', '"index": 7'))
    again = Session(read_audit(audit_file, sample=2), RatingsFile(tmp_path / "ratings.jsonl"), "ann")
    assert again.counts() == (1, 0)
    assert len(again.review_set.items) == 2


def test_the_summary_counts_decisions_by_rater(
    session: Session, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second, third = session.review_set.items
    session.rate(first, {}, "models")
    session.rate(first, {}, "label")
    session.rate(second, {}, "unclear")
    session.skip(third)
    out = tmp_path / "summary.json"
    assert main(["review", "--summary", str(session.file.path), "--json", str(out)]) == 0
    shown = capsys.readouterr().out
    assert re.search(r"^ann +1 +0 +1 +1$", shown, re.MULTILINE)
    assert "1 replaced by a later one" in shown
    content = json.loads(out.read_text())
    assert content["label_decisions"] == {"ann": {"label": 1, "unclear": 1, "skipped": 1}}
    assert content["records"] == 0


def test_a_wrong_decision_in_a_file_is_refused_with_its_line(session: Session) -> None:
    session.rate(session.review_set.items[0], {}, "label")
    path = session.file.path
    path.write_text(path.read_text().replace('"decision": "label"', '"decision": "me"'))
    with pytest.raises(InputError, match=r"ratings.jsonl:1: decision: 'me' is not one of label, models, unclear"):
        read_ratings([path])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text + text, r"audit.jsonl:4: the request label of record '0' occurs twice"),
        (lambda text: text.replace('"verdict"', '"verdikt"', 1), r"audit.jsonl:1: missing field 'verdict'"),
        (lambda text: text.replace('"prompt"', '"promt"', 1), r"audit.jsonl:1: record: unknown field 'promt'"),
        (lambda text: "", "the file has no label to decide on"),
        (lambda text: text.replace('"record_id": "0"', '"record_id": "9"', 1), "audit.jsonl:1: record_id: '9' is not"),
        (lambda text: text.replace('"task": "request"', '"task": "mood"', 1), "audit.jsonl:1: task: .* 'mood'"),
        (lambda text: text.replace('"task": "request"', '"task": "response"', 1), "audit.jsonl:1: task: .* 'response'"),
        (lambda text: text.replace('"label": "harmful"', '"label": "unharmful"', 1), "audit.jsonl:1: label: "),
        (lambda text: text.replace('"verdict": "unharmful"', '"verdict": "harmful"', 1), "audit.jsonl:1: verdict: "),
        (lambda text: re.sub('"agreement": [0-9.]+', '"agreement": 7.5', text, count=1), "audit.jsonl:1: agreement: "),
        (lambda text: re.sub('"outputs": [0-9]+', '"outputs": 0', text, count=1), "audit.jsonl:1: outputs: "),
    ],
)
def test_a_damaged_audit_is_refused_with_its_line(audit_file: Path, change: Any, message: str) -> None:
    audit_file.write_text(change(audit_file.read_text()))
    with pytest.raises(InputError, match=message):
        read_audit(audit_file)


def test_an_audit_replaces_the_runs(audit_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["review", "a=b", "--audit", str(audit_file)]) == 2
    assert "--audit cannot be combined with runs" in capsys.readouterr().err
    assert main(["review", "--audit", str(audit_file), "--summary", str(audit_file)]) == 2


def test_the_command_serves_the_list(audit_file: Path, tmp_path: Path) -> None:
    with Serving(tmp_path, ["--audit", str(audit_file), "--sample", "2", "--rater", "ann"]) as server:
        assert server.lines[0] == "2 labels that all models contradict; ann has rated 0 and skipped 0"
        server.post("rate?at=1", better="models")
    (line,) = (tmp_path / "logs/ratings/ann.jsonl").read_text().splitlines()
    assert (json.loads(line)["record_id"], json.loads(line)["decision"]) == ("0", "models")


def test_two_labels_of_a_record_have_drafts_of_their_own(tmp_path: Path) -> None:
    record = Record("a", "Hi", "Hello", {"request": "harmful", "response": "harmful"})
    row = {
        **{"record_id": "a", "label": "harmful", "verdict": "unharmful", "outputs": 2, "unparsed": 0},
        **{"agreement": 1.0, "models": ["m"], "record": record.as_json()},
        "reasonings": [{"model": "m", "index": 0, "seed": 0, "completion": "x"}],
    }
    path = tmp_path / "audit.jsonl"
    path.write_text("".join(json.dumps(row | {"task": task}) + "\n" for task in ("request", "response")))
    first, second = read_audit(path).items
    assert first.key != second.key
