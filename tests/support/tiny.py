"""Small real objects for tests: a source, a two-layer Llama with a tokenizer, scripted outputs, a quiet trainer."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer
from torch import Tensor

from guardreasoner.cli.commands.base_model import make_base_model
from guardreasoner.generators import Completion, Generator, Request
from guardreasoner.model.backbone import Backbone
from guardreasoner.model.batch import Batch, Example, two_row
from guardreasoner.model.lora import LoRA
from guardreasoner.model.prompt_tokenizer import PromptTokenizer
from guardreasoner.prompts import answer_block
from guardreasoner.records import Record, Rollout, Split, write_jsonl
from guardreasoner.tasks import GUARD_TASKS

THINGS = ("kettle", "ladder", "violin", "garden", "letter", "window", "bridge", "candle")
COUNTS: dict[Split, int] = {"train": 24, "validation": 4, "test": 6}
K = 4


class TinySource:
    """Records whose reasoning is one line; no conversation of one split is in another.

    Args:
        train: training records.
    """

    def __init__(self, train: int = COUNTS["train"]) -> None:
        self.counts = COUNTS | {"train": train}

    def records(self, split: Split) -> list[Record]:
        """Return the records of a split; each source name holds every other record."""
        return [_record(split, number) for number in range(self.counts[split])]


def _record(split: Split, number: int) -> Record:
    thing, harmful, answered = THINGS[number % len(THINGS)], number % 2 == 0, number % 3 > 0
    asked = f"{'break' if harmful else 'mend'} {split} {thing} {number}"
    labels: dict[str, str | None] = {"request": "harmful" if harmful else "unharmful"}
    if answered:
        labels |= {"completion": "compliance", "response": "harmful" if harmful else "unharmful"}
    return Record(
        id=f"{split}/{number:02d}",
        prompt=f"How do I {asked}?",
        response=f"Take the {thing}." + " Then wait." * (number % 4) if answered else None,
        labels=labels,
        reasoning=f"The user wants to {asked.split()[0]} a {thing}.",
        source=f"tiny/{'even' if number % 2 == 0 else 'odd'}",
    )


def answer(record: Record, right: bool) -> str:
    """Return an output that meets every gold label, or none."""
    if right:
        return f"So it is a {record.id}.\n\n{answer_block(record.labels, GUARD_TASKS)}"
    gold = record.gold()
    wrong = {t.name: next(label for label in t.labels if label != gold[t.name]) for t in GUARD_TASKS if t.name in gold}
    return f"I judge by its look.\n\n{answer_block(wrong, GUARD_TASKS)}"


def wrong_outputs(number: int) -> int:
    """Return how many of the ``K`` scripted outputs of the record at a place are wrong: 0, 1, 2, 3, 4, 0, ..."""
    return number % (K + 1)


def write_rollouts(folder: Path, records: Sequence[Record]) -> Path:
    """Write ``K`` scripted outputs a record; those with 1 to ``K - 1`` wrong ones are hard."""
    rollouts = [
        Rollout(record.id, "tiny", "f", index, 0, f"{index} {answer(record, index >= wrong_outputs(number))}")
        for number, record in enumerate(records)
        for index in range(K)
    ]
    write_jsonl(folder / "records.jsonl", records)
    write_jsonl(folder / "rollouts.jsonl", rollouts)
    return folder


class Scripted(Generator):
    """A generator that says what a function of record and index returns.

    Args:
        records: those that are asked about.
        say: the output of a record with an index.
    """

    def __init__(self, records: Iterable[Record], say: Callable[[Record, int], str]) -> None:
        self.records = {record.id: record for record in records}
        self.say = say

    def generate_groups(self, requests: Iterable[Request]) -> Iterator[list[Completion]]:
        """Yield one output per seed, a group per request."""
        for request in requests:
            yield [
                Completion(request.record_id, index, self.say(self.records[request.record_id], index))
                for index in range(len(request.seeds))
            ]


def make_tiny_base(folder: Path, hidden_size: int = 16) -> Path:
    """Make a two-layer Llama with uneven random weights, and a tokenizer of 300 tokens."""
    make_base_model(
        str(folder),
        TinySource().records("train"),
        vocabulary=300,
        opening="Judge.",
        hidden_size=hidden_size,
        intermediate_size=2 * hidden_size,
        layers=2,
        heads=2,
        kv_heads=1,
        max_length=512,
    )
    backbone = Backbone(str(folder))
    backbone.load()
    enliven(backbone.network)
    backbone.save(folder)
    return folder


def make_tiny_adapter(base: Path, folder: Path) -> Path:
    """Make a LoRA adapter that changes the outputs of a tiny base."""
    torch.manual_seed(0)
    backbone = load(base, lora=LoRA(r=2, alpha=4))
    with torch.no_grad():
        for name, parameter in backbone.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.3)
    backbone.save(folder)
    return folder


@torch.no_grad()
def enliven(network: Any, factor: float = 10.0) -> None:
    """Widen fresh weights, which otherwise give every token nearly the same probability."""
    for parameter in network.parameters():
        if parameter.dim() == 2:
            parameter.mul_(factor)


def load(path: Path, double: bool = False, **arguments: Any) -> Backbone:
    """Return a loaded backbone without dropout, on request in float64."""
    backbone = Backbone(str(path), **arguments)
    backbone.load()
    backbone.eval()
    if double:
        backbone.network.double()
    return backbone


def examples(prompt_tokenizer: PromptTokenizer, count: int = 5) -> list[Example]:
    """Return pairs of different lengths and weights."""
    return [
        Example(
            record.id,
            tuple(prompt_tokenizer.prompt(record)),
            (
                tuple(prompt_tokenizer.completion(answer(record, True))),
                tuple(prompt_tokenizer.completion(answer(record, False) + "!" * n)),
            ),
            weights=(0.5 + n / 4,) * 2,
        )
        for n, record in enumerate(TinySource().records("train")[:count])
    ]


def batch_of(prompt_tokenizer: PromptTokenizer, count: int = 5) -> Batch:
    """Return the same pairs as a batch."""
    return two_row(examples(prompt_tokenizer, count), prompt_tokenizer.padding)


def naive_logps(network: Any, prompt: Sequence[int], completion: Sequence[int]) -> Tensor:
    """Return log π of each completion token from full logits of one sequence without padding, in float64."""
    ids = torch.tensor([[*prompt, *completion]])
    logps = network(input_ids=ids).logits[0].double().log_softmax(-1)
    return torch.stack([logps[len(prompt) - 1 + place, token] for place, token in enumerate(completion)])


def weights(module: torch.nn.Module) -> dict[str, Tensor]:
    """Return a copy of all weights by name."""
    return {name: value.detach().clone() for name, value in module.state_dict().items()}


def quiet_trainer(**changes: Any) -> Trainer:
    """Return a trainer on one CPU process that writes and shows nothing unless told to."""
    settings: dict[str, Any] = {
        "accelerator": "cpu",
        "devices": 1,
        "max_epochs": 1,
        "logger": False,
        "enable_progress_bar": False,
        "enable_checkpointing": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
        "use_distributed_sampler": False,
        "log_every_n_steps": 1,
    }
    return Trainer(**(settings | changes))


def command(stage: str, base: Path, *more: str) -> tuple[str, ...]:
    """Return the words of a stage on tiny things."""
    verb = {"rsft": "fit", "hsdpo": "fit", "grpo": "fit", "mine": "predict", "evaluate": "test"}[stage]
    start = (verb, "--config", f"configs/{stage}.yaml", "--model.backbone.path", str(base), "--auto_build", "false")
    quiet = ("--trainer.logger", "false", "--trainer.enable_progress_bar", "false", "--trainer.accelerator", "cpu")
    return (*start, "--data.source", "tests.support.tiny.TinySource", "--output", "made", *quiet, *more)
