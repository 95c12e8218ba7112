"""Mining runs that are interrupted, shared by processes, or answered by something that does not keep its word."""

import logging
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from guardreasoner.callbacks import RolloutWriter
from guardreasoner.errors import InputError
from guardreasoner.evaluation.guard_module import GuardModule
from guardreasoner.generators import Completion, Generator, Request
from guardreasoner.generators.local import LocalGenerator
from guardreasoner.generators.server import ServerGenerator
from guardreasoner.model.backbone import Backbone
from guardreasoner.records import read_rollouts
from guardreasoner.training.reasoning_data import ReasoningDataModule
from tests.support.fake_server import FakeServer
from tests.support.tiny import Scripted, TinySource, answer, quiet_trainer

RECORDS = TinySource().records("train")


def mined(folder: Path, module: GuardModule, **trainer: Any) -> bytes:
    """Mine into a folder; return its rows."""
    data = ReasoningDataModule(TinySource(), chunk_size=7)
    quiet_trainer(callbacks=[RolloutWriter(str(folder))], **trainer).predict(
        module, datamodule=data, return_predictions=False
    )
    return (folder / "rollouts.jsonl").read_bytes()


def sampling(base: Path, seed: int = 0, **local: Any) -> GuardModule:
    return GuardModule(Backbone(str(base)), lambda b: LocalGenerator(b, 8, chunk=3, **local), k=2, seed=seed)


class Breaking(Scripted):
    """Says what it is told, notes what it is asked, and breaks after so many requests."""

    def __init__(self, after: int) -> None:
        super().__init__(RECORDS, lambda record, index: f"{index} {answer(record, index > 0)}")
        self.after = after
        self.asked: list[str] = []

    @property
    def settings(self) -> dict[str, Any]:
        return {}

    def generate_groups(self, requests: Iterable[Request]) -> Iterator[list[Completion]]:
        for request in requests:
            if len(self.asked) == self.after:
                raise RuntimeError("the machine is on fire")
            self.asked.append(request.record_id)
            yield from super().generate_groups([request])


def test_a_run_goes_on_where_it_broke(tiny_base: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    whole = mined(tmp_path / "whole", GuardModule(Backbone(str(tiny_base)), lambda _: Breaking(99)))
    asked = []
    with caplog.at_level(logging.INFO, "guardreasoner"):
        for after in (5, 0, 9, 99):
            engine = Breaking(after)
            module = GuardModule(Backbone(str(tiny_base)), partial(lambda engine, _: engine, engine))
            if after < 99:
                with pytest.raises(RuntimeError, match="on fire"):
                    mined(tmp_path / "out", module)
                assert not (tmp_path / "out").exists()
            else:
                assert mined(tmp_path / "out", module) == whole
            asked += engine.asked
    assert sorted(asked) == sorted(record.id for record in RECORDS)  # each once
    assert [line for line in caplog.messages if "going on" in line] == [
        f"going on: {done} of 24 records are done" for done in (5, 5, 14)
    ]
    assert not list(tmp_path.glob(".*"))


def test_a_chunk_is_kept_whole_or_sampled_again(tiny_base: Path, tmp_path: Path) -> None:
    whole = mined(tmp_path / "whole", sampling(tiny_base))
    with pytest.raises(RuntimeError, match="enough"):
        mined(tmp_path / "out", stopping(sampling(tiny_base), after=2))
    shard = next(tmp_path.glob(".out.*.partial/rollouts-00000.jsonl"))
    parts = shard.read_text().split("\n\n")
    assert [part.count("\n") + 1 for part in parts if part] == [6, 6]  # chunks of three records, two outputs each
    shard.write_text(shard.read_text() + '{"record_id": "train/')
    assert mined(tmp_path / "out", sampling(tiny_base)) == whole


def stopping(module: GuardModule, after: int) -> GuardModule:
    """Return a module whose engine breaks behind a chunk."""
    parts = module.generator.generate_groups

    def some(requests: Iterable[Request]) -> Iterator[list[Completion]]:
        for number, part in enumerate(parts(requests)):
            if number == after:
                raise RuntimeError("enough")
            yield part

    module.generator.generate_groups = some  # type: ignore[method-assign]
    return module


@pytest.mark.parametrize("change", [{"seed": 1}, {"temperature": 0.5}, {"batch_size": 4}])
def test_other_settings_begin_anew(change: dict[str, Any], tiny_base: Path, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="enough"):
        mined(tmp_path / "out", stopping(sampling(tiny_base), after=1))
    assert mined(tmp_path / "out", sampling(tiny_base, **change)) == mined(
        tmp_path / "fresh", sampling(tiny_base, **change)
    )
    assert mined(tmp_path / "out", sampling(tiny_base)) == mined(tmp_path / "whole", sampling(tiny_base))


PROGRAM = """
import sys
from pathlib import Path
from tests.callbacks.test_rollout_writer import mined, sampling

base, out = map(Path, sys.argv[1:])
mined(out, sampling(base, workers=1), devices=2, strategy="ddp_fork")
"""


def test_two_processes_give_what_one_gives(tiny_base: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", PROGRAM, str(tiny_base), str(tmp_path / "two")]
    # a process of its own: one that has computed a gradient must not be forked
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=Path(__file__).parents[2])
    assert (tmp_path / "two" / "rollouts.jsonl").exists(), done.stderr
    assert (tmp_path / "two" / "rollouts.jsonl").read_bytes() == mined(tmp_path / "one", sampling(tiny_base))
    assert '"devices": 2' in (tmp_path / "two" / "cost.manifest.json").read_text()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "two"]


