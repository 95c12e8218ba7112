"""The web application: access checks, what the browser receives, escaping."""

import json
import re
import resource
import signal
from collections.abc import Iterator
from html import unescape
from pathlib import Path
from urllib.parse import urlencode

import pytest
from starlette.testclient import TestClient

from guardreasoner.records import Message, Record, ToolCall
from guardreasoner.review.app import make_app
from guardreasoner.review.session import Session
from guardreasoner.sources.predictions import content_fields
from guardreasoner.tasks import GUARD_TASKS
from tests.support.pages import EVIL, Reader
from tests.support.review_runs import FIRST, SECOND, open_session, two_runs, write_run

HOST = "http://127.0.0.1:8123"
OURS = {"origin": HOST, "content-type": "application/x-www-form-urlencoded"}
A_RATING = {"A.coherent": "yes", "A.true": "no", "better": "tie", "note": "one\r\ntwo"}


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Session]:
    session = open_session(tmp_path, two_runs(tmp_path))
    yield session
    session.file.close()


@pytest.fixture
def client(session: Session) -> TestClient:
    return TestClient(make_app(session), base_url=HOST, follow_redirects=False)


def token(client: TestClient) -> str:
    found = re.search(r'name="token" value="([^"]+)"', client.get("/").text)
    assert found
    return found[1]


def post(client: TestClient, path: str, fields: dict[str, str], **headers: str) -> tuple[int, str]:
    body = urlencode({"token": token(client)} | fields)
    answer = client.post(path, content=body, headers=OURS | headers)
    return answer.status_code, answer.headers.get("location", answer.text)


def written(session: Session) -> list[dict[str, str]]:
    return [json.loads(line) for line in session.file.path.read_text().splitlines()]


def test_rating_is_saved_and_next_record_shown(client: TestClient, session: Session) -> None:
    assert post(client, "/rate?at=2", A_RATING) == (303, "/?at=3")
    (line,) = written(session)
    assert (line["record_id"], line["better"], line["note"]) == (
        session.review_set.items[1].record.id,
        "tie",
        "one\ntwo",
    )
    page = client.get("/?at=2").text
    assert "1 of 6 rated" in page
    assert re.search(r'name="A.true" value="no" checked', page)
    assert len(re.findall(" checked>", page)) == 3
    assert "one\ntwo</textarea>" in page
    assert post(client, "/undo?at=3", {}) == (303, "/?at=2")
    page = client.get("/?at=2").text
    assert "Undone: record 2." in page
    assert " checked" not in page
    assert "Undone" not in client.get("/?at=2").text


def test_rating_follows_its_answer_when_the_order_changes(tmp_path: Path, client: TestClient, session: Session) -> None:
    item = session.review_set.items[0]
    post(client, "/rate?at=1", {"A.coherent": "yes", "better": "A"})
    session.file.close()
    for seed in range(1, 9):
        other = open_session(tmp_path, two_runs(tmp_path), seed=seed)
        (again,) = (one for one in other.review_set.items if one.record.id == item.record.id)
        slot = next(one.slot for one in again.answers if one.run == item.answers[0].run)
        page = TestClient(make_app(other), base_url=HOST).get(f"/?at={again.number}").text
        assert f'name="{slot}.coherent" value="yes" checked' in page
        assert f'name="better" value="{slot}" checked' in page
        other.file.close()


def test_start_at_the_first_unrated_record_and_message_at_the_end(client: TestClient, session: Session) -> None:
    for number in (2, 3, 4, 5):
        assert post(client, f"/rate?at={number}", A_RATING)[1] == f"/?at={number + 1}"
    assert "<h2>Record 1</h2>" in client.get("/").text
    assert post(client, "/skip?at=6", {})[1] == "/?at=1"
    assert "this one is still unrated" in client.get("/?at=1").text
    assert post(client, "/rate?at=1", A_RATING)[1] == "/?at=2"
    assert post(client, "/rate?at=6&unrated=1", A_RATING)[1] == "/?unrated=1"
    page = client.get("/?unrated=1").text
    assert "All matching records are rated or skipped." in page
    assert "No record matches" in page
    assert session.counts() == (6, 0)


