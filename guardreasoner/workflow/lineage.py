"""What an artefact came from, down to the source files, and whether it is all still there as it was read."""

import difflib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from guardreasoner.errors import InputError
from guardreasoner.moved import current_path
from guardreasoner.workflow.manifest import MANIFEST, Manifest, code_hash, content_hash, manifest_path
from guardreasoner.workflow.staleness import full

Kind = Literal["artefact", "file", "folder", "code", "hub"]
NodeState = Literal["unchanged", "changed since", "changed by hand", "missing", "not looked at"]

PROBLEMS: tuple[NodeState, ...] = ("changed since", "changed by hand", "missing")


@dataclass(frozen=True)
class Node:
    """One thing that something was made from.

    Args:
        path: where it was found, or the class path or hub name.
        kind: an artefact has a manifest, a file or folder none; ``code`` is a class that generates or fetches records.
            None: it is missing, and may have been either.
        state: "changed since" what was made from it read it; "changed by hand" since its own manifest was written.
        recorded: hash of its content (or code) when it was read; None where nothing says so.
        found: the hash now; None where it is not there.
        manifest: what made it, for an artefact.
        arguments: those of a class.
        shown_above: it is a reference to a node that came earlier, with all that it was made from.
        inputs: what it was made from; for a file inside an artefact, that artefact.
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

    def walk(self) -> Iterator["Node"]:
        """Yield the node and all below it."""
        yield self
        for node in self.inputs:
            yield from node.walk()

    def seeds(self) -> dict[str, Any]:
        """Return the seeds in the config of an artefact, by dotted key."""
        config = self.manifest.config if self.manifest else None
        return dict(_seeds(config or {}))


def lineage(paths: Sequence[str | Path]) -> list[Node]:
    """Return the tree of each path; what occurs twice, in one tree or in two, has its inputs the first time alone.

    Relative paths in a manifest are those of the folder in which its command ran: they are looked for below the current
    one, then below the one from which the command's own ``output`` leads to the artefact.

    Args:
        paths: artefacts, or files inside them.

    Raises:
        InputError: nothing lies there, nothing says what made it, or a file cannot be read.
    """
    seen: set[Path] = set()
    return [_node(_artefact_at(Path(path)), None, [Path.cwd()], seen) for path in paths]


def problems(trees: Iterable[Node]) -> dict[str, NodeState]:
    """Return what has changed or is missing, by path."""
    return {node.path: node.state for tree in trees for node in tree.walk() if node.state in PROBLEMS}


def ran_in(artefact: Path, manifest: Manifest) -> Path | None:
    """Return the folder from which the ``output`` of a command's config leads to what it made."""
    output = (manifest.config or {}).get("output")
    if not isinstance(output, str) or os.path.isabs(output):
        return None
    parts = Path(os.path.normpath(output)).parts
    return artefact.parents[len(parts) - 1] if artefact.parts[-len(parts) :] == parts else None


def _artefact_at(path: Path) -> Path:
    if not os.path.lexists(path):
        beside = sorted(os.listdir(path.parent)) if path.parent.is_dir() else []
        near = difflib.get_close_matches(path.name, beside, n=1, cutoff=0.5)
        raise InputError(
            f"{path}: no such file or folder", f"did you mean {path.with_name(near[0])}?" if near else None
        )
    artefact = _owner(full(path))
    if artefact is not None:
        return artefact
    if manifest_path(path).is_file():
        raise InputError(f"{manifest_path(path)}: not a manifest of this program, or damaged")
    raise InputError(
        f"{path}: nothing says what made it",
        "models, rollouts, predictions and pairs that this program makes have a manifest; source files have none",
    )


def _owner(path: Path) -> Path | None:
    """Return the artefact that an absolute path is, or the nearest one that it lies in."""
    described = path.name.removesuffix(f".{MANIFEST}")
    places = (path.with_name(described) if described else path, *path.parents)
    return next((place for place in places if Manifest.read(place) is not None), None)


def _node(path: Path, recorded: str | None, bases: Sequence[Path], seen: set[Path]) -> Node:
    """Return the tree of what lies at an absolute path.

    Args:
        path: it exists.
        recorded: its hash when it was read; None where nothing says so.
        bases: folders in which the commands may have run that made what it came from.
        seen: artefacts whose inputs are shown; it grows.
    """
    found = content_hash(path)
    as_read = recorded in (found, None)
    manifest = Manifest.read(path)
    if manifest is None:
        owner = _owner(path)
        around = () if owner is None else (_node(owner, None, bases, seen),)
        kind: Kind = "folder" if path.is_dir() else "file"
        return Node(_shown(path), kind, "unchanged" if as_read else "changed since", recorded, found, inputs=around)
    state: NodeState = "changed by hand" if manifest.content != found else "unchanged" if as_read else "changed since"
    real = path.resolve()
    if real in seen:
        return Node(_shown(path), "artefact", state, recorded, found, manifest, shown_above=True)
    seen.add(real)  # before its inputs, so that what was made from itself ends
    started = ran_in(path, manifest)
    known = list(dict.fromkeys([*bases[:1], *([started] if started else []), *bases[1:]]))
    inputs = (
        *(_input(name, hashed, known, seen) for name, hashed in manifest.inputs.items()),
        *(_origin(origin) for origin in manifest.origins),
    )
    return Node(_shown(path), "artefact", state, recorded, found, manifest, inputs=inputs)


def _input(name: str, recorded: str, bases: Sequence[Path], seen: set[Path]) -> Node:
    places = [place for place in dict.fromkeys(full(base / name) for base in bases) if place.exists()]
    if not places:
        return Node(name, None, "missing", recorded)
    # Of several that it may be, the one that was read is known by its content.
    place = next((place for place in places if content_hash(place) == recorded), places[0])
    return _node(place, recorded, bases, seen)


def _origin(origin: Mapping[str, Any]) -> Node:
    if "class_path" not in origin:
        return Node(str(origin.get("hub", origin)), "hub", "not looked at")
    name, recorded, arguments = current_path(str(origin["class_path"])), origin.get("code"), origin.get("init_args")
    found = code_hash(name)
    state: NodeState = "unchanged" if found == recorded else "changed since" if found else "missing"
    return Node(
        name,
        "code",
        state if recorded else "not looked at",
        str(recorded) if recorded else None,
        found or None,
        arguments=arguments if isinstance(arguments, dict) else {},
    )


def _shown(path: Path) -> str:
    """Return a path from the current folder where it lies in there, else from the root."""
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)


def _seeds(config: Mapping[str, Any], owner: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in config.items():
        name = owner if key == "init_args" else f"{owner}.{key}" if owner else str(key)
        if isinstance(value, dict):
            yield from _seeds(value, name)
        elif key in ("seed", "seed_everything"):
            yield name, value
