"""Sections of a page of runs on what they came from: curves of training, mining, files and lineage."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from guardreasoner.errors import InputError
from guardreasoner.mining import PRESETS, Pairing, mine
from guardreasoner.mining.findings import findings
from guardreasoner.report.curves import Curves, curve_plots, curve_table, read_curves, shown_curves
from guardreasoner.report.lineage_tree import trees_as_text
from guardreasoner.report.mining_plots import plots as mining_plots
from guardreasoner.report.mining_screen import brief, counts_table, detail_tables
from guardreasoner.report.origins import Fit, Origins, event_folders, init_args
from guardreasoner.report.section import Section, drawings
from guardreasoner.report.tables import UNDEFINED, Cell, Table
from guardreasoner.sources.rollouts import read_costs, read_rollout_folders, rollout_tasks
from guardreasoner.workflow.lineage import Node, problems
from guardreasoner.workflow.manifest import MANIFEST, Manifest, content_hash

_MOST_FITS = 8
_HASH = 12
_COMMIT = 10


def curves_section(found: Origins, folders: Sequence[Path] = ()) -> Section:
    """Return the curves of the fits, or of the folders that were named instead.

    Args:
        found: what the runs came from.
        folders: with event files in them or below.

    Raises:
        InputError: a named folder is not there or holds no event files, or a file cannot be read.
    """
    lines: list[str] = []
    logs: dict[str, Sequence[Path]] = {}
    for folder in folders:
        below = event_folders(folder)
        if not below:
            raise InputError(f"{folder}: " + ("no event files of TensorBoard" if folder.exists() else "no such folder"))
        logs |= {str(one): [one] for one in below}
    if not folders:
        logs = {_called(fit): fit.curves for fit in found.fits if fit.curves}
        without = [fit.path for fit in found.fits if not fit.curves]
        if without:
            lines.append(f"No event files are left of {', '.join(without)}; --logs DIR names others.")
        if not found.fits:
            lines.append("Nothing says which fits made these runs, so there are no curves; --logs DIR names some.")
    curves = {name: read_curves(parts) for name, parts in logs.items()}
    drawn = {name: one for name, one in curves.items() if shown_curves(one)}
    if other := len(curves) - len(drawn):
        lines.append(f"Without curves of training: {other} of {len(curves)} folders.")
    if len(drawn) > _MOST_FITS:
        lines.append(f"Not shown: {len(drawn) - _MOST_FITS} of {len(drawn)} fits, the ones that began first.")
    shown = list(drawn.items())[-_MOST_FITS:]
    parts = tuple(_curves(f"curves-{place}", name, one) for place, (name, one) in enumerate(shown))
    notes = ("Strong line: smoothed; faint line: as logged, of each stretch the lowest and the highest value.",)
    return Section("curves", "Training curves", tuple(lines), parts=parts, notes=notes if parts else ())


def mining_section(found: Origins, rollouts: Sequence[Path] = ()) -> Section:
    """Return what mining found in the rollouts that the models' pairs came from, or in those that were named instead.

    Args:
        found: what the runs came from.
        rollouts: folders of rollouts.

    Raises:
        InputError: named rollouts are not as they must be.
    """
    title, lines, parts = "Mining yield", [], []
    if rollouts:
        parts.append(_mined("mining-0", "Rollouts that were named", rollouts, PRESETS["plan"]))
        return Section("mining", title, parts=tuple(parts))
    for fit in found.fits:
        lines += [f"{fit.path}: the rollouts {path} are {state}." for path, state in fit.changed.items()]
        if not fit.rollouts:
            continue
        try:
            pairing = _pairing(fit.made)
            parts.append(_mined(f"mining-{len(parts)}", _called(fit), list(map(Path, fit.rollouts)), pairing))
        except InputError as error:
            lines.append(f"{fit.path}: what it was mined from cannot be read: {error}")
    if not parts and not lines:
        lines.append("Nothing says which rollouts these runs were trained on; --rollouts PATH names some.")
    return Section("mining", title, tuple(lines), parts=tuple(parts))


def lineage_section(found: Origins, runs: Mapping[str, Sequence[str]], how: Sequence[str]) -> Section:
    """Return the files that were read, what made them, and the tree down to the sources.

    Args:
        found: what the runs came from.
        runs: by name, where the predictions lie.
        how: how this page was made, a sentence each.
    """
    lines = [*how, *(f"{one}." for one in found.unknown)]
    if wrong := problems(found.trees):
        named = ", ".join(f"{path} ({state})" for path, state in wrong.items())
        lines.append(f"Changed or missing since: {named}.")
    tables = [_files(runs)]
    if nodes := {node.path: node for tree in found.trees for node in tree.walk() if node.manifest}:
        tables.append(_makers(nodes))
        lines += _versions(nodes)
    return Section("lineage", "Data and lineage", tuple(lines), tables=tuple(tables), text=trees_as_text(found.trees))


def _curves(identity: str, name: str, curves: Curves) -> Section:
    lines = []
    if lost := {tag: one.left_out for tag, one in curves.items() if one.left_out}:
        counts = ", ".join(f"{tag} {count:,}" for tag, count in lost.items())
        lines.append(f"Values that are no finite numbers, and not drawn: {counts}.")
    table = curve_table(curves, f"Values of the curves: {name}")
    return Section(identity, name, tuple(lines), drawings(identity, curve_plots(curves)), (table,))


def _mined(identity: str, title: str, paths: Sequence[Path], pairing: Pairing) -> Section:
    tasks = rollout_tasks(paths)
    records, rollouts = read_rollout_folders(paths, tasks)
    known = findings(mine(records, rollouts, tasks, pairing), read_costs(paths))
    total = known.total()
    lines = [
        f"{total.hard:,} hard records of {known.records:,}, {total.pairs:,} pairs, "
        f"from {total.outputs:,} outputs of {', '.join(known.models)}.",
        *(f"{line[:1].upper()}{line[1:]}." for line in brief(known)),
        f"Options: γ {pairing.gamma:g}, {'models pooled' if pairing.pool else 'each model alone'}, "
        f"chosen {pairing.chosen}, rejected {pairing.rejected}, unparsed {pairing.unparsable}.",
    ]
    tables = (counts_table(known.counts, f"Groups by source: {title}"), *detail_tables(known, title))
    return Section(identity, title, tuple(lines), drawings(identity, mining_plots(known)), tables)


def _pairing(made: Manifest) -> Pairing:
    options: Any = init_args(made, "data").get("pairing") or {}
    if isinstance(options, dict) and "class_path" in options:
        options = options.get("init_args") or {}
    try:
        return Pairing(**options)
    except TypeError:
        raise InputError(f"its options of pairing are {options!r}") from None


def _files(runs: Mapping[str, Sequence[str]]) -> Table:
    rows = []
    for name, paths in runs.items():
        for path in map(Path, paths):
            files = sorted(file for file in path.rglob("*.jsonl")) if path.is_dir() else [path]
            size = sum(file.stat().st_size for file in files)
            counted = [Cell(str(len(files))), Cell(f"{size / 1e6:,.1f}")]
            rows.append([Cell(name), Cell(str(path)), Cell(content_hash(path)[:_HASH]), *counted])
    return Table("Predictions", ("run", "path", "SHA-256", "files", "MB"), rows, words=3)


def _makers(nodes: Mapping[str, Node]) -> Table:
    rows = []
    for path, node in nodes.items():
        made = node.manifest
        assert made is not None
        commit = f"{made.commit[:_COMMIT]}{' and changes' if made.dirty else ''}" if made.commit else UNDEFINED
        sown = ", ".join(f"{key} {value}" for key, value in node.seeds().items()) or UNDEFINED
        words = (path, " ".join(made.command[:1]), made.created, commit, made.content[:_HASH], sown)
        rows.append([Cell(word) for word in words])
    headings = ("made", "by", "when", "commit", "SHA-256", "seeds")
    return Table(f"What made them, as their {MANIFEST} says", headings, rows, words=len(headings))


def _versions(nodes: Mapping[str, Node]) -> list[str]:
    """Return a sentence for each set of versions that something was made with."""
    same: dict[str, list[str]] = {}
    for path, node in nodes.items():
        assert node.manifest is not None
        versions = ", ".join(f"{name} {version}" for name, version in node.manifest.versions.items())
        same.setdefault(versions, []).append(path)
    of = {versions: "" if len(same) == 1 else f" of {', '.join(paths)}" for versions, paths in same.items()}
    return [f"Versions{paths}: {versions or 'not known'}." for versions, paths in of.items()]


def _called(fit: Fit) -> str:
    return f"{fit.path} ({', '.join(fit.runs)})" if fit.runs else fit.path
