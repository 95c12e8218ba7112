"""Small runs for reports: event files, models, rollouts and predictions, with the manifests that connect them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from guardreasoner.diagnosis import Balance, Diagnosis, Finding, Histogram, Lengths
from guardreasoner.evaluation.comparison import Comparison, Run, compare
from guardreasoner.evaluation.comparison.alignment import Answers
from guardreasoner.mining import Pairing, mine
from guardreasoner.mining.findings import Findings, SamplingCost, findings
from guardreasoner.prompts import answer_block
from guardreasoner.records import Record, Rollout
from guardreasoner.report.comparison_page import PageInputs
from guardreasoner.tasks import GUARD_TASKS
from guardreasoner.workflow.config import Command
from guardreasoner.workflow.staleness import StageState
from tests.support.output_files import predictions, rollouts
from tests.support.pages import EVIL
from tests.support.scripted import R, U, W, make_outputs, make_record

LOGGER = {"logger": {"class_path": "lightning.pytorch.loggers.TensorBoardLogger", "init_args": {"save_dir": "logs"}}}
NAMES = f"{EVIL}שלום \u202eevil\u202c عالم\x1b[31mred\x1b[0m\x9b1m\x00\x07\x7f"
"""A name with HTML, right-to-left text, direction marks and control characters."""

WORDS = {"old": "HU HH UU UH HU", "new": "HH HU UU UU HH"}
"""Answers of two runs, as :func:`runs_of` takes them."""

_HUGE = f"<b>{'x' * 1_000_000}</b>"
_LABELS = {"H": "harmful", "U": "unharmful"}

DIAGNOSIS = Diagnosis(
    asked="raw text, no chat template (guard.json of checkpoints/base)",
    limit=512,
    train=1234,
    validation=56,
    lengths=(Lengths.of("prompt", [20, 30, 90, 100, 400]), Lengths.of("completion", [80, 90, 90, 150, 500])),
    histogram=Histogram.of([100, 120, 180, 250, 900], 512),
    balance=(Balance("ours", "request", {"harmful": 700, "unharmful": 500}, 34),),
    findings=(
        Finding("too long", "fault", 3, 1290, "fit will refuse to start", ("a/1", "a/2", "a/3")),
        Finding("duplicate", "warning", 1, 1290, "it counts twice", ("a/9",)),
        Finding("EOS missing", "ok", 0, 1290, "no end token"),
    ),
)


def mining_findings(source: str, model: str) -> Findings:
    """Return mining results for 30 records, each with a source of its own, and two models."""
    records = [make_record(str(number), f"{source}{number}") for number in range(30)]
    samples = [o for record in records for name in (model, "n") for o in make_outputs(record.id, [R, R, W, U], name)]
    return findings(mine(records, samples, GUARD_TASKS, Pairing()), [SamplingCost("GPU", 60.0, 1200, 240, 2, 2)])


def write_events(folder: Path, curves: Mapping[str, Sequence[float]], start: int = 0) -> Path:
    """Write an event file with one value per step for each tag, and return the folder."""
    writer = EventFileWriter(str(folder))
    for tag, values in curves.items():
        for step, value in enumerate(values, start):
            summary = Summary(value=[Summary.Value(tag=tag, simple_value=value)])
            writer.add_event(Event(step=step, wall_time=1.0, summary=summary))
    writer.close()
    return folder


def record_made(verb: str, output: str, **config: Any) -> None:
    """Write the manifest that ``verb`` would have written for ``output``."""
    StageState.of(Command((verb, "--config", "a.yaml"), {"output": output, **config})).finish()


def lay_out_chain() -> dict[str, str]:
    """Make R-SFT and HS-DPO models with their lineage in the current folder, and return the paths of predictions."""
    Path("rows.jsonl").write_text('{"text": "one"}\n')
    losses = [1 / (1 + step) for step in range(30)]
    write_events(Path("logs/fit/rsft/version_0"), {"train/loss": losses, "train/sft_loss": losses, "train/lr": losses})
    _make_model("checkpoints/rsft", paths=["rows.jsonl"], seed_everything=3)
    rollouts(Path("logs/rollouts/rsft"), "HU HH UU HU")
    record_made("predict", "logs/rollouts/rsft", paths=["checkpoints/rsft"])
    preference = {f"train/{name}": losses for name in ("preference_loss", "margin", "reward_chosen", "reward_rejected")}
    write_events(Path("logs/fit/hsdpo/version_0"), {"train/loss": losses[::-1], "train/sft_loss": losses, **preference})
    _make_model(
        "checkpoints/hsdpo",
        paths=["checkpoints/rsft"],
        data={"init_args": {"rollouts": ["logs/rollouts/rsft"], "pairing": {"gamma": 0.25}}},
    )
    paths = {}
    for name, answers in (("rsft", "HH HU UH UU"), ("hsdpo", "HH HH UU UH")):
        folder = predictions(Path("logs/predictions") / name, answers, hard="HHUU" if name == "rsft" else "HHHH")
        record_made("test", str(folder), paths=[f"checkpoints/{name}"])
        paths[name] = str(folder)
    return paths


def comparison_of(answers: Mapping[str, str], texts: Mapping[str, str] | None = None, hard: bool = True) -> Comparison:
    """Compare the runs that :func:`runs_of` makes."""
    return compare(runs_of(answers, texts, hard), GUARD_TASKS, resamples=100)


def evil_comparison() -> Comparison:
    """Compare two runs whose names, ids and texts contain HTML, control characters and very long texts."""
    texts = {
        "id": NAMES,
        "prompt": f"{NAMES}{_HUGE}",
        "response": NAMES,
        "reasoning": f"{NAMES}{_HUGE}",
        "benchmark": EVIL,
    }
    return comparison_of({f"old {NAMES}": WORDS["old"], f"new {NAMES}": WORDS["new"]}, texts)


def runs_of(answers: Mapping[str, str], texts: Mapping[str, str] | None = None, hard: bool = True) -> list[Run]:
    """Return runs on generated records.

    Args:
        answers: By run name, two letters for each record, gold label and verdict ("HU"); "|" separates seeds.
        texts: Replacements for "id", "prompt", "response", "reasoning" and "benchmark".
        hard: Whether there are two outputs on one hard record, one right and one wrong.
    """
    texts = texts or {}
    runs = []
    for name, seeds in answers.items():
        files = []
        for seed_number, seed in enumerate(seeds.split("|")):
            records, greedy = [], []
            for index, (gold, verdict) in enumerate(seed.split()):
                record_id = f"{texts.get('id', '')}{index}"
                labels = {"request": _LABELS[gold]}
                prompt = f"{texts.get('prompt', 'prompt')} {index}"
                benchmark = texts.get("benchmark", "b")
                records.append(Record(record_id, prompt, texts.get("response"), labels, source=benchmark))
                completion = texts.get("reasoning", "because") + _answer(verdict)
                greedy.append(Rollout(record_id, name, "f", 0, 0, completion))
            sampled = [Rollout(records[0].id, name, "f", index, 0, _answer("HU"[index])) for index in range(2)]
            file_name = f"{name}-{seed_number}" if "|" in seeds else name
            files.append(Answers(file_name, records, greedy, records[:1] if hard else (), sampled if hard else ()))
        runs.append(Run(name, tuple(files)))
    return runs


def page_inputs(runs: Mapping[str, list[str]], **more: object) -> PageInputs:
    """Return the inputs of a comparison page for runs at these paths."""
    return PageInputs(runs, (), "report a b", "2026-01-02T03:04:05+00:00", 100, 0, 5, **more)  # type: ignore[arg-type]


def write_unknown_files(comparison: Comparison) -> dict[str, list[str]]:
    """Write a file without a manifest for each run, and return the paths by run name."""
    for index, _ in enumerate(comparison.scores):
        Path(f"{index}.jsonl").write_text("{}\n")
    return {name: [f"{index}.jsonl"] for index, name in enumerate(comparison.scores)}


def _answer(letter: str) -> str:
    return "\n\n" + (answer_block({"request": _LABELS[letter]}, GUARD_TASKS) if letter in _LABELS else "…")


def _make_model(path: str, **config: Any) -> None:
    Path(path).mkdir(parents=True)
    Path(path, "weights").write_text(path)
    record_made("fit", path, trainer=LOGGER, **config)
