"""An unknown key is one line with the most similar known key; help is fast and complete."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from guardreasoner.cli.main import LIGHTNING, own_verbs
from tests.support.tiny import command

ROOT = Path(__file__).parents[2]
Start = Callable[..., str]
Refused = Callable[..., str]

pytestmark = pytest.mark.usefixtures("workplace")


@pytest.mark.parametrize(
    ("flag", "near"),
    [
        ("--outptu", "output"),
        ("--model.betta", "beta"),
        ("--model.init_args.betta", "beta"),
        ("--data.bach_size", "batch_size"),
        ("--data.sourc.train", "source"),
        ("--data.pairing.gama", "gamma"),
        ("--trainer.devises", "devices"),
        ("--recipe.check_points", "checkpoints"),
        ("--model.backbone.pth", "path"),
        ("--modle.beta", "model"),
        ("--seed_everthing", "seed_everything"),
    ],
)
def test_an_unknown_flag_suggests_the_nearest(
    flag: str, near: str, tiny_base: Path, tiny_rollouts: Path, refused: Refused
) -> None:
    message = refused(*command("hsdpo", tiny_base, "--data.rollouts", f"[{tiny_rollouts}]", flag, "1"))
    error, hint = message.splitlines()
    assert flag.split(".")[-1].lstrip("-") in error
    assert hint == f"hint: did you mean {near!r}?"


@pytest.mark.parametrize(
    ("text", "line", "key", "near"),
    [
        ("seed_everything: 1\noutptu: x\n", 2, "outptu", "output"),
        ("recipe:\n  logs: logs\n  check_points: x\n", 3, "check_points", "checkpoints"),
        ("model:\n  init_args:\n    beta: 0.1\n    sft_ceof: 1\n", 4, "sft_ceof", "sft_coef"),
        ("model:\n  init_args:\n    backbone:\n      quantisation: 4bit\n", 4, "quantisation", "quantization"),
        ("data:\n  init_args:\n    pairing: {gama: 0.1}\n", 3, "gama", "gamma"),
        ("data:\n  init_args:\n    # bach_size: 1\n    bach_size: 1\n", 4, "bach_size", "batch_size"),
        ("trainer:\n  max_epoch: 1\n", 2, "max_epoch", "max_epochs"),
        ("traner:\n  max_epochs: 1\n", 1, "traner", "trainer"),
        ("data:\n  init_arg:\n    batch_size: 1\n", 2, "init_arg", "init_args"),
    ],
)
def test_an_unknown_yaml_key_suggests_the_nearest(
    text: str, line: int, key: str, near: str, tiny_base: Path, tiny_rollouts: Path, refused: Refused
) -> None:
    Path("mine.yaml").write_text(text)
    message = refused(*command("hsdpo", tiny_base, "--data.rollouts", f"[{tiny_rollouts}]", "--config", "mine.yaml"))
    error, hint = message.splitlines()
    assert error.startswith(f"error: mine.yaml:{line}: unknown key ")
    assert key in error
    assert hint == f"hint: did you mean {near!r}?"


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (("--model.beta", "much"), ("beta", "much")),
        (("--data.epochs", "two"), ("epochs", "two")),
        (("--model", "guardreasoner.training.hsdpo.HSDPO"), ("HSDPO",)),
        (("--model.objective", "guardreasoner.training.losses.absent"), ("objective", "absent")),
        (("--data.pairing.chosen", "best"), ("chosen", "best")),
        (("--data.source", "torch.nn.Linear"), ("source", "Linear")),
        (("--output",), ("output",)),
    ],
)
def test_a_wrong_value_is_reported(
    flags: tuple[str, ...], named: tuple[str, ...], tiny_base: Path, tiny_rollouts: Path, refused: Refused
) -> None:
    message = refused(*command("hsdpo", tiny_base, "--data.rollouts", f"[{tiny_rollouts}]", *flags))
    assert all(name in message for name in named), message


@pytest.mark.parametrize(
    ("key", "value", "instead"),
    [
        ("max_epochs", "2", "data.epochs"),
        ("accumulate_grad_batches", "4", "data.micro_batch_size"),
        ("gradient_clip_val", "0.5", "model.max_grad_norm"),
    ],
)
@pytest.mark.parametrize("stage", ["rsft", "hsdpo"])
def test_automatic_optimization_settings_are_rejected(
    stage: str, key: str, value: str, instead: str, tiny_base: Path, tiny_rollouts: Path, refused: Refused
) -> None:
    more = ("--data.rollouts", f"[{tiny_rollouts}]") if stage == "hsdpo" else ()
    error, hint = refused(*command(stage, tiny_base, *more, f"--trainer.{key}", value)).splitlines()
    assert f"trainer.{key}" in error
    assert value in error
    assert instead in hint
    assert not Path("made").exists()


def test_test_prints_its_metrics_and_output(tiny_base: Path, start: Start) -> None:
    greedy = ("--model.greedy", "tests.training.test_swapping.Parrot")
    out = start(*command("evaluate", tiny_base, *greedy, "--data.rollouts", "null"))
    assert out.splitlines()[-1].endswith("written to made")
    assert "accuracy" in start("score", "made")


@pytest.mark.slow
def test_the_config_is_saved_beside_the_curves(tiny_base: Path, start: Start) -> None:
    logger = ("--trainer.logger", "lightning.pytorch.loggers.TensorBoardLogger", "--trainer.logger.save_dir", "logs")
    argv = [*command("rsft", tiny_base), *logger, "--data.batch_size", "24", "--data.epochs", "1"]
    for _ in range(2):
        start(*argv)
    kept = list(Path("logs").rglob("config.yaml"))
    assert len(kept) == 2
    assert "guardreasoner.training.rsft.RSFTModule" in kept[0].read_text()
    assert (Path("made") / "manifest.json").is_file()


def test_help_lists_all_verbs_without_torch() -> None:
    code = (
        "import sys; from guardreasoner.cli.main import main; code = main(['--help']);"
        "print(sorted({'torch', 'lightning', 'transformers'} & set(sys.modules)), file=sys.stderr); sys.exit(code)"
    )
    begun = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert time.monotonic() - begun < 2
    assert done.stderr == "[]\n"
    listed = [line.split()[0] for line in done.stdout.splitlines() if line.startswith("  ")]
    assert listed == [*LIGHTNING, *own_verbs()]
    assert {"fit", "validate", "test", "predict", "pairs", "score", "run", "base-model"} <= set(listed)


def test_help_of_fit() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "guardreasoner", "fit", "--help"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert "usage: python -m guardreasoner fit" in done.stdout
    for key in ("--config", "--output", "--auto_build", "--recipe.base", "--trainer.max_epochs", "--ckpt_path"):
        assert key in done.stdout
    assert "Traceback" not in done.stderr
