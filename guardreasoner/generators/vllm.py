"""Sampling with vLLM in this process: paged attention on a GPU, the prompts' common beginning computed once."""

import os
from collections.abc import Iterable, Iterator, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any

from guardreasoner.errors import InputError
from guardreasoner.generators import Completion, Generator, Request
from guardreasoner.generators.parallel import chunks
from guardreasoner.generators.seeds import seed_of
from guardreasoner.generators.token_sampler import TokenSampler
from guardreasoner.model.backbone import Backbone
from guardreasoner.model.loading import loading, read_json
from guardreasoner.model.lora import require_same_adapter

_OURS = ("model", "tokenizer", "quantization", "trust_remote_code", "enable_lora")
"""What the backbone decides."""

_ROOM = (
    *("gpu_memory_utilization", "kv_cache_memory_bytes", "cpu_offload_gb", "swap_space", "enforce_eager"),
    *("tensor_parallel_size", "pipeline_parallel_size", "max_num_seqs", "max_num_batched_tokens", "max_model_len"),
)
"""Arguments that say what fits in and how much is done at once; a run that met their limits goes on with others."""

_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""Ranks of adapters that vLLM makes room for."""


class VLLMGenerator(Generator):
    """Generate with vLLM, which reads the weights itself; the backbone only says which model, adapter and tokenizer.

    Prompts go in as token ids and outputs come back as such, so that no tokenizer but the backbone's decides about
    them. Every output has a seed of its own. Its text can still change with what is computed beside it, and it is not
    the text that :class:`~guardreasoner.generators.local.LocalGenerator` draws.

    An adapter runs on top of its base model, both in ``backbone.dtype``.

    Args:
        backbone: the model; its weights are never loaded.
        max_new_tokens: longest output, its end token included.
        temperature: 0 is greedy.
        top_p: nucleus; 1 is the whole distribution.
        chunk: requests that are handed to vLLM together, and whose outputs are given out together; at the end of a
            chunk the GPU falls idle.
        engine: further arguments of ``vllm.LLM``, such as ``gpu_memory_utilization``, ``tensor_parallel_size`` and
            ``max_model_len``.

    Raises:
        InputError: a number out of range, or a key of ``engine`` that the backbone decides.
    """

    needs_weights = False

    def __init__(
        self,
        backbone: Backbone,
        max_new_tokens: int = 2048,
        temperature: float = 1.0,
        top_p: float = 1.0,
        chunk: int = 512,
        engine: dict[str, Any] | None = None,
    ) -> None:
        if max_new_tokens < 1 or chunk < 1:
            raise InputError("generator: max_new_tokens and chunk must be at least 1")
        if taken := sorted(set(engine or {}) & set(_OURS)):
            raise InputError(f"generator.engine: {taken[0]} is not for the engine to say", "set model.backbone instead")
        self.backbone = backbone
        self.max_new_tokens = max_new_tokens
        self.sampler = TokenSampler(temperature, top_p)
        self.chunk = chunk
        self.engine = dict(engine or {})
        self._started: tuple[Any, Any, frozenset[int]] | None = None

    @property
    def settings(self) -> dict[str, Any]:
        """Return what decides the outputs, but for last digits, which vLLM keeps no promise about."""
        engine = {name: value for name, value in self.engine.items() if name not in _ROOM}
        return {"max_new_tokens": self.max_new_tokens, **self.sampler.settings, "engine": engine}

    def generate(self, requests: Iterable[Request]) -> Iterator[Completion]:
        """Yield every request's outputs, chunk by chunk, in the order of the requests."""
        for part in self.parts(requests):
            yield from part

    def parts(self, requests: Iterable[Request]) -> Iterator[list[Completion]]:
        """Yield the outputs of one chunk after the other.

        Raises:
            InputError: vLLM is not installed, or cannot run this model or these prompts.
        """
        for part in chunks(requests, lambda first: self.chunk):
            yield self._generate_chunk(part)

    def _generate_chunk(self, chunk: Sequence[Request]) -> list[Completion]:
        vllm = _vllm()
        if self._started is None:
            self._started = self._start(vllm)
        llm, adapter, ends = self._started
        outputs = [(request, index) for request in chunk for index in range(len(request.seeds))]
        # a seed belongs to a prompt and not to one of its n outputs, so each output is a prompt; prefix caching
        # computes the prompt once all the same
        prompts = [{"prompt_token_ids": list(request.prompt)} for request, _ in outputs]
        sampling = [
            vllm.SamplingParams(
                temperature=self.sampler.temperature,
                top_p=self.sampler.top_p,
                max_tokens=self.max_new_tokens,
                seed=seed_of(request, index),
                stop_token_ids=sorted(ends),
                detokenize=False,
            )
            for request, index in outputs
        ]
        try:
            answers = llm.generate(prompts, sampling, use_tqdm=False, lora_request=adapter)
        except Exception as error:
            raise InputError(
                f"vLLM failed on the requests from {chunk[0].record_id} on: {_said(error)}",
                "model.generator.engine takes its arguments, such as max_model_len and gpu_memory_utilization",
            ) from error
        return [
            self._completion(request, index, answer.outputs[0], ends)
            for (request, index), answer in zip(outputs, answers, strict=True)
        ]

    def _completion(self, request: Request, index: int, output: Any, ends: frozenset[int]) -> Completion:
        written = list(takewhile(lambda token: token not in ends, output.token_ids))
        text = self.backbone.prompt_tokenizer.decode(written)
        return Completion(request.record_id, index, text, output.finish_reason, completion_tokens=len(written))

    def _start(self, vllm: Any) -> tuple[Any, Any, frozenset[int]]:
        """Return the engine, the adapter's request (None without one), and the tokens that end a text."""
        backbone, path = self.backbone, self.backbone.path
        if backbone.quantization:
            raise InputError(
                f"{path}: vLLM is not given weights in {backbone.quantization}",
                "--model.backbone.quantization null runs them in model.backbone.dtype; LocalGenerator runs them as is",
            )
        base, adapter, more = path, None, {}
        prompt_tokenizer = (
            backbone.prompt_tokenizer
        )  # before anything else, as it says in one line that there is no such folder
        if config := read_json(Path(path) / "adapter_config.json"):
            from vllm.lora.request import LoRARequest

            require_same_adapter(path, config, backbone.lora)
            base = config["base_model_name_or_path"]
            rank = next((rank for rank in _RANKS if rank >= config["r"]), config["r"])
            more = {"enable_lora": True, "max_lora_rank": rank}
            adapter = LoRARequest("adapter", 1, str(Path(path).resolve()))
        arguments = {"dtype": backbone.dtype, "seed": 0, "enable_prefix_caching": True, "use_tqdm_on_load": False}
        arguments |= {**more, **self.engine}
        try:
            llm = vllm.LLM(model=base, tokenizer=path, **arguments)
        except Exception as error:
            raise InputError(
                f"{path}: vLLM cannot run this model: {_said(error)}",
                "model.generator.engine takes its arguments, such as max_model_len and gpu_memory_utilization",
            ) from error
        return llm, adapter, frozenset([prompt_tokenizer.end, *_ends_of(base)])


def _vllm() -> Any:
    # its lines are about its own insides; who wants them sets the variable
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    try:
        import vllm
    except ImportError as error:
        raise InputError(f"vLLM cannot be imported: {_said(error)}", "pip install 'guardreasoner[vllm]'") from error
    return vllm


def _ends_of(path: str) -> list[int]:
    """Return the end tokens that a model's folder names, as transformers reads them."""
    from transformers import AutoConfig, GenerationConfig

    try:
        found = GenerationConfig.from_pretrained(path).eos_token_id
    except OSError:  # the folder holds none; then the model's own config says
        found = loading(path, lambda: AutoConfig.from_pretrained(path, trust_remote_code=False)).eos_token_id
    return found if isinstance(found, list) else [] if found is None else [found]


def _said(error: Exception) -> str:
    """Return an error in a line: its kind, and the first two lines of what it says, as the first may be a heading."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return ": ".join([type(error).__name__, *lines[:2]])
