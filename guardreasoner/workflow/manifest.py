"""Fingerprints, and the manifest that records how an artefact was made."""

import hashlib
import json
import os
import platform
import subprocess
import sysconfig
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from importlib import metadata, util
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

from guardreasoner.errors import InputError
from guardreasoner.moved import current_argv, ignore
from guardreasoner.records.atomic_file import is_partial, replacing_file
from guardreasoner.workflow.guard_file import GUARD_FILE, without_calibrations
from guardreasoner.workflow.redaction import command_without_secrets, without_secrets

MANIFEST = "manifest.json"
_PACKAGES = ("guardreasoner", "torch", "transformers", "lightning", "tokenizers", "peft", "bitsandbytes", "datasets")


def fingerprint(value: Any) -> str:
    """Return the SHA-256 (hex) of a value's canonical JSON: sorted keys, no spaces, other types as text."""
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=str)
    return hashlib.sha256(canonical.encode()).hexdigest()


def content_hash(path: str | Path) -> str:
    """Return the SHA-256 (hex) of a file's content, or of the names and contents of all files below a folder.

    Manifests are left out: they contain a date, and an artefact that is rebuilt identically must have the same hash.
    So are temporary files, which belong to no artefact.

    Raises:
        InputError: ``path`` does not exist, or a file cannot be read.
    """
    path = Path(path)
    if not path.is_dir():
        return file_hash(path)
    digest = hashlib.sha256()
    for name, hashed in file_hashes(path).items():
        digest.update(f"{name}\0{hashed}\n".encode())
    return digest.hexdigest()


def file_hashes(folder: str | Path) -> dict[str, str]:
    """Return the hash of each file below a folder (:func:`described_hash`) by relative path.

    Manifests are left out, and temporary files, such as a killed ``calibrate`` leaves in a model folder.

    Raises:
        InputError: a file cannot be read.
    """
    folder = Path(folder)
    files = {Path(parent, name) for parent, _, names in os.walk(folder) for name in names}
    named = sorted((file.relative_to(folder).as_posix(), file) for file in files if not is_partial(file))
    named = [(name, file) for name, file in named if file.name != MANIFEST and not name.endswith(f".{MANIFEST}")]
    with ThreadPoolExecutor() as threads:  # a model has several files of some GB; hashing releases the GIL
        hashes = threads.map(described_hash, [file for _, file in named])
        return dict(zip([name for name, _ in named], hashes, strict=True))


def described_hash(path: Path) -> str:
    """Return the SHA-256 (hex) of a file of an artefact; calibrations in ``guard.json``, added later, are left out.

    Raises:
        InputError: the file cannot be read.
    """
    hashed = file_hash(path)
    return hashed if path.name != GUARD_FILE else hashlib.sha256(without_calibrations(path.read_bytes())).hexdigest()


def file_hash(path: Path) -> str:
    """Return the SHA-256 (hex) of a file's content.

    Within a process, a file of equal size, time and inode is read once.

    Raises:
        InputError: the file cannot be read.
    """
    try:
        return _file_hash(path)
    except OSError as error:
        raise InputError(f"{error.filename or path}: cannot be read: {error.strerror}") from None


@lru_cache(maxsize=1)
def code_fingerprint() -> str:
    """Return the hash of this package's code, which keys caches, so that a new version does not use old entries."""
    files = sorted(Path(__file__).parents[1].rglob("*.py"))
    return fingerprint([_file_hash(file) for file in files])


def code_hash(class_path: str) -> str:
    """Return the hash of the module or package that defines a class, without importing it; "" if it is not found.

    Args:
        class_path: import path, such as ``package.module.Class``.
    """
    spec = None
    for name in class_path.split(".")[:-1]:
        try:
            spec = (
                util.find_spec(name)
                if spec is None
                else PathFinder.find_spec(f"{spec.name}.{name}", spec.submodule_search_locations or [])
            )
        except (ImportError, ValueError):
            return ""
        if spec is None:
            return ""
    if spec is None or spec.origin is None:  # a folder without __init__.py defines nothing
        return ""
    folders = [Path(folder) for folder in spec.submodule_search_locations or ()]
    found = [(folder, file) for folder in folders for file in sorted(folder.rglob("*.py")) if file.is_file()]
    files = [(file.relative_to(folder).as_posix(), file) for folder, file in found]
    if not folders and spec.origin and Path(spec.origin).is_file():
        files = [("", Path(spec.origin))]
    return fingerprint([(name, _file_hash(file)) for name, file in files]) if files else ""


