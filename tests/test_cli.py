"""Everything that varies is swapped by flags alone, and a misspelt key is one line with the nearest right one."""

import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torchmetrics import Metric

from guardreasoner.__main__ import LIGHTNING, main, own_verbs
from guardreasoner.backbone import Backbone, LoRA
from guardreasoner.cli import GuardCLI
from guardreasoner.data.preference import PreferenceDataModule
from guardreasoner.data.reasoning import ReasoningDataModule
from guardreasoner.generators import Completion, Generator, Request
from guardreasoner.modules.hsdpo import HSDPOModule
from guardreasoner.objective import ipo
from guardreasoner.prompts import Verdicts, answer_block
from guardreasoner.records import read_jsonl, read_rollouts
from guardreasoner.reference import FrozenAdapter, Precomputed
from guardreasoner.tasks import GUARD_TASKS, Task
from tests.tiny import TinySource, quiet_trainer

ROOT = Path(__file__).parents[1]
Start = Callable[..., str]
Refused = Callable[..., str]


class Parrot(Generator):
    """Gives every record the same verdict.

    Args:
        backbone: is left alone.
        request: the verdict on the request.
    """

    def __init__(self, backbone: Backbone, request: str = "harmful") -> None:
        self.said = answer_block({"request": request}, GUARD_TASKS)

    def generate(self, requests: Iterable[Request]) -> Iterator[Completion]:
        for request in requests:
            for index in range(len(request.seeds)):
                yield Completion(request.record_id, index, f"{index} I say it again.\n\n{self.said}")


class HarmfulRecords(ReasoningDataModule):
    """Keeps the records whose request is harmful."""

    def setup(self, stage: str) -> None:
        super().setup(stage)
        kept = {record.id for record in self.source.records("train") if record.labels["request"] == "harmful"}
        count = len(self.train)
        self.train = [example for example in self.train if example.id in kept]
        print(f"kept {len(self.train)} of {count}")


class Answers(Metric):
    """Counts what was asked.

    Args:
        tasks: what is decided.
        factor: multiplies the count.
    """

    def __init__(self, tasks: Sequence[Task], factor: int = 1) -> None:
        super().__init__()
        self.factor = factor
        self.count: Tensor
        self.add_state("count", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, verdicts: Sequence[Verdicts], labels: Sequence[Mapping[str, str | None]]) -> None:
        self.count += self.factor * len(verdicts)

    def compute(self) -> dict[str, Tensor]:
        return {"asked": self.count}


def hinge(margin: Tensor, beta: float) -> Tensor:
    """A preference loss of one's own: (B,) margins in nats to (B,) losses."""
    print("hinge is asked")
    return torch.relu(1 - beta * margin)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Work in a folder with the project's configs, where nothing has been made."""
    monkeypatch.chdir(tmp_path)
    Path("configs").symlink_to(ROOT / "configs")
    yield tmp_path
    # its handler writes to the captured stream of this test
    logging.getLogger("guardreasoner").handlers.clear()


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Start:
    """Return what runs a command that must end well, and gives back its standard output."""

    def run(*argv: str) -> str:
        monkeypatch.setattr(sys, "argv", ["guardreasoner", *argv])
        code = main(list(argv))
        said = capsys.readouterr()
        assert code == 0, said.err
        return said.out

    return run


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Refused:
    """Return what runs a command that must end with one line and at most one hint, and gives them back."""

    def run(*argv: str) -> str:
        monkeypatch.setattr(sys, "argv", ["guardreasoner", *argv])
        assert main(list(argv)) == 2
        said = capsys.readouterr().err
        assert [line.split(":")[0] for line in said.splitlines()] in (["error"], ["error", "hint"]), said
        return said

    return run


def words(stage: str, base: Path, *more: str) -> tuple[str, ...]:
    """Return the words of a stage on tiny things."""
    verb = {"rsft": "fit", "hsdpo": "fit", "mine": "predict", "evaluate": "test"}[stage]
    start = (verb, "--config", f"configs/{stage}.yaml", "--model.backbone.path", str(base), "--auto_build", "false")
    quiet = ("--trainer.logger", "false", "--trainer.enable_progress_bar", "false", "--trainer.accelerator", "cpu")
    return (*start, "--data.source", "tests.tiny.TinySource", "--output", "made", *quiet, *more)