def test_filter_is_in_the_query_string(client: TestClient) -> None:
    page = client.get("/?benchmark=away").text
    assert "2 match" in page
    assert '<option value="away" selected>' in page
    page = client.get("/?hard=1&flipped=1").text
    assert "2 match" in page
    assert page.count(" checked>") == 2
    following = re.search(r'rel="next" href="([^"]+)"', page)
    assert following
    assert unescape(following[1]).startswith("/?hard=1&flipped=1&at=")
    assert "2 of the 2 that match" in client.get(unescape(following[1])).text
    assert "No record matches" in client.get("/?benchmark=nowhere").text
    assert (
        client.get("/?at=7").status_code == client.get("/?at=x").status_code == client.get("/?at=0").status_code == 404
    )


def test_run_names_never_reach_the_browser(client: TestClient, session: Session) -> None:
    answers = [client.get(f"/?at={n}") for n in range(1, 7)]
    answers += [client.get(path) for path in ("/", "/static/review.js", "/static/review.css", "/absent", "/?wrong=1")]
    for path in ("/rate?at=1", "/skip?at=2", "/undo?at=2", "/rate?at=99", "/rate?at=3"):
        body = urlencode({"token": token(client)} | (A_RATING if path != "/rate?at=3" else {}))
        answers.append(client.post(path, content=body, headers=OURS))
    answers.append(client.get("/?at=1"))
    assert {answer.status_code for answer in answers} == {200, 303, 400, 404}
    for answer in answers:
        content = f"{answer.headers} {answer.text}".casefold()
        assert not any(name.casefold() in content for name in (FIRST, SECOND, "one/", "two/", session.file.path.name))


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8123", "127.0.0.1.evil.example", "[::1]:8123", ""])
def test_other_hosts_are_refused(client: TestClient, host: str) -> None:
    answer = client.get("/", headers={"host": host})
    assert answer.status_code == 400
    assert "token" not in answer.text


def test_localhost_is_accepted(session: Session) -> None:
    client = TestClient(make_app(session), base_url="http://localhost:9", follow_redirects=False)
    assert post(client, "/rate?at=1", A_RATING, origin="http://localhost:9")[0] == 303
    assert post(client, "/rate?at=1", A_RATING, origin="http://127.0.0.1:9")[0] == 403


@pytest.mark.parametrize("path", ["/rate?at=1", "/skip?at=1", "/undo?at=1"])
@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "", "http://127.0.0.1:8124", "https://127.0.0.1:8123"]
)
def test_other_origins_are_refused(client: TestClient, session: Session, path: str, origin: str) -> None:
    assert post(client, path, A_RATING, origin=origin)[0] == 403
    headers = {name: value for name, value in OURS.items() if name != "origin"}
    assert client.post(path, content=urlencode({"token": token(client)}), headers=headers).status_code == 403
    assert written(session) == []


@pytest.mark.parametrize("path", ["/rate?at=1", "/skip?at=1", "/undo?at=1"])
def test_a_wrong_token_is_refused(client: TestClient, session: Session, path: str) -> None:
    other = token(TestClient(make_app(session), base_url=HOST))
    for wrong in (other, "", "ä", token(client) + "x"):
        assert post(client, path, A_RATING | {"token": wrong})[0] == 403
    assert client.post(path, content=b"\xff\x00", headers=OURS).status_code == 403
    assert written(session) == []


def test_invalid_ratings_are_refused(client: TestClient, session: Session) -> None:
    for fields, status in (
        ({}, 400),
        ({"note": "x"}, 400),
        ({"A.coherent": "maybe"}, 400),
        ({"A.coherent": "yes", "better": "C"}, 400),
        ({"A.coherent": "yes", "note": "x" * 10_001}, 400),
        ({"A.coherent": "yes", "note": "x" * (1 << 18)}, 413),
    ):
        assert post(client, "/rate?at=1", fields)[0] == status
    assert post(client, "/rate?at=7", A_RATING)[0] == post(client, "/skip", {})[0] == 404
    assert client.get("/rate").status_code == client.post("/").status_code == 405
    assert written(session) == []


