"""The server process: shutdown without data loss, port, file lock, address."""

import json
import signal
import socket
import threading
from http.client import HTTPException
from pathlib import Path

import pytest

from guardreasoner.errors import InputError
from guardreasoner.review.server import bind
from tests.support.review_runs import two_runs, write_run
from tests.support.serving import Serving

YES = {"A.coherent": "yes"}


def rate_on(server: Serving, first: int, acknowledged: list[int], target: int, enough: threading.Event) -> None:
    """Rate record after record until the server is gone; set ``enough`` after ``target`` acknowledgements."""
    for number in range(first, 400):
        try:
            server.post(f"rate?at={number}", **YES, note="ö" * 3000)
        except (OSError, HTTPException):
            return
        acknowledged.append(number)
        if len(acknowledged) == target:
            enough.set()


@pytest.mark.slow
def test_killed_server_loses_no_acknowledged_rating(tmp_path: Path) -> None:
    argv = [str(write_run(tmp_path / "run", "HU" * 200)), "--rater", "ann"]
    file = tmp_path / "logs" / "ratings" / "ann.jsonl"
    acknowledged = 0
    for round_, target in enumerate((5, 12, 20)):
        with Serving(tmp_path, argv) as server:
            assert f"ann has rated {acknowledged} " in server.lines[0]
            sent: list[int] = []
            enough = threading.Event()
            rater = threading.Thread(target=rate_on, args=(server, acknowledged + 1, sent, target, enough))
            rater.start()
            assert enough.wait(60)
            server.process.kill()
            rater.join(60)
        lines = file.read_bytes().split(b"\n")[:-1]
        # there may be one more line, written but not acknowledged before the kill
        assert acknowledged + len(sent) <= len(lines) <= acknowledged + len(sent) + 1, round_
        assert [len(json.loads(line)["note"]) for line in lines] == [3000] * len(lines)
        acknowledged = len(lines)
        with file.open("ab") as ratings:  # as a crash of the machine would leave it
            ratings.write(b'{"kind": "rating", "id": "0')
    with Serving(tmp_path, argv) as server:
        assert f"ann has rated {acknowledged} " in server.lines[0]
        assert "in the file: 1 line truncated by an interrupted write, removed" in server.lines
        code, out, err = server.end()
    assert (code, err) == (0, "")
    assert out.splitlines()[-1].startswith("written to logs/ratings/ann.jsonl: 0 ratings, 0 skips; 0 undone; in total ")


@pytest.mark.parametrize("signal_number", [signal.SIGINT, signal.SIGTERM])
def test_shutdown_reports_what_was_written(tmp_path: Path, signal_number: signal.Signals) -> None:
    argv = [*two_runs(tmp_path), "--rater", "ann", "--ratings", "mine.jsonl", "--sample", "4"]
    with Serving(tmp_path, argv) as server:
        assert server.lines[:3] == [
            "4 records of 2 runs; ann has rated 0 and skipped 0",
            "not in the sample (--sample): 2 records",
            "ratings: mine.jsonl",
        ]
        for number in (1, 2):
            server.post(f"rate?at={number}", **YES)
        server.post("skip?at=3")
        server.post("rate?at=4", **YES)
        server.post("undo")
        code, out, err = server.end(signal_number)
    assert (code, err) == (0, "")
    assert out.strip() == "written to mine.jsonl: 3 ratings, 1 skip; 1 undone; in total 2 of 4 rated, 1 skipped"


def test_second_server_on_one_file_is_refused(tmp_path: Path) -> None:
    argv = [*two_runs(tmp_path), "--rater", "ann"]
    with (
        Serving(tmp_path, argv),
        pytest.raises(AssertionError, match=r"ann\.jsonl: another review is writing here"),
    ):
        Serving(tmp_path, argv)


def test_loopback_only_and_taken_port_is_refused() -> None:
    with bind(0) as bound:
        address, port = bound.getsockname()
        assert address == "127.0.0.1"
        with pytest.raises(InputError, match=rf"--port {port}: Address already in use"):
            bind(port)
        with socket.socket() as other:
            assert other.connect_ex(("127.0.0.2", port)) != 0
