"""Folders of predictions with probabilities, and the model that they name."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from guardreasoner.workflow.manifest import Manifest, content_hash
from tests.support.output_files import predictions


def scored_predictions(
    folder: Path,
    gold: str,
    scores: Mapping[str, Sequence[float | None]],
    benchmark: str = "held-out",
    ids: str = "",
) -> Path:
    """Write predictions of the task "request" with probabilities.

    Args:
        folder: folder to write.
        gold: gold label of each record, H (harmful) or U.
        scores: by kind, the probability of "harmful" of each record; None for an unscored record.
        benchmark: name of the benchmark.
        ids: prefix of the record ids.
    """
    predictions(folder, " ".join(f"{label}H" for label in gold), benchmark=benchmark, ids=ids)
    file = folder / benchmark / "generated_predictions.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    for number, row in enumerate(rows):
        row["scores"] = {
            kind: {"request": {"harmful": p, "unharmful": 1 - p}}
            for kind, values in scores.items()
            if (p := values[number]) is not None
        }
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def random_scores(n: int, seed: int, positive: float = 0.4) -> tuple[str, list[float | None]]:
    """Return gold labels, and scores that are higher for harmful records."""
    random = np.random.default_rng(seed)
    is_positive = random.random(n) < positive
    scores = 1 / (1 + np.exp(-2 * random.normal(size=n) - np.where(is_positive, 2, -2)))
    return "".join("H" if one else "U" for one in is_positive), list(map(float, scores))


def model_folder(folder: Path) -> Path:
    """Write a folder like that of a model, with its manifest."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"weights")
    (folder / "guard.json").write_text(json.dumps({"format": {"opening": None}}, indent=1) + "\n")
    Manifest.describe(folder, ["fit"], "f", {}).write(folder)
    return folder


def record_test(folder: Path, model: Path, split: str | None) -> None:
    """Write the manifest of predictions as ``test`` does; a split of None is left to its default."""
    arguments = {} if split is None else {"split": split}
    config = {
        "model": {"class_path": "guardreasoner.GuardModule", "init_args": {"backbone": {"path": str(model)}}},
        "data": {"class_path": "guardreasoner.BenchmarkDataModule", "init_args": arguments},
    }
    hashes = {str(model): content_hash(model)}
    Manifest.describe(folder, ["test", "--config", "evaluate.yaml"], "f", hashes, config=config).write(folder)
