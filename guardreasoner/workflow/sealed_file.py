"""A file with its SHA-256 beside it, so that one damaged byte is noticed when it is read."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from guardreasoner.errors import InputError
from guardreasoner.records.atomic_file import replacing_file, sync_folder
from guardreasoner.workflow.manifest import content_hash, fingerprint

_HASHES, _DETAILS, _SEAL = "sha256", "details", "details_sha256"


def seal(written: Path, path: Path, details: Mapping[str, Any] | None = None) -> None:
    """Move a written file to ``path``, with its SHA-256 in ``path.json`` beside it.

    The SHA-256 is written first: a file under its final name always has one. While a file replaces an older one, that
    of the older one is kept too, so that each is valid at any moment.

    Args:
        written: complete file in the same folder.
        path: final name.
        details: what else to store in ``path.json``, JSON-serializable.
    """
    hashes = [content_hash(written)]
    if path.is_file():
        hashes.append(content_hash(path))
    row = {_HASHES: hashes, _DETAILS: details or {}, _SEAL: fingerprint(details or {})}
    with replacing_file(beside(path)) as partial:
        partial.write_text(json.dumps(row) + "\n", encoding="utf-8")
    written.replace(path)
    sync_folder(path.parent)


def beside(path: Path) -> Path:
    """Return the path of the file with the SHA-256 of ``path``."""
    return path.with_name(f"{path.name}.json")


def details_of(path: Path) -> dict[str, Any]:
    """Return the details that :func:`seal` stored beside a file, an empty dict if they are missing or damaged.

    Raises:
        InputError: they cannot be read.
    """
    details = (read_row(beside(path)) or {}).get(_DETAILS)
    return details if isinstance(details, dict) else {}


def is_damaged(path: Path) -> bool:
    """Return whether a file or what is stored beside it has changed; False if nothing was stored beside it.

    Raises:
        InputError: the file, or what is stored beside it, cannot be read.
    """
    row = read_row(beside(path))
    if row is None:
        return False
    hashes = row.get(_HASHES)
    is_listed = isinstance(hashes, list) and content_hash(path) in hashes
    return not is_listed or row.get(_SEAL) != fingerprint(details_of(path))


def read_row(path: Path) -> dict[str, Any] | None:
    """Return the row in a JSON file, None if there is no such file, an empty dict if it holds no row.

    Raises:
        InputError: the file cannot be read, which does not mean that it is damaged.
    """
    try:
        row = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    except ValueError:
        return {}
    return row if isinstance(row, dict) else {}
