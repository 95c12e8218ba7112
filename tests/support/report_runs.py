"""What runs leave behind, small: event files, models, rollouts and predictions with the manifests that lead to them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from guardreasoner.evaluation.comparison import Comparison, Run, compare
from guardreasoner.evaluation.comparison.alignment import Answers
from guardreasoner.prompts import answer_block
from guardreasoner.records import Record, Rollout
from guardreasoner.tasks import GUARD_TASKS
from guardreasoner.workflow.config import Command
from guardreasoner.workflow.staleness import StageState
from tests.cli.commands.test_pairs import rollouts
from tests.cli.commands.test_score import predictions

LOGGER = {"logger": {"class_path": "lightning.pytorch.loggers.TensorBoardLogger", "init_args": {"save_dir": "logs"}}}
_NAMES = {"H": "harmful", "U": "unharmful"}


def write_events(folder: Path, curves: Mapping[str, Sequence[float]], start: int = 0) -> Path:
    """Write an event file with a value a step of each tag."""
    writer = EventFileWriter(str(folder))
    for tag, values in curves.items():
        for step, value in enumerate(values, start):
            summary = Summary(value=[Summary.Value(tag=tag, simple_value=value)])
            writer.add_event(Event(step=step, wall_time=1.0, summary=summary))
    writer.close()
    return folder


def record_made(verb: str, output: str, **config: Any) -> None:
    """Write the manifest of what lies at a path, as the verb would have left it."""
    StageState.of(Command((verb, "--config", "a.yaml"), {"output": output, **config})).finish()


def lay_out_chain() -> dict[str, str]:
    """Make, in the current folder, R-SFT and HS-DPO models with all that they came from; return their predictions."""
    Path("rows.jsonl").write_text('{"text": "one"}\n')
    losses = [1 / (1 + step) for step in range(30)]
    write_events(Path("logs/fit/rsft/version_0"), {"train/loss": losses, "train/sft_loss": losses, "train/lr": losses})
    _model("checkpoints/rsft", paths=["rows.jsonl"], seed_everything=3)
    rollouts(Path("logs/rollouts/rsft"), "HU HH UU HU")
    record_made("predict", "logs/rollouts/rsft", paths=["checkpoints/rsft"])
    preference = {f"train/{name}": losses for name in ("preference_loss", "margin", "reward_chosen", "reward_rejected")}
    write_events(Path("logs/fit/hsdpo/version_0"), {"train/loss": losses[::-1], "train/sft_loss": losses, **preference})
    _model(
        "checkpoints/hsdpo",
        paths=["checkpoints/rsft"],
        data={"init_args": {"rollouts": ["logs/rollouts/rsft"], "pairing": {"gamma": 0.25}}},
    )
    made = {}
    for name, words in (("rsft", "HH HU UH UU"), ("hsdpo", "HH HH UU UH")):
        folder = predictions(Path("logs/predictions") / name, words, hard="HHUU" if name == "rsft" else "HHHH")
        record_made("test", str(folder), paths=[f"checkpoints/{name}"])
        made[name] = str(folder)
    return made


def comparison_of(words: Mapping[str, str], texts: Mapping[str, str] | None = None, hard: bool = True) -> Comparison:
    """Compare what :func:`runs_of` makes."""
    return compare(runs_of(words, texts, hard), GUARD_TASKS, resamples=100)


def runs_of(words: Mapping[str, str], texts: Mapping[str, str] | None = None, hard: bool = True) -> list[Run]:
    """Return runs, by name, of records that differ in what ``words`` says; seeds are parted by "|".

    Args:
        words: gold label and verdict of each record, by run.
        texts: what stands in for "id", "prompt", "response", "reasoning" and "benchmark".
        hard: whether there are outputs on a hard record: one right, one wrong.
    """
    texts = texts or {}
    runs = []
    for name, seeds in words.items():
        files = []
        for number, seed in enumerate(seeds.split("|")):
            records, answers = [], []
            for place, (gold, verdict) in enumerate(seed.split()):
                identity = f"{texts.get('id', '')}{place}"
                labels = {"request": _NAMES[gold]}
                prompt = f"{texts.get('prompt', 'prompt')} {place}"
                records.append(
                    Record(identity, prompt, texts.get("response"), labels, source=texts.get("benchmark", "b"))
                )
                answers.append(Rollout(identity, name, "f", 0, 0, texts.get("reasoning", "because") + _said(verdict)))
            sampled = [Rollout(records[0].id, name, "f", index, 0, _said("HU"[index])) for index in range(2)]
            called = f"{name}-{number}" if "|" in seeds else name
            files.append(Answers(called, records, answers, records[:1] if hard else (), sampled if hard else ()))
        runs.append(Run(name, tuple(files)))
    return runs


def _said(letter: str) -> str:
    return "\n\n" + (answer_block({"request": _NAMES[letter]}, GUARD_TASKS) if letter in _NAMES else "…")


def _model(path: str, **config: Any) -> None:
    Path(path).mkdir(parents=True)
    Path(path, "weights").write_text(path)
    record_made("fit", path, trainer=LOGGER, **config)
