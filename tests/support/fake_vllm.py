"""A fake of vLLM for machines without a GPU: the calls that we make, implemented with a transformers network.

Like vLLM, it takes prompts as token ids, samples each output from an RNG seeded by its parameters, includes the stop
token in the output ids, and refuses unknown arguments and prompts that are too long.
"""

import sys
import types
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

KNOWN = ("seed", "enable_prefix_caching", "enable_lora", "max_lora_rank", "gpu_memory_utilization", "use_tqdm_on_load")


@dataclass(frozen=True)
class SamplingParams:
    """Sampling parameters of one output."""

    temperature: float = 1.0
    top_p: float = 1.0
    max_tokens: int = 16
    seed: int | None = None
    stop_token_ids: Sequence[int] = ()
    detokenize: bool = True
    prompt_logprobs: int | None = None


@dataclass(frozen=True)
class LoRARequest:
    """The adapter of a call."""

    lora_name: str
    lora_int_id: int
    lora_path: str


@dataclass
class Output:
    """One output of a prompt."""

    token_ids: list[int] = field(default_factory=list)
    finish_reason: str = "length"


@dataclass(frozen=True)
class Logprob:
    """The log-probability of a token at one position."""

    logprob: float
    rank: int | None = None
    decoded_token: str | None = None


@dataclass
class RequestOutput:
    """The outputs of one prompt, and for each of its tokens but the first the log-probabilities of some tokens."""

    outputs: list[Output]
    prompt_logprobs: list[dict[int, Logprob] | None] | None = None


class LLM:
    """The engine; ``instances`` lists all that were created since :func:`install`."""

    instances: list["LLM"]

    def __init__(
        self, model: str, tokenizer: str, dtype: str, max_model_len: int | None = None, **arguments: Any
    ) -> None:
        if unknown := [name for name in arguments if name not in KNOWN]:
            raise TypeError(f"EngineArgs.__init__() got an unexpected keyword argument '{unknown[0]}'")
        self.arguments = {"model": model, "tokenizer": tokenizer, "dtype": dtype, **arguments}
        self.max_model_len = max_model_len
        self.network: Any = AutoModelForCausalLM.from_pretrained(model, dtype=getattr(torch, dtype)).eval()
        self.tokenizer = AutoTokenizer.from_pretrained(tokenizer)
        self.adapted: dict[str, Any] = {}
        self.cached = 0
        """Tokens of each prompt that count as cached, for which no log-probabilities are returned."""
        self.calls: list[int] = []
        """Number of prompts in each call of ``generate``."""
        self.instances.append(self)

    @torch.inference_mode()
    def generate(
        self,
        prompts: Sequence[dict[str, list[int]]],
        sampling_params: Sequence[SamplingParams],
        *,
        use_tqdm: bool = True,
        lora_request: LoRARequest | None = None,
    ) -> list[RequestOutput]:
        """Return one output per prompt, in order."""
        assert not use_tqdm
        network = self.network
        if lora_request is not None:
            assert self.arguments["enable_lora"]
            if lora_request.lora_path not in self.adapted:
                self.adapted[lora_request.lora_path] = PeftModel.from_pretrained(network, lora_request.lora_path)
            network = self.adapted[lora_request.lora_path]
        self.calls.append(len(prompts))
        return [
            RequestOutput(
                [self._output(network, prompt["prompt_token_ids"], params)],
                self._prompt_logprobs(network, prompt["prompt_token_ids"], params.prompt_logprobs),
            )
            for prompt, params in zip(prompts, sampling_params, strict=True)
        ]

    def _prompt_logprobs(
        self, network: Any, prompt: list[int], most: int | None
    ) -> list[dict[int, Logprob] | None] | None:
        """Return, for each position, the token itself and the ``most`` likeliest ones; None if ``most`` is None."""
        if most is None:
            return None
        logps = network(torch.tensor([prompt])).logits[0].log_softmax(-1)
        kept: list[dict[int, Logprob] | None] = [None]
        for row, token in zip(logps, prompt[1:], strict=False):
            ids = {token, *row.topk(most).indices.tolist()}
            kept.append({one: Logprob(float(row[one])) for one in ids})
        if self.cached:  # early versions
            kept[: self.cached] = [None] * self.cached
        return kept

    def _output(self, network: Any, prompt: list[int], params: SamplingParams) -> Output:
        if self.max_model_len is not None and len(prompt) > self.max_model_len:
            raise ValueError(
                f"The decoder prompt (length {len(prompt)}) is longer than the maximum of {self.max_model_len}."
            )
        assert params.seed is not None
        rng, output = torch.Generator().manual_seed(params.seed), Output()
        while len(output.token_ids) < params.max_tokens:
            logits = network(torch.tensor([[*prompt, *output.token_ids]])).logits[0, -1]
            if params.temperature == 0:
                token = int(logits.argmax())
            else:
                probabilities, ids = (logits / params.temperature).softmax(-1).sort(descending=True)
                probabilities[probabilities.cumsum(0) - probabilities >= params.top_p] = 0
                token = int(ids[torch.multinomial(probabilities, 1, generator=rng)])
            output.token_ids.append(token)
            if token in params.stop_token_ids:
                output.finish_reason = "stop"
                break
        return output


def install(monkeypatch: pytest.MonkeyPatch) -> list[LLM]:
    """Make ``import vllm`` find this module; return the list that receives each created engine."""
    LLM.instances = []
    vllm, lora, request = (types.ModuleType(name) for name in ("vllm", "vllm.lora", "vllm.lora.request"))
    vllm.LLM, vllm.SamplingParams, request.LoRARequest = LLM, SamplingParams, LoRARequest  # type: ignore[attr-defined]
    for module in (vllm, lora, request):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    return LLM.instances


def model_folder(llm: LLM) -> Path:
    """Return the folder from which an engine read its weights."""
    return Path(llm.arguments["model"])
