"""Measures sampling of one side per process: our engine, or generate() of transformers.

Random weights hardly ever sample the end token, so each output is ended at the length of a real output. Neither side
knows the length before the token is drawn, and both have the same length limit.
"""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, StoppingCriteria, StoppingCriteriaList

from guardreasoner.generators import Request
from guardreasoner.generators.local import LocalGenerator
from guardreasoner.model.backbone import Backbone
from peers.job import Sampling
from peers.machine import now, peak_mb, reset_peak, resident_mb, setup_torch, wait
from peers.process import read_job

WARM_TOKENS = 8
"""Tokens per output in the warm-up."""


class FixedLengthGenerator(LocalGenerator):
    """Our engine, with each output ended at a given length instead of at the end token.

    Args:
        lengths: Tokens of each output by record id and index.
    """

    def __init__(self, backbone: Backbone, lengths: dict[tuple[str, int], int], **settings: Any) -> None:
        super().__init__(backbone, **settings)
        self.lengths = lengths
        self.ended: list[tuple[str, int]] = []

    def _is_end(self, key: tuple[str, int], count: int, token: int) -> bool:
        """Return whether an output of ``count`` tokens has reached its length."""
        if count < self.lengths[key]:
            return False
        self.ended.append(key)
        return True


class StopAtLength(StoppingCriteria):
    """The same for transformers: ends each row at a given length.

    Args:
        width: Tokens of the padded prompts.
        lengths: (rows,) int64, tokens of each output.
        end: Id of the end token; ``generate`` pads finished rows only if a criterion has one.
    """

    def __init__(self, width: int, lengths: Tensor, end: int) -> None:
        self.width = width
        self.lengths = lengths
        self.eos_token_id = end

    def __call__(self, input_ids: Any, scores: Any, **more: Any) -> Any:
        """Return (rows,) bool: whether each row is finished."""
        return input_ids.shape[1] - self.width >= self.lengths


def sample_ours(job: Sampling, backbone: Backbone, rows: Sequence[dict[str, Any]]) -> int:
    """Sample k outputs per prompt with our engine and return their total number of tokens.

    Raises:
        RuntimeError: An output does not have the expected length.
    """
    lengths = {(row["id"], index): length for row in rows for index, length in enumerate(row["lengths"])}
    generator = FixedLengthGenerator(
        backbone,
        lengths,
        max_new_tokens=job.max_new_tokens,
        temperature=1.0,
        top_p=1.0,
        batch_size=job.at_once,
    )
    finished = [(done.record_id, done.index) for done in generator.generate(requests(rows, (job.seed,) * job.k))]
    if not sorted(finished) == sorted(generator.ended) == sorted(lengths):
        raise RuntimeError("ours: an output is missing or has another length")
    return sum(lengths.values())


