"""Every engine overlay under configs/ runs through the command line; vLLM is replaced by a fake.

test_vllm.py runs the real vLLM, and test_ray.py runs Ray, which starts processes.
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


def test_every_engine_overlay_has_a_test() -> None:
    assert {file.stem for file in (ROOT / "configs" / "engine").iterdir()} == {"plain", "server", "vllm", "ray"}


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["plain", "server", "vllm"])
def test_an_engine_overlay_mines(
    engine: str, tiny_base: Path, start: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    engines = fake_vllm.install(monkeypatch)
    argv = ("--config", f"configs/engine/{engine}.yaml", "--data.source.train", "6", "--recipe.max_new_tokens", "4")
    with FakeServer() as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
        monkeypatch.setenv("OPENAI_API_KEY", "any")
        start(*command("mine", tiny_base, *argv))
    rollouts = read_rollouts("made/rollouts.jsonl")
    assert [(r.record_id, r.index) for r in rollouts] == [(f"train/{n:02d}", i) for n in range(6) for i in range(4)]
    assert [body["n"] for body in server.seen.bodies] == ([4] * 6 if engine == "server" else [])
    assert [llm.calls for llm in engines] == ([[24]] if engine == "vllm" else [])