def made_by(argv: Sequence[str]) -> GuardCLI:
    """Return a command's objects, without running it."""
    return GuardCLI(argv[0], list(argv[1:]))


def test_the_preference_loss_is_a_flag(tiny_base: Path, tiny_rollouts: Path, start: Start) -> None:
    argv = words("hsdpo", tiny_base, "--data.rollouts", f"[{tiny_rollouts}]", "--trainer.fast_dev_run", "true")
    cli = made_by((*argv, "--model.preference", "guardreasoner.objective.ipo"))
    assert cli.model.preference is ipo
    start(*argv, "--model.preference", "guardreasoner.objective.ipo")
    assert "hinge is asked" in start(*argv, "--model.preference", "tests.test_cli.hinge")


def test_the_reference_is_a_flag(tiny_base: Path, tiny_rollouts: Path, start: Start) -> None:
    argv = words("hsdpo", tiny_base, "--data.rollouts", f"[{tiny_rollouts}]", "--trainer.fast_dev_run", "true")
    precomputed = ("--model.reference", "guardreasoner.reference.Precomputed", "--model.reference.folder", "numbers")
    assert isinstance(made_by((*argv, *precomputed)).model.reference, Precomputed)
    start(*argv, *precomputed)
    assert len(list(Path("numbers").glob("*.safetensors"))) == 1


def test_the_reference_of_an_adapter_is_a_flag(tiny_base: Path, tiny_rollouts: Path, start: Start) -> None:
    argv = words("hsdpo", tiny_base, "--data.rollouts", f"[{tiny_rollouts}]", "--trainer.fast_dev_run", "true")
    adapter = ("--model.reference", "guardreasoner.reference.FrozenAdapter", "--model.backbone.lora.r", "2")
    model = made_by((*argv, *adapter)).model
    assert isinstance(model.reference, FrozenAdapter)
    assert model.backbone.lora == LoRA(r=2)
    start(*argv, *adapter)


def test_a_reference_that_does_not_suit_is_refused(tiny_base: Path, tiny_rollouts: Path, refused: Refused) -> None:
    argv = words("hsdpo", tiny_base, "--data.rollouts", f"[{tiny_rollouts}]")
    said = refused(*argv, "--model.reference", "guardreasoner.reference.FrozenAdapter")
    assert "FrozenAdapter needs a model with an adapter" in said
    assert "FrozenCopy" in said


def test_the_generator_is_a_flag(tiny_base: Path, start: Start) -> None:
    parrot = ("--model.generator", "tests.test_cli.Parrot", "--model.generator.request", "unharmful")
    start(*words("mine", tiny_base, *parrot, "--model.k", "3"))
    rollouts = read_rollouts("made/rollouts.jsonl")
    assert len(rollouts) == 3 * 24
    assert {rollout.completion.split("\n")[0] for rollout in rollouts} == {f"{n} I say it again." for n in range(3)}
    assert all("Request: unharmful" in rollout.completion for rollout in rollouts)


def test_metric_and_greedy_generator_are_flags(tiny_base: Path, start: Start) -> None:
    parrot = ("--model.greedy", "tests.test_cli.Parrot", "--data.rollouts", "null")
    out = start(*words("evaluate", tiny_base, *parrot))
    # three of six requests are harmful, and no record with a response is met in full
    assert "f1/request/harmful 0.6667" in out
    metric = ("--model.metric", "tests.test_cli.Answers", "--model.metric.factor", "10")
    assert "asked 60.0000" in start(*words("evaluate", tiny_base, *parrot, *metric))
    rows = [row for file in Path("made").rglob("generated_predictions.jsonl") for _, row in read_jsonl(file)]
    assert len(rows) == 6
    assert all("Request: harmful" in row["predict"] for row in rows)


def test_the_data_module_is_a_flag(tiny_base: Path, start: Start) -> None:
    argv = words("rsft", tiny_base, "--trainer.fast_dev_run", "true")
    assert "kept 12 of 24" in start(*argv, "--data", "tests.test_cli.HarmfulRecords")
    start(*argv, "--data.batch_size", "4", "--model.optimizer", "torch.optim.SGD", "--model.optimizer.lr", "0.01")


