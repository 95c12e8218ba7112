"""Whether a data source in a config can have records of a split, without reading its files."""

from typing import Any

from guardreasoner.moved import full_path


def may_have_split(source: Any, split: str) -> bool:
    """Return False if a source certainly has no records of a split, such as ``Files`` of training files alone.

    Args:
        source: the source as a mapping or namespace with ``class_path`` and ``init_args``.
        split: name of the split.
    """
    class_path, arguments = full_path(source.get("class_path")), source.get("init_args") or {}
    if class_path == full_path("guardreasoner.Concat"):
        return any(may_have_split(part, split) for part in arguments.get("sources", ()))
    if class_path == full_path("guardreasoner.Files"):
        return bool(arguments.get(split) or arguments.get(f"{split}_share"))
    return True
