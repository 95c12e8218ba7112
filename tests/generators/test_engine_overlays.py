"""Each overlay of an engine mines, through the command line; vLLM by its stand-in.

The real vLLM is tried in test_vllm.py, and Ray, which starts processes, in test_ray.py.
"""

from collections.abc import Callable
from pathlib import Path

import pytest

from guardreasoner.records import read_rollouts
from tests.support import fake_vllm
from tests.support.fake_server import FakeServer
from tests.support.tiny import command

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.usefixtures("workplace")


def test_every_engine_is_tried() -> None:
    assert {file.stem for file in (ROOT / "configs" / "engine").iterdir()} == {"plain", "server", "vllm", "ray"}


@pytest.mark.parametrize("engine", ["plain", "server", "vllm"])
def test_an_engine_overlay_mines(
    engine: str, tiny_base: Path, start: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = fake_vllm.install(monkeypatch)
    words = ("--config", f"configs/engine/{engine}.yaml", "--data.source.train", "6", "--recipe.max_new_tokens", "4")
    with FakeServer() as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
        monkeypatch.setenv("OPENAI_API_KEY", "any")
        start(*command("mine", tiny_base, *words))
    rollouts = read_rollouts("made/rollouts.jsonl")
    assert [(r.record_id, r.index) for r in rollouts] == [(f"train/{n:02d}", i) for n in range(6) for i in range(4)]
    assert [body["n"] for body in server.seen.bodies] == ([4] * 6 if engine == "server" else [])
    assert [llm.asked for llm in made] == ([[24]] if engine == "vllm" else [])
