"""``calibrate``: choose a threshold for a false-positive rate on validation records, and store it with the model."""

import argparse
import json
import os
from collections.abc import Sequence
from datetime import UTC, datetime
from math import nan
from pathlib import Path
from typing import get_args

from guardreasoner.cli.options import require_files, write
from guardreasoner.errors import InputError
from guardreasoner.evaluation.attacks import origin
from guardreasoner.evaluation.calibration.fit import CURVE_KINDS, Wanted, choose_calibration
from guardreasoner.evaluation.calibration.histogram import ScoreHistogram
from guardreasoner.evaluation.scoring.probabilities import joined, scored_records
from guardreasoner.evaluation.scoring.readings import Reading
from guardreasoner.report.calibration_tables import calibration_lines
from guardreasoner.sources.label_scores import SCORE_KINDS
from guardreasoner.sources.predictions import Predictions, read_predictions
from guardreasoner.tasks import Task
from guardreasoner.workflow.guard_file import GUARD_FILE, is_model_folder, read_calibrations, write_calibration
from guardreasoner.workflow.integrity import require_unchanged
from guardreasoner.workflow.manifest import content_hash
from guardreasoner.workflow.output_lock import locked_output
from guardreasoner.workflow.prediction_origin import PredictionOrigin, prediction_origin
from guardreasoner.workflow.redaction import command_without_secrets
from guardreasoner.workflow.terminal import show_line

HELP = "choose a threshold for a false-positive rate on validation predictions; store it in the model folder"

_VALIDATION = "validation"

_LEAST_RATE = 1e-9
"""Lowest rate that can be wanted; it takes a billion records."""