@torch.inference_mode()
def sample_theirs(job: Sampling, network: Any, rows: Sequence[dict[str, Any]], padding: int, end: int) -> int:
    """Sample k outputs per prompt with ``generate`` and return their total number of tokens.

    Raises:
        RuntimeError: An output does not have the expected length.
    """
    torch.manual_seed(job.seed)
    size = max(1, job.at_once // job.k)
    for start in range(0, len(rows), size):
        part = rows[start : start + size]
        lengths = torch.tensor([length for row in part for length in row["lengths"]], device=network.device)
        input_ids, mask = left_padded(part, padding, network.device)
        ids = network.generate(
            input_ids=input_ids,
            attention_mask=mask,
            do_sample=True,
            temperature=1.0,
            top_p=1.0,
            top_k=0,
            num_return_sequences=job.k,
            max_new_tokens=job.max_new_tokens,
            pad_token_id=padding,
            stopping_criteria=StoppingCriteriaList([StopAtLength(input_ids.shape[1], lengths, end)]),
        )
        if len(ids) != len(lengths) or ids.shape[1] - input_ids.shape[1] < int(lengths.max()):
            raise RuntimeError("transformers: an output is missing or too short")
    return sum(length for row in rows for length in row["lengths"])


def greedy(job: Sampling, backbone: Backbone, network: Any, rows: Sequence[dict[str, Any]]) -> list[list[str]]:
    """Return the greedy outputs of our side and of transformers as texts."""
    ours = LocalGenerator(backbone, max_new_tokens=job.max_new_tokens, temperature=0.0, batch_size=job.at_once)
    by_id = {done.record_id: done.text for done in ours.generate(requests(rows, (job.seed,)))}
    prompt_tokenizer = backbone.prompt_tokenizer
    input_ids, mask = left_padded(rows, prompt_tokenizer.padding, network.device)
    ids = network.generate(
        input_ids=input_ids,
        attention_mask=mask,
        do_sample=False,
        max_new_tokens=job.max_new_tokens,
        eos_token_id=prompt_tokenizer.end,
        pad_token_id=prompt_tokenizer.padding,
    )
    theirs = [prompt_tokenizer.decode(row) for row in ids[:, input_ids.shape[1] :].tolist()]
    return [[by_id[row["id"]] for row in rows], theirs]


def requests(rows: Sequence[dict[str, Any]], seeds: tuple[int, ...]) -> list[Request]:
    """Return the requests for our engine."""
    return [Request(row["id"], tuple(row["prompt"]), "", seeds) for row in rows]


def left_padded(rows: Sequence[dict[str, Any]], padding: int, device: Any) -> tuple[Tensor, Tensor]:
    """Return ids and attention mask of left-padded prompts, each (rows, longest prompt) int64."""
    width = max(len(row["prompt"]) for row in rows)
    input_ids = [[padding] * (width - len(row["prompt"])) + row["prompt"] for row in rows]
    mask = [[0] * (width - len(row["prompt"])) + [1] * len(row["prompt"]) for row in rows]
    return torch.tensor(input_ids, device=device), torch.tensor(mask, device=device)


def measure(job: Sampling) -> dict[str, Any]:
    """Load the model, warm up on the longest prompts, and sample all; return seconds, tokens and memory."""
    setup_torch(job.device, job.threads)
    before = resident_mb(job.device)
    rows = json.loads(Path(job.prompts).read_text())
    dtype: Any = "bfloat16" if job.dtype == "bf16" else "float32"
    backbone = Backbone(job.model, dtype=dtype)
    prompt_tokenizer = backbone.prompt_tokenizer
    network: Any = None
    if job.side != "transformers":
        backbone.load()
        backbone.to(job.device)
    if job.side != "ours":
        network = AutoModelForCausalLM.from_pretrained(job.model, dtype=dtype)
        network.to(job.device).eval()
        network.generation_config.eos_token_id = None
    if job.side == "both":
        sample_rows = rows[:: max(1, len(rows) // job.checked)][: job.checked]  # short and long prompts
        return {"texts": greedy(job, backbone, network, sample_rows)}

    def sample(rows: Sequence[dict[str, Any]], job: Sampling) -> int:
        if network is None:
            return sample_ours(job, backbone, rows)
        return sample_theirs(job, network, rows, prompt_tokenizer.padding, prompt_tokenizer.end)

    # On a GPU, our side compiles a kernel for the padded length of the row of all prompts.
    warmed = rows if job.device == "cuda" else rows[:2]
    warm_up = [{**row, "lengths": [WARM_TOKENS] * job.k} for row in warmed]
    sample(warm_up, replace(job, max_new_tokens=WARM_TOKENS))
    wait(job.device)
    reset_peak(job.device)
    start_time = now(job.clock)
    tokens = sample(rows, job)
    wait(job.device)
    return {
        "seconds": now(job.clock) - start_time,
        "tokens": tokens,
        "records": len(rows),
        "before_mb": before,
        "peak_mb": peak_mb(job.device),
    }


if __name__ == "__main__":
    job, result_path = read_job(Sampling)
    result_path.write_text(json.dumps(measure(job)))
