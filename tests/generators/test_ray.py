"""Ray: a cluster of two nodes on this machine, with real actors, of which some are killed."""

import logging
import os
import pickle
import platform
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from operator import methodcaller
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

from guardreasoner.cli.lightning_cli import GuardCLI
from guardreasoner.cli.main import main
from guardreasoner.errors import InputError
from guardreasoner.generators import Completion, Request, ScoreRequest
from guardreasoner.generators.local import LocalGenerator
from guardreasoner.generators.ray import RayGenerator
from guardreasoner.generators.ray_actor import EngineActor
from guardreasoner.generators.ray_watch import actor_room
from guardreasoner.model.backbone import Backbone
from tests.support.ray_engines import CHUNK, GATE_DEADLINE, NEW, FailingGenerator, GatedGenerator
from tests.support.sampling import record_requests
from tests.support.scoring import label_requests
from tests.support.tiny import Scripted, command, load

ROOT = Path(__file__).parents[2]
MISSING = "Ray is not installed (pip install 'guardreasoner[ray]')"
NODE = {"num_cpus": 1, "object_store_memory": 100 << 20}
"""A node with room for one actor."""


@pytest.fixture(scope="module", autouse=True)
def importable() -> Iterator[None]:
    """Lets actors, which are separate processes, import the tests' modules."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))
        yield


def requests_for(folder: Path, count: int) -> list[Request]:
    return record_requests(Backbone(str(folder)), count, (7,) * 4)


def local_groups(folder: Path, requests: list[Request]) -> list[list[Completion]]:
    return list(LocalGenerator(load(folder), NEW, chunk=CHUNK, workers=1).generate_groups(requests))


def test_room_is_counted_per_node() -> None:
    nodes = [
        {"Alive": True, "Resources": {"CPU": 8.0, "GPU": 1.0, "node:1": 1.0}},
        {"Alive": True, "Resources": {"CPU": 3.0, "big": 1.0}},
        {"Alive": False, "Resources": {"CPU": 64.0, "GPU": 8.0}},
    ]
    assert actor_room({"CPU": 1.0, "GPU": 0.0}, nodes) == 11
    assert actor_room({"CPU": 2.0}, nodes) == 5
    assert actor_room({"CPU": 1.0, "GPU": 1.0}, nodes) == 1
    assert actor_room({"CPU": 0.1}, nodes) == 110
    assert actor_room({"big": 0.5}, nodes) == 2
    assert actor_room({"CPU": 0.0}, nodes) > 1000


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"chunk": 0}, "chunk and threads must be at least 1"),
        ({"actors": 0}, "generator.actors: .*got 0"),
        ({"actors": (3, 2)}, r"generator.actors: .*got \(3, 2\)"),
        ({"num_gpus": -1.0}, "num_gpus and patience must be 0 or above"),
        ({"timeout": 0.0}, "timeout must be a number above 0"),
        ({"address": "ray://head:10001"}, "generator.address: .*ray://head:10001"),
        ({"engine": lambda backbone: LocalGenerator(backbone, temperature=-1)}, "temperature must be 0"),
    ],
)
def test_invalid_arguments_are_refused(tiny_base: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        RayGenerator(Backbone(str(tiny_base)), **changes)


def test_a_missing_ray_is_reported_with_the_command_that_installs_it(
    tiny_base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    assert list(RayGenerator(Backbone(str(tiny_base))).generate_groups([])) == []
    with pytest.raises(InputError, match="Ray cannot be imported") as caught:
        list(RayGenerator(Backbone(str(tiny_base))).generate_groups(requests_for(tiny_base, 1)))
    assert caught.value.hint == "pip install 'guardreasoner[ray]'"


def local_actor(generator: RayGenerator) -> EngineActor:
    """Return the object that an actor would hold, in this process."""
    ray = pytest.importorskip("ray", reason=MISSING)
    return EngineActor(**generator._actor_arguments(ray))


def outcome(actor: EngineActor, requests: Sequence[Request | ScoreRequest], method: str = "generate") -> Any:
    return pickle.loads(actor({"call": pickle.dumps(methodcaller(method, requests))})["outcome"])


@pytest.fixture
def threads() -> Iterator[None]:
    """Restores torch's number of threads, which an actor sets."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("threads")
def test_an_actor_receives_no_weights_and_generates_what_its_engine_does(tiny_base: Path) -> None:
    backbone, requests = load(tiny_base), requests_for(tiny_base, 6)
    generator = RayGenerator(backbone, lambda backbone: LocalGenerator(backbone, NEW, chunk=CHUNK), threads=2)
    assert not generator.needs_weights
    assert generator.model_fingerprint("weights") == "weights"
    actor = local_actor(generator)
    assert len(actor.content) < 4000
    assert outcome(actor, requests) == [c for group in local_groups(tiny_base, requests) for c in group]
    assert torch.get_num_threads() == 2


