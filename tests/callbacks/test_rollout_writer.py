"""Mining runs that are interrupted, shared by processes, or use an engine with invalid outputs."""

import logging
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

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


def mine_into(
    folder: Path, module: GuardModule, chunk_size: int = 7, records: int = len(RECORDS), **trainer: Any
) -> bytes:
    """Mine into a folder and return the content of its rollout file."""
    data = ReasoningDataModule(TinySource(records), chunk_size=chunk_size)
    quiet_trainer(callbacks=[RolloutWriter(str(folder))], **trainer).predict(
        module, datamodule=data, return_predictions=False
    )
    return (folder / "rollouts.jsonl").read_bytes()


def local_guard(base: Path, seed: int = 0, **local: Any) -> GuardModule:
    return GuardModule(Backbone(str(base)), lambda b: LocalGenerator(b, 8, chunk=3, **local), k=2, seed=seed)


class Failing(Scripted):
    """A scripted engine that records its requests and fails after some of them."""

    def __init__(self, after: int) -> None:
        super().__init__(RECORDS, lambda record, index: f"{index} {answer(record, index > 0)}")
        self.after = after
        self.requested: list[str] = []

    @property
    def settings(self) -> dict[str, Any]:
        return {}

    def generate_groups(self, requests: Iterable[Request]) -> Iterator[list[Completion]]:
        for request in requests:
            if len(self.requested) == self.after:
                raise RuntimeError("the machine is on fire")
            self.requested.append(request.record_id)
            yield from super().generate_groups([request])


def test_an_interrupted_run_is_resumed(tiny_base: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    expected = mine_into(tmp_path / "whole", GuardModule(Backbone(str(tiny_base)), lambda _: Failing(99)))
    requested = []
    with caplog.at_level(logging.INFO, "guardreasoner"):
        for after in (5, 0, 9, 99):
            engine = Failing(after)
            module = GuardModule(Backbone(str(tiny_base)), partial(lambda engine, _: engine, engine))
            if after < 99:
                with pytest.raises(RuntimeError, match="on fire"):
                    mine_into(tmp_path / "out", module)
                assert not (tmp_path / "out").exists()
            else:
                assert mine_into(tmp_path / "out", module) == expected
            requested += engine.requested
    assert sorted(requested) == sorted(record.id for record in RECORDS)  # each once
    assert [line for line in caplog.messages if "resuming" in line] == [
        f"resuming: {done} of 24 records are done" for done in (5, 5, 14)
    ]
    assert not list(tmp_path.glob(".*"))


def test_incomplete_chunks_are_sampled_again(tiny_base: Path, tmp_path: Path) -> None:
    expected = mine_into(tmp_path / "whole", local_guard(tiny_base))
    with pytest.raises(RuntimeError, match="enough"):
        mine_into(tmp_path / "out", stopping(local_guard(tiny_base), after=2))
    shard = next(tmp_path.glob(".out.*.partial/rollouts-00000.jsonl"))
    groups = re.split(r"^#.*\n", shard.read_text(), flags=re.MULTILINE)
    assert [group.count("\n") for group in groups] == [6, 6, 0]  # chunks of three records, two outputs each
    shard.write_text(shard.read_text() + '{"record_id": "train/')
    assert mine_into(tmp_path / "out", local_guard(tiny_base)) == expected


def stopping(module: GuardModule, after: int) -> GuardModule:
    """Make the module's engine fail after some chunks, and return the module."""
    parts = module.generator.generate_groups

    def first_parts(requests: Iterable[Request]) -> Iterator[list[Completion]]:
        for number, part in enumerate(parts(requests)):
            if number == after:
                raise RuntimeError("enough")
            yield part

    module.generator.generate_groups = first_parts  # type: ignore[method-assign]
    return module


@pytest.mark.slow
@pytest.mark.parametrize("change", [{"seed": 1}, {"temperature": 0.5}, {"batch_size": 4}])
def test_other_settings_start_from_scratch(change: dict[str, Any], tiny_base: Path, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="enough"):
        mine_into(tmp_path / "out", stopping(local_guard(tiny_base), after=1))
    assert mine_into(tmp_path / "out", local_guard(tiny_base, **change)) == mine_into(
        tmp_path / "fresh", local_guard(tiny_base, **change)
    )
    assert mine_into(tmp_path / "out", local_guard(tiny_base)) == mine_into(tmp_path / "whole", local_guard(tiny_base))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("backbone", "trainer"),
    [({"dtype": "bfloat16"}, {}), ({"quantization": "4bit"}, {}), ({}, {"precision": "bf16-mixed"})],
    ids=["dtype", "quantization", "precision"],
)
def test_another_precision_starts_from_scratch(
    backbone: dict[str, Any], trainer: dict[str, Any], tiny_base: Path, tmp_path: Path
) -> None:
    def other() -> GuardModule:
        return GuardModule(Backbone(str(tiny_base), **backbone), lambda b: LocalGenerator(b, 8, chunk=3), k=2)

    with pytest.raises(RuntimeError, match="enough"):
        mine_into(tmp_path / "out", stopping(local_guard(tiny_base), after=1))
    (log,) = tmp_path.glob(".out.*.partial")
    assert mine_into(tmp_path / "out", other(), **trainer) == mine_into(tmp_path / "fresh", other(), **trainer)
    assert log.exists()  # was not continued
    assert mine_into(tmp_path / "out", local_guard(tiny_base)) == mine_into(tmp_path / "whole", local_guard(tiny_base))
    assert not log.exists()