def test_full_disk_is_reported_and_nothing_counts(client: TestClient, session: Session) -> None:
    post(client, "/rate?at=1", A_RATING)
    before = session.file.path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 100, limits[1]))  # room for 100 bytes of the line
    try:
        status, text = post(client, "/rate?at=2", A_RATING)
        assert (post(client, "/skip?at=2", {})[0], post(client, "/undo?at=2", {})[0]) == (500, 500)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert status == 500
    assert "Not saved" in text
    assert "File too large" in text
    assert (session.counts(), session.file.path.read_bytes()) == ((1, 0), before)
    assert post(client, "/rate?at=2", A_RATING)[0] == 303
    assert len(written(session)) == 2


def test_security_headers(client: TestClient) -> None:
    nonces = set()
    for path, host in (("/", HOST), ("/static/review.js", HOST), ("/absent", HOST), ("/", "http://evil.example")):
        headers = client.get(host + path).headers
        assert headers["cache-control"] == "no-store"
        assert headers["x-content-type-options"] == "nosniff"
        assert "server" not in headers
        policy = dict(part.split(" ", 1) for part in headers["content-security-policy"].split("; "))
        assert policy["default-src"] == policy["base-uri"] == policy["frame-ancestors"] == "'none'"
        assert policy["script-src"] == policy["form-action"] == "'self'"
        nonces.add(policy["style-src"])
    assert len(nonces) == 4
    assert client.get("/static/review.js").headers["content-type"].startswith("text/javascript")
    assert client.get("/static/../app.py").status_code == client.get("/static/%2e%2e%2fapp.py").status_code == 404


@pytest.mark.parametrize(
    "text", [EVIL, "\x1b[31mred\x1b[0m \x00\x7f\x9b", "שלום \u202e world", "half \ud800", "\r\n\n x"]
)
def test_texts_are_escaped(tmp_path: Path, text: str) -> None:
    folder = write_run(tmp_path / "run", "HU", prompts=[text] * 2, texts=[text] * 2)
    session = open_session(tmp_path, [str(folder)])
    client = TestClient(make_app(session), base_url=HOST)
    plain = client.get("/").text
    for number in (1, 2):
        reader = Reader(client.get(f"/?at={number}").text)
        assert reader.tags.count("script") == 1
        assert not reader.handlers
        wanted = text.replace("\x1b", "␛").replace("\x00", "␀").replace("\x7f", "␡")
        wanted = wanted.replace("\x9b", "�").replace("\ud800", "�").replace("\u202e", "⟨U+202E⟩")
        assert reader.text.count(wanted.strip()) >= 2
        assert not re.search(
            r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]", reader.text
        )
    assert plain.count("<script") == 1


def test_all_turns_and_the_policy_are_shown_as_text(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", "H")
    path = folder / "home" / "generated_predictions.jsonl"
    call = ToolCall(EVIL, json.dumps({"text": EVIL}))
    messages = [Message("user", EVIL), Message("assistant", EVIL, (call,)), Message("tool", EVIL)]
    record = Record("r", messages=messages, policy=EVIL)
    values = json.loads(path.read_text())
    path.write_text(json.dumps(values | content_fields(record, values["prompt"], GUARD_TASKS)) + "\n")
    page = TestClient(make_app(open_session(tmp_path, [str(folder)])), base_url=HOST).get("/").text
    reader = Reader(page)
    assert (reader.tags.count("script"), reader.handlers) == (1, [])
    assert reader.text.count(EVIL) == 5
    assert re.findall("<h3 id=.part-[0-9].>(.*)</h3>", page) == ["Policy", "User", "Assistant", "Tool call", "Tool"]


def test_one_megabyte_of_text(tmp_path: Path) -> None:
    text = "<b>&" * (1 << 18)
    folders = [str(write_run(tmp_path / name, "H", prompts=[text], texts=[text + name])) for name in "ab"]
    session = open_session(tmp_path, folders)
    client = TestClient(make_app(session), base_url=HOST, follow_redirects=False)
    page = client.get("/").text
    assert page.count("&lt;b&gt;&amp;") == 3 * (1 << 18)
    assert post(client, "/rate?at=1", A_RATING)[0] == 303
    assert len(session.file.path.read_text()) < 2000
