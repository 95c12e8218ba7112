"""Sampling with vLLM in this process: paged attention on a GPU, with prefix caching."""

import os
from collections.abc import Iterable, Iterator, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any

from guardreasoner.errors import InputError
from guardreasoner.generators import Completion, Generator, Request, ScoreRequest, Scores
from guardreasoner.generators.parallel import chunks
from guardreasoner.generators.token_sampler import TokenSampler
from guardreasoner.model.backbone import Backbone
from guardreasoner.model.loading import loading, read_json
from guardreasoner.model.lora import require_plain_lora, require_same_adapter
from guardreasoner.workflow.ranges import Count, NotNegative, PositiveShare

_RESERVED = ("model", "tokenizer", "quantization", "trust_remote_code", "enable_lora")
"""Arguments of ``vllm.LLM`` that the backbone determines."""

_RESOURCES = (
    *("gpu_memory_utilization", "kv_cache_memory_bytes", "cpu_offload_gb", "swap_space", "enforce_eager"),
    *("tensor_parallel_size", "pipeline_parallel_size", "max_num_seqs", "max_num_batched_tokens", "max_model_len"),
)
"""Arguments that only set memory and parallelism; a run can be continued with other values of them."""

_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""Values that vLLM accepts for ``max_lora_rank``."""


class VLLMGenerator(Generator):
    """Generate with vLLM, which reads the weights itself; the backbone only names model, adapter and tokenizer.

    Prompts are passed as token ids and outputs are returned as token ids, so only the backbone's tokenizer is used.
    Each output has a seed of its own. Its text can still change with the batch that it is computed in, and it differs
    from the text that :class:`~guardreasoner.generators.local.LocalGenerator` samples.

    An adapter runs on top of its base model, both in ``backbone.dtype``.

    Args:
        backbone: the model; its weights are never loaded.
        max_new_tokens: maximum length of an output, including its end token.
        temperature: sampling temperature; 0 is greedy decoding.
        top_p: nucleus sampling threshold; 1 samples from the full distribution.
        chunk: requests passed to vLLM in one call, whose outputs are returned as one group. The GPU is idle for a
            moment at the end of each chunk. Scores: about as many continuations.
        engine: further arguments of ``vllm.LLM``, such as ``gpu_memory_utilization``, ``tensor_parallel_size`` and
            ``max_model_len``.

    Raises:
        InputError: raised if a number is out of range, or if ``engine`` has a key that the backbone determines.
    """

    needs_weights = False

    def __init__(
        self,
        backbone: Backbone,
        max_new_tokens: Count = 2048,
        temperature: NotNegative = 1.0,
        top_p: PositiveShare = 1.0,
        chunk: Count = 512,
        engine: dict[str, Any] | None = None,
    ) -> None:
        if max_new_tokens < 1 or chunk < 1:
            raise InputError("generator: max_new_tokens and chunk must be at least 1")
        if reserved := sorted(set(engine or {}) & set(_RESERVED)):
            raise InputError(
                f"generator.engine: {reserved[0]} cannot be set here, the backbone determines it",
                "set model.backbone instead",
            )
        self.backbone = backbone
        self.max_new_tokens = max_new_tokens
        self.sampler = TokenSampler(temperature, top_p)
        self.chunk = chunk
        self.engine = dict(engine or {})
        self._started: tuple[Any, Any, frozenset[int]] | None = None

    @property
    def settings(self) -> dict[str, Any]:
        """Return the settings that determine the outputs, up to rounding, which vLLM does not keep constant."""
        engine = {name: value for name, value in self.engine.items() if name not in _RESOURCES}
        return {"max_new_tokens": self.max_new_tokens, **self.sampler.settings, "engine": engine}

    def group_size(self, outputs: int) -> int:
        """Return the number of requests passed to vLLM in one call."""
        return self.chunk

    def generate_groups(self, requests: Iterable[Request]) -> Iterator[list[Completion]]:
        """Yield the completions of one chunk after another, in the order of the requests.

        Raises:
            InputError: raised if vLLM is not installed, or cannot run this model or these prompts.
        """
        for chunk in chunks(requests, lambda first: self.chunk):
            yield self._generate_chunk(chunk)

    def score(self, requests: Iterable[ScoreRequest]) -> Iterator[Scores]:
        """Yield the scores of each request, in order, from the log-probabilities that vLLM computes of prompt tokens.

        vLLM reads no cached prefix for them, so each continuation costs a pass over its prompt.

        Raises:
            InputError: vLLM is not installed, cannot run this model or these prompts, or returns no log-probabilities.
        """
        for chunk in chunks(requests, lambda first: max(1, self.chunk // max(1, len(first.continuations)))):
            yield from self._score_chunk(chunk)

    def _generate_chunk(self, chunk: Sequence[Request]) -> list[Completion]:
        vllm = _import_vllm()
        _, _, ends = self._engine(vllm)
        outputs = [(request, index) for request in chunk for index in range(len(request.seeds))]
        # vLLM takes one seed per prompt, not one per output, so the prompt is passed once per output; prefix caching
        # still computes it once
        prompts = [{"prompt_token_ids": list(request.prompt)} for request, _ in outputs]
        sampling = [
            vllm.SamplingParams(
                temperature=self.sampler.temperature,
                top_p=self.sampler.top_p,
                max_tokens=self.max_new_tokens,
                seed=request.engine_seed(index),
                stop_token_ids=sorted(ends),
                detokenize=False,
            )
            for request, index in outputs
        ]
        results = self._run(vllm, prompts, sampling, chunk[0].record_id)
        return [
            self._completion(request, index, result.outputs[0], ends)
            for (request, index), result in zip(outputs, results, strict=True)
        ]

    def _completion(self, request: Request, index: int, output: Any, ends: frozenset[int]) -> Completion:
        tokens = list(takewhile(lambda token: token not in ends, output.token_ids))
        text = self.backbone.prompt_tokenizer.decode(tokens)
        return Completion(request.record_id, index, text, output.finish_reason, completion_tokens=len(tokens))

    def _score_chunk(self, chunk: Sequence[ScoreRequest]) -> Iterator[Scores]:
        vllm = _import_vllm()
        prompts = [
            {"prompt_token_ids": [*request.prompt, *ids]} for request in chunk for ids in request.continuations if ids
        ]
        # vLLM generates at least one token, which is not used
        sampling = vllm.SamplingParams(temperature=0.0, max_tokens=1, prompt_logprobs=1, seed=0, detokenize=False)
        results = iter(self._run(vllm, prompts, [sampling] * len(prompts), chunk[0].record_id) if prompts else ())
        for request in chunk:
            logps = (_summed_logps(request, ids, next(results)) if ids else 0.0 for ids in request.continuations)
            yield Scores(request.record_id, tuple(logps))

    def _run(self, vllm: Any, prompts: Sequence[Any], sampling: Sequence[Any], first: str) -> Sequence[Any]:
        """Return vLLM's result for each prompt.

        Args:
            vllm: the module.
            prompts: one for each result.
            sampling: parameters of each prompt.
            first: record id of the first prompt.
        """
        llm, adapter, _ = self._engine(vllm)
        try:
            results: Sequence[Any] = llm.generate(prompts, sampling, use_tqdm=False, lora_request=adapter)
        except Exception as error:
            raise InputError(
                f"vLLM failed on the chunk that starts at record {first}: {_error_line(error)}",
                "model.generator.engine takes its arguments, such as max_model_len and gpu_memory_utilization",
            ) from error
        return results

    def _engine(self, vllm: Any) -> tuple[Any, Any, frozenset[int]]:
        """Return what :meth:`_start` returned the first time."""
        if self._started is None:
            self._started = self._start(vllm)
        return self._started

    def _start(self, vllm: Any) -> tuple[Any, Any, frozenset[int]]:
        """Return the engine, the LoRA request (None without an adapter), and the tokens that end a text."""
        backbone, path = self.backbone, self.backbone.path
        if backbone.quantization:
            raise InputError(
                f"{path}: VLLMGenerator cannot run a backbone with quantization {backbone.quantization}",
                "--model.backbone.quantization null runs it in model.backbone.dtype; LocalGenerator runs it quantized",
            )
        # read first, because it reports a missing folder in one line
        prompt_tokenizer = backbone.prompt_tokenizer
        base, adapter = path, None
        arguments = {"dtype": backbone.dtype, "seed": 0, "enable_prefix_caching": True, "use_tqdm_on_load": False}
        if config := read_json(Path(path) / "adapter_config.json"):
            from vllm.lora.request import LoRARequest

            require_plain_lora(path, config)
            require_same_adapter(path, config, backbone.lora, backbone.base_path)
            base = backbone.weights_path
            rank = next((rank for rank in _RANKS if rank >= config["r"]), config["r"])
            arguments |= {"enable_lora": True, "max_lora_rank": rank}
            adapter = LoRARequest("adapter", 1, str(Path(path).resolve()))
        arguments |= self.engine
        try:
            llm = vllm.LLM(model=base, tokenizer=prompt_tokenizer.tokenizer.name_or_path, **arguments)
        except Exception as error:
            raise InputError(
                f"{path}: vLLM cannot run this model: {_error_line(error)}",
                "model.generator.engine takes its arguments, such as max_model_len and gpu_memory_utilization",
            ) from error
        return llm, adapter, frozenset([prompt_tokenizer.end, *_model_end_tokens(base)])


def _summed_logps(request: ScoreRequest, continuation: Sequence[int], result: Any) -> float:
    """Return the summed log-probability of a continuation.

    Args:
        request: the request, whose prompt precedes the continuation.
        continuation: token ids.
        result: vLLM's result; for each token but the first, ``prompt_logprobs`` has the log-probabilities of that token
            and of others by id.
    """
    start, by_token = len(request.prompt), result.prompt_logprobs or ()
    if len(by_token) != start + len(continuation) or any(
        token not in (candidates or ()) for token, candidates in zip(continuation, by_token[start:], strict=True)
    ):
        raise InputError(
            f"record {request.record_id}: vLLM returned no log-probabilities of some prompt tokens",
            "vLLM may return none for a cached prefix: set generator.engine.enable_prefix_caching: false",
        )
    return sum(candidates[token].logprob for token, candidates in zip(continuation, by_token[start:], strict=True))


def _import_vllm() -> Any:
    # its log is about vLLM's internals; users who want it set the variable
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    try:
        import vllm
    except ImportError as error:
        raise InputError(
            f"vLLM cannot be imported: {_error_line(error)}", "pip install 'guardreasoner[vllm]'"
        ) from error
    return vllm


def _model_end_tokens(path: str) -> list[int]:
    """Return the end tokens of a model folder: those of its generation config or, without one, of its config."""
    from transformers import AutoConfig, GenerationConfig

    try:
        eos = GenerationConfig.from_pretrained(path).eos_token_id
    except OSError:
        eos = loading(path, lambda: AutoConfig.from_pretrained(path, trust_remote_code=False)).eos_token_id
    return eos if isinstance(eos, list) else [] if eos is None else [eos]


def _error_line(error: Exception) -> str:
    """Return an error's type and the first two lines of its message, of which the first may be a heading."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return ": ".join([type(error).__name__, *lines[:2]])
