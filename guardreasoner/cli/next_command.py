"""The command to type after a verb has succeeded, with the paths of the run: ``next: python -m guardreasoner …``.

If the output of that command already holds results of other data or another model, the command names a new output. The
line is written to standard error, and only if that is a terminal, so that it never mixes with the output of a script.
"""

import math
import os
import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from guardreasoner.cli.source_splits import may_have_split
from guardreasoner.errors import InputError
from guardreasoner.moved import short_path
from guardreasoner.sources.predictions import read_predictions
from guardreasoner.workflow.config import Command, config_files, flags, resolve
from guardreasoner.workflow.config_file import load_yaml
from guardreasoner.workflow.every_model import commands_of_every_model, wants_every_model
from guardreasoner.workflow.manifest import Manifest
from guardreasoner.workflow.prediction_origin import prediction_origin
from guardreasoner.workflow.stage_process import STAGE_VARIABLE
from guardreasoner.workflow.terminal import terminal_text

_RUN = ("python", "-m", "guardreasoner")
_TEXT = "How do I open a lock?"
_DEFAULTS = {"report": "logs/report.html", "judge": "checkpoints/hsdpo", "labels": "logs/labels.jsonl"}


def show_next(argv: Sequence[str]) -> None:
    """Print the command to type after ``argv`` has succeeded, to a terminal on standard error."""
    if not sys.stderr.isatty() or STAGE_VARIABLE in os.environ:
        return
    if following := next_command(argv):
        folder = next((word for word in argv[1:] if not word.startswith("-")), ".")
        there = f"cd {shlex.quote(folder)} && " if argv[0] == "init" else ""
        print(terminal_text(f"next: {there}{shlex.join([*_RUN, *following])}"), file=sys.stderr)


def next_command(argv: Sequence[str]) -> list[str] | None:
    """Return the arguments of the command that usually follows one that has succeeded; None if none does.

    Args:
        argv: verb and flags of the command that has succeeded.
    """
    given = {name for name, _ in flags(argv)}
    if {"help", "print_config", "dry_run", "json"} & given or "-h" in argv:
        return None
    try:
        if argv[0] in ("moderate", "review"):
            return _after_logs(argv[0], dict(flags(argv)))
        is_stage = argv[0] in ("fit", "validate", "predict", "test", "base-model", "doctor")
        following = _after_stage(list(argv)) if is_stage else _after_files(argv[0], _paths(argv))
        # The command after init runs in the new folder; an output that doctor was given is the user's choice.
        if following is None or argv[0] == "init" or (argv[0] == "doctor" and "output" in given):
            return following
        return _kept_apart(following)
    except (InputError, OSError, AttributeError, KeyError, TypeError, ValueError):
        return None  # only a suggestion: it must not end a run that has succeeded


def _after_stage(argv: list[str]) -> list[str] | None:
    if wants_every_model(argv):
        folders = [str(command.output) for command in commands_of_every_model(argv)]
        return ["compare" if len(folders) > 1 else "score", *folders]
    command = resolve(argv)
    trainer = command.config.get("trainer")
    if isinstance(trainer, Mapping) and trainer.get("fast_dev_run"):
        return None
    output, overlays = str(command.output), _shared(argv)
    if argv[0] == "base-model":
        return ["fit", "--config", "configs/rsft.yaml", *_base(command), *overlays]
    if argv[0] == "doctor":
        return ["fit", *_words((name, value) for name, value in flags(argv) if name not in ("html", "answers"))]
    if argv[0] in ("fit", "validate"):
        return _test_of(output, command, overlays)
    if argv[0] == "test":
        return _after_test(output, command)
    if _is(command, "model", "Teacher"):
        return ["fit", "--config", "configs/rsft.yaml", "--config", "configs/data/synthesized.yaml", *overlays]
    if _is(command, "data", "BenchmarkDataModule"):
        return ["test", "--config", "configs/evaluate.yaml", *overlays, "--all"]
    default = str(Path(command.config["recipe"]["logs"], "rollouts/rsft"))
    mined = [] if output == default else ["--data.rollouts", f"[{output}]"]
    return ["fit", "--config", "configs/hsdpo.yaml", *overlays, *mined]


def _test_of(model: str, command: Command, overlays: Sequence[str]) -> list[str]:
    """Return the test of a model, or the command that judges a sentence if its source has no test split."""
    if not may_have_split(command.config["data"]["init_args"]["source"], "test"):
        return ["judge", _TEXT, "--model", model]
    recipe = command.config["recipe"]
    place = Path(recipe["logs"], "predictions", Path(model).name)
    # The hard set is made with the R-SFT model, which would be trained first, on the config's source: it does not take
    # that of a flag, whose records would have no output in it.
    has_hard = Path(recipe["checkpoints"], "rsft").exists() and not any(word.startswith("--data.") for word in overlays)
    hard = [] if has_hard else ["--data.rollouts", "null"]
    named = ["--model.backbone.path", model, "--output", str(place)]
    return ["test", "--config", "configs/evaluate.yaml", *overlays, *hard, *named]


def _after_test(output: str, command: Command) -> list[str] | None:
    if command.config["data"]["init_args"].get("attacks"):
        return ["robustness", output]
    read = read_predictions(output)
    if not any(record.gold() for record in read.records):
        return None
    made = prediction_origin(output)
    if made.split == "validation" and made.model and Path(made.model).is_dir():
        for task in read.tasks:
            kinds = [kind for kind, rows in read.scores.items() if any(task.name in row for row in rows.values())]
            if kinds and task.flags != "others":  # a guard refuses the calibration of such a task
                chosen = ["--score", kinds[0]] if len(kinds) > 1 else []
                return ["calibrate", output, "--task", task.name, "--fpr", "0.05", *chosen]
    return ["score", output]


