"""Sections of the comparison page on what the runs came from: training curves, mining, files and lineage."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from guardreasoner.errors import InputError
from guardreasoner.mining import PRESETS, Pairing, mine
from guardreasoner.mining.findings import findings
from guardreasoner.report.lineage_tree import trees_as_text
from guardreasoner.report.mining_plots import mining_plots
from guardreasoner.report.mining_tables import counts_table, detail_tables, summary_lines
from guardreasoner.report.run_lineage import Fit, RunLineage, event_folders, init_args
from guardreasoner.report.section import Section, section_plots
from guardreasoner.report.table import UNDEFINED, Cell, Table
from guardreasoner.report.training_curves import Curves, curve_plots, curve_table, curves_by_panel, read_curves
from guardreasoner.sources.rollouts import read_costs, read_rollout_folders, rollout_format, rollout_tasks
from guardreasoner.workflow.lineage import Node, problems
from guardreasoner.workflow.manifest import MANIFEST, Manifest, content_hash

_MAX_FITS = 8
_HASH_LENGTH = 12
_COMMIT_LENGTH = 10


def curves_section(run_lineage: RunLineage, folders: Sequence[Path] = ()) -> Section:
    """Return the training curves of the fits in the lineage, or of the given folders.

    Args:
        run_lineage: Lineage of the runs.
        folders: Folders with event files in or below them, instead of those of the lineage.

    Raises:
        InputError: A given folder is missing or has no event files, or a file cannot be read.
    """
    lines: list[str] = []
    logs: dict[str, Sequence[Path]] = {}
    for folder in folders:
        if not event_folders(folder):
            raise InputError(f"{folder}: " + ("no TensorBoard event files" if folder.exists() else "no such folder"))
    logs |= {str(version): [version] for version in event_folders(*folders)}
    if not folders:
        logs = {_fit_title(fit): fit.event_folders for fit in run_lineage.fits if fit.event_folders}
        without = [fit.path for fit in run_lineage.fits if not fit.event_folders]
        if without:
            lines.append(f"No event files found for {', '.join(without)}; give others with --logs DIR.")
        if not run_lineage.fits:
            lines.append("No curves: the manifests name no fit of these runs; give event files with --logs DIR.")
    curves = {name: read_curves(parts) for name, parts in logs.items()}
    with_curves = {name: by_tag for name, by_tag in curves.items() if curves_by_panel(by_tag)}
    if count := len(curves) - len(with_curves):
        lines.append(f"Without training curves: {count} of {len(curves)} folders.")
    if len(with_curves) > _MAX_FITS:
        lines.append(f"Not shown: the {len(with_curves) - _MAX_FITS} oldest of {len(with_curves)} fits.")
    shown = list(with_curves.items())[-_MAX_FITS:]
    parts = tuple(_fit_curves(f"curves-{index}", name, by_tag) for index, (name, by_tag) in enumerate(shown))
    notes = ("Strong line: smoothed. Faint line: logged values, thinned to minima and maxima.",)
    return Section("curves", "Training curves", tuple(lines), subsections=parts, notes=notes if parts else ())


def mining_section(run_lineage: RunLineage, rollouts: Sequence[Path] = ()) -> Section:
    """Return the mining results for the rollouts of the fits in the lineage, or for the given rollouts.

    Args:
        run_lineage: Lineage of the runs.
        rollouts: Folders of rollouts, instead of those of the lineage.

    Raises:
        InputError: Given rollouts are not valid.
    """
    title = "Mining results"
    lines: list[str] = []
    parts: list[Section] = []
    if rollouts:
        part = _mining_results("mining-0", "Given rollouts", rollouts, PRESETS["plan"])
        return Section("mining", title, subsections=(part,))
    for fit in run_lineage.fits:
        lines += [f"{fit.path}: rollouts {path}: {state}." for path, state in fit.changed_rollouts.items()]
        if not fit.rollouts:
            continue
        paths = list(map(Path, fit.rollouts))
        try:
            pairing = _pairing(fit.manifest)
            parts.append(_mining_results(f"mining-{len(parts)}", _fit_title(fit), paths, pairing))
        except InputError as error:
            lines.append(f"{fit.path}: its rollouts cannot be read: {error}")
    if not parts and not lines:
        lines.append("No mining: the manifests name no rollouts of these runs; give some with --rollouts PATH.")
    return Section("mining", title, tuple(lines), subsections=tuple(parts))


def lineage_section(run_lineage: RunLineage, runs: Mapping[str, Sequence[str]], provenance: Sequence[str]) -> Section:
    """Return the prediction files, what made them, and the lineage tree down to the sources.

    Args:
        run_lineage: Lineage of the runs.
        runs: Paths of the predictions by run name.
        provenance: How this page was made, one sentence each.
    """
    lines = [*provenance, *(f"{message}." for message in run_lineage.unknown)]
    if changed := problems(run_lineage.trees):
        states = ", ".join(f"{path} ({state})" for path, state in changed.items())
        lines.append(f"Changed or missing: {states}.")
    tables = [_prediction_table(runs)]
    if nodes := {node.path: node for tree in run_lineage.trees for node in tree.walk() if node.manifest}:
        tables.append(_artefact_table(nodes))
        lines += _versions(nodes)
    tree = trees_as_text(run_lineage.trees)
    return Section("lineage", "Data and lineage", tuple(lines), tables=tuple(tables), text=tree)


def _fit_curves(section_id: str, name: str, curves: Curves) -> Section:
    lines = []
    if left_out := {tag: curve.left_out for tag, curve in curves.items() if curve.left_out}:
        counts = ", ".join(f"{tag} {count:,}" for tag, count in left_out.items())
        lines.append(f"NaN or infinite values, not drawn: {counts}.")
    table = curve_table(curves, f"Values of the curves: {name}")
    return Section(section_id, name, tuple(lines), section_plots(section_id, curve_plots(curves)), (table,))


def _mining_results(section_id: str, title: str, paths: Sequence[Path], pairing: Pairing) -> Section:
    tasks = rollout_tasks(paths)
    records, rollouts = read_rollout_folders(paths, tasks)
    mined = mine(records, rollouts, tasks, pairing, rollout_format(paths))
    results = findings(mined, read_costs(paths))
    total = results.total()
    lines = [
        f"{total.hard:,} hard records of {results.records:,}, {total.pairs:,} pairs, "
        f"from {total.outputs:,} outputs of {', '.join(results.models)}.",
        *(f"{line[:1].upper()}{line[1:]}." for line in summary_lines(results)),
        f"Options: γ {pairing.gamma:g}, {'models pooled' if pairing.pool else 'models mined separately'}, "
        f"chosen {pairing.chosen}, rejected {pairing.rejected}, unparsed {pairing.unparsable}.",
    ]
    tables = (counts_table(results.counts, f"Groups by source: {title}"), *detail_tables(results, title))
    return Section(section_id, title, tuple(lines), section_plots(section_id, mining_plots(results)), tables)


def _pairing(manifest: Manifest) -> Pairing:
    options: Any = init_args(manifest, "data").get("pairing") or {}
    if isinstance(options, dict) and "class_path" in options:
        options = options.get("init_args") or {}
    try:
        return Pairing(**options)
    except TypeError:
        raise InputError(f"unknown pairing options in its manifest: {options!r}") from None


def _prediction_table(runs: Mapping[str, Sequence[str]]) -> Table:
    rows = []
    for name, paths in runs.items():
        for path in map(Path, paths):
            files = sorted(path.rglob("*.jsonl")) if path.is_dir() else [path]
            size = sum(file.stat().st_size for file in files)
            numbers = [Cell(str(len(files))), Cell(f"{size / 1e6:,.1f}")]
            rows.append([Cell(name), Cell(str(path)), Cell(content_hash(path)[:_HASH_LENGTH]), *numbers])
    return Table("Predictions", ("run", "path", "SHA-256", "files", "MB"), rows, text_columns=3)


def _artefact_table(nodes: Mapping[str, Node]) -> Table:
    rows = []
    for path, node in nodes.items():
        manifest = node.manifest
        assert manifest is not None
        dirty = " (dirty)" if manifest.dirty else ""
        commit = f"{manifest.commit[:_COMMIT_LENGTH]}{dirty}" if manifest.commit else UNDEFINED
        seeds = ", ".join(f"{key} {value}" for key, value in node.seeds().items())
        verb, content = " ".join(manifest.command[:1]), manifest.content[:_HASH_LENGTH]
        texts = (path, verb, manifest.created, commit, content, seeds or UNDEFINED)
        rows.append([Cell(text) for text in texts])
    headings = ("path", "command", "created", "commit", "SHA-256", "seeds")
    return Table(f"Artefacts, from {MANIFEST}", headings, rows, text_columns=len(headings))


def _versions(nodes: Mapping[str, Node]) -> list[str]:
    """Return one sentence for each set of package versions that artefacts were made with."""
    paths_by_versions: dict[str, list[str]] = {}
    for path, node in nodes.items():
        assert node.manifest is not None
        versions = ", ".join(f"{name} {version}" for name, version in node.manifest.versions.items())
        paths_by_versions.setdefault(versions, []).append(path)
    sentences = []
    for versions, paths in paths_by_versions.items():
        which = "" if len(paths_by_versions) == 1 else f" of {', '.join(paths)}"
        sentences.append(f"Versions{which}: {versions or 'unknown'}.")
    return sentences


def _fit_title(fit: Fit) -> str:
    return f"{fit.path} ({', '.join(fit.runs)})" if fit.runs else fit.path