def is_users_code(path: str) -> bool:
    """Return whether an import path begins with a module or package that is neither this one nor an installed one."""
    top = path.partition(".")[0]
    try:
        spec = None if top == "guardreasoner" else util.find_spec(top)
    except (ImportError, ValueError):
        return False
    if spec is None:
        return False
    place = Path(spec.origin or next(iter(spec.submodule_search_locations or ()), ""))
    is_installed = not {"site-packages", "dist-packages"}.isdisjoint(place.parts)
    return place.is_absolute() and not is_installed and not place.is_relative_to(sysconfig.get_path("stdlib"))


def code_of(*objects: object) -> dict[str, str]:
    """Return the hash of the code behind objects whose classes are not those of this package, by import path.

    A class counts with the user's classes that it extends (:func:`is_users_code`).
    """
    own = {type(one) for one in objects if type(one).__module__.partition(".")[0] != "guardreasoner"}
    own |= {base for one in objects for base in type(one).__mro__ if is_users_code(base.__module__)}
    return {f"{cls.__module__}.{cls.__qualname__}": code_hash(f"{cls.__module__}.{cls.__name__}") for cls in own}


@dataclass(frozen=True)
class Manifest:
    """The record of how an artefact was made.

    Args:
        command: arguments after ``python -m guardreasoner``, without secrets.
        fingerprint: hash of the merged config, of the contents of the inputs, and of the user's code.
        inputs: content hash of each file or folder that was read, by path.
        content: content hash of the artefact.
        versions: versions of Python and of the installed packages that affect results.
        commit: git commit of the code; None if the code is not in a repository of its own.
        dirty: whether the code differed from that commit.
        allow_contamination: whether this artefact, or one of its inputs, was made with ``allow_contamination``.
        created: date and time in UTC, ISO 8601.
        config: merged and interpolated config of the command, without secrets; None in old manifests.
        origins: inputs that are not files: ``{"class_path", "init_args", "code"}`` for a class that generates or
            downloads records, with the hash of its code; ``{"hub"}`` for a model on a hub, ``{"package"}``
            for one in a package.
        files: content hash of each file of a folder, by relative path, so that a damaged file can be named; empty for
            a file, and in old manifests.
        code: hash of the module of each of the user's classes and functions that the config names, by import path;
            empty in old manifests.
    """

    command: list[str]
    fingerprint: str
    inputs: dict[str, str]
    content: str
    versions: dict[str, str] = field(default_factory=dict)
    commit: str | None = None
    dirty: bool = False
    allow_contamination: bool = False
    created: str = ""
    config: dict[str, Any] | None = None
    origins: list[dict[str, Any]] = field(default_factory=list)
    files: dict[str, str] = field(default_factory=dict)
    code: dict[str, str] = field(default_factory=dict)

    @classmethod
    def describe(
        cls,
        path: str | Path,
        command: Sequence[str],
        fingerprint: str,
        inputs: Mapping[str, str],
        allow_contamination: bool = False,
        config: Mapping[str, Any] | None = None,
        origins: Sequence[Mapping[str, Any]] = (),
        code: Mapping[str, str] | None = None,
    ) -> "Manifest":
        """Return a manifest of the artefact at ``path``, with the current versions, commit and date.

        Raises:
            InputError: ``path`` does not exist.
        """
        commit, dirty = _commit()
        return cls(
            command=command_without_secrets(_without_overwrite(command)),
            fingerprint=fingerprint,
            inputs=dict(inputs),
            content=content_hash(path),
            versions=_versions(),
            commit=commit,
            dirty=dirty,
            allow_contamination=allow_contamination or any(map(contaminated, inputs)),
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            config=None if config is None else without_secrets(dict(config)),
            origins=[without_secrets(dict(origin)) for origin in origins],
            files=file_hashes(path) if Path(path).is_dir() else {},
            code=dict(code or {}),
        )

    @classmethod
    def read(cls, artefact: str | Path) -> "Manifest | None":
        """Return the manifest of an artefact; None if it is missing or invalid."""
        try:
            row = json.loads(manifest_path(artefact).read_text(encoding="utf-8"))
            manifest = cls(**row)
        except (OSError, ValueError, TypeError):
            return None
        return manifest if manifest._is_valid() else None

    def write(self, artefact: str | Path) -> None:
        """Write the manifest beside a file or into a folder."""
        with replacing_file(manifest_path(artefact)) as partial:
            text = json.dumps(asdict(self), indent=2, ensure_ascii=False, default=str)
            partial.write_text(text + "\n", encoding="utf-8")

    def made_by(self, command: Sequence[str]) -> bool:
        """Return whether this command made the artefact; old and current names count as equal."""
        made, command = (current_argv(_without_overwrite(argv), ignore) for argv in (self.command, command))
        return made in (command, command_without_secrets(command))

    def _is_valid(self) -> bool:
        """Return whether the fields have the expected types; another tool may write a file of the same name."""
        types = {
            "command": list,
            "inputs": dict,
            "versions": dict,
            "origins": list,
            "config": dict | None,
            "files": dict,
            "code": dict,
        }
        if not all(isinstance(getattr(self, name), kind) for name, kind in types.items()):
            return False
        hashes = (*self.inputs, *self.inputs.values(), *self.files.values(), *self.code.values())
        texts = (*self.command, *hashes, self.content, self.created, self.commit or "")
        return all(isinstance(text, str) for text in texts) and all(isinstance(origin, dict) for origin in self.origins)