PROGRAM = """
import sys
from pathlib import Path
from tests.callbacks.test_rollout_writer import local_guard, mine_into

base, out, chunk_size, records, batches = *map(Path, sys.argv[1:3]), *map(int, sys.argv[3:])
options = {"limit_predict_batches": batches or 1.0, "devices": 2, "strategy": "ddp_fork"}
mine_into(out, local_guard(base, workers=1), chunk_size, records, **options)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("chunk_size", "records", "batches"),
    [(7, 24, 0), (512, 24, 0), (512, 1, 0), (7, 24, 2)],
    ids=["many-chunks", "one-chunk", "one-record", "limited"],
)
def test_two_processes_write_the_same_rollouts_as_one(
    chunk_size: int, records: int, batches: int, tiny_base: Path, tmp_path: Path
) -> None:
    numbers = map(str, (chunk_size, records, batches))
    command = [sys.executable, "-c", PROGRAM, str(tiny_base), str(tmp_path / "two"), *numbers]
    # A separate process, because a process that has computed a gradient must not be forked.
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=Path(__file__).parents[2])
    assert (tmp_path / "two" / "rollouts.jsonl").exists(), done.stderr
    limit = {"limit_predict_batches": batches or 1.0}
    one = mine_into(tmp_path / "one", local_guard(tiny_base), chunk_size, records, **limit)
    assert (tmp_path / "two" / "rollouts.jsonl").read_bytes() == one
    assert '"devices": 2' in (tmp_path / "two" / "cost.manifest.json").read_text()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "two"]


@pytest.mark.parametrize("world", [1, 2, 3, 50])
def test_processes_share_records_in_whole_groups(world: int, tiny_base: Path) -> None:
    """Each group of three is answered by one process, whichever is free next; a process may have none."""
    shares = []
    for rank in range(world):
        module = local_guard(tiny_base)
        module._trainer = SimpleNamespace(world_size=world, global_rank=rank)  # type: ignore[assignment]
        shares.append([module._share(RECORDS[:7]), module._share(RECORDS[7:14])])
    groups = [
        tuple(share[start : start + 3])
        for parts in zip(*shares, strict=True)
        for share in parts
        for start in range(0, len(share), 3)
    ]
    expected = [tuple(RECORDS[a:b]) for a, b in ((0, 3), (3, 6), (6, 7), (7, 10), (10, 13), (13, 14))]
    assert sorted(groups, key=lambda group: group[0].id) == expected


class Invalid(Generator):
    """An engine whose outputs are those of a function, valid or not."""

    def __init__(self, outputs: Callable[[Request], list[Completion]]) -> None:
        self.outputs = outputs

    def generate_groups(self, requests: Iterable[Request]) -> Iterator[list[Completion]]:
        for request in requests:
            yield self.outputs(request)


@pytest.mark.parametrize(
    ("outputs", "fault"),
    [
        (
            lambda r: [Completion(r.record_id, n, "x") for n in range(3)],
            r"returned 3 outputs for record '.*', requested 4",
        ),
        (lambda r: [], "returned outputs for 0 records, requested 7"),
        (
            lambda r: [Completion("other", n, "x") for n in range(4)],
            "an output for record 'other', not requested",
        ),
    ],
)
def test_invalid_outputs_of_an_engine_are_refused(
    outputs: Callable[[Request], list[Completion]], fault: str, tiny_base: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=f"Invalid (returned )?{fault}"):
        mine_into(tmp_path / "out", GuardModule(Backbone(str(tiny_base)), lambda _: Invalid(outputs)))
    assert not list(tmp_path.iterdir())


def test_a_resumed_run_requests_only_missing_records(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "key")

    def module(base_url: str, dtype: Literal["float32", "bfloat16"] = "float32") -> GuardModule:
        settings: dict[str, Any] = {"attempts": 1, "choices_per_request": 4, "chat": False, "concurrency": 2}
        return GuardModule(
            Backbone(str(tiny_base), dtype=dtype),
            lambda b: ServerGenerator(b, base_url=base_url, model="guard", give_up_after=1, **settings),
        )

    def refusing(prompt: str, times: int) -> str | None:
        return "400" if len(server.seen.answered) >= 10 else None

    with FakeServer(refusing) as server, pytest.raises(InputError):
        mine_into(tmp_path / "out", module(server.base_url))
    first = set(server.seen.answered)
    with FakeServer() as server:
        mine_into(tmp_path / "out", module(server.base_url, "bfloat16"))  # the server has its own data type
        assert all(body["n"] == 4 for body in server.seen.bodies)
    assert not first & set(server.seen.answered)
    rollouts = read_rollouts(tmp_path / "out" / "rollouts.jsonl")
    assert sorted((r.record_id, r.index) for r in rollouts) == [(r.id, n) for r in RECORDS for n in range(4)]
    assert {r.fingerprint for r in rollouts} != {Backbone(str(tiny_base)).weights_fingerprint()}