_WAIT = 60.0
"""Seconds to wait for another command that writes to the model folder, such as the calibration of another task."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("run", metavar="RUN", help="predictions of test on the validation split, with scores")
    parser.add_argument("--task", required=True, metavar="NAME", help="task to calibrate, such as request")
    parser.add_argument("--fpr", required=True, type=_rate, metavar="RATE", help="wanted false-positive rate: 0.01")
    parser.add_argument(
        "--miss_rate",
        type=_rate,
        default=0.05,
        metavar="RATE",
        help="share of positive records that may pass without review (default 0.05)",
    )
    parser.add_argument("--score", choices=SCORE_KINDS, help="kind of score; default: the only one that the run has")
    parser.add_argument(
        "--curve",
        choices=CURVE_KINDS,
        default="platt",
        help="curve from scores to probabilities (default platt); thresholds do not depend on it",
    )
    parser.add_argument(
        "--ordered",
        choices=get_args(Reading),
        default="strict",
        help="for ordered labels: strict (default) counts those in the middle as positive, loose as negative",
    )
    parser.add_argument("--model", metavar="FOLDER", help="model folder; default: the one that made the predictions")
    parser.add_argument(
        "--split", choices=(_VALIDATION,), help="state the split of predictions that were made without a manifest"
    )
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help=f"write the calibration to FILE, not to the model's {GUARD_FILE}"
    )


def run(args: argparse.Namespace) -> int:
    """Choose the calibration, print it, and store it.

    Args:
        args: the arguments that :func:`configure` declares, and ``argv``: all flags.

    Raises:
        InputError: a file is missing or invalid, the records are not of the validation split or too few, the model is
            not the one that made the predictions, or the scores allow no such threshold.
    """
    require_files("calibrate", out=args.out)
    made = prediction_origin(args.run)
    predictions = read_predictions(args.run)
    _require_validation(args, made)
    model = None if args.out and not args.model and not _is_folder(made.model) else _model_folder(args, made)
    if model is not None:
        _require_made_by(model, args.run, made)
    task = _task(args.task, predictions.tasks)
    kind = args.score or _only_kind(predictions, task)
    records = [record for record in predictions.records if origin(record) is None]
    benchmarks = scored_records(records, predictions.scores.get(kind, {}), task, args.ordered)
    scores, positive = joined(benchmarks)
    calibration = choose_calibration(
        f"{args.run}: {task.name}",
        scores,
        positive,
        Wanted(args.fpr, args.miss_rate, args.curve),
        task=task.name,
        score=kind,
        ordered=args.ordered if task.ordered else None,
        data=content_hash(args.run),
        details={
            "histogram": ScoreHistogram.of(map(float, scores)).as_json(),
            "run": args.run,
            "command": command_without_secrets(["calibrate", *args.argv]),
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
        },
    )

    for line in calibration_lines(calibration, scores):
        show_line(line)
    attacked = len(predictions.records) - len(records)
    notes = [f"{attacked:,} attacked records are left out"] if attacked else []
    if model is not None and made.model_hash is None:
        notes.append(f"no manifest says which model made the predictions: that it is {model} was not checked")
    for note in [*notes, *predictions.notes]:
        show_line(f"note: {note}")
    if args.out:
        content = {"calibration": {task.name: [calibration.as_json()]}}
        write(args.out, json.dumps(content, indent=1) + "\n")
    else:
        assert model is not None
        with locked_output(model, wait=_WAIT):
            _require_made_by(model, args.run, made)  # a fit may have replaced it meanwhile
            earlier = [
                row for row in read_calibrations(model / GUARD_FILE).get(task.name, []) if row.get("score") == kind
            ]
            write_calibration(model / GUARD_FILE, task.name, calibration.as_json())
        for row in earlier:
            show_line(f"replaces the calibration of {task.name} by {kind} scores from {row.get('created', 'earlier')}")
        show_line(f"written: {model / GUARD_FILE}")
    return 0


def _require_validation(args: argparse.Namespace, made: PredictionOrigin) -> None:
    if made.split == _VALIDATION or (made.split is None and args.split == _VALIDATION):
        return
    if made.split is None:
        raise InputError(
            f"{args.run}: no manifest says which split these predictions are of",
            f"--split {_VALIDATION} states that they are no test records",
        )
    raise InputError(
        f"{args.run}: predictions on the {made.split} split; a threshold must be chosen on the validation split",
        "python -m guardreasoner test --config configs/evaluate.yaml --data.split validation --data.rollouts null "
        "--output FOLDER",
    )


def _is_folder(model: str | None) -> bool:
    return model is not None and os.path.isdir(model)


def _model_folder(args: argparse.Namespace, made: PredictionOrigin) -> Path:
    if made.is_baseline:
        raise InputError(
            f"{args.run}: made by a baseline classifier, which has no model folder", "--out FILE writes to a file"
        )
    named = args.model or made.model
    if named is None:
        raise InputError(f"{args.run}: no manifest names the model of these predictions", "name it: --model FOLDER")
    if not _is_folder(named):
        raise InputError(
            f"{named}: no such model folder, which the calibration would be written to",
            "--model FOLDER names another one, --out FILE writes to a file",
        )
    if not is_model_folder(Path(named)):
        raise InputError(f"{named}: not a model folder: found neither config.json nor adapter_config.json")
    return Path(named)


def _require_made_by(model: Path, run: str, made: PredictionOrigin) -> None:
    require_unchanged(model / GUARD_FILE)
    if made.model_hash is not None and content_hash(model) != made.model_hash:
        raise InputError(
            f"{run}: the model in {model} is not the one that made these predictions: expected content "
            f"{made.model_hash[:16]}, found {content_hash(model)[:16]}",
            "run test on the validation split again",
        )


def _task(name: str, tasks: Sequence[Task]) -> Task:
    for task in tasks:
        if task.name == name and task.flags == "others":
            raise InputError(
                f"calibrate: --task {name}: its score is the probability of {task.positive!r}, which does not flag",
                "calibrate a task whose positive label flags",
            )
        if task.name == name:
            return task
    raise InputError(
        f"calibrate: --task {name}: unknown task, expected one of {', '.join(task.name for task in tasks)}"
    )


def _only_kind(predictions: Predictions, task: Task) -> str:
    kinds = [kind for kind, rows in predictions.scores.items() if any(task.name in row for row in rows.values())]
    if not kinds:
        raise InputError(
            f"no prediction with a verdict has scores for {task.name}, which a threshold is chosen on",
            "test writes them with --model.scores true",
        )
    if len(kinds) > 1:
        raise InputError(f"calibrate: several kinds of score: {', '.join(kinds)}", "choose one: --score KIND")
    return kinds[0]


def _rate(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = nan
    if not _LEAST_RATE <= value <= 1 - _LEAST_RATE:
        raise argparse.ArgumentTypeError(
            f"expected a share between 0 and 1, at least {_LEAST_RATE:g} from both, such as 0.01, got {text!r}"
        )
    return value