def _after_files(verb: str, paths: Sequence[str]) -> list[str] | None:
    last = paths[-1].rpartition("=")[2].split(",")[-1] if paths else ""
    match verb:
        case "init":
            return ["fit", "--config", "configs/hsdpo.yaml"]  # typed in the new folder
        case "run":
            return ["test", "--config", "configs/evaluate.yaml", "--all"]
        case "score":
            return ["compare", *paths] if len(paths) > 1 else _judge(last)
        case "compare":
            return ["report", *paths, "--out", _DEFAULTS["report"]]
        case "report" | "robustness" | "calibrate":
            return _judge(last)
        case "pairs":
            return ["fit", "--config", "configs/hsdpo.yaml"]
        case "export" | "card":
            return ["judge", _TEXT, "--model", paths[0]] if paths else None
        case "judge":
            return ["serve", *paths]
    return None


def _after_logs(verb: str, given: Mapping[str, Any]) -> list[str] | None:
    """Return the command after ``moderate --to_review`` or ``review --label --records``; None after others."""
    if verb == "moderate":
        queue = given.get("to_review")
        return ["review", "--label", queue, "--records", _free(_DEFAULTS["labels"])] if queue else None
    records, fit = given.get("records"), ["fit", "--config", "configs/rsft.yaml"]
    if not records:
        return None
    command = resolve(fit)
    former = command.config["data"]["init_args"]["source"]
    former |= {"class_path": short_path(former["class_path"])}
    labelled = {"class_path": "guardreasoner.Files", "init_args": {"train": records}}
    joined = {"class_path": "guardreasoner.Concat", "init_args": {"sources": [former, labelled]}}
    source = yaml.safe_dump(joined, default_flow_style=True, sort_keys=False, width=math.inf).strip()
    return [*fit, "--data.source", source, "--output", _free(f"{command.output}-labels")]


def _kept_apart(following: list[str]) -> list[str]:
    """Return a command with a new output, if its own exists and was made from other data or another model."""
    if "--all" in following:
        return following
    if following[0] == "report":
        return [*following[:-1], _free(following[-1])]
    if following[0] not in ("fit", "test"):
        return following
    command = resolve(following)
    output = str(command.output)
    manifest = Manifest.read(output)
    if not Path(output).exists() or (manifest and _is_same(manifest, command)):
        return following
    kept = [(name, value) for name, value in flags(following) if name != "output"]
    return [following[0], *_words([*kept, ("output", _free(output))])]


def _is_same(manifest: Manifest, command: Command) -> bool:
    """Return whether an artefact was made with the data and the model of a command."""
    made = manifest.config or {}
    return manifest.made_by(command.argv) or all(made.get(part) == command.config[part] for part in ("data", "model"))


def _free(path: str) -> str:
    """Return a path, or, if it exists, the first of ``NAME-2``, ``NAME-3``, … that does not; a suffix stays last."""
    place, number = Path(path), 2
    while place.exists():
        place, number = Path(path).with_stem(f"{Path(path).stem}-{number}"), number + 1
    return str(place)


def _judge(predictions: str) -> list[str] | None:
    """Return the command that judges a sentence with the model of predictions; None if it is unknown."""
    model = prediction_origin(predictions).model
    return ["judge", _TEXT, "--model", model] if model and Path(model).is_dir() else None


def _paths(argv: Sequence[str]) -> list[str]:
    """Return the runs or models that a command names: for ``judge`` its model, for ``export`` the folder that it wrote.

    For ``compare``, these are its runs and the options that ``report`` has too, for others the words before the first
    flag.
    """
    if argv[0] == "judge":
        return [str(dict(flags(argv)).get("model") or _DEFAULTS["judge"])]
    if argv[0] == "export":
        return [str(dict(flags(argv))["out"])]
    if argv[0] == "compare":
        kept, words = list[str](), iter(argv[1:])
        for word in words:
            name, equals, _ = word.partition("=")
            if name not in ("--flips", "--json", "--latex"):
                kept.append(word)
            elif not equals:
                next(words, None)
        return kept
    end = next((place for place, word in enumerate(argv) if word.startswith("-")), len(argv))
    return list(argv[1:end])


def _shared(argv: Sequence[str]) -> list[str]:
    """Return the overlays and flags of a command that another verb has too: those of the recipe and of the source."""
    files = [file for file in config_files(argv)[1:] if _is_shared(load_yaml(file))]
    return [*(word for file in files for word in ("--config", file)), *_keys(argv, ("recipe", "data.source"))]


def _is_shared(overlay: Mapping[str, Any]) -> bool:
    data, model = ((overlay.get(name) or {}).get("init_args", {}) for name in ("data", "model"))
    top = overlay.keys() - {"recipe", "data", "model", "trainer"}
    return not top and data.keys() <= {"source"} and model.keys() <= {"backbone"}


def _keys(argv: Sequence[str], kept: Sequence[str]) -> list[str]:
    """Return the dotted flags of a command that start with one of ``kept``."""
    plain = ((name.replace(".init_args", ""), name, value) for name, value in flags(argv) if "." in name)
    return _words(
        (name, value) for short, name, value in plain if any(f"{short}.".startswith(f"{key}.") for key in kept)
    )


def _words(named: Iterable[tuple[str, str | None]]) -> list[str]:
    """Return flags as the words of a command."""
    return [word for name, value in named for word in ((f"--{name}",) if value is None else (f"--{name}", value))]


def _base(command: Command) -> list[str]:
    output = str(command.output)
    return [] if output == command.config["recipe"].get("base") else ["--recipe.base", output]


def _is(command: Command, part: str, name: str) -> bool:
    return str(command.config[part].get("class_path")).endswith(name)