class Careless(Generator):
    """Gives what a function makes of a request."""

    def __init__(self, gives: Callable[[Request], list[Completion]]) -> None:
        self.gives = gives

    def generate_groups(self, requests: Iterable[Request]) -> Iterator[list[Completion]]:
        for request in requests:
            yield self.gives(request)


@pytest.mark.parametrize(
    ("gives", "fault"),
    [
        (lambda r: [Completion(r.record_id, n, "x") for n in range(3)], r"gave 3 outputs of record '.*', asked for 4"),
        (lambda r: [], "gave outputs of 0 records, asked for 7"),
        (lambda r: [Completion("other", n, "x") for n in range(4)], "an output of record 'other', which it was not"),
    ],
)
def test_an_engine_that_gives_other_than_it_was_asked_for(
    gives: Callable[[Request], list[Completion]], fault: str, tiny_base: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=f"Careless gave {fault}|Careless {fault}"):
        mined(tmp_path / "out", GuardModule(Backbone(str(tiny_base)), lambda _: Careless(gives)))
    assert not list(tmp_path.iterdir())


def test_a_server_is_asked_for_what_is_missing(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "key")

    def module(base_url: str) -> GuardModule:
        settings: dict[str, Any] = {"attempts": 1, "choices_per_request": 4, "chat": False, "concurrency": 2}
        return GuardModule(
            Backbone(str(tiny_base)),
            lambda b: ServerGenerator(b, base_url=base_url, model="guard", give_up_after=1, **settings),
        )

    def refusing(prompt: str, times: int) -> str | None:
        return "400" if len(server.seen.answered) >= 10 else None

    with FakeServer(refusing) as server, pytest.raises(InputError):
        mined(tmp_path / "out", module(server.base_url))
    first = set(server.seen.answered)
    with FakeServer() as server:
        mined(tmp_path / "out", module(server.base_url))
        assert all(body["n"] == 4 for body in server.seen.bodies)
    assert not first & set(server.seen.answered)
    rollouts = read_rollouts(tmp_path / "out" / "rollouts.jsonl")
    assert sorted((r.record_id, r.index) for r in rollouts) == [(r.id, n) for r in RECORDS for n in range(4)]
    assert {r.fingerprint for r in rollouts} != {Backbone(str(tiny_base)).weights_fingerprint()}
