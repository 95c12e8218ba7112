"""The shipped configs on two processes: data prepared once, the stored reference shared, equal losses and weights."""

import csv
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from guardreasoner.records import read_rollouts, write_jsonl
from guardreasoner.records.jsonl import read_jsonl
from tests.support.tiny import TinySource, command

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.slow


def run_chain(folder: Path, base: Path, rollouts: Path, devices: int) -> dict[str, str]:
    """Run R-SFT, mining, HS-DPO and a test by their shipped configs in ``folder``; return the output of each stage.

    Several processes have the overlay ``configs/trainer/ddp.yaml``, in float32 on CPUs. The tiny model writes no
    verdicts, so the pairs come from scripted rollouts. Both chains mine from the same weights: after training they
    differ by rounding, which can change a sampled token.
    """
    folder.mkdir()
    (folder / "configs").symlink_to(ROOT / "configs")
    for split in ("train", "validation", "test"):
        write_jsonl(folder / f"{split}.jsonl", TinySource().records(split))  # type: ignore[arg-type]
    files = {split: f"{split}.jsonl" for split in ("train", "validation", "test")}
    source = json.dumps({"class_path": "guardreasoner.sources.files.Files", "init_args": files})
    output = {}
    short = ["--recipe.max_new_tokens", "8"]
    for verb, stage, model, processes, more in (
        ("fit", "rsft", str(base), devices, ["--data.batch_size", "9", "--data.micro_batch_size", "3"]),
        ("predict", "mine", str(base), devices, [*short, "--model.generator.chunk", "4"]),
        ("fit", "hsdpo", "checkpoints/rsft", devices, ["--data.rollouts", f"[{rollouts}]", "--data.batch_size", "7"]),
        ("test", "evaluate", "checkpoints/hsdpo", 1, [*short, "--data.rollouts", "null"]),
    ):
        argv = [verb, "--config", f"configs/{stage}.yaml"]
        if processes > 1:
            argv += ["--config", "configs/trainer/ddp.yaml", "--trainer.precision", "32-true"]
        argv += ["--auto_build", "false", "--model.backbone.path", model]
        argv += ["--data.source", source, "--trainer.accelerator", "cpu", "--trainer.devices", str(processes)]
        logger: dict[str, object] = {"class_path": "lightning.pytorch.loggers.CSVLogger"}
        logger |= {"init_args": {"save_dir": "csv", "name": stage, "version": 0}}
        argv += ["--trainer.logger", json.dumps(logger), "--trainer.log_every_n_steps", "1", *more]
        output[stage] = run_in(folder, argv)
    return output


def run_in(folder: Path, argv: Sequence[str]) -> str:
    """Run a command in a folder that has the configs; return what it prints."""
    done = subprocess.run(
        [sys.executable, "-m", "guardreasoner", *argv],
        capture_output=True,
        text=True,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


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


@pytest.mark.parametrize("stage", ["rsft", "hsdpo"])
def test_two_processes_write_the_weights_of_one(stage: str, chains: dict[int, tuple[Path, dict[str, str]]]) -> None:
    one, two = (load_file(chains[devices][0] / "checkpoints" / stage / "model.safetensors") for devices in (1, 2))
    assert two.keys() == one.keys()
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=1e-3, atol=1e-4, msg=name)


def test_two_processes_mine_the_rollouts_of_one(chains: dict[int, tuple[Path, dict[str, str]]]) -> None:
    folders = [chains[devices][0] / "logs/rollouts/rsft" for devices in (1, 2)]
    one, two = (list(read_rollouts(folder / "rollouts.jsonl")) for folder in folders)
    assert len(one) == 4 * 24
    assert len({rollout.completion for rollout in one}) > 24  # the outputs of a record differ
    assert two == one
    costs = [json.loads((folder / "cost.manifest.json").read_text()) for folder in folders]
    assert [cost["devices"] for cost in costs] == [1, 2]


def test_the_model_of_two_processes_answers_like_that_of_one(chains: dict[int, tuple[Path, dict[str, str]]]) -> None:
    one, two = (
        [
            row["predict"]
            for file in sorted((chains[devices][0] / "logs/predictions").rglob("generated_predictions.jsonl"))
            for _, row in read_jsonl(file)
        ]
        for devices in (1, 2)
    )
    assert len(one) == 6
    assert two == one


def test_data_are_prepared_once(chains: dict[int, tuple[Path, dict[str, str]]]) -> None:
    folder, output = chains[2]
    # One folder of tokenized data for each stage, and the line that mining prints occurs once.
    assert len(list((folder / "logs" / "tokenized").glob("[!.]*"))) == 2
    assert output["hsdpo"].count(" hard of ") == 1
    assert output["rsft"].count("R-SFT: ") == 1


def test_the_stored_reference_is_that_of_one_process(chains: dict[int, tuple[Path, dict[str, str]]]) -> None:
    (one,), (two,) = (sorted((chains[n][0] / "logs" / "reference").glob("*.safetensors")) for n in (1, 2))
    values = load_file(one)["logps"]
    assert len(values) == 30  # 15 pairs
    assert load_file(two)["logps"].tolist() == pytest.approx(values.tolist(), abs=1e-2)


def test_two_processes_sample_the_outputs_of_one(both_speeds: Path, tiny_rollouts: Path, tmp_path: Path) -> None:
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    rows, models = [], []
    for devices, strategy in (("1", "auto"), ("2", "ddp")):
        logger = {"class_path": "lightning.pytorch.loggers.CSVLogger"}
        logger |= {"init_args": {"save_dir": "csv", "name": devices, "version": 0}}  # type: ignore[dict-item]
        argv = command(
            *("grpo", both_speeds, "--data.rollouts", f"[{tiny_rollouts}]", "--data.batch_size", "5", "--model.k", "4"),
            *("--recipe.max_new_tokens", "60", "--data.micro_batch_size", "2", "--trainer.logger", json.dumps(logger)),
            *("--trainer.devices", devices, "--trainer.strategy", strategy, "--output", f"made-{devices}"),
        )
        run_in(tmp_path, argv)
        with (tmp_path / "csv" / devices / "version_0" / "metrics.csv").open() as file:
            rows.append([row for row in csv.DictReader(file) if row["train/loss"]])
        models.append(load_file(tmp_path / f"made-{devices}" / "model.safetensors"))
    assert len(rows[0]) == 3
    for one, two in zip(*rows, strict=True):
        for name in ("train/reward", "train/length", "train/generated_tokens"):
            assert one[name] == two[name], name
        for name in ("train/loss", "train/grad_norm"):
            assert float(two[name]) == pytest.approx(float(one[name]), rel=1e-3, abs=1e-6)
    for name, value in models[0].items():
        torch.testing.assert_close(models[1][name], value, rtol=1e-3, atol=1e-4, msg=name)
