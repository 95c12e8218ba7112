"""Names from data (sources, benchmarks) as names of folders: inside their folder, and different for different names."""

import re
import unicodedata
from collections.abc import Collection, Iterable
from hashlib import sha256

from guardreasoner.workflow.visible_text import visible_line

_MAX_BYTES = 200
"""A file system permits 255; what is added to a name (a hash, ".partial") must fit too."""

_RESERVED = re.compile(r"(?:con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³])(?:\..*)?", re.I | re.S)
"""Names of devices on Windows."""


def folder_names(names: Iterable[str], empty: str, taken: Collection[str] = ()) -> dict[str, str]:
    """Return a folder name for each name; a name that is safe is its own.

    A name that would equal another one gets a hash. Names that differ in case
    alone count as equal, since they do on some file systems.

    Args:
        names: the names; a name may occur several times.
        empty: folder name of an empty name.
        taken: names of files beside the folders.
    """
    chosen: dict[str, str] = {}
    used = {_key(name) for name in taken}
    # Those that need no change come first and keep their names, whatever the order of the data.
    for name in sorted(set(names), key=lambda name: (_safe(name, empty) != name, name)):
        safe = _safe(name, empty)
        while _key(safe) in used:
            safe = f"{safe}-{_hash(safe + name)}"
        used.add(_key(safe))
        chosen[name] = safe
    return chosen


def _safe(name: str, empty: str) -> str:
    """Return a name without separators, leading dots, and characters that are not visible."""
    safe = visible_line(re.sub(r"[/\\]", "-", name)).replace("⟨", "(").replace("⟩", ")") if name else empty
    safe = re.sub(r"^\.+|[. ]+$", lambda match: "_" * len(match[0]), safe)
    if _RESERVED.fullmatch(safe):
        safe = f"_{safe}"
    if len(safe.encode()) > _MAX_BYTES:
        safe = f"{safe.encode()[: _MAX_BYTES - 20].decode(errors='ignore')}-{_hash(name)}"
    return safe


def _key(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def _hash(name: str) -> str:
    return sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:8]
