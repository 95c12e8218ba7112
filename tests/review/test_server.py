"""The real server: an end that loses nothing, whoever brings it about; its port, its file, its address."""

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


def rate_on(server: Serving, first: int, acknowledged: list[int], wanted: int, enough: threading.Event) -> None:
    """Rate record after record until the server is gone; say when so many are acknowledged."""
    for number in range(first, 400):
        try:
            server.post(f"rate?at={number}", **YES, note="ö" * 3000)
        except (OSError, HTTPException):
            return
        acknowledged.append(number)
        if len(acknowledged) == wanted:
            enough.set()


def test_a_killed_server_loses_no_rating_that_was_acknowledged(tmp_path: Path) -> None:
    words = [str(write_run(tmp_path / "run", "HU" * 200)), "--rater", "ann"]
    file = tmp_path / "logs" / "ratings" / "ann.jsonl"
    acknowledged = 0
    for round_, wanted in enumerate((5, 12, 20)):
        with Serving(tmp_path, words) as server:
            assert f"ann has rated {acknowledged} " in server.said[0]
            sent: list[int] = []
            enough = threading.Event()
            rater = threading.Thread(target=rate_on, args=(server, acknowledged + 1, sent, wanted, enough))
            rater.start()
            assert enough.wait(60)
            server.process.kill()
            rater.join(60)
        lines = file.read_bytes().split(b"\n")[:-1]
        # one more may be there: written, and killed before it was acknowledged
        assert acknowledged + len(sent) <= len(lines) <= acknowledged + len(sent) + 1, round_
        assert [len(json.loads(line)["note"]) for line in lines] == [3000] * len(lines)
        acknowledged = len(lines)
        with file.open("ab") as torn:  # a machine that goes down leaves such ends
            torn.write(b'{"kind": "rating", "id": "0')
    with Serving(tmp_path, words) as server:
        assert f"ann has rated {acknowledged} " in server.said[0]
        assert "in the file: 1 line truncated by an interrupted write, removed" in server.said
        code, out, err = server.end()
    assert (code, err) == (0, "")
    assert out.splitlines()[-1].startswith("written to logs/ratings/ann.jsonl: 0 ratings, 0 skips; 0 undone; in total ")


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_the_end_says_what_was_written(tmp_path: Path, how: signal.Signals) -> None:
    words = [*two_runs(tmp_path), "--rater", "ann", "--ratings", "mine.jsonl", "--sample", "4"]
    with Serving(tmp_path, words) as server:
        assert server.said[:3] == [
            "4 records of 2 runs; ann has rated 0 and skipped 0",
            "not in the sample (--sample): 2 records",
            "ratings: mine.jsonl",
        ]
        for number in (1, 2):
            server.post(f"rate?at={number}", **YES)
        server.post("skip?at=3")
        server.post("rate?at=4", **YES)
        server.post("undo")
        code, out, err = server.end(how)
    assert (code, err) == (0, "")
    assert out.strip() == "written to mine.jsonl: 3 ratings, 1 skip; 1 undone; in total 2 of 4 rated, 1 skipped"


def test_two_servers_do_not_write_one_file(tmp_path: Path) -> None:
    words = [*two_runs(tmp_path), "--rater", "ann"]
    with (
        Serving(tmp_path, words),
        pytest.raises(AssertionError, match=r"ann\.jsonl: another review is writing here"),
    ):
        Serving(tmp_path, words)


def test_nobody_else_can_reach_it_and_a_taken_port_is_said() -> None:
    with bind(0) as bound:
        address, port = bound.getsockname()
        assert address == "127.0.0.1"
        with pytest.raises(InputError, match=rf"--port {port}: Address already in use"):
            bind(port)
        with socket.socket() as other:
            assert other.connect_ex(("127.0.0.2", port)) != 0