def record_made(
    path: str | Path, command: Sequence[str], config: Mapping[str, Any], inputs: Iterable[str | Path]
) -> None:
    """Write the manifest of an artefact made by a verb without config files.

    Args:
        path: file or folder that was made.
        command: arguments after ``python -m guardreasoner``.
        config: the options of the command.
        inputs: files and folders that were read.

    Raises:
        InputError: one of them cannot be read.
    """
    hashes = {str(source): content_hash(source) for source in inputs}
    fingerprinted = fingerprint({"verb": command[0], "config": config, "inputs": hashes})
    Manifest.describe(path, command, fingerprinted, hashes, config=config).write(path)


def contaminated(path: str | Path) -> bool:
    """Return whether the manifest of an artefact, or of the folder around it, has ``allow_contamination`` set."""
    path = Path(path)
    manifests = (Manifest.read(artefact) for artefact in (path, path.parent))
    return any(manifest.allow_contamination for manifest in manifests if manifest)


def manifest_path(artefact: str | Path) -> Path:
    """Return the path of an artefact's manifest: ``folder/manifest.json`` or ``file.manifest.json``."""
    artefact = Path(artefact)
    return artefact / MANIFEST if artefact.is_dir() else artefact.with_name(f"{artefact.name}.{MANIFEST}")


def _file_hash(path: Path) -> str:
    state = path.stat()
    return _cached_file_hash(str(path.absolute()), state.st_size, state.st_mtime_ns, state.st_ino)


@lru_cache(maxsize=100_000)
def _cached_file_hash(path: str, size: int, mtime_ns: int, inode: int) -> str:
    # Several stages read one checkpoint; equal size, time and inode within a process mean an unchanged file.
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _without_overwrite(command: Sequence[str]) -> list[str]:
    """Return a command without ``--overwrite``, which has no effect on the artefact."""
    kept: list[str] = []
    former = ""
    for word in command:
        is_value = former == "--overwrite" and word.lower() in ("true", "false", "yes", "no")
        if word.partition("=")[0] != "--overwrite" and not is_value:
            kept.append(word)
        former = word
    return kept


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return versions


def _commit() -> tuple[str | None, bool]:
    root = Path(__file__).resolve().parents[2]
    # An installed package may be inside another repository, whose commit says nothing about this code.
    if not (root / ".git").exists():
        return None, False
    try:
        return _git(root, "rev-parse", "HEAD"), bool(_git(root, "status", "--porcelain", "--untracked-files=no"))
    except (OSError, subprocess.CalledProcessError):
        return None, False


def _git(root: Path, *arguments: str) -> str:
    # Without the optional lock, which a killed `git status` would leave behind and which blocks every later commit.
    command = ["git", "--no-optional-locks", "-C", str(root), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return done.stdout.strip()
