"""``doctor``: checks the tokenised training data for what would spoil a fit."""

import argparse
import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from guardreasoner.cli.options import require_files, write
from guardreasoner.errors import InputError

if TYPE_CHECKING:
    from rich.console import Console

    from guardreasoner.diagnosis import Diagnosis

HELP = "check the tokenised training data before a fit: lengths, tokens, labels, leaks"

OVERRIDES = (
    *("--data", "--model", "--trainer", "--recipe", "--output", "--auto_build", "--allow_contamination"),
    *("--seed_everything", "--save_optimizer"),
)
"""Flags of ``fit``, dotted ones too, that are passed on to its parser."""

_WIDTH = 120
_IDS = 3
_ROWS = 60
_STYLES = {"fault": "bold red", "warning": "yellow", "note": "cyan", "ok": "dim"}


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        *("-c", "--config"),
        action="append",
        required=True,
        metavar="YAML",
        help="as for fit: configs/rsft.yaml or configs/hsdpo.yaml, then overlays; flags like --data.max_length 300 too",
    )
    _add_outputs(parser)


def run(args: argparse.Namespace) -> int:
    """Make what the run would need, look at its data, show and write what was found.

    Args:
        args: what :func:`configure` declares, and ``words``: all arguments, those for ``fit`` among them.

    Returns:
        0, or 1 where something would spoil the run.

    Raises:
        InputError: a config is wrong, an input is missing, or a file cannot be written.
    """
    require_files(html=args.html, json=args.json)
    words = _words_of_fit(args.words)
    from guardreasoner.workflow.pipeline import prepare

    prepare(["doctor", *words], lambda _: _check(words))
    diagnosis, log_lines = _diagnose(words)
    _show(diagnosis)
    if args.json:
        write(args.json, json.dumps(diagnosis.as_json(), indent=1, ensure_ascii=False) + "\n")
    if args.html:
        from guardreasoner.report.doctor_page import doctor_page

        write(args.html, doctor_page(diagnosis, shlex.join(["doctor", *words]), log_lines))
    print(diagnosis.verdict())
    return 1 if diagnosis.faults else 0


def _add_outputs(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--html", type=Path, metavar="FILE", help="also write a page with plots, complete in one file")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write all numbers as JSON")


def _words_of_fit(words: Sequence[str]) -> list[str]:
    """Return the arguments without our own, in their order: what comes later has the last word."""
    ours = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    _add_outputs(ours)
    return ours.parse_known_args(words)[1]


def _check(words: Sequence[str]) -> None:
    from guardreasoner.cli.lightning_cli import check_config

    check_config(["fit", *words])


def _diagnose(words: list[str]) -> tuple["Diagnosis", list[str]]:
    """Look at all that a fit with these arguments would learn; return also what was said on the way."""
    from guardreasoner.cli.lightning_cli import fitted_on
    from guardreasoner.diagnosis import DiagnosisBuilder
    from guardreasoner.training.training_data import TrainingDataModule
    from guardreasoner.workflow.log_lines import collect_log_lines

    data, module, allowed = fitted_on(words)
    if not isinstance(data, TrainingDataModule):
        raise InputError(
            f"doctor: {type(data).__name__} gives nothing to train on", "use the config of a fit, configs/rsft.yaml say"
        )
    prompt_tokenizer = module.backbone.prompt_tokenizer
    data.prepare_inspection(prompt_tokenizer)
    with collect_log_lines() as log_lines:
        builder = DiagnosisBuilder(
            prompt_tokenizer,
            _asked_by(module),
            data.max_length,
            data.skip_too_long,
            data.contamination_index(),
            data.skip_contaminated,
            allowed,
        )
        for split in ("train", "validation"):
            for item in data.items(split, builder.add_unusable):
                builder.add(item, split)
        return builder.build(), log_lines


def _asked_by(module: Any) -> str:
    """Return where the prompt format of a model is written."""
    from guardreasoner.model.loading import FORMAT_FILE

    path = module.backbone.path
    if Path(path, FORMAT_FILE).is_file():
        return f"{FORMAT_FILE} of {path}"
    return f"model.backbone.format, as {path} has no {FORMAT_FILE}"


def _show(diagnosis: "Diagnosis") -> None:
    from rich.console import Console
    from rich.markup import escape

    console = Console(file=sys.stdout, width=None if sys.stdout.isatty() else _WIDTH)
    console.print(
        f"{diagnosis.train:,} training and {diagnosis.validation:,} validation examples; prompt format: "
        f"{escape(diagnosis.asked)}\n",
        highlight=False,
    )
    if diagnosis.lengths:
        _show_lengths(console, diagnosis)
    _show_balance(console, diagnosis)
    _show_findings(console, diagnosis)


def _show_lengths(console: "Console", diagnosis: "Diagnosis") -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("tokens")
    percentiles = list(diagnosis.lengths[0].percentiles)
    for heading in ("min", *(f"{percent} %" for percent in percentiles), "max"):
        table.add_column(heading, justify="right")
    for row in diagnosis.lengths:
        values = (row.minimum, *row.percentiles.values(), row.maximum)
        table.add_row(row.part, *(f"{value:,}" for value in values))
    console.print(table)
    console.print(f"limit (data.max_length): {diagnosis.limit:,}\n", style="dim", highlight=False)


def _show_balance(console: "Console", diagnosis: "Diagnosis") -> None:
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("training labels", "task"):
        table.add_column(heading, overflow="fold")
    table.add_column("examples by label", overflow="fold")
    table.add_column("no label", justify="right")
    for row in diagnosis.balance[:_ROWS]:
        labels = "  ".join(f"{escape(label)} {count:,}" for label, count in row.labels.items())
        table.add_row(escape(row.source), row.task, labels, f"{row.unlabelled:,}")
    console.print(table)
    if len(diagnosis.balance) > _ROWS:
        more = len(diagnosis.balance) - _ROWS
        console.print(f"and {more:,} more, see --html or --json", style="dim", highlight=False)
    console.print()


def _show_findings(console: "Console", diagnosis: "Diagnosis") -> None:
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("")
    table.add_column("finding", min_width=20)
    table.add_column("count", justify="right")
    table.add_column("what it means", overflow="fold", ratio=1)
    for one in diagnosis.findings:
        if one.severity == "ok":
            continue
        ids = ", ".join(one.ids[:_IDS]) + (", …" if one.count > _IDS else "")
        message = f"{escape(one.message)}\n[dim]{escape(ids)}[/dim]" if any(one.ids) else escape(one.message)
        count = f"{one.count:,} of {one.of:,}"
        table.add_row(f"[{_STYLES[one.severity]}]{one.severity}[/]", one.name, count, message)
    if table.row_count:
        console.print(table, highlight=False)
    passed = sum(finding.severity == "ok" for finding in diagnosis.findings)
    other = "other " if table.row_count else ""
    console.print(f"{passed} {other}check{'s' if passed != 1 else ''} passed\n", style="dim", highlight=False)
