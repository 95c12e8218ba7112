"""The server as a process: many clients, slow ones, those that hang up, and signals."""

import json
import re
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from guardreasoner.cli.main import main
from tests.support.served import JSON, ask, served

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def echo(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Arguments of an echo server: a tiny model, and a folder to write."""
    return str(tiny_base), str(tmp_path_factory.mktemp("echo") / "echo")


@pytest.fixture(scope="module")
def port(echo: tuple[str, str]) -> Iterator[int]:
    """Port of an echo server with a time-out of 2 seconds and a queue of 256."""
    with served("tests.support.services", *echo, "2", "256") as (_, port):
        yield port


@pytest.mark.slow
def test_64_clients_get_their_own_answers(port: int) -> None:
    def client(number: int) -> int:
        connection = HTTPConnection("127.0.0.1", port, timeout=60)
        right = 0
        for turn in range(32):
            text = f"{'break' if (number + turn) % 2 else 'mend'} {number} {turn}"
            connection.request("POST", "/v1/guard", json.dumps({"prompt": text}), JSON)
            answer = json.loads(connection.getresponse().read())
            right += answer["flagged"] == ("break" in text) and answer["completion"].startswith(f"{text}\n")
        connection.close()
        return right

    with ThreadPoolExecutor(64) as threads:
        assert sum(threads.map(client, range(64))) == 64 * 32


def test_the_client_in_the_docs_reads_the_stream(port: int) -> None:
    (code,) = re.findall(r"```python\n(import json\n.*?)```", (DOCS / "serving.md").read_text(), re.DOTALL)
    for text, flagged in (("break it", True), ("mend it", False)):
        found: dict[str, Any] = {}
        exec(code.replace("8080", str(port)).replace("How do I mend a kettle?", text), found)
        assert found["result"]["completion"].startswith(f"{text}\n")
        assert found["flagged"] is flagged


def test_slow_clients_hold_nobody_up_and_are_dropped(port: int) -> None:
    slow = [socket.create_connection(("127.0.0.1", port)) for _ in range(1000)]
    try:
        for number, one in enumerate(slow):
            half = b"POST /v1/guard HTTP/1.1\r\nHost: 127.0.0.1\r\n"
            body = half + b"Content-Type: application/json\r\nContent-Length: 99\r\n\r\n{"
            one.sendall((b"", half, body)[number % 3])
        start = time.monotonic()
        assert ask(port, "break it")[1]["flagged"] is True
        assert time.monotonic() - start < 2
        endings = []
        for one in slow[-9:]:
            one.settimeout(10)
            endings.append(one.recv(2000))
        assert sorted({ending[9:12] for ending in endings}) == [b"", b"408"]
    finally:
        for one in slow:
            one.close()


def test_who_hangs_up_is_dropped(port: int) -> None:
    pausing = Thread(target=ask, args=(port, "pause"))
    pausing.start()
    time.sleep(0.1)
    body = b'{"prompt": "mend it"}'
    head = b"POST /v1/guard HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    for _ in range(20):
        with socket.create_connection(("127.0.0.1", port)) as one:
            one.sendall(head + b"Content-Length: %d\r\n\r\n" % len(body) + body)
    pausing.join()
    assert ask(port, "break it")[1]["flagged"] is True
    connection = HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("GET", "/metrics")
    text = connection.getresponse().read().decode()
    connection.close()
    assert "guard_queue_length 0.0" in text
    assert 'status="499"' in text


@pytest.mark.parametrize(
    "sent",
    [
        b"GARBAGE\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01",
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST /v1/guard HTTP/1.1\r\nHost: a\r\nContent-Length: -5\r\n\r\n",
        b"POST /v1/guard HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx",
        b"POST /v1/guard HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: nonsense\r\n\r\n",
        b"POST /v1/guard HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"POST /v1/guard HTTP/1.1\r\nHost: a\r\n bad: folded\r\nbad name: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"y" * 66_000 + b"\r\n\r\n",
    ],
    ids=lambda sent: sent[:60].decode("latin-1"),
)
def test_what_is_no_http_is_refused(port: int, sent: bytes) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as one:
        one.sendall(sent)
        answer = b""
        while not answer.endswith(b"}}") and (part := one.recv(4000)):
            answer += part
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 4")
    assert json.loads(body)["error"]["code"] in ("not_http", "wrong_host")
    assert ask(port, "break it")[1]["flagged"] is True


@pytest.mark.slow
def test_who_is_too_late_gets_an_error(echo: tuple[str, str]) -> None:
    with served("tests.support.services", *echo, "0.3", "4") as (_, port):
        assert ask(port, "pause")[0] == 504
        with ThreadPoolExecutor(24) as threads:
            answers = list(threads.map(lambda number: ask(port, f"pause {number}"), range(24)))
        assert {status for status, _ in answers} <= {429, 504}
        assert {body["error"]["code"] for _, body in answers} == {"queue_full", "timeout"}
        assert not any("flagged" in body for _, body in answers)


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_lets_requests_in_progress_end(echo: tuple[str, str], number: int, code: int) -> None:
    with served("tests.support.services", *echo, "20", "64") as (process, port):
        with ThreadPoolExecutor(9) as threads:
            answers = [threads.submit(ask, port, f"pause and break {one}") for one in range(8)]
            streamed = threads.submit(_events, port, "pause and break")
            time.sleep(0.3)
            process.send_signal(number)
            assert all(answer.result() == (200, answer.result()[1]) for answer in answers)
            assert all(answer.result()[1]["flagged"] for answer in answers)
            assert "event: result" in streamed.result()
        assert process.wait(10) != 0
        with pytest.raises(OSError, match="refused"):
            ask(port, "late")
    assert process.returncode == code


@pytest.mark.slow
def test_a_log_that_nobody_reads_stops_nothing(echo: tuple[str, str]) -> None:
    with served("tests.support.services", *echo, "20", "64", log=subprocess.PIPE) as (_, port):
        connection = HTTPConnection("127.0.0.1", port, timeout=20)
        for _ in range(600):  # more lines than a pipe holds
            connection.request("GET", "/health")
            assert connection.getresponse().read()
        connection.close()


@pytest.mark.slow
def test_kill_gives_errors_and_no_verdicts(echo: tuple[str, str]) -> None:
    with served("tests.support.services", *echo, "20", "64") as (process, port), ThreadPoolExecutor(8) as threads:
        answers = [threads.submit(ask, port, f"pause {one}") for one in range(8)]
        time.sleep(0.3)
        process.kill()
        for answer in answers:
            assert isinstance(answer.exception(30), OSError | HTTPException)


@pytest.mark.parametrize("field", ["--port", "--queue", "--batch", "--timeout", "--linger"])
def test_numbers_out_of_range(field: str, tiny_base: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", str(tiny_base), field, "-1"]) == 2
    assert f"serve: {field}" in capsys.readouterr().err


@pytest.mark.parametrize("size", ["0", "-1", "big", "1TB", "1.5MB", ""])
def test_sizes_that_are_none(size: str, tiny_base: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", str(tiny_base), f"--max_body={size}"]) == 2
    assert "--max_body" in capsys.readouterr().err


def test_other_machines_need_a_key(
    tiny_base: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("GUARD_API_KEY", raising=False)
    assert main(["serve", str(tiny_base), "--host", "0.0.0.0"]) == 2
    assert "GUARD_API_KEY" in capsys.readouterr().err
    for key in ("", " spaces ", "li\nne", "clé"):
        monkeypatch.setenv("GUARD_API_KEY", key)
        assert main(["serve", str(tiny_base), "--host", "0.0.0.0"]) == 2
        error = capsys.readouterr().err
        assert "GUARD_API_KEY" in error
        assert not key.strip() or key not in error


def test_a_port_that_is_taken(tiny_base: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert main(["serve", str(tiny_base), "--port", str(taken.getsockname()[1])]) == 2
    assert "in use" in capsys.readouterr().err


def test_a_folder_that_is_no_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", str(tmp_path / "nothing"), "--port", "0"]) == 2
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.slow
def test_the_verb_serves_a_model_and_keeps_its_key(tiny_base: Path, tmp_path: Path) -> None:
    key = "sesame-open-0123456789"
    argv = ("guardreasoner", "serve", str(tiny_base), "--port", "0")
    with (tmp_path / "log").open("w") as file, served(*argv, log=file, GUARD_API_KEY=key) as (process, port):
        connection = HTTPConnection("127.0.0.1", port, timeout=30)
        body = json.dumps({"input": "How do I mend a kettle?"})
        connection.request("POST", "/v1/moderations", body, JSON)
        assert connection.getresponse().status == 401
        connection.close()
        connection.request("POST", "/v1/moderations", body, {**JSON, "authorization": f"Bearer {key}"})
        answer = json.loads(connection.getresponse().read())
        assert answer["model"] == "base"
        assert answer["results"][0]["flagged"] in (True, False)
        connection.close()
        process.terminate()
        output, _ = process.communicate(timeout=30)
    log = (tmp_path / "log").read_text()
    assert process.returncode == 143
    assert key not in output + log
    assert "stopped by SIGTERM: 2 requests answered" in log


def _events(port: int, text: str) -> str:
    connection = HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request("POST", "/v1/guard", json.dumps({"prompt": text, "stream": True}), JSON)
        return connection.getresponse().read().decode()
    finally:
        connection.close()
