"""Small fits of every kind, and the comparison of what two of them wrote, bit for bit."""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from reliability import children
from reliability.children import Report

ROOT = Path(__file__).parents[2]
OUTPUT = "made"
EVERY = 3
"""Steps between checkpoints."""
CHECKPOINTS: tuple[str, ...] = ("--checkpoint_every", str(EVERY))
MANIFEST = "manifest.json"
VOLATILE = {"train/tokens_per_second", "train/memory_gb"}
"""Scalars that depend on the machine; their steps are compared, their values are not."""

Findings = Mapping[str, Any]
"""What a run wrote: a digest for each tensor and file, and (step, value) pairs for each curve."""


@dataclass(frozen=True)
class Inputs:
    """Models and rollouts that all fits share; they are only read.

    Args:
        base: Two-layer Llama.
        adapter: LoRA adapter of the base.
        rollouts: Scripted rollouts of the training records.
        hard_set: Scripted rollouts of the test records.
        source: Data source for the command line: files of records, whose tokenized form is cached.
    """

    base: Path
    adapter: Path
    rollouts: Path
    hard_set: Path
    source: str

    @classmethod
    def make(cls, folder: Path) -> "Inputs":
        """Write them to a folder."""
        from guardreasoner.records import Split, write_jsonl
        from tests.support.tiny import TinySource, make_tiny_adapter, make_tiny_base, write_rollouts

        base = make_tiny_base(folder / "base")
        adapter = make_tiny_adapter(base, folder / "adapter")
        records = TinySource()
        records.counts["test"] = 24
        rollouts = write_rollouts(folder / "rollouts", records.records("train"))
        hard_set = write_rollouts(folder / "hard-set", records.records("test"))
        paths: dict[Split, str] = {}
        for split in get_args(Split):
            paths[split] = str(folder / f"{split}.jsonl")
            write_jsonl(Path(paths[split]), records.records(split))
        source = {"class_path": "guardreasoner.Files", "init_args": paths}
        return cls(base, adapter, rollouts, hard_set, json.dumps(source))


@dataclass(frozen=True)
class Fit:
    """One kind of fit.

    Args:
        name: Name in trials and failures.
        stage: "rsft" or "hsdpo".
        flags: What it has beyond the shipped config; 4 steps an epoch.
        epochs: Its length.
        model: Attribute of ``Inputs`` to train.
    """

    name: str
    stage: str
    flags: tuple[str, ...] = ()
    epochs: int = 15
    model: str = "base"

    def argv(self, inputs: Inputs) -> tuple[str, ...]:
        """Return verb and flags; each step is logged."""
        from tests.support.tiny import command

        logger = {"class_path": "lightning.pytorch.loggers.TensorBoardLogger", "init_args": {"save_dir": "logs"}}
        data = ("--data.batch_size", "6")
        if self.stage == "hsdpo":
            data = ("--data.rollouts", f"[{inputs.rollouts}]", "--data.batch_size", "4")
        return command(
            *(self.stage, getattr(inputs, self.model), "--data.source", inputs.source, *data),
            *("--data.epochs", str(self.epochs), *self.flags),
            *("--trainer.logger", json.dumps(logger), "--trainer.log_every_n_steps", "1", "--output", OUTPUT),
            *("--save_optimizer", "true", *CHECKPOINTS),
        )

    @property
    def steps(self) -> int:
        """Optimizer steps of the whole fit."""
        return 4 * self.epochs


_LORA = ("--model.backbone.lora", '{"r": 2, "alpha": 4, "dropout": 0.3}')
FITS = (
    Fit("rsft-lora-dropout", "rsft", _LORA),
    Fit("hsdpo-precomputed", "hsdpo", ("--model.reference", "guardreasoner.Precomputed")),
    Fit("hsdpo-frozen-adapter", "hsdpo", ("--model.reference", "guardreasoner.FrozenAdapter", *_LORA)),
    Fit("rsft", "rsft", ("--data.bucket_steps", "2")),
    Fit("rsft-accumulation", "rsft", ("--data.micro_batch_size", "2")),
    Fit("rsft-validation", "rsft", ("--trainer.val_check_interval", "5", *_LORA)),
    Fit("hsdpo-frozen-copy", "hsdpo", ("--model.reference", "guardreasoner.FrozenCopy")),
    Fit("hsdpo-of-adapter", "hsdpo", ("--model.reference", "guardreasoner.FrozenAdapter"), model="adapter"),
    Fit("hsdpo-accumulation", "hsdpo", ("--data.micro_batch_size", "3", "--trainer.val_check_interval", "5")),
)
"""Full and adapter weights, dropout, each reference, accumulation, validation in between, several epochs."""


@dataclass(frozen=True)
class Whole:
    """An uninterrupted fit.

    Args:
        findings: What it wrote.
        seconds: Its duration.
        marks: What it reported through the pipe.
        folder: Its working folder.
        failure: Why it cannot be compared with, None if it can.
    """

    findings: Findings
    seconds: float
    marks: bytes
    folder: Path
    failure: str | None = None


