"""The chain of the shipped configs on two processes: data prepared once, the stored reference shared, equal losses."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

from guardreasoner.records import write_jsonl
from tests.support.tiny import TinySource

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.slow


def run_chain(folder: Path, base: Path, rollouts: Path, devices: int) -> dict[str, str]:
    """Run R-SFT and HS-DPO by their shipped configs in ``folder``; return the standard output of each stage."""
    folder.mkdir()
    (folder / "configs").symlink_to(ROOT / "configs")
    for split in ("train", "validation"):
        write_jsonl(folder / f"{split}.jsonl", TinySource().records(split))  # type: ignore[arg-type]
    files = {"train": "train.jsonl", "validation": "validation.jsonl"}
    source = json.dumps({"class_path": "guardreasoner.sources.files.Files", "init_args": files})
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    output = {}
    for stage, model, more in (
        ("rsft", str(base), ["--data.batch_size", "9", "--data.micro_batch_size", "3"]),
        ("hsdpo", "checkpoints/rsft", ["--data.rollouts", f"[{rollouts}]", "--data.batch_size", "7"]),
    ):
        argv = ["fit", "--config", f"configs/{stage}.yaml", "--auto_build", "false", "--model.backbone.path", model]
        argv += ["--data.source", source, "--trainer.accelerator", "cpu", "--trainer.devices", str(devices)]
        logger: dict[str, object] = {"class_path": "lightning.pytorch.loggers.CSVLogger"}
        logger |= {"init_args": {"save_dir": "csv", "name": stage, "version": 0}}
        argv += ["--trainer.strategy", "ddp" if devices > 1 else "auto", "--trainer.logger", json.dumps(logger)]
        argv += ["--trainer.log_every_n_steps", "1", *more]
        done = subprocess.run(
            [sys.executable, "-m", "guardreasoner", *argv],
            capture_output=True,
            text=True,
            cwd=folder,
            env=environment,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        output[stage] = done.stdout
    return output


def losses(folder: Path, stage: str) -> list[float]:
    """Return the training losses of a stage, then its validation losses."""
    rows = list(csv.DictReader((folder / "csv" / stage / "version_0" / "metrics.csv").open()))
    return [float(row[name]) for name in ("train/loss", "val/loss") for row in rows if row[name]]


@pytest.fixture(scope="module")
def chains(
    tiny_base: Path, tiny_rollouts: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[int, tuple[Path, dict[str, str]]]:
    """The folder and the output of the chain by number of processes."""
    root = tmp_path_factory.mktemp("chains")
    return {
        devices: (root / str(devices), run_chain(root / str(devices), tiny_base, tiny_rollouts, devices))
        for devices in (1, 2)
    }


@pytest.mark.parametrize("stage", ["rsft", "hsdpo"])
def test_two_processes_have_the_losses_of_one(stage: str, chains: dict[int, tuple[Path, dict[str, str]]]) -> None:
    one, two = (losses(chains[devices][0], stage) for devices in (1, 2))
    assert len(one) > 3
    assert two == pytest.approx(one, rel=1e-4)


def test_data_are_prepared_once(chains: dict[int, tuple[Path, dict[str, str]]]) -> None:
    folder, output = chains[2]
    # One folder of tokenised data for each stage, and the line that mining prints occurs once.
    assert len(list((folder / "logs" / "tokenised").glob("[!.]*"))) == 2
    assert output["hsdpo"].count(" hard of ") == 1
    assert output["rsft"].count("R-SFT: ") == 1


def test_the_stored_reference_is_that_of_one_process(chains: dict[int, tuple[Path, dict[str, str]]]) -> None:
    (one,), (two,) = (sorted((chains[n][0] / "logs" / "reference").glob("*.safetensors")) for n in (1, 2))
    values = load_file(one)["logps"]
    assert len(values) == 30  # 15 pairs
    assert load_file(two)["logps"].tolist() == pytest.approx(values.tolist(), abs=1e-2)
