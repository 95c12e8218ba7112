"""Ray: a cluster of two nodes on this machine, with real actors, of which some are killed."""

import logging
import os
import pickle
import platform
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from guardreasoner.cli.lightning_cli import GuardCLI
from guardreasoner.cli.main import main
from guardreasoner.errors import InputError
from guardreasoner.generators import Completion, Request
from guardreasoner.generators.local import LocalGenerator
from guardreasoner.generators.ray import RayGenerator
from guardreasoner.generators.ray_actor import EngineActor
from guardreasoner.generators.ray_watch import room_for
from guardreasoner.model.backbone import Backbone
from tests.support.ray_engines import CHUNK, NEW, Broken, Logged
from tests.support.tiny import TinySource, command, load

ROOT = Path(__file__).parents[2]
MISSING = "Ray is not installed (pip install 'guardreasoner[ray]')"
NODE = {"num_cpus": 1, "object_store_memory": 100 << 20}
"""Room for one actor."""


@pytest.fixture(scope="module", autouse=True)
def importable() -> Iterator[None]:
    """Lets actors, which are processes of their own, import what tests define."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))
        yield


def asked_of(folder: Path, count: int, outputs: int = 4) -> list[Request]:
    prompt_tokenizer = Backbone(str(folder)).prompt_tokenizer
    records = TinySource(count).records("train")
    return [Request(r.id, tuple(prompt_tokenizer.prompt(r)), prompt_tokenizer.text(r), (7,) * outputs) for r in records]


def local_parts(folder: Path, asked: list[Request]) -> list[list[Completion]]:
    return list(LocalGenerator(load(folder), NEW, chunk=CHUNK, workers=1).parts(asked))


def begun(log: Path) -> list[list[str]]:
    """Return node, process and first record of each chunk that an actor has begun."""
    return [line.split() for line in log.read_text().splitlines()] if log.exists() else []


def test_room_is_counted_by_machine() -> None:
    nodes = [
        {"Alive": True, "Resources": {"CPU": 8.0, "GPU": 1.0, "node:1": 1.0}},
        {"Alive": True, "Resources": {"CPU": 3.0, "big": 1.0}},
        {"Alive": False, "Resources": {"CPU": 64.0, "GPU": 8.0}},
    ]
    assert room_for({"CPU": 1.0, "GPU": 0.0}, nodes) == 11
    assert room_for({"CPU": 2.0}, nodes) == 5
    assert room_for({"CPU": 1.0, "GPU": 1.0}, nodes) == 1
    assert room_for({"CPU": 0.1}, nodes) == 110
    assert room_for({"big": 0.5}, nodes) == 2
    assert room_for({"CPU": 0.0}, nodes) > 1000


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"chunk": 0}, "chunk and threads must be at least 1"),
        ({"actors": 0}, "actors must be 1 or more"),
        ({"actors": (3, 2)}, "actors must be 1 or more"),
        ({"num_gpus": -1.0}, "num_gpus and patience must be 0 or above"),
        ({"timeout": 0.0}, "timeout must be a number above 0"),
        ({"address": "ray://head:10001"}, "Ray Data takes no client"),
        ({"engine": lambda backbone: LocalGenerator(backbone, temperature=-1)}, "temperature must be 0"),
    ],
)
def test_what_cannot_be_is_refused_at_once(tiny_base: Path, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        RayGenerator(Backbone(str(tiny_base)), **changes)


def test_without_ray_one_line_says_how_to_install_it(tiny_base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    assert list(RayGenerator(Backbone(str(tiny_base))).parts([])) == []
    with pytest.raises(InputError, match="Ray cannot be imported") as caught:
        list(RayGenerator(Backbone(str(tiny_base))).parts(asked_of(tiny_base, 1)))
    assert caught.value.hint == "pip install 'guardreasoner[ray]'"


def actor_of(generator: RayGenerator) -> EngineActor:
    """Return what an actor would be, in this process."""
    ray = pytest.importorskip("ray", reason=MISSING)
    return EngineActor(**generator._actor(ray))


def outcome(actor: EngineActor, asked: list[Request]) -> Any:
    return pickle.loads(actor({"requests": pickle.dumps(asked)})["outcome"])


@pytest.fixture
def threads() -> Iterator[None]:
    """The number of torch's threads, which an actor sets, as it was."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("threads")
def test_an_actor_is_sent_a_model_without_weights_and_answers_as_the_engine(tiny_base: Path) -> None:
    backbone, asked = load(tiny_base), asked_of(tiny_base, 6)
    generator = RayGenerator(backbone, lambda backbone: LocalGenerator(backbone, NEW, chunk=CHUNK), threads=2)
    assert not generator.needs_weights
    assert generator.model_fingerprint("weights") == "weights"
    actor = actor_of(generator)
    assert len(actor.content) < 4000
    assert outcome(actor, asked) == [one for part in local_parts(tiny_base, asked) for one in part]
    assert torch.get_num_threads() == 2


@pytest.mark.usefixtures("threads", "workplace")
def test_what_the_command_line_makes_can_be_sent(tiny_base: Path) -> None:
    words = [*command("mine", tiny_base), "--config", "configs/engine/ray.yaml", "--recipe.max_new_tokens", str(NEW)]
    generator = GuardCLI("predict", [*words[1:], "--model.generator.actors", "[1, 3]"]).model.generator
    assert isinstance(generator, RayGenerator)
    assert generator.actors == (1, 3)
    asked = asked_of(tiny_base, 6)
    local = LocalGenerator(load(tiny_base), NEW, temperature=0.8, top_p=0.95, workers=1)
    assert outcome(actor_of(generator), asked) == list(local.generate(asked))


