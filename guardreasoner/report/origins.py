"""What runs came from, as a report shows it: the trees, the fits on the way, their curves and their rollouts."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from guardreasoner.errors import InputError
from guardreasoner.workflow.lineage import Node, lineage, ran_in
from guardreasoner.workflow.manifest import Manifest
from guardreasoner.workflow.staleness import full

_EVENTS = "events.out.tfevents."
_STARTED = re.compile(re.escape(_EVENTS) + r"(\d+)\.")


@dataclass(frozen=True)
class Fit:
    """A model that was trained, on the way to the runs.

    Args:
        path: of the model.
        runs: names of the runs that are this model's own predictions; empty for one that others were trained from.
        made: its manifest.
        curves: folders of event files, oldest first: several where a fit was stopped and went on.
        rollouts: folders that its pairs were mined from; empty for a fit that mines none.
        changed: those of them that are not as the fit read them, with their state.
    """

    path: str
    runs: tuple[str, ...]
    made: Manifest
    curves: tuple[Path, ...]
    rollouts: tuple[str, ...]
    changed: Mapping[str, str]


@dataclass(frozen=True)
class Origins:
    """What runs came from.

    Args:
        trees: of all predictions that say what made them.
        unknown: a line for each that does not.
        fits: the models, oldest first.
    """

    trees: tuple[Node, ...]
    unknown: tuple[str, ...]
    fits: tuple[Fit, ...]


def origins(runs: Mapping[str, Sequence[str]]) -> Origins:
    """Follow the manifests of runs.

    Args:
        runs: by name, where the predictions lie.
    """
    known: dict[str, str] = {}
    unknown = []
    for name, paths in runs.items():
        for path in paths:
            try:
                lineage([path])
                known[path] = name
            except InputError as error:
                unknown.append(str(error))
    trees = lineage(list(known))
    nodes = {node.path: node for tree in trees for node in tree.walk() if not node.shown_above}
    owners: dict[str, list[str]] = {}
    for name, tree in zip(known.values(), trees, strict=True):
        for node in _fits_below(nodes.get(tree.path, tree), nodes):
            owners.setdefault(node.path, []).append(name)
    found: dict[str, Node] = {}
    for path in owners:
        _add(nodes[path], nodes, found, set())
    fits = [_fit(node, tuple(dict.fromkeys(owners.get(path, ())))) for path, node in found.items()]
    return Origins(tuple(trees), tuple(unknown), tuple(sorted(fits, key=lambda fit: fit.made.created)))


def event_folders(folder: Path) -> list[Path]:
    """Return the folders at or below one that hold event files of TensorBoard, oldest first."""
    return sorted({file.parent for file in folder.rglob(f"{_EVENTS}*")}, key=lambda one: (_start(one), str(one)))


def _add(node: Node, nodes: Mapping[str, Node], found: dict[str, Node], seen: set[str]) -> None:
    """Add a model after those that it was trained from; one that was trained over itself ends the way down."""
    if node.path not in found and node.path not in seen:
        seen.add(node.path)
        for inner in _fits_below(node, nodes):
            _add(inner, nodes, found, seen)
        found[node.path] = node


def _fits_below(node: Node, nodes: Mapping[str, Node]) -> Iterator[Node]:
    """Yield the models that something was made with; not those that wrote what it was mined from."""
    for inner in node.inputs:
        if inner.manifest is not None and inner.manifest.command[:1] == ["fit"]:
            yield nodes.get(inner.path, inner)


def _fit(node: Node, runs: tuple[str, ...]) -> Fit:
    assert node.manifest is not None
    made = node.manifest
    inputs = dict(zip(made.inputs, node.inputs, strict=False))
    rollouts = [inputs[name] for name in _named(made, "rollouts") if name in inputs]
    changed = {one.path: one.state for one in rollouts if one.state != "unchanged"}
    there = tuple(one.path for one in rollouts if one.state != "missing")
    return Fit(node.path, runs, made, tuple(_curves(node)), there, changed)


def _named(made: Manifest, key: str) -> list[str]:
    value = init_args(made, "data").get(key)
    return [one for one in value if isinstance(one, str)] if isinstance(value, list) else []


def init_args(made: Manifest, part: str) -> dict[str, Any]:
    """Return the arguments of a part of the config ("data", "model") by which something was made."""
    return _dict(_dict((made.config or {}).get(part)).get("init_args"))


def _curves(node: Node) -> list[Path]:
    """Return where the curves of a fit lie: of its logger's versions, the last that began before it ended.

    One that went on from a checkpoint is preceded by the one before it.
    """
    assert node.manifest is not None
    made, path = node.manifest, full(Path(node.path))
    logger = _dict(_dict((made.config or {}).get("trainer")).get("logger"))
    arguments = _dict(logger.get("init_args"))
    name = arguments.get("name", "lightning_logs")
    if not arguments.get("save_dir"):
        return []
    name = f"fit/{path.name}" if name == "lightning_logs" else str(name or "")
    started = ran_in(path, made)
    places = [base / str(arguments["save_dir"]) / name for base in (Path.cwd(), started) if base]
    versions = next((found for place in places if (found := event_folders(place))), [])
    ended = _seconds(made.created)
    before = [one for one in versions if _start(one) <= ended]
    parts = before[-1:]
    while parts and len(parts) < len(before) and _went_on(parts[0]):
        parts.insert(0, before[-1 - len(parts)])
    return parts


def _went_on(folder: Path) -> bool:
    try:
        config = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return False
    return bool(_dict(config).get("ckpt_path"))


def _start(folder: Path) -> float:
    """Return when the first event file of a folder was begun, in seconds since 1970, as its name says."""
    times = [float(found[1]) for file in folder.glob(f"{_EVENTS}*") if (found := _STARTED.match(file.name))]
    return min(times, default=0.0)


def _seconds(created: str) -> float:
    from datetime import datetime

    try:
        return datetime.fromisoformat(created).timestamp()
    except ValueError:
        return float("inf")


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
