"""Decodes the prompts with vLLM; each output has a fixed length, since random weights hardly ever end one."""

import json
import time
from pathlib import Path
from typing import Any

from peers.process import read_job

from gpu.jobs import VLLM


def measure(job: VLLM) -> dict[str, Any]:
    """Return seconds and tokens, without loading and warm-up."""
    import vllm

    rows = json.loads(Path(job.prompts).read_text())
    engine = vllm.LLM(model=job.model, dtype="bfloat16", skip_tokenizer_init=True, gpu_memory_utilization=0.8)

    def decode(rows: list[dict[str, Any]], length: int | None = None) -> int:
        prompts = [{"prompt_token_ids": row["prompt"]} for row in rows for _ in range(job.k)]
        lengths = [length or count for row in rows for count in row["lengths"]]
        sampling = [
            vllm.SamplingParams(temperature=1.0, max_tokens=count, ignore_eos=True, seed=number, detokenize=False)
            for number, count in enumerate(lengths)
        ]
        outputs = engine.generate(prompts, sampling, use_tqdm=False)
        return sum(len(one.token_ids) for output in outputs for one in output.outputs)

    decode(rows[:2], 8)
    start_time = time.perf_counter()
    tokens = decode(rows)
    return {"seconds": time.perf_counter() - start_time, "tokens": tokens, "records": len(rows)}


if __name__ == "__main__":
    job, result_path = read_job(VLLM)
    result_path.write_text(json.dumps(measure(job)))