def test_a_folder_that_a_machine_does_not_find_is_told_with_its_name(tiny_base: Path, tmp_path: Path) -> None:
    fault = outcome(actor_of(RayGenerator(Backbone(str(tmp_path / "gone")))), asked_of(tiny_base, 1))
    assert fault.message == f"{tmp_path / 'gone'}: no such model folder (on {platform.node()})"
    assert "every machine of the cluster" in fault.hint


def test_an_engine_that_cannot_be_sent_is_one_line(tiny_base: Path) -> None:
    def held(backbone: Backbone) -> LocalGenerator:
        found = LocalGenerator(backbone)
        found.lock = threading.Lock()  # type: ignore[attr-defined]
        return found

    with pytest.raises(InputError, match=r"^generator.engine: LocalGenerator cannot be sent to an actor: TypeError"):
        actor_of(RayGenerator(Backbone(str(tiny_base)), held))


@pytest.mark.parametrize("address", ["127.0.0.1:1", "nowhere.invalid:6379", "head:port"])
def test_a_cluster_that_is_not_there_is_one_line(tiny_base: Path, address: str) -> None:
    pytest.importorskip("ray", reason=MISSING)
    generator = RayGenerator(Backbone(str(tiny_base)), address=address)
    with pytest.raises(InputError, match=f"^Ray: {address}: ") as caught:
        list(generator.parts(asked_of(tiny_base, 1)))
    assert "ray start --head" in (caught.value.hint or "")


@pytest.fixture
def connected() -> Iterator[None]:
    """Ends what a test starts."""
    ray = pytest.importorskip("ray", reason=MISSING)
    yield
    ray.shutdown()


@pytest.mark.usefixtures("connected", "workplace")
def test_one_machine_needs_no_cluster_and_ray_says_nothing(
    tiny_base: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    words = command("mine", tiny_base, "--recipe.max_new_tokens", str(NEW), "--model.generator.chunk", "8")
    monkeypatch.setattr(sys, "argv", ["guardreasoner"])
    assert main(words) == 0
    local = Path("made/rollouts.jsonl").read_bytes()
    capfd.readouterr()
    ray = ("--config", "configs/engine/ray.yaml", "--model.generator.chunk", "8", "--model.generator.actors", "1")
    assert main([*words, *ray, "--output", "by-ray"]) == 0
    assert Path("by-ray/rollouts.jsonl").read_bytes() == local
    said = capfd.readouterr()
    assert said.err == ""
    assert "ray" not in said.out.lower()

    generator = RayGenerator(Backbone(str(tiny_base)), Broken)
    with pytest.raises(InputError, match=r"^generator.engine: RuntimeError: CUDA out of memory \(on \S+\)$") as caught:
        list(generator.parts(asked_of(tiny_base, 2)))
    assert "in parts" in str(caught.value.__cause__)  # for who calls from Python


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A cluster of one node with one processor, that sees within a second or two that a node is gone."""
    ray = pytest.importorskip("ray", reason=MISSING)
    from ray.cluster_utils import Cluster

    soon = {"health_check_initial_delay_ms": 0, "health_check_period_ms": 300, "health_check_failure_threshold": 3}
    found = Cluster(initialize_head=True, head_node_args={**NODE, "_system_config": soon})
    ray.init(address=found.address, log_to_driver=False, logging_level="ERROR")
    yield found
    ray.shutdown()
    found.shutdown()


@pytest.fixture(scope="module")
def worker(cluster: Any) -> Any:
    """A second node."""
    node = cluster.add_node(**NODE)
    cluster.wait_for_nodes()
    return node


def kill(node: Any) -> None:
    """Kill a node's raylet and, as on a machine that is switched off, all that it has started."""
    import psutil

    (raylet,) = node.all_processes["raylet"]
    for process in [psutil.Process(raylet.process.pid), *psutil.Process(raylet.process.pid).children(recursive=True)]:
        process.kill()


def ray_generator(folder: Path, log: Path) -> RayGenerator:
    """Two actors, each of which takes its time."""
    backbone = Backbone(str(folder))
    return RayGenerator(backbone, lambda one: Logged(one, str(log), 0.15), chunk=CHUNK, actors=2, patience=0.5)


@pytest.mark.usefixtures("worker")
def test_an_actor_that_is_killed_changes_nothing(tiny_base: Path, tmp_path: Path) -> None:
    asked, log, found, killed = asked_of(tiny_base, 30), tmp_path / "log", [], ""
    for part in ray_generator(tiny_base, log).parts(iter(asked)):
        found.append(part)
        if len(found) == 3:
            killed = begun(log)[-1][1]
            os.kill(int(killed), signal.SIGKILL)
    assert found == local_parts(tiny_base, asked)
    assert [len(part) for part in found] == [16] * 7 + [8]
    assert len({process for _, process, _ in begun(log)}) == 3  # it was started again
    assert len(begun(log)) > len(found)  # and what it had not finished was begun again


def test_a_node_that_is_killed_half_way_changes_nothing(
    tiny_base: Path, cluster: Any, worker: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    asked, log, found = asked_of(tiny_base, 44), tmp_path / "log", []
    with caplog.at_level(logging.WARNING, "guardreasoner"):
        for part in ray_generator(tiny_base, log).parts(asked):
            found.append(part)
            if len(found) == 5:
                kill(worker)
    assert found == local_parts(tiny_base, asked)
    nodes = [node for node, _, _ in begun(log)]
    assert len(set(nodes)) == 2
    assert len(set(nodes[-3:])) == 1
    assert len(nodes) > len(found)
    # no node had room for a second actor, so the one that was lost could not be started again
    (said,) = caplog.messages
    assert "a machine was lost" in said
    assert said.endswith("go on with room for 1 actors")
    cluster.remove_node(worker)
