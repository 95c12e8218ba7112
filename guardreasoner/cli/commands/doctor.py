"""``doctor``: check the tokenised training data of a fit for faults that would spoil it silently."""

import argparse
import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from guardreasoner.cli.options import require_files, write
from guardreasoner.errors import InputError
from guardreasoner.workflow.terminal import show_line, stdout_console

if TYPE_CHECKING:
    from rich.console import Console

    from guardreasoner.diagnosis import Diagnosis

HELP = "check the tokenised training data of a fit before it runs: lengths, tokens, labels, leaks"

OVERRIDES = (
    *("--data", "--model", "--trainer", "--recipe", "--output", "--overwrite", "--auto_build", "--allow_contamination"),
    *("--seed_everything", "--save_optimizer"),
)
"""Flags of ``fit``, also dotted ones, to pass on to its parser."""

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
        help="config of a fit (configs/rsft.yaml or configs/hsdpo.yaml), then overlays; takes flags of fit, such as "
        "--data.max_length 300",
    )
    _add_outputs(parser)


def run(args: argparse.Namespace) -> int:
    """Build the inputs of the fit, check its data, print and write the findings.

    Args:
        args: the arguments that :func:`configure` declares, and ``argv``: all flags, including those for ``fit``.

    Returns:
        0, or 1 if a fault would spoil the run.

    Raises:
        InputError: a config is wrong, an input is missing, or a file cannot be written.
    """
    require_files("doctor", html=args.html, json=args.json)
    fit_flags = _fit_flags(args.argv)
    from guardreasoner.workflow.pipeline import prepare

    prepare(["doctor", *fit_flags], lambda _: _check(fit_flags))
    diagnosis, messages = _diagnose(fit_flags)
    _show(diagnosis)
    if args.json:
        write(args.json, json.dumps(diagnosis.as_json(), indent=1, ensure_ascii=False) + "\n")
    if args.html:
        from guardreasoner.report.doctor_page import doctor_page

        write(args.html, doctor_page(diagnosis, shlex.join(["doctor", *fit_flags]), messages))
    show_line(diagnosis.verdict())
    return 1 if diagnosis.faults else 0


def _add_outputs(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--html", type=Path, metavar="FILE", help="also write a self-contained page with plots")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write all numbers as JSON")


def _fit_flags(argv: Sequence[str]) -> list[str]:
    """Return the flags that are not for this verb, in their order, since later flags override earlier ones."""
    own = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    _add_outputs(own)
    return own.parse_known_args(argv)[1]


def _check(fit_flags: Sequence[str]) -> None:
    from guardreasoner.cli.lightning_cli import check_config

    check_config(["fit", *fit_flags])


def _diagnose(fit_flags: list[str]) -> tuple["Diagnosis", list[str]]:
    """Check every training and validation example of a fit; return the diagnosis and the messages logged meanwhile."""
    from guardreasoner.cli.lightning_cli import instantiate_fit
    from guardreasoner.diagnosis import DiagnosisBuilder
    from guardreasoner.model.loading import embedding_rows
    from guardreasoner.training.training_data import TrainingDataModule
    from guardreasoner.workflow.log_lines import collect_log_lines

    data, module, allowed = instantiate_fit(fit_flags)
    if not isinstance(data, TrainingDataModule):
        raise InputError(
            f"doctor: {type(data).__name__} has no training data", "use the config of a fit, such as configs/rsft.yaml"
        )
    prompt_tokenizer = module.backbone.prompt_tokenizer
    data.prepare_inspection(prompt_tokenizer)
    with collect_log_lines() as messages:
        builder = DiagnosisBuilder(
            prompt_tokenizer,
            _format_source(module),
            data.max_length,
            data.skip_too_long,
            data.contamination_index(),
            data.skip_contaminated,
            allowed,
            embedding_rows(module.backbone.path),
        )
        for split in ("train", "validation"):
            for item in data.items(split, builder.add_unusable):
                builder.add(item, split)
        return builder.build(), messages


def _format_source(module: Any) -> str:
    """Return where the prompt format of a model comes from."""
    from guardreasoner.model.loading import FORMAT_FILE

    path = module.backbone.path
    if Path(path, FORMAT_FILE).is_file():
        return f"{FORMAT_FILE} of {path}"
    return f"model.backbone.format, since {path} has no {FORMAT_FILE}"


def _show(diagnosis: "Diagnosis") -> None:
    from rich.markup import escape

    console = stdout_console(_WIDTH)
    console.print(
        f"{diagnosis.train:,} training and {diagnosis.validation:,} validation examples; prompt format of "
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
        console.print(f"{more:,} more rows in --html and --json", style="dim", highlight=False)
    console.print()


def _show_findings(console: "Console", diagnosis: "Diagnosis") -> None:
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("")
    table.add_column("finding", min_width=20)
    table.add_column("count", justify="right")
    table.add_column("what it means", overflow="fold", ratio=1)
    for finding in diagnosis.findings:
        if finding.severity == "ok":
            continue
        ids = ", ".join(finding.ids[:_IDS]) + (", …" if finding.count > _IDS else "")
        text = escape(finding.message)
        message = f"{text}\n[dim]{escape(ids)}[/dim]" if any(finding.ids) else text
        count = f"{finding.count:,} of {finding.of:,}"
        table.add_row(f"[{_STYLES[finding.severity]}]{finding.severity}[/]", finding.name, count, message)
    if table.row_count:
        console.print(table, highlight=False)
    passed = sum(finding.severity == "ok" for finding in diagnosis.findings)
    console.print(f"{passed} other checks passed\n", style="dim", highlight=False)