@pytest.mark.usefixtures("threads")
def test_an_actor_scores_what_its_engine_does(tiny_base: Path) -> None:
    backbone = load(tiny_base)
    generator, requests = RayGenerator(backbone), label_requests(backbone, 3)
    assert generator.can_score
    assert outcome(local_actor(generator), requests, "score") == list(LocalGenerator(backbone).score(requests))


def test_an_engine_that_cannot_score_is_reported_before_actors_start(tiny_base: Path) -> None:
    generator = RayGenerator(Backbone(str(tiny_base)), lambda backbone: Scripted([], lambda record, index: ""))
    with pytest.raises(InputError, match="Scripted cannot score continuations"):
        next(generator.score([ScoreRequest("a", (5,), ((6,),))]))


@pytest.mark.usefixtures("threads", "workplace")
def test_objects_made_by_the_command_line_can_be_sent_to_an_actor(tiny_base: Path) -> None:
    argv = [*command("mine", tiny_base), "--config", "configs/engine/ray.yaml", "--recipe.max_new_tokens", str(NEW)]
    generator = GuardCLI("predict", [*argv[1:], "--model.generator.actors", "[1, 3]"]).model.generator
    assert isinstance(generator, RayGenerator)
    assert generator.actors == (1, 3)
    requests = requests_for(tiny_base, 6)
    local = LocalGenerator(load(tiny_base), NEW, temperature=0.8, top_p=0.95, workers=1)
    assert outcome(local_actor(generator), requests) == list(local.generate(requests))


def test_a_missing_model_folder_is_reported_with_path_and_machine(tiny_base: Path, tmp_path: Path) -> None:
    actor = local_actor(RayGenerator(Backbone(str(tmp_path / "gone"))))
    error = outcome(actor, requests_for(tiny_base, 1))
    assert error.message == f"{tmp_path / 'gone'}: no such model folder (on {platform.node()})"
    assert "every machine of the cluster" in error.hint


def test_an_engine_that_cannot_be_pickled_is_reported_in_one_line(tiny_base: Path) -> None:
    def with_lock(backbone: Backbone) -> LocalGenerator:
        generator = LocalGenerator(backbone)
        generator.lock = threading.Lock()  # type: ignore[attr-defined]
        return generator

    with pytest.raises(InputError, match=r"^generator.engine: LocalGenerator cannot be sent to an actor: TypeError"):
        local_actor(RayGenerator(Backbone(str(tiny_base)), with_lock))


@pytest.mark.parametrize("address", ["127.0.0.1:1", "nowhere.invalid:6379", "head:port"])
def test_an_unreachable_cluster_is_reported_in_one_line(tiny_base: Path, address: str) -> None:
    pytest.importorskip("ray", reason=MISSING)
    generator = RayGenerator(Backbone(str(tiny_base)), address=address)
    with pytest.raises(InputError, match=f"^Ray: {address}: ") as caught:
        list(generator.generate_groups(requests_for(tiny_base, 1)))
    assert "ray start --head" in (caught.value.hint or "")


@pytest.fixture
def disconnected() -> Iterator[None]:
    """Ends the Ray that a test has started."""
    ray = pytest.importorskip("ray", reason=MISSING)
    yield
    ray.shutdown()


