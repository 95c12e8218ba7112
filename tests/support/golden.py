"""The first 20 steps of each training stage on a tiny model, and the stored values that they must repeat.

    python -m tests.support.golden FOLDER

writes the curves of this machine to ``FOLDER/STAGE.json``. Write to ``tests/training/golden`` only after a change that
is meant to change results.
"""

import csv
import json
import math
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import chdir
from pathlib import Path

STAGES = ("rsft", "hsdpo")
STEPS = 20
COLUMNS = {
    "rsft": ("train/loss", "train/grad_norm", "train/lr"),
    "hsdpo": ("train/loss", "train/preference_loss", "train/sft_loss", "train/margin", "train/grad_norm", "train/lr"),
}
RELATIVE = 1e-5
"""Largest relative difference. Kernels for AVX2, for AVX-512 and for neither differ by at most 5e-7."""
ABSOLUTE = {"train/margin": 1e-3}
"""Largest absolute difference where it is not 1e-5. A margin is a difference of sums of about 100 nats, and the same
kernels differ by at most 6e-5 in it."""

STORED = Path(__file__).parents[1] / "training" / "golden"
_CONFIGS = Path(__file__).parents[2] / "configs"

Curves = Mapping[str, Sequence[float]]
"""The values of each step by name."""


def record(stage: str, base: Path, rollouts: Path) -> Curves:
    """Train for ``STEPS`` steps in float32 on one thread and return what was logged.

    Args:
        stage: one of ``STAGES``.
        base: folder of the tiny model.
        rollouts: folder of the scripted rollouts.
    """
    import torch

    from guardreasoner.cli.main import main
    from tests.support.tiny import command

    pairs = ("--data.rollouts", f"[{rollouts}]", "--recipe.hsdpo_lr", "3e-4")
    data = {
        "rsft": ("--data.batch_size", "6", "--data.micro_batch_size", "4", "--recipe.rsft_lr", "1e-3"),
        "hsdpo": (*pairs, "--data.batch_size", "4", "--data.micro_batch_size", "3"),
    }
    logger = {"class_path": "lightning.pytorch.loggers.CSVLogger"}
    logger |= {"init_args": {"save_dir": "csv", "name": stage, "version": 0}}  # type: ignore[dict-item]
    argv = command(stage, base, *data[stage], "--data.epochs", "5", "--trainer.logger", json.dumps(logger))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with tempfile.TemporaryDirectory() as folder, chdir(folder):
            Path("configs").symlink_to(_CONFIGS)
            assert main([*argv, "--trainer.log_every_n_steps", "1", "--trainer.deterministic", "true"]) == 0
            with Path("csv", stage, "version_0", "metrics.csv").open() as file:
                rows = [row for row in csv.DictReader(file) if row["train/loss"]]
    finally:
        torch.set_num_threads(threads)
    return {name: [float(row[name]) for row in rows] for name in COLUMNS[stage]}


def stored(stage: str) -> Curves:
    """Return the stored curves of a stage."""
    curves: dict[str, list[float]] = json.loads((STORED / f"{stage}.json").read_text(encoding="utf-8"))
    return curves


def write(curves: Curves, path: Path) -> None:
    """Write curves, one name per line."""
    lines = [f"{json.dumps(name)}: {json.dumps(values)}" for name, values in curves.items()]
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


def differences(found: Curves, expected: Curves) -> list[str]:
    """Return one line for each curve that is absent or leaves the tolerance, with its first such step."""
    lines = []
    for name, values in expected.items():
        own = found.get(name, ())
        if len(own) != len(values):
            lines.append(f"{name}: {len(own)} steps, expected {len(values)}")
            continue
        tolerance = ABSOLUTE.get(name, 1e-5)
        for step, (value, golden) in enumerate(zip(own, values, strict=True)):
            if not math.isclose(value, golden, rel_tol=RELATIVE, abs_tol=tolerance):
                lines.append(f"{name}: {value!r} at step {step}, expected {golden!r}")
                break
    return lines


def largest_relative_difference(found: Curves, expected: Curves) -> dict[str, float]:
    """Return the largest difference of each curve, as a share of the larger value; 0 where both are 0."""
    return {
        name: max(abs(a - b) / max(abs(a), abs(b)) if a != b else 0.0 for a, b in zip(found[name], values, strict=True))
        for name, values in expected.items()
    }


def main(target: str) -> None:
    """Write the curves of this machine to a folder."""
    from tests.support.tiny import TinySource, make_tiny_base, write_rollouts

    with tempfile.TemporaryDirectory() as name:
        base = make_tiny_base(Path(name, "base"))
        rollouts = write_rollouts(Path(name, "rollouts"), TinySource().records("train"))
        for stage in STAGES:
            write(record(stage, base, rollouts), Path(target, f"{stage}.json"))


if __name__ == "__main__":
    main(sys.argv[1])
