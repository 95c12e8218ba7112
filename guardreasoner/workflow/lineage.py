"""Trace an artefact back to its source files, and check whether each of them is unchanged."""

import difflib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from guardreasoner.errors import InputError
from guardreasoner.moved import current_path
from guardreasoner.workflow.guard_file import GUARD_FILE, read_calibrations
from guardreasoner.workflow.manifest import MANIFEST, Manifest, code_hash, content_hash, manifest_path
from guardreasoner.workflow.staleness import full

Kind = Literal["artefact", "file", "folder", "code", "hub", "package"]
NodeState = Literal["unchanged", "changed since", "changed by hand", "missing", "not looked at"]

PROBLEMS: tuple[NodeState, ...] = ("changed since", "changed by hand", "missing")


@dataclass(frozen=True)
class Node:
    """One input of an artefact, or the artefact itself.

    Args:
        path: path, class path, hub name or package.
        kind: ``artefact`` has a manifest, ``file`` and ``folder`` have none; ``code`` is a class that generates or
            downloads records, or a class or function of the user. None: it is missing, so its kind is unknown.
        state: comparison with the recorded hashes: "changed since" it was read as an input, "changed by hand" since
            its own manifest was written, or "not looked at" since no hash was recorded.
        recorded: hash of its content (or code) when it was read; None if not recorded.
        found: its current hash; None if it is missing.
        manifest: manifest of an artefact.
        arguments: ``init_args`` of a class.
        shown_above: whether the same artefact, with its inputs, occurs earlier in the output.
        inputs: the inputs it was made from, then the predictions that it was calibrated on; for a file inside an
            artefact, that artefact.
        calibrations: stored calibrations of a model by task, one for each kind of score.
    """

    path: str
    kind: Kind | None
    state: NodeState
    recorded: str | None = None
    found: str | None = None
    manifest: Manifest | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)
    shown_above: bool = False
    inputs: tuple["Node", ...] = ()
    calibrations: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)

    def walk(self) -> Iterator["Node"]:
        """Yield this node and all nodes below it."""
        yield self
        for node in self.inputs:
            yield from node.walk()

    def seeds(self) -> dict[str, Any]:
        """Return the seeds in the config of an artefact, by dotted key."""
        config = self.manifest.config if self.manifest else None
        return dict(_seeds(config or {}))


def lineage(paths: Sequence[str | Path]) -> list[Node]:
    """Return the tree of each path; an artefact that occurs again has no inputs there.

    Relative paths in a manifest refer to the folder in which its command ran. They are resolved in the current folder,
    then in the folder from which the command's ``output`` leads to the artefact.

    Args:
        paths: artefacts, or files inside them.

    Raises:
        InputError: a path does not exist or has no manifest, or a file cannot be read.
    """
    seen: set[Path] = set()
    return [_node(_artefact_at(Path(path)), None, [Path.cwd()], seen) for path in paths]


def problems(trees: Iterable[Node]) -> dict[str, NodeState]:
    """Return the state of each node that has changed or is missing, by path."""
    return {node.path: node.state for tree in trees for node in tree.walk() if node.state in PROBLEMS}


def ran_in(artefact: Path, manifest: Manifest) -> Path | None:
    """Return the folder in which a command ran: the one from which its ``output`` leads to the artefact."""
    output = (manifest.config or {}).get("output")
    if not isinstance(output, str) or os.path.isabs(output):
        return None
    parts = Path(os.path.normpath(output)).parts
    return artefact.parents[len(parts) - 1] if artefact.parts[-len(parts) :] == parts else None


def _artefact_at(path: Path) -> Path:
    if not os.path.lexists(path):
        siblings = sorted(os.listdir(path.parent)) if path.parent.is_dir() else []
        near = difflib.get_close_matches(path.name, siblings, n=1, cutoff=0.5)
        raise InputError(
            f"{path}: no such file or folder", f"did you mean {path.with_name(near[0])}?" if near else None
        )
    artefact = _owner(full(path))
    if artefact is not None:
        return artefact
    if manifest_path(path).is_file():
        raise InputError(f"{manifest_path(path)}: not a manifest of guardreasoner, or damaged")
    raise InputError(
        f"{path}: no manifest found",
        "models, rollouts, predictions and pairs made by guardreasoner have a manifest; source files have none",
    )


