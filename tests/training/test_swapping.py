"""Everything that varies is swapped by flags alone."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torchmetrics import Metric

from guardreasoner.cli.lightning_cli import GuardCLI
from guardreasoner.generators import Completion, Generator, Request
from guardreasoner.model.backbone import Backbone, LoRA
from guardreasoner.prompts import Verdicts, answer_block
from guardreasoner.records import read_rollouts
from guardreasoner.records.jsonl import read_jsonl
from guardreasoner.tasks import GUARD_TASKS, Task
from guardreasoner.training.hsdpo import HSDPOModule
from guardreasoner.training.losses import ipo, margin
from guardreasoner.training.preference_data import PreferenceDataModule
from guardreasoner.training.reasoning_data import ReasoningDataModule
from guardreasoner.training.reference import FrozenAdapter, Precomputed
from tests.support.tiny import TinySource, command, quiet_trainer

ROOT = Path(__file__).parents[2]
Start = Callable[..., str]
Refused = Callable[..., str]

pytestmark = pytest.mark.usefixtures("workplace")


class Parrot(Generator):
    """Gives every record the same verdict.

    Args:
        backbone: is left alone.
        request: the verdict on the request.
    """

    def __init__(self, backbone: Backbone, request: str = "harmful") -> None:
        self.said = answer_block({"request": request}, GUARD_TASKS)

    def generate_groups(self, requests: Iterable[Request]) -> Iterator[list[Completion]]:
        for request in requests:
            indices = range(len(request.seeds))
            yield [Completion(request.record_id, n, f"{n} I say it again.\n\n{self.said}") for n in indices]


class HarmfulRecords(ReasoningDataModule):
    """Keeps the records whose request is harmful."""

    def setup(self, stage: str) -> None:
        super().setup(stage)
        kept = {record.id for record in self.source.records("train") if record.labels["request"] == "harmful"}
        count = len(self.train)
        self.train = [example for example in self.train if example.id in kept]
        print(f"kept {len(self.train)} of {count}")


class AskedCount(Metric):
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


def hinge(chosen, rejected, beta):  # type: ignore[no-untyped-def]
    """A user's own objective, without annotations."""
    print("hinge is called")
    return torch.relu(1 - beta * margin(chosen, rejected))


def made_by(argv: Sequence[str]) -> GuardCLI:
    """Return a command's objects, without running it."""
    return GuardCLI(argv[0], list(argv[1:]))


@pytest.mark.slow
def test_the_objective_is_a_flag(tiny_base: Path, tiny_rollouts: Path, start: Start) -> None:
    argv = command("hsdpo", tiny_base, "--data.rollouts", f"[{tiny_rollouts}]", "--trainer.fast_dev_run", "true")
    cli = made_by((*argv, "--model.objective", "guardreasoner.training.losses.ipo"))
    assert cli.model.objective is ipo
    start(*argv, "--model.objective", "guardreasoner.training.losses.ipo")
    assert "hinge is called" in start(*argv, "--model.objective", "tests.training.test_swapping.hinge")


def test_the_reference_is_a_flag(tiny_base: Path, tiny_rollouts: Path, start: Start) -> None:
    argv = command("hsdpo", tiny_base, "--data.rollouts", f"[{tiny_rollouts}]", "--trainer.fast_dev_run", "true")
    precomputed = (
        "--model.reference",
        "guardreasoner.training.reference.Precomputed",
        "--model.reference.folder",
        "numbers",
    )
    assert isinstance(made_by((*argv, *precomputed)).model.reference, Precomputed)
    start(*argv, *precomputed)
    assert len(list(Path("numbers").glob("*.safetensors"))) == 1


def test_the_reference_of_an_adapter_is_a_flag(tiny_base: Path, tiny_rollouts: Path, start: Start) -> None:
    argv = command("hsdpo", tiny_base, "--data.rollouts", f"[{tiny_rollouts}]", "--trainer.fast_dev_run", "true")
    adapter = ("--model.reference", "guardreasoner.training.reference.FrozenAdapter", "--model.backbone.lora.r", "2")
    model = made_by((*argv, *adapter)).model
    assert isinstance(model.reference, FrozenAdapter)
    assert model.backbone.lora == LoRA(r=2)
    start(*argv, *adapter)


def test_a_reference_that_does_not_suit_is_refused(tiny_base: Path, tiny_rollouts: Path, refused: Refused) -> None:
    argv = command("hsdpo", tiny_base, "--data.rollouts", f"[{tiny_rollouts}]")
    said = refused(*argv, "--model.reference", "guardreasoner.training.reference.FrozenAdapter")
    assert "FrozenAdapter needs a model with an adapter" in said
    assert "FrozenCopy" in said


def test_the_generator_is_a_flag(tiny_base: Path, start: Start) -> None:
    parrot = ("--model.generator", "tests.training.test_swapping.Parrot", "--model.generator.request", "unharmful")
    start(*command("mine", tiny_base, *parrot, "--model.k", "3"))
    rollouts = read_rollouts("made/rollouts.jsonl")
    assert len(rollouts) == 3 * 24
    assert {rollout.completion.split("\n")[0] for rollout in rollouts} == {f"{n} I say it again." for n in range(3)}
    assert all("Request: unharmful" in rollout.completion for rollout in rollouts)


@pytest.mark.slow
def test_metric_and_greedy_generator_are_flags(tiny_base: Path, start: Start) -> None:
    parrot = ("--model.greedy", "tests.training.test_swapping.Parrot", "--data.rollouts", "null")
    out = start(*command("evaluate", tiny_base, *parrot))
    # three of six requests are harmful, and no record with a response is met in full
    assert "request: f1/harmful 66.67 %" in out
    metric = ("--model.metric", "tests.training.test_swapping.AskedCount", "--model.metric.factor", "10")
    assert "asked 60.0000" in start(*command("evaluate", tiny_base, *parrot, *metric))
    rows = [row for file in Path("made").rglob("generated_predictions.jsonl") for _, row in read_jsonl(file)]
    assert len(rows) == 6
    assert all("Request: harmful" in row["predict"] for row in rows)


@pytest.mark.slow
def test_the_data_module_is_a_flag(tiny_base: Path, start: Start) -> None:
    argv = command("rsft", tiny_base, "--trainer.fast_dev_run", "true")
    assert "kept 12 of 24" in start(*argv, "--data", "tests.training.test_swapping.HarmfulRecords")
    start(*argv, "--data.batch_size", "4", "--model.optimizer", "torch.optim.SGD", "--model.optimizer.lr", "0.01")


def test_the_collator_is_a_flag(tiny_base: Path) -> None:
    cli = made_by(command("rsft", tiny_base, "--data.collate", "guardreasoner.model.batch.two_row"))
    assert cli.datamodule.collate.__name__ == "two_row"


def test_five_lines_without_the_command_line(tiny_base: Path, tiny_rollouts: Path) -> None:
    data = PreferenceDataModule(TinySource(), rollouts=[str(tiny_rollouts)])
    module = HSDPOModule(Backbone(str(tiny_base)))
    quiet_trainer().fit(module, data)
    module.backbone.save("checkpoints/mine")
    again = Backbone("checkpoints/mine")
    again.load()
    own = module.backbone.network.state_dict()
    assert all(torch.equal(value, own[name]) for name, value in again.network.state_dict().items())
