"""``score``: compute F1, accuracy, over-refusal and scores by slice from prediction files, one row per model."""

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

from guardreasoner.cli.commands._attacked import attacked_notes, split_attacked
from guardreasoner.cli.commands._slices import add_slices, with_languages
from guardreasoner.cli.options import add_files, add_resampling, require_files, write
from guardreasoner.errors import InputError
from guardreasoner.evaluation.calibration import Calibration
from guardreasoner.evaluation.calibration.scored import CalibratedScore, calibrated_scores
from guardreasoner.evaluation.calibration.stored import calibrations_of, stored_calibrations
from guardreasoner.evaluation.comparison.alignment import describe_missing, differing_ids, missing_records
from guardreasoner.evaluation.reasoning_quality import Quality, judged_text, quality
from guardreasoner.evaluation.scoring import ModelScore, score
from guardreasoner.evaluation.scoring.labels import PARSER_BY_MODE, BenchmarkLabels, Mode, collect_labels
from guardreasoner.evaluation.scoring.over_refusal import OverRefusal, over_refusal
from guardreasoner.evaluation.scoring.probabilities import POOLED, ProbabilityScore, probability_scores
from guardreasoner.evaluation.scoring.slices import SliceScore, score_slices
from guardreasoner.report.calibration_tables import calibrated_as_json, calibrated_notes, calibrated_table
from guardreasoner.report.probability_tables import probabilities_as_json, probability_notes, probability_table
from guardreasoner.report.score_tables import score_notes, score_tables, scores_as_json
from guardreasoner.report.slice_tables import (
    OVER_REFUSAL_NOTE,
    SLICES_NOTE,
    over_refusal_as_json,
    over_refusal_table,
    slice_tables,
    slices_as_json,
)
from guardreasoner.report.table import Table, latex_document
from guardreasoner.sources.named_predictions import (
    NamedPredictions,
    check_against_benchmarks,
    common_tasks,
    match_by_content,
    prediction_warnings,
    read_named_predictions,
)
from guardreasoner.workflow.manifest import content_hash
from guardreasoner.workflow.prediction_origin import prediction_origin
from guardreasoner.workflow.terminal import show_line, stdout_console

HELP = "score prediction files: F1 per class, accuracy and hard-sample accuracy, with intervals"

_MODES: tuple[Mode, ...] = get_args(Mode)
_ALL = "all"


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "predictions",
        nargs="*",
        metavar="[NAME=]PATH",
        help="predictions of one model: a folder of <Benchmark>/generated_predictions.jsonl, or such a file; "
        "NAME labels its row",
    )
    parser.add_argument(
        "--mode",
        nargs="+",
        default=["strict"],
        metavar="MODE",
        help="how to count an unparsable answer: strict (default): as one wrong answer; drop: not at all; released: as "
        "the released script does; several modes, or all, are shown side by side",
    )
    parser.add_argument(
        "--benchmarks",
        type=Path,
        metavar="FOLDER",
        help="folder with the released benchmarks/: reject predictions on other records",
    )
    parser.add_argument(
        "--reasoning",
        action="store_true",
        help="also print statistics of the reasoning: conclusions, length, loops, label leaks",
    )
    parser.add_argument(
        "--calibrated",
        action="store_true",
        help="also score at the thresholds that calibrate stored with the model of each run, and count the bands",
    )
    parser.add_argument(
        "--calibration",
        type=Path,
        metavar="PATH",
        help="the same with the calibration of this model folder, or of a file that calibrate --out wrote",
    )
    add_slices(parser)
    add_resampling(parser)
    add_files(parser)


