"""Measures the scoring of continuations on one side per process: our engines, or padded rows with full logits."""

import json
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from guardreasoner.generators import Generator, ScoreRequest
from guardreasoner.generators.local import LocalGenerator
from guardreasoner.generators.plain import PlainGenerator
from guardreasoner.model.backbone import Backbone
from peers.job import Scoring
from peers.machine import peak_mb, reset_peak, resident_mb, setup_torch, wait
from peers.process import read_job

WARM_REQUESTS = 2
"""Requests of the warm-up."""

ENGINES: dict[str, Callable[[Backbone], Generator]] = {"packed": LocalGenerator, "rows": PlainGenerator}


def score_ours(generator: Generator, requests: Sequence[ScoreRequest]) -> list[float]:
    """Return the scores of all continuations from one of our engines."""
    return [logp for scores in generator.score(requests) for logp in scores.logps]


@torch.inference_mode()
def score_logits(network: Any, requests: Sequence[ScoreRequest], at_once: int) -> list[float]:
    """Return the same from full logits: a row per continuation, padded on the right, longest rows first.

    Args:
        network: transformers model.
        requests: The requests.
        at_once: Rows per batch.
    """
    rows = [(request.prompt, ids) for request in requests for ids in request.continuations]
    order = sorted(range(len(rows)), key=lambda row: -len(rows[row][0]) - len(rows[row][1]))
    scores = [0.0] * len(rows)
    for start in range(0, len(order), at_once):
        numbers = order[start : start + at_once]
        lengths = [len(rows[number][0]) + len(rows[number][1]) for number in numbers]
        ids = torch.zeros(len(numbers), max(lengths), dtype=torch.int64)
        mask = torch.zeros_like(ids)
        for row, number in enumerate(numbers):
            ids[row, : lengths[row]] = torch.tensor(rows[number][0] + rows[number][1])
            mask[row, : lengths[row]] = 1
        ids, mask = ids.to(network.device), mask.to(network.device)
        logps = network(input_ids=ids, attention_mask=mask).logits.float().log_softmax(-1)
        token_logps = logps[:, :-1].gather(2, ids[:, 1:, None])[:, :, 0]
        for row, number in enumerate(numbers):
            first = len(rows[number][0]) - 1
            scores[number] = float(token_logps[row, first : lengths[row] - 1].double().sum())
    return scores


def scorer(job: Scoring) -> Callable[[Sequence[ScoreRequest]], list[float]]:
    """Load the model; return the function of a side that scores requests."""
    dtype: Any = "bfloat16" if job.dtype == "bf16" else "float32"
    if job.side == "logits":
        network = AutoModelForCausalLM.from_pretrained(job.model, dtype=dtype).to(job.device).eval()
        return partial(score_logits, network, at_once=job.at_once)
    backbone = Backbone(job.model, dtype=dtype)
    backbone.load()
    return partial(score_ours, ENGINES[job.side](backbone.to(job.device)))


def main() -> None:
    """Load the model, warm up, score all continuations, and write measurements and scores."""
    job, result_path = read_job(Scoring)
    setup_torch(job.device, job.threads)
    requests = [
        ScoreRequest(row["id"], tuple(row["prompt"]), tuple(map(tuple, row["continuations"])))
        for row in json.loads(Path(job.requests).read_text())
    ]
    before = resident_mb(job.device)
    score = scorer(job)
    score(requests[:WARM_REQUESTS])
    wait(job.device)
    reset_peak(job.device)
    start = time.perf_counter()
    scores = score(requests)
    wait(job.device)
    seconds = time.perf_counter() - start
    result = {"seconds": seconds, "before_mb": before, "peak_mb": peak_mb(job.device), "scores": scores}
    result_path.write_text(json.dumps(result))


if __name__ == "__main__":
    main()
