"""Compares the memory that ``plan`` predicts with the peak of a real ``fit`` on this machine's CPU.

    python benchmarks/plan_memory.py --work /tmp/plan-memory --json benchmarks/results/plan/memory.json
    python benchmarks/plan_memory.py --table benchmarks/results/plan/memory.json

Each configuration is one ``fit`` of a few steps in a process of its own; its peak is the largest resident size that the
system reports. "The process itself" is the same for a model of 0.02 M parameters, micro-batch 1: Python, the imported
packages and the tokenized data; it differs between machines, so it is measured with every result. The SmolLM2 shape has
random weights; HS-DPO trains on made-up pairs of records. ``--json`` keeps the rows of the file that were not measured
now. ``--table`` only writes the table of docs/plan.md from a result.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

RECORDS = 400
PROCESS = "rsft nano full"
TUNING = {
    "full": [],
    "LoRA": ["--model.backbone.lora", "{r: 16, alpha: 32, dropout: 0.05, target_modules: all-linear}"],
}
TUNING["4-bit"] = [*TUNING["LoRA"], "--model.backbone.quantization", "4bit"]
TUNING["bf16-mixed"] = ["--trainer.precision", "bf16-mixed"]
SMOLLM2 = {"hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30, "num_attention_heads": 9}
DOCS = Path(__file__).parents[1] / "docs" / "plan.md"
BEGIN, END = "<!-- benchmarks/plan_memory.py --table -->\n", "<!-- end of the table -->\n"
STAGES = {"rsft": "R-SFT", "hsdpo": "HS-DPO"}
MODELS = {
    "nano": "0.02 M parameters (the process)",
    "embedded": "embedded model",
    "smollm2": "SmolLM2's shape, random weights",
}
NANO = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}


def main() -> None:
    """Measure, predict, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, help="folder for models and runs; finished runs are kept")
    parser.add_argument("--table", type=Path, metavar="JSON", help="write the table of docs/plan.md from this result")
    parser.add_argument("--json", type=Path, help="also write the rows to this result")
    parser.add_argument("--only", default="", help="only configurations whose name contains this text")
    parser.add_argument("--measure_only", action="store_true")
    parser.add_argument("--make_models", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.table:
        write_table(json.loads(arguments.table.read_text()), DOCS)
        return
    if arguments.work is None:
        parser.error("--work FOLDER is required")
    work = arguments.work.absolute()
    if arguments.make_models:
        make_models(work)
        return
    if not (work / "pairs.jsonl").is_file():
        # In a process of its own: a child's peak begins with the size of the process that starts it.
        subprocess.run([sys.executable, __file__, "--work", str(work), "--make_models"], check=True)
    fits = jobs(work)

    def measured(name: str) -> dict[str, Any]:
        return once(work / "measured" / f"{name}.json", lambda: measure(fits[name], work))

    rows = []
    for name in fits:
        if arguments.only not in name:
            continue
        if arguments.measure_only:
            print(name, measured(name), flush=True)
            continue
        process = measured(PROCESS)["measured"]
        rows.append({"name": name, **measured(name), "measured_process": process, **predict(fits[name])})
    for row in rows:
        row["ratio"] = row["predicted"] / row["measured"]
        print(
            f"{row['name']:28} predicted {row['predicted'] / 1e9:6.3f} GB, measured {row['measured'] / 1e9:6.3f} GB, "
            f"ratio {row['ratio']:.2f}; without the process {' and '.join(f'{size / 1e9:.3f}' for size in own(row))} GB"
        )
    if arguments.json:
        stored = json.loads(arguments.json.read_text()) if arguments.json.is_file() else []
        arguments.json.write_text(json.dumps(merged(stored, rows, list(fits)), indent=1) + "\n")


def own(row: dict[str, Any]) -> tuple[float, float]:
    """Return the bytes without the process, predicted and measured."""
    return row["predicted"] - row["process"], row["measured"] - row["measured_process"]


def merged(stored: list[dict[str, Any]], rows: list[dict[str, Any]], names: list[str]) -> list[dict[str, Any]]:
    """Return the stored rows with the new ones in their places, in the order of ``names``."""
    by_name = {row["name"]: row for row in [*stored, *rows]}
    return [by_name[name] for name in names if name in by_name]


def write_table(rows: list[dict[str, Any]], page: Path) -> None:
    """Replace the table between two marks of a page."""
    before, _, rest = page.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not end:
        sys.exit(f"error: {page}: no table between {BEGIN.strip()} and {END.strip()}")
    lines = [
        "| fit | predicted, GB | measured, GB | ratio | without the process: predicted, measured |",
        "|---|---|---|---|---|",
    ]
    for row in rows:
        stage, model, tuning = row["name"].split()
        lines.append(
            f"| {STAGES[stage]}, {MODELS[model]}, {tuning} | {row['predicted'] / 1e9:.2f} "
            f"| {row['measured'] / 1e9:.2f} | {row['predicted'] / row['measured']:.2f} "
            f"| {', '.join(f'{size / 1e9:.2f}' for size in own(row))} |"
        )
    page.write_text(before + BEGIN + "\n".join(lines) + "\n" + END + after)


def jobs(work: Path) -> dict[str, list[str]]:
    """Return the flags of each fit."""
    common = ["--auto_build", "false", "--recipe.logs", str(work / "logs"), "--trainer.limit_val_batches", "1"]
    common += ["--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false"]
    found = {}
    pairs = ["--data.rollouts", "[]", "--data.pairs", str(work / "pairs.jsonl")]
    for tuning, flags in TUNING.items():
        for model, config, more in (
            ("nano", "rsft", ["--recipe.rsft_batch_size", "1", "--trainer.max_steps", "2"]),
            ("embedded", "rsft", ["--trainer.max_steps", "20"]),
            ("embedded", "hsdpo", [*pairs, "--trainer.max_steps", "4"]),
            (
                "smollm2",
                "rsft",
                ["--recipe.rsft_batch_size", "4", "--recipe.micro_batch_size", "2", "--trainer.max_steps", "2"],
            ),
        ):
            path = ["--model.backbone.path", str(work / model)]
            found[f"{config} {model} {tuning}"] = ["--config", f"configs/{config}.yaml", *common, *path, *more, *flags]
    return found


def make_models(work: Path) -> None:
    """Make the model folders and the file of pairs."""
    from peers.random_model import make_llama

    from guardreasoner.cli.commands.base_model import make_base_model
    from guardreasoner.prompts import PromptFormat
    from guardreasoner.sources.embedded import Embedded

    records = list(Embedded().records("train"))
    shape = {"hidden_size": 128, "intermediate_size": 256, "layers": 3, "kv_heads": 2, "max_length": 4096}
    make_base_model(str(work / "embedded"), records, vocabulary=1600, opening="", **shape)
    for name, config, vocabulary in (("smollm2", SMOLLM2, 49152), ("nano", NANO, 1600)):
        more = {"vocab_size": vocabulary, "num_key_value_heads": max(1, config["num_attention_heads"] // 3)}
        more |= {"tie_word_embeddings": True, "max_position_embeddings": 4096}
        make_llama(work / name, work / "embedded", config | more)
    target = PromptFormat().target
    lines = []
    for one, other in pairwise(records[: RECORDS + 1]):
        row = {"id": one.id, "prompt": one.prompt, "response": one.response}
        lines.append(json.dumps(row | {"chosen": target(one), "rejected": target(other)}))
    (work / "pairs.jsonl").write_text("\n".join(lines) + "\n")


def once(path: Path, make: Any) -> dict[str, Any]:
    """Return what a file holds, or make it."""
    if not path.is_file():
        content = make()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content))
    return json.loads(path.read_text())


def measure(flags: list[str], work: Path) -> dict[str, Any]:
    """Run a fit; return its peak resident size in bytes and its seconds."""
    argv = [sys.executable, "-m", "guardreasoner", "fit", *flags, "--output", str(work / "out"), "--overwrite"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    started = time.perf_counter()
    process = subprocess.Popen(argv, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout is not None
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"{' '.join(argv)}\n{output}")
    unit = 1 if sys.platform == "darwin" else 1024
    return {"measured": usage.ru_maxrss * unit, "seconds": time.perf_counter() - started}


def predict(flags: list[str]) -> dict[str, Any]:
    """Return the bytes that ``plan`` predicts for the fit and for its process alone."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "plan.json")
        argv = [sys.executable, "-m", "guardreasoner", "plan", *flags, "--device", "cpu", "--json", str(path)]
        subprocess.run(argv, capture_output=True, text=True, check=True)
        plan = json.loads(path.read_text())
    return {"predicted": plan["peak_bytes"], "process": plan["memory"]["process"], "parts": plan["memory"]}


if __name__ == "__main__":
    main()