def run(args: argparse.Namespace) -> int:
    """Score each model, print the tables and write the files.

    Attacked records have rows of their own benchmarks; they are in no number over several benchmarks.

    Args:
        args: the arguments that :func:`configure` declares.

    Raises:
        InputError: a file is missing or invalid, or two models have the same name.
    """
    require_files("score", json=args.json, latex=args.latex)
    modes, paths = _modes_and_paths(args)
    models = read_named_predictions(paths, "score")
    tasks = common_tasks(models)
    notes = check_against_benchmarks(models, args.benchmarks) if args.benchmarks else []
    originals, attacked = split_attacked(models)
    notes += attacked_notes(attacked, "are in the rows of their benchmarks alone")
    both = list(zip(originals, attacked, strict=True))
    scores = {mode: [_score(model, attacks, mode, args) for model, attacks in both] for mode in modes}
    tables, meanings = score_tables(scores, tasks), score_notes(scores, args.resamples)
    probabilities = {model.name: rows for model, attacks in both if (rows := _probabilities(model, attacks, args))}
    tables += [probability_table(f"{name}: scores as probabilities", rows) for name, rows in probabilities.items()]
    meanings += probability_notes([row for rows in probabilities.values() for row in rows], args.resamples)
    calibrated = {model.name: _calibrated(model, args) for model in originals} if _asks_calibrated(args) else {}
    tables += [calibrated_table(f"{name}: at the calibrated threshold", rows) for name, rows in calibrated.items()]
    meanings += calibrated_notes([row for rows in calibrated.values() for row in rows])
    notes += [note for model in models for note in _in_sample(model, args)] if _asks_calibrated(args) else []
    parts = {mode: {model.name: _parts(model, mode, args) for model in originals} for mode in modes}
    tables += [table for mode in modes for table in _part_tables(parts[mode], mode if len(modes) > 1 else "")]
    meanings += [OVER_REFUSAL_NOTE] if any(part.over_refusal for part in parts[modes[0]].values()) else []
    meanings += [SLICES_NOTE] if args.by else []

    console = stdout_console(120)
    for table in tables:
        table.show(console)
    for meaning in meanings:
        console.print(meaning, style="dim", highlight=False, markup=False)
    reasoning = {model.name: _quality(model) for model in originals} if args.reasoning else {}
    if reasoning:
        from guardreasoner.report.reasoning_table import show_reasoning

        console.print()
        show_reasoning(console, reasoning)
    for note in [*notes, *_record_differences(match_by_content(models)), *prediction_warnings(models)]:
        show_line(f"note: {note}")
    if args.json:
        content = scores_as_json(scores, args.resamples, args.seed)
        if probabilities:
            content["probabilities"] = {name: probabilities_as_json(rows) for name, rows in probabilities.items()}
        if calibrated:
            content["calibrated"] = {name: calibrated_as_json(rows) for name, rows in calibrated.items()}
        made_by = {model.name: prediction_origin(model.paths[0]).as_json(model.paths) for model in models}
        for mode in modes:
            by_model = content["models"] if len(modes) == 1 else content["modes"][mode]["models"]
            for name, part in parts[mode].items():
                by_model[name] |= made_by[name] | part.as_json()
        if reasoning:
            content["reasoning"] = {name: measured.as_json() for name, measured in reasoning.items()}
        write(args.json, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    if args.latex:
        write(args.latex, latex_document(tables, meanings))
    return 0


def _modes_and_paths(args: argparse.Namespace) -> tuple[list[Mode], list[str]]:
    """Return the modes and the predictions; predictions may follow the modes, as in ``--mode strict PATH``."""
    values = list(args.mode)
    count = next((index for index, value in enumerate(values) if value not in (*_MODES, _ALL)), len(values))
    if not count:
        raise InputError(f"score: --mode: invalid choice {values[0]!r}, choose from {', '.join((*_MODES, _ALL))}")
    modes = _MODES if _ALL in values[:count] else tuple(mode for mode in _MODES if mode in values[:count])
    paths = [*args.predictions, *values[count:]]
    if not paths:
        hint = (
            "name the predictions before --by" if args.by else "python -m guardreasoner score --help lists the options"
        )
        raise InputError("score: required: [NAME=]PATH", hint)
    return list(modes), paths


def _score(model: NamedPredictions, attacked: NamedPredictions, mode: Mode, args: argparse.Namespace) -> ModelScore:
    """Score the answers to original records, and add the rows of the benchmarks of attacked ones."""
    (read,), (attacks,) = model.seeds, attacked.seeds
    hard = (read.hard_records, read.hard_rollouts)
    options: dict[str, Any] = {"resamples": args.resamples, "seed": args.seed, "format": read.format}
    scored = score(model.name, read.records, read.rollouts, read.tasks, mode, *hard, **options)
    if not attacks.records:
        return scored
    rows = score(model.name, attacks.records, attacks.rollouts, read.tasks, mode, **options)
    return replace(
        scored,
        benchmarks=(*scored.benchmarks, *rows.benchmarks),
        steerability=(*scored.steerability, *rows.steerability),
    )


def _probabilities(
    model: NamedPredictions, attacked: NamedPredictions, args: argparse.Namespace
) -> tuple[ProbabilityScore, ...]:
    (read,), (attacks,) = model.seeds, attacked.seeds
    options = (read.scores, read.tasks, args.resamples, args.seed)
    rows = [row for row in probability_scores(attacks.records, *options) if row.benchmark != POOLED]
    return (*probability_scores(read.records, *options), *rows)


def _asks_calibrated(args: argparse.Namespace) -> bool:
    return bool(args.calibrated or args.calibration)


def _calibrated(model: NamedPredictions, args: argparse.Namespace) -> list[CalibratedScore]:
    """Score one model at the thresholds of its calibrations."""
    (read,), (path,) = model.seeds, model.paths
    calibrations = _calibrations(path, args)
    rows: list[CalibratedScore] = []
    scored = {(task, kind) for kind, rows in read.scores.items() for row in rows.values() for task in row}
    for name in dict.fromkeys(one.task for one in calibrations):
        kinds = [one.score for one in calibrations if one.task == name]
        if all((name, kind) not in scored for kind in kinds):
            raise InputError(f"{path}: no {' or '.join(kinds)} score for {name}, which is calibrated")
    for calibration in calibrations:
        task = next((task for task in read.tasks if task.name == calibration.task), None)
        if task is None or (calibration.task, calibration.score) not in scored:
            continue
        rows += calibrated_scores(read.records, read.scores, task, calibration, args.resamples, args.seed)
    return rows


def _in_sample(model: NamedPredictions, args: argparse.Namespace) -> list[str]:
    """Return notes on the calibrations whose thresholds were chosen on the predictions that are scored."""
    (path,) = model.paths
    hashed = content_hash(path)
    return [
        f"{path}: the threshold of {one.name} from {one.score} scores was chosen on these predictions, so its rates "
        "here say nothing about other records"
        for one in _calibrations(path, args)
        if one.data == hashed
    ]


def _calibrations(path: str, args: argparse.Namespace) -> Sequence[Calibration]:
    """Return the calibrations in the given file or, without one, those of the model that made the predictions."""
    return stored_calibrations(args.calibration) if args.calibration else calibrations_of(path)


@dataclass(frozen=True, slots=True)
class _Parts:
    """Scores of one model on parts of its records."""

    over_refusal: OverRefusal | None
    slices: Sequence[SliceScore]

    def as_json(self) -> dict[str, Any]:
        return {
            **({"over_refusal": over_refusal_as_json(self.over_refusal)} if self.over_refusal else {}),
            **({"slices": slices_as_json(self.slices)} if self.slices else {}),
        }


def _parts(model: NamedPredictions, mode: Mode, args: argparse.Namespace) -> _Parts:
    (read,) = model.seeds
    run = [collect_labels(model.name, read.records, read.rollouts, read.tasks, PARSER_BY_MODE[mode], read.format)]
    options = (read.tasks, mode, args.resamples, args.seed)
    refusal = over_refusal([run], read.records, *options)
    by_name: dict[str, list[list[BenchmarkLabels]]] = {model.name: run}
    slices = score_slices(by_name, with_languages(read.records, args), args.by, *options)
    return _Parts(refusal[0] if refusal else None, slices[model.name])


def _part_tables(parts: Mapping[str, _Parts], mode: str) -> list[Table]:
    refusal = {name: part.over_refusal for name, part in parts.items() if part.over_refusal}
    tables = [over_refusal_table(refusal)] if refusal else []
    tables += slice_tables({name: part.slices for name, part in parts.items()})
    return [replace(table, title=f"{table.title} ({mode})") if mode else table for table in tables]


def _quality(model: NamedPredictions) -> Quality:
    (read,) = model.seeds
    conversations = {record.id: judged_text(record) for record in read.records}
    answers = [answer.completion for answer in read.rollouts]
    judged = [conversations[answer.record_id] for answer in read.rollouts]
    return quality(answers, read.tasks, judged, format=read.format)


def _record_differences(models: Sequence[NamedPredictions]) -> list[str]:
    """Return notes on how the records of the models differ."""
    notes = []
    records = {model.name: model.seeds[0].records for model in models}
    if absent := missing_records(records):
        notes.append(f"the models were not scored on the same records: {describe_missing(absent)}")
    hard = {model.name: model.seeds[0].hard_records for model in models}
    if absent := missing_records(hard):
        notes.append(f"the models do not have the same hard records: {describe_missing(absent)}")
    first = models[0].name
    for name, other in records.items():
        if rows := differing_ids(records[first], other):
            what = f"{len(rows)} rows with the same position or id have different conversations or labels"
            notes.append(f"{first} and {name}: {what}: {rows[0]}" + (", …" if len(rows) > 1 else ""))
    return notes