@pytest.mark.slow
@pytest.mark.usefixtures("disconnected", "workplace")
def test_one_machine_needs_no_cluster_and_ray_prints_nothing(
    tiny_base: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    argv = command("mine", tiny_base, "--recipe.max_new_tokens", str(NEW), "--model.generator.chunk", "8")
    monkeypatch.setattr(sys, "argv", ["guardreasoner"])
    assert main(argv) == 0
    local = Path("made/rollouts.jsonl").read_bytes()
    capfd.readouterr()
    ray = ("--config", "configs/engine/ray.yaml", "--model.generator.chunk", "8", "--model.generator.actors", "1")
    assert main([*argv, *ray, "--output", "by-ray"]) == 0
    assert Path("by-ray/rollouts.jsonl").read_bytes() == local
    printed = capfd.readouterr()
    assert printed.err == ""
    assert "ray" not in printed.out.lower()


class Cluster(NamedTuple):
    """A running cluster of two nodes with room for one actor each.

    Args:
        nodes: Ray's own handle of the cluster.
        worker: the node that does not run the driver.
    """

    nodes: Any
    worker: Any


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A cluster that notices a lost node within a second or two; the last test kills the worker node."""
    ray = pytest.importorskip("ray", reason=MISSING)
    from ray.cluster_utils import Cluster as RayCluster

    checks = {"health_check_initial_delay_ms": 0, "health_check_period_ms": 300, "health_check_failure_threshold": 3}
    nodes = RayCluster(initialize_head=True, head_node_args={**NODE, "_system_config": checks})
    ray.init(address=nodes.address, log_to_driver=False, logging_level="ERROR")
    worker = nodes.add_node(**NODE)
    nodes.wait_for_nodes()
    yield Cluster(nodes, worker)
    ray.shutdown()
    nodes.shutdown()


class Start(NamedTuple):
    """A chunk that an actor has begun."""

    node: str
    process: int
    record: str


def starts(folder: Path) -> list[Start]:
    lines = (folder / "log").read_text().splitlines() if (folder / "log").exists() else []
    return [Start(node, int(process), record) for node, process, record in (line.split() for line in lines)]


class Disruption(threading.Thread):
    """Waits until two actors hold a chunk at the closed gate, kills something, and opens the gate.

    Args:
        folder: the folder of the gate.
        free: chunks whose first record is below this number do not wait at the gate.
        kill: takes the starts of the waiting chunks; returns the start of the chunk that was lost.
    """

    def __init__(self, folder: Path, free: int, kill: Callable[[list[Start]], Start]) -> None:
        super().__init__(daemon=True)
        self.folder, self.free, self.kill = folder, free, kill
        self.lost: Start | None = None
        self.starts_before = 0
        self.start()

    def run(self) -> None:
        deadline = time.monotonic() + GATE_DEADLINE
        while time.monotonic() < deadline:
            waiting = [start for start in starts(self.folder) if int(start.record.rpartition("/")[2]) >= self.free]
            if len({start.process for start in waiting}) == 2:
                self.lost = self.kill(waiting)
                self.starts_before = len(starts(self.folder))
                (self.folder / "gate").touch()
                return
            time.sleep(0.05)


def gated(folder: Path, gate: Path, free: int, patience: float) -> RayGenerator:
    return RayGenerator(
        Backbone(str(folder)),
        lambda backbone: GatedGenerator(backbone, str(gate), free),
        chunk=CHUNK,
        actors=2,
        patience=patience,
    )


@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
def test_an_error_in_an_actor_becomes_one_line(tiny_base: Path) -> None:
    generator = RayGenerator(Backbone(str(tiny_base)), FailingGenerator)
    with pytest.raises(InputError, match=r"^generator.engine: RuntimeError: CUDA out of memory \(on \S+\)$") as caught:
        list(generator.generate_groups(requests_for(tiny_base, 2)))
    assert "in generate_groups" in str(caught.value.__cause__)  # the actor's traceback, for callers from Python


@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
def test_killing_an_actor_changes_no_completion(tiny_base: Path, tmp_path: Path) -> None:
    def kill_process(waiting: list[Start]) -> Start:
        os.kill(waiting[-1].process, signal.SIGKILL)
        return waiting[-1]

    requests = requests_for(tiny_base, 30)
    disruption = Disruption(tmp_path, 12, kill_process)
    # the watch for lost nodes must not interfere
    groups = list(gated(tiny_base, tmp_path, 12, patience=GATE_DEADLINE).generate_groups(iter(requests)))
    disruption.join()
    assert groups == local_groups(tiny_base, requests)
    assert [len(group) for group in groups] == [16] * 7 + [8]
    lost = disruption.lost
    assert lost is not None
    # the lost chunk is generated by the restarted actor
    assert {start.process for start in starts(tmp_path)[disruption.starts_before :]} - {lost.process}
    assert len({start.process for start in starts(tmp_path)}) == 3
    assert [start.record for start in starts(tmp_path)].count(lost.record) == 2


@pytest.mark.slow
def test_killing_a_node_changes_no_completion(
    tiny_base: Path, cluster: Cluster, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    import psutil

    def kill_worker(waiting: list[Start]) -> Start:
        (lost,) = {start for start in waiting if start.node == cluster.worker.node_id}
        (raylet,) = cluster.worker.all_processes["raylet"]
        root = psutil.Process(raylet.process.pid)
        # as on a machine that is switched off, all that the node has started ends too
        for process in [root, *root.children(recursive=True)]:
            process.kill()
        return lost

    requests = requests_for(tiny_base, 44)
    disruption = Disruption(tmp_path, 20, kill_worker)
    with caplog.at_level(logging.WARNING, "guardreasoner"):
        groups = list(gated(tiny_base, tmp_path, 20, patience=0.5).generate_groups(requests))
    disruption.join()
    assert groups == local_groups(tiny_base, requests)
    lost = disruption.lost
    assert lost is not None
    later = starts(tmp_path)[disruption.starts_before :]
    assert lost.record in [start.record for start in later]
    assert lost.node not in {start.node for start in later}
    # no node has room for a second actor, so generation continues with one
    (message,) = caplog.messages
    assert "a node was lost" in message
    assert message.endswith("room for 1 actors")
    cluster.nodes.remove_node(cluster.worker)
