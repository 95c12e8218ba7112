"""``doctor``: check the tokenized training data of a fit for faults that would spoil it silently."""

import argparse
import json
import shlex
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

from guardreasoner.cli.options import require_files, write
from guardreasoner.errors import InputError
from guardreasoner.workflow.terminal import show_line, stdout_console

if TYPE_CHECKING:
    from rich.console import Console

    from guardreasoner.diagnosis import Diagnosis
    from guardreasoner.diagnosis.findings import Finding
    from guardreasoner.evaluation.format_check import FormatCheck
    from guardreasoner.training.training_data import TrainingItem

HELP = "check the tokenized training data of a fit before it runs: lengths, tokens, labels, contamination"

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
    diagnosis, messages = _diagnose(fit_flags, args.answers)
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
    parser.add_argument(
        "--answers",
        type=_count,
        metavar="N",
        help="also load the model and let it answer N training records: are the answers in the prompt format?",
    )


def _fit_flags(argv: Sequence[str]) -> list[str]:
    """Return the flags that are not for this verb, in their order, since later flags override earlier ones."""
    own = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    _add_outputs(own)
    return own.parse_known_args(argv)[1]


def _check(fit_flags: Sequence[str]) -> None:
    """Check the config and that its data module has targets, before anything is built."""
    from guardreasoner.cli.lightning_cli import check_config

    module, _, name = check_config(["fit", *fit_flags]).data.class_path.rpartition(".")
    if isinstance(data := getattr(sys.modules.get(module), name, None), type):
        _require_targets(data)


def _require_targets(data: type) -> None:
    from guardreasoner.training.prompt_data import PromptDataModule
    from guardreasoner.training.training_data import TrainingDataModule

    if not issubclass(data, TrainingDataModule):
        raise InputError(
            f"doctor: {data.__name__} has no training data", "use the config of a fit, such as configs/rsft.yaml"
        )
    if issubclass(data, PromptDataModule):
        raise InputError(
            f"doctor: {data.__name__} has no targets to check", "check configs/rsft.yaml or configs/hsdpo.yaml"
        )


def _diagnose(fit_flags: list[str], answers: int | None) -> tuple["Diagnosis", list[str]]:
    """Check every training and validation example of a fit; return the diagnosis and the messages logged meanwhile.

    Args:
        fit_flags: flags of the fit.
        answers: number of training records that the model is to answer; None: its weights are not loaded.
    """
    from guardreasoner.cli.lightning_cli import instantiate_fit
    from guardreasoner.diagnosis import DiagnosisBuilder
    from guardreasoner.diagnosis.findings import SEVERITIES
    from guardreasoner.training.training_data import TrainingDataModule
    from guardreasoner.workflow.log_lines import collect_log_lines

    data, module, allowed = instantiate_fit(fit_flags)
    _require_targets(type(data))
    assert isinstance(data, TrainingDataModule)
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
            module.backbone.embedding_rows,
        )
        sample = _Sample(answers or 0)
        for split in ("train", "validation"):
            for item in data.items(split, builder.add_unusable):
                builder.add(item, split)
                if split == "train" and item.example.length <= data.max_length:
                    sample.add(item)
        diagnosis = builder.build()
        if answers:
            from guardreasoner.evaluation.format_check import check_format

            findings = _answer_findings(check_format(module.backbone, sample.items))
        else:
            findings = [_unchecked_format(module.backbone.path)]
    found = sorted([*diagnosis.findings, *findings], key=lambda finding: SEVERITIES.index(finding.severity))
    return replace(diagnosis, findings=tuple(found)), messages


class _Sample:
    """Training items drawn evenly from all that are added (reservoir sampling), the same in every run.

    Args:
        size: number of items.
    """

    def __init__(self, size: int) -> None:
        self.items: list[TrainingItem] = []
        self._size, self._seen, self._random = size, 0, Random(0)

    def add(self, item: "TrainingItem") -> None:
        self._seen += 1
        if len(self.items) < self._size:
            self.items.append(item)
        elif (place := self._random.randrange(self._seen)) < self._size:
            self.items[place] = item


def _answer_findings(check: "FormatCheck") -> "list[Finding]":
    """Return the findings of the model's own answers."""
    from guardreasoner.diagnosis.findings import ANSWER_CHECKS, Finding, Severity

    name, bad = "answers not in the format", check.answers - check.parsed
    found = ANSWER_CHECKS[name]
    ending = f"{found.meaning}; the first of them ends: {check.unparsed[0][1]!r}" if bad else found.meaning
    # some unparsed answers are what training is to cure, more than half are those of another format
    severity: Severity = "ok" if not bad else found.severity if bad > check.parsed else "warning"
    ids = tuple(record_id for record_id, _ in check.unparsed)
    findings = [Finding(name, severity, bad, check.answers, ending, ids)]
    if check.other is not None:
        name = "another format fits better"
        found, better = ANSWER_CHECKS[name], check.other_fits_better
        text = (
            f"{found.meaning}: {check.loss:.3f} nats a token as configured, {check.other_loss:.3f} with {check.other}"
        )
        severity = found.severity if better else "ok"
        findings.append(Finding(name, severity, check.lower if better else 0, check.answers, text))
    return findings


def _unchecked_format(path: str) -> "Finding":
    """Return the note on an adapter whose folder does not name its prompt format."""
    from guardreasoner.diagnosis.findings import ANSWER_CHECKS, Finding
    from guardreasoner.workflow.guard_file import GUARD_FILE

    folder, name = Path(path), "format not checked"
    is_unknown = (folder / "adapter_config.json").is_file() and not (folder / GUARD_FILE).is_file()
    severity = ANSWER_CHECKS[name].severity if is_unknown else "ok"
    return Finding(name, severity, int(is_unknown), 1, ANSWER_CHECKS[name].meaning)


def _format_source(module: Any) -> str:
    """Return where the prompt format of a model comes from."""
    from guardreasoner.model.loading import FORMAT_FILE

    path = module.backbone.path
    if Path(path, FORMAT_FILE).is_file():
        return f"{FORMAT_FILE} of {path}"
    return f"model.backbone.format, since {path} has no {FORMAT_FILE}"


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a number of 1 or more, found {text!r}")
    return int(text)


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