def test_the_collator_is_a_flag(tiny_base: Path) -> None:
    cli = made_by(words("rsft", tiny_base, "--data.collate", "guardreasoner.tokens.two_row"))
    assert cli.datamodule.collate.__name__ == "two_row"


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
def test_a_misspelt_flag(flag: str, near: str, tiny_base: Path, tiny_rollouts: Path, refused: Refused) -> None:
    said = refused(*words("hsdpo", tiny_base, "--data.rollouts", f"[{tiny_rollouts}]", flag, "1"))
    error, hint = said.splitlines()
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
def test_a_misspelt_key_in_yaml(
    text: str, line: int, key: str, near: str, tiny_base: Path, tiny_rollouts: Path, refused: Refused
) -> None:
    Path("mine.yaml").write_text(text)
    said = refused(*words("hsdpo", tiny_base, "--data.rollouts", f"[{tiny_rollouts}]", "--config", "mine.yaml"))
    error, hint = said.splitlines()
    assert error.startswith(f"error: mine.yaml:{line}: unknown key ")
    assert key in error
    assert hint == f"hint: did you mean {near!r}?"


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (("--model.beta", "much"), ("beta", "much")),
        (("--data.epochs", "two"), ("epochs", "two")),
        (("--model", "guardreasoner.modules.hsdpo.HSDPO"), ("HSDPO",)),
        (("--model.preference", "guardreasoner.objective.absent"), ("preference", "absent")),
        (("--data.pairing.chosen", "best"), ("chosen", "best")),
        (("--data.source", "torch.nn.Linear"), ("source", "Linear")),
        (("--output",), ("output",)),
    ],
)
def test_a_wrong_value_is_named(
    flags: tuple[str, ...], named: tuple[str, ...], tiny_base: Path, tiny_rollouts: Path, refused: Refused
) -> None:
    said = refused(*words("hsdpo", tiny_base, "--data.rollouts", f"[{tiny_rollouts}]", *flags))
    assert all(name in said for name in named), said


@pytest.mark.parametrize(
    ("key", "value", "instead"),
    [
        ("max_epochs", "2", "data.epochs"),
        ("accumulate_grad_batches", "4", "data.micro_batch_size"),
        ("gradient_clip_val", "0.5", "model.max_grad_norm"),
    ],
)
@pytest.mark.parametrize("stage", ["rsft", "hsdpo"])
def test_what_lightning_would_do_twice_is_refused(
    stage: str, key: str, value: str, instead: str, tiny_base: Path, tiny_rollouts: Path, refused: Refused
) -> None:
    more = ("--data.rollouts", f"[{tiny_rollouts}]") if stage == "hsdpo" else ()
    error, hint = refused(*words(stage, tiny_base, *more, f"--trainer.{key}", value)).splitlines()
    assert f"trainer.{key}" in error
    assert value in error
    assert instead in hint
    assert not Path("made").exists()


def test_five_lines_without_the_command_line(tiny_base: Path, tiny_rollouts: Path) -> None:
    data = PreferenceDataModule(TinySource(), rollouts=[str(tiny_rollouts)])
    module = HSDPOModule(Backbone(str(tiny_base)))
    quiet_trainer().fit(module, data)
    module.backbone.save("checkpoints/mine")
    again = Backbone("checkpoints/mine")
    again.load()
    own = module.backbone.network.state_dict()
    assert all(torch.equal(value, own[name]) for name, value in again.network.state_dict().items())


def test_a_verb_says_what_it_measured_and_where_it_is(tiny_base: Path, start: Start) -> None:
    out = start(*words("evaluate", tiny_base, "--model.greedy", "tests.test_cli.Parrot", "--data.rollouts", "null"))
    assert "written to made; python -m guardreasoner score made" in out
    assert "accuracy" in start("score", "made")


def test_the_config_of_a_run_is_kept_beside_its_curves(tiny_base: Path, start: Start) -> None:
    logger = ("--trainer.logger", "lightning.pytorch.loggers.TensorBoardLogger", "--trainer.logger.save_dir", "logs")
    argv = [*words("rsft", tiny_base), *logger, "--data.batch_size", "24", "--data.epochs", "1"]
    for _ in range(2):
        start(*argv)
    kept = list(Path("logs").rglob("config.yaml"))
    assert len(kept) == 2
    assert "guardreasoner.modules.rsft.RSFTModule" in kept[0].read_text()
    assert (Path("made") / "manifest.json").is_file()


def test_help_lists_all_verbs_without_torch() -> None:
    code = (
        "import sys; from guardreasoner.__main__ import main; code = main(['--help']);"
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