def lay_out(folder: Path) -> Path:
    """Make a working folder with the project's configs."""
    folder.mkdir(parents=True)
    (folder / "configs").symlink_to(ROOT / "configs")
    return folder


class Wholes:
    """The uninterrupted fits of a campaign, each run when it is first asked for.

    Args:
        folder: Folder for their files.
        inputs: Models and rollouts.
        prepare: Called in each child before the command.
    """

    def __init__(self, folder: Path, inputs: Inputs, prepare: Callable[[Report], None] = children.nothing) -> None:
        self.folder = folder
        self.inputs = inputs
        self.prepare = prepare
        self._known: dict[str, Whole] = {}

    def of(self, fit: Fit) -> Whole:
        """Return the uninterrupted fit."""
        if fit.name not in self._known:
            self._known[fit.name] = self._run(fit)
        return self._known[fit.name]

    def _run(self, fit: Fit) -> Whole:
        folder = lay_out(self.folder / fit.name)
        child = children.start(fit.argv(self.inputs), folder, self.prepare)
        code = child.end()
        failure, findings = None, {}
        if code != 0:
            failure = f"the uninterrupted fit ended with {code}: {children.last_line(child.log)}"
        elif child.steps != fit.steps:
            failure = f"the uninterrupted fit took {child.steps} steps, expected {fit.steps}"
        else:
            findings = written(folder)
        return Whole(findings, child.seconds, child.received, folder, failure)


def written(folder: Path) -> Findings:
    """Return what a finished fit wrote to a working folder."""
    return {**files(folder / OUTPUT), **curves(folder / "logs")}


def files(folder: Path) -> Findings:
    """Return a digest of each tensor and of each other file of a folder, without manifests, which hold dates."""
    return dict(_digests(folder))


def _digests(folder: Path) -> Iterator[tuple[str, str]]:
    from safetensors.numpy import load_file

    for path in sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.endswith(MANIFEST)):
        name = path.relative_to(folder).as_posix()
        if path.suffix == ".safetensors":
            for tensor, value in load_file(path).items():
                yield f"{name}: {tensor}", hashlib.sha256(repr(value.shape).encode() + value.tobytes()).hexdigest()
        elif path.suffix == ".pt":
            for key, leaf in _leaves(_load(path)):
                yield f"{name}: {key}", leaf
        else:
            yield name, hashlib.sha256(path.read_bytes()).hexdigest()


def _load(path: Path) -> Any:
    import torch

    return torch.load(path, weights_only=True)


def _leaves(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _leaves(inner, f"{name}.{key}".removeprefix("."))
    elif hasattr(value, "numpy"):
        array = value.numpy()
        yield name, hashlib.sha256(repr(array.shape).encode() + array.tobytes()).hexdigest()
    else:
        yield name, repr(value)


def curves(logs: Path) -> dict[str, list[tuple[int, float | str]]]:
    """Return the scalars and texts below a folder as TensorBoard shows them, ordered by step."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found: dict[str, list[tuple[int, float | str]]] = {}
    for folder in sorted({path.parent for path in logs.rglob("events.out.tfevents.*")}):
        events = EventAccumulator(str(folder), size_guidance={"scalars": 0, "tensors": 0})
        events.Reload()
        for tag in events.Tags()["scalars"]:
            found.setdefault(tag, []).extend((event.step, event.value) for event in events.Scalars(tag))
        for tag in events.Tags()["tensors"]:
            found.setdefault(tag, []).extend(
                (event.step, repr(event.tensor_proto.string_val)) for event in events.Tensors(tag)
            )
    return {tag: sorted(points) for tag, points in found.items()}


def differences(found: Findings, expected: Findings) -> list[str]:
    """Return one line for each tensor, file or curve that differs; none if the runs are equal."""
    lines = []
    for name in sorted(found.keys() | expected.keys()):
        own, other = found.get(name), expected.get(name)
        if own is None or other is None:
            lines.append(f"{name}: {'missing' if own is None else 'only in the interrupted run'}")
        elif isinstance(own, list) and isinstance(other, list):
            lines += [f"{name}: {text}" for text in _curve_differences(name, own, other)]
        elif own != other:
            lines.append(f"{name}: differs")
    return lines


def _curve_differences(name: str, own: Sequence[tuple[int, Any]], other: Sequence[tuple[int, Any]]) -> Iterator[str]:
    steps, expected = Counter(step for step, _ in own), Counter(step for step, _ in other)
    if missing := sorted((expected - steps).elements()):
        yield f"{len(missing)} steps missing, first {missing[0]}"
    if repeated := sorted((steps - expected).elements()):
        yield f"{len(repeated)} steps too many, first {repeated[0]}"
    if name not in VOLATILE and not missing and not repeated:
        changed = [(a[0], a[1], b[1]) for a, b in zip(own, other, strict=True) if a != b]
        if changed:
            step, value, right = changed[0]
            yield f"{len(changed)} values differ, first {value!r} at step {step}, expected {right!r}"


def summary(lines: Sequence[str]) -> str | None:
    """Return differences as one line, None if there are none."""
    if not lines:
        return None
    return f"{len(lines)} differences: " + "; ".join(lines[:3])