def _owner(path: Path) -> Path | None:
    """Return the artefact at an absolute path, or the innermost one that contains the path."""
    described = path.name.removesuffix(f".{MANIFEST}")
    candidates = (path.with_name(described) if described else path, *path.parents)
    return next((candidate for candidate in candidates if Manifest.read(candidate) is not None), None)


def _node(path: Path, recorded: str | None, bases: Sequence[Path], seen: set[Path]) -> Node:
    """Return the tree of a file or folder.

    Args:
        path: absolute path of an existing file or folder.
        recorded: its hash when it was read; None if not recorded.
        bases: folders in which to resolve the relative paths of its inputs.
        seen: artefacts whose inputs are already in the output; this one is added.
    """
    current = content_hash(path)
    as_read = recorded in (current, None)
    manifest = Manifest.read(path)
    if manifest is None:
        owner = _owner(path)
        owners = () if owner is None else (_node(owner, None, bases, seen),)
        kind: Kind = "folder" if path.is_dir() else "file"
        return Node(_shown(path), kind, "unchanged" if as_read else "changed since", recorded, current, inputs=owners)
    state: NodeState = "changed by hand" if manifest.content != current else "unchanged" if as_read else "changed since"
    real = path.resolve()
    if real in seen:
        return Node(_shown(path), "artefact", state, recorded, current, manifest, shown_above=True)
    seen.add(real)  # before its inputs, so that a cycle ends
    folder = ran_in(path, manifest)
    bases = list(dict.fromkeys([*bases[:1], *([folder] if folder else []), *bases[1:]]))
    calibrations = _calibrations(path)
    inputs = (
        *(_input(name, hashed, bases, seen) for name, hashed in manifest.inputs.items()),
        *(_origin(origin) for origin in [*manifest.origins, *_other_code(manifest)]),
        *(
            _input(str(row.get("run")), str(row.get("data")), bases, seen)
            for rows in calibrations.values()
            for row in rows
        ),
    )
    return Node(_shown(path), "artefact", state, recorded, current, manifest, inputs=inputs, calibrations=calibrations)


def _calibrations(path: Path) -> dict[str, list[dict[str, Any]]]:
    with suppress(InputError):  # a damaged file is shown as changed
        return read_calibrations(path / GUARD_FILE)
    return {}


def _input(name: str, recorded: str, bases: Sequence[Path], seen: set[Path]) -> Node:
    paths = [path for path in dict.fromkeys(full(base / name) for base in bases) if path.exists()]
    if not paths:
        return Node(name, None, "missing", recorded)
    # If several exist, take the one with the recorded content.
    path = next((path for path in paths if content_hash(path) == recorded), paths[0])
    return _node(path, recorded, bases, seen)


def _origin(origin: Mapping[str, Any]) -> Node:
    if "class_path" not in origin:
        if "package" in origin:
            return Node(str(origin["package"]), "package", "not looked at")
        return Node(str(origin.get("hub", origin)), "hub", "not looked at")
    name, recorded, arguments = current_path(str(origin["class_path"])), origin.get("code"), origin.get("init_args")
    current = code_hash(name)
    state: NodeState = "unchanged" if current == recorded else "changed since" if current else "missing"
    return Node(
        name,
        "code",
        state if recorded else "not looked at",
        str(recorded) if recorded else None,
        current or None,
        arguments=arguments if isinstance(arguments, dict) else {},
    )


def _other_code(manifest: Manifest) -> Iterator[dict[str, str]]:
    """Yield the user's classes and functions that are not among the origins, in the same form."""
    named = {current_path(str(origin.get("class_path"))) for origin in manifest.origins}
    for name, recorded in manifest.code.items():
        if current_path(name) not in named:
            yield {"class_path": name, "code": recorded}


def _shown(path: Path) -> str:
    """Return a path relative to the current folder if it is inside it, else the absolute path."""
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)


def _seeds(config: Mapping[str, Any], owner: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in config.items():
        name = owner if key == "init_args" else f"{owner}.{key}" if owner else str(key)
        if isinstance(value, dict):
            yield from _seeds(value, name)
        elif key in ("seed", "seed_everything"):
            yield name, value
