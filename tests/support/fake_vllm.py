"""The calls of vLLM that we make, over a network of transformers: for machines without a GPU.

As vLLM does, it takes prompts as token ids, draws each output from a generator with the seed of its parameters, writes
the stop token into the ids of an output, and refuses arguments that it does not know and prompts that are too long.
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
    """How an output is drawn."""

    temperature: float = 1.0
    top_p: float = 1.0
    max_tokens: int = 16
    seed: int | None = None
    stop_token_ids: Sequence[int] = ()
    detokenize: bool = True


@dataclass(frozen=True)
class LoRARequest:
    """An adapter that is applied."""

    lora_name: str
    lora_int_id: int
    lora_path: str


@dataclass
class Output:
    """One output of a prompt."""

    token_ids: list[int] = field(default_factory=list)
    finish_reason: str = "length"


@dataclass
class RequestOutput:
    """What a prompt is answered with."""

    outputs: list[Output]


class LLM:
    """A network that answers; every one that is made can be found in ``made``."""

    made: list["LLM"]

    def __init__(
        self, model: str, tokenizer: str, dtype: str, max_model_len: int | None = None, **arguments: Any
    ) -> None:
        if unknown := [name for name in arguments if name not in KNOWN]:
            raise TypeError(f"EngineArgs.__init__() got an unexpected keyword argument '{unknown[0]}'")
        self.arguments = {"model": model, "tokenizer": tokenizer, "dtype": dtype, **arguments}
        self.longest = max_model_len
        self.network: Any = AutoModelForCausalLM.from_pretrained(model, dtype=getattr(torch, dtype)).eval()
        self.tokenizer = AutoTokenizer.from_pretrained(tokenizer)
        self.asked: list[int] = []
        self.made.append(self)

    @torch.inference_mode()
    def generate(
        self,
        prompts: Sequence[dict[str, list[int]]],
        sampling_params: Sequence[SamplingParams],
        *,
        use_tqdm: bool = True,
        lora_request: LoRARequest | None = None,
    ) -> list[RequestOutput]:
        """Return an output for each prompt, in their order."""
        assert not use_tqdm
        network = self.network
        if lora_request is not None:
            assert self.arguments["enable_lora"]
            network = PeftModel.from_pretrained(network, lora_request.lora_path)
        self.asked.append(len(prompts))
        return [
            RequestOutput([self._output(network, prompt["prompt_token_ids"], params)])
            for prompt, params in zip(prompts, sampling_params, strict=True)
        ]

    def _output(self, network: Any, prompt: list[int], params: SamplingParams) -> Output:
        if self.longest is not None and len(prompt) > self.longest:
            raise ValueError(f"The decoder prompt (length {len(prompt)}) is longer than the maximum of {self.longest}.")
        assert params.seed is not None
        drawing, output = torch.Generator().manual_seed(params.seed), Output()
        while len(output.token_ids) < params.max_tokens:
            logits = network(torch.tensor([[*prompt, *output.token_ids]])).logits[0, -1]
            if params.temperature == 0:
                token = int(logits.argmax())
            else:
                probabilities, ids = (logits / params.temperature).softmax(-1).sort(descending=True)
                probabilities[probabilities.cumsum(0) - probabilities >= params.top_p] = 0
                token = int(ids[torch.multinomial(probabilities, 1, generator=drawing)])
            output.token_ids.append(token)
            if token in params.stop_token_ids:
                output.finish_reason = "stop"
                break
        return output


def install(monkeypatch: pytest.MonkeyPatch) -> list[LLM]:
    """Let ``import vllm`` find this module; return the list of the engines that will be made."""
    LLM.made = []
    vllm, lora, request = (types.ModuleType(name) for name in ("vllm", "vllm.lora", "vllm.lora.request"))
    vllm.LLM, vllm.SamplingParams, request.LoRARequest = LLM, SamplingParams, LoRARequest  # type: ignore[attr-defined]
    for module in (vllm, lora, request):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    return LLM.made


def folder_of(llm: LLM) -> Path:
    """Return the folder whose weights an engine has read."""
    return Path(llm.arguments["model"])
