"""Lineage of runs: the fits behind their models, with event files and rollouts of each fit."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

from guardreasoner.errors import InputError
from guardreasoner.workflow.lineage import Node, lineage, ran_in
from guardreasoner.workflow.manifest import Manifest
from guardreasoner.workflow.staleness import full

_EVENTS = "events.out.tfevents."
_START_TIME = re.compile(re.escape(_EVENTS) + r"(\d+)\.")


@dataclass(frozen=True)
class Fit:
    """A fit in the lineage of the runs.

    Args:
        path: Path of the trained model.
        runs: Names of the runs that this model predicted; empty for a model that only others were trained from.
        manifest: Manifest of the model.
        event_folders: Folders of event files, oldest first; several if the fit was resumed.
        rollouts: Folders that its pairs were mined from; empty for a fit without mining.
        changed_rollouts: State of each rollout folder that has changed since the fit.
    """

    path: str
    runs: tuple[str, ...]
    manifest: Manifest
    event_folders: tuple[Path, ...]
    rollouts: tuple[str, ...]
    changed_rollouts: Mapping[str, str]


@dataclass(frozen=True)
class RunLineage:
    """Lineage of the runs.

    Args:
        trees: Lineage trees of all predictions that have a manifest.
        unknown: One message for each path of predictions without a manifest.
        fits: The fits, oldest first.
    """

    trees: tuple[Node, ...]
    unknown: tuple[str, ...]
    fits: tuple[Fit, ...]


def lineage_of_runs(runs: Mapping[str, Sequence[str]]) -> RunLineage:
    """Read the manifests behind the predictions of runs.

    Args:
        runs: Paths of the predictions by run name.
    """
    run_by_path: dict[str, str] = {}
    unknown = []
    for name, paths in runs.items():
        for path in paths:
            try:
                lineage([path])
                run_by_path[path] = name
            except InputError as error:
                unknown.append(str(error))
    trees = lineage(list(run_by_path))
    nodes = {node.path: node for tree in trees for node in tree.walk() if not node.shown_above}
    runs_by_fit: dict[str, list[str]] = {}
    for name, tree in zip(run_by_path.values(), trees, strict=True):
        for node in _parent_fits(nodes.get(tree.path, tree), nodes):
            runs_by_fit.setdefault(node.path, []).append(name)
    fit_nodes: dict[str, Node] = {}
    for path in runs_by_fit:
        _add_with_parents(nodes[path], nodes, fit_nodes, set())
    fits = [_fit(node, tuple(dict.fromkeys(runs_by_fit.get(path, ())))) for path, node in fit_nodes.items()]
    return RunLineage(tuple(trees), tuple(unknown), tuple(sorted(fits, key=lambda fit: fit.manifest.created)))


def event_folders(*roots: Path) -> list[Path]:
    """Return the folders at or below ``roots`` that hold TensorBoard event files, oldest first."""
    folders = {file.parent for root in roots for file in root.rglob(f"{_EVENTS}*")}
    return sorted(folders, key=lambda path: (_start_time(path), str(path)))


def init_args(manifest: Manifest, section: str) -> dict[str, Any]:
    """Return the ``init_args`` of a config section ("data", "model") in a manifest."""
    return _dict(_dict((manifest.config or {}).get(section)).get("init_args"))


def _add_with_parents(node: Node, nodes: Mapping[str, Node], fit_nodes: dict[str, Node], seen: set[str]) -> None:
    """Add a fit after its parents; ``seen`` ends the recursion if a model was trained over itself."""
    if node.path not in fit_nodes and node.path not in seen:
        seen.add(node.path)
        for parent in _parent_fits(node, nodes):
            _add_with_parents(parent, nodes, fit_nodes, seen)
        fit_nodes[node.path] = node


def _parent_fits(node: Node, nodes: Mapping[str, Node]) -> Iterator[Node]:
    """Yield the fits that a node reads directly, not those behind its rollouts."""
    for child in node.inputs:
        if child.manifest is not None and child.manifest.command[:1] == ["fit"]:
            yield nodes.get(child.path, child)


def _fit(node: Node, runs: tuple[str, ...]) -> Fit:
    assert node.manifest is not None
    manifest = node.manifest
    inputs = dict(zip(manifest.inputs, node.inputs, strict=False))
    rollouts = [inputs[name] for name in _data_paths(manifest, "rollouts") if name in inputs]
    changed = {rollout.path: rollout.state for rollout in rollouts if rollout.state != "unchanged"}
    present = tuple(rollout.path for rollout in rollouts if rollout.state != "missing")
    return Fit(node.path, runs, manifest, tuple(_event_folders_of(node)), present, changed)


def _data_paths(manifest: Manifest, key: str) -> list[str]:
    value = init_args(manifest, "data").get(key)
    return [path for path in value if isinstance(path, str)] if isinstance(value, list) else []


def _event_folders_of(node: Node) -> list[Path]:
    """Return the folders of a fit's event files.

    This is the logger's last version that started before the model was written, preceded by the versions that it
    was resumed from.
    """
    assert node.manifest is not None
    manifest, path = node.manifest, full(Path(node.path))
    logger = _dict(_dict((manifest.config or {}).get("trainer")).get("logger"))
    arguments = _dict(logger.get("init_args"))
    name = arguments.get("name", "lightning_logs")
    if not arguments.get("save_dir"):
        return []
    name = f"fit/{path.name}" if name == "lightning_logs" else str(name or "")
    bases = [base for base in (Path.cwd(), ran_in(path, manifest)) if base]
    candidates = (event_folders(base / str(arguments["save_dir"]) / name) for base in bases)
    versions = next((folders for folders in candidates if folders), [])
    end_time = _timestamp(manifest.created)
    earlier = [version for version in versions if _start_time(version) <= end_time]
    parts = earlier[-1:]
    while parts and len(parts) < len(earlier) and _was_resumed(parts[0]):
        parts.insert(0, earlier[-1 - len(parts)])
    return parts


def _was_resumed(folder: Path) -> bool:
    try:
        config = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return False
    return bool(_dict(config).get("ckpt_path"))


def _start_time(folder: Path) -> float:
    """Return the start time of a folder's first event file in seconds since 1970, as given by the file name."""
    times = [float(match[1]) for file in folder.glob(f"{_EVENTS}*") if (match := _START_TIME.match(file.name))]
    return min(times, default=0.0)


def _timestamp(created: str) -> float:
    try:
        return datetime.fromisoformat(created).timestamp()
    except ValueError:
        return float("inf")


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
