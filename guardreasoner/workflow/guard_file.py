"""The file ``guard.json`` of a model folder: its prompt format and, added after training, its calibrations."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from guardreasoner.errors import InputError, unique_keys
from guardreasoner.records.atomic_file import replacing_file

GUARD_FILE = "guard.json"
_CALIBRATION = "calibration"
_TOO_DEEP = "lists or objects are nested too deeply"


def is_model_folder(folder: Path) -> bool:
    """Return whether a folder holds a model, or an adapter of one."""
    return (folder / "config.json").is_file() or (folder / "adapter_config.json").is_file()


def without_calibrations(data: bytes) -> bytes:
    """Return the content of a ``guard.json`` as the stage that made the model wrote it.

    A calibration changes neither the model nor its outputs, so it must not make the manifest of the model differ, nor
    anything that was made from the model out of date. Content that is not a JSON object is returned unchanged.
    """
    try:
        content = json.loads(data, object_pairs_hook=unique_keys)
        if not isinstance(content, dict) or _CALIBRATION not in content:
            return data
        return _text({key: value for key, value in content.items() if key != _CALIBRATION}).encode()
    except (ValueError, RecursionError):
        return data


def read_calibrations(path: Path) -> dict[str, list[dict[str, Any]]]:
    """Return the calibrations stored in a ``guard.json`` by task, one for each kind of score.

    Older files hold one calibration per task, which is not in a list.

    Returns:
        Calibrations by task; empty if there are none, or no file.

    Raises:
        InputError: the file is damaged.
    """
    stored = _read(path).get(_CALIBRATION, {})
    if isinstance(stored, dict):
        stored = {task: [rows] if isinstance(rows, dict) else rows for task, rows in stored.items()}
        if all(isinstance(rows, list) and all(isinstance(row, dict) for row in rows) for rows in stored.values()):
            return stored
    raise InputError(f"{path}: {_CALIBRATION}: expected a mapping of tasks to lists of calibrations")


def write_calibration(path: Path, task: str, calibration: Mapping[str, Any]) -> None:
    """Store a calibration of a task in a ``guard.json``, in place of an earlier one of the same kind of score.

    Calibrations of other tasks, and of other kinds of score, are kept.

    The file is replaced in one step. Its manifest stays as it is: see :func:`without_calibrations`.

    Raises:
        InputError: the file is damaged.
    """
    stored = read_calibrations(path)
    kept = [row for row in stored.get(task, []) if row.get("score") != calibration.get("score")]
    stored[task] = [*kept, dict(calibration)]
    try:
        text = _text({**_read(path), _CALIBRATION: stored})
    except RecursionError:
        raise InputError(f"{path}: {_TOO_DEEP}") from None
    with replacing_file(path) as partial:
        partial.write_text(text, encoding="utf-8")


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=unique_keys)
    except ValueError as error:
        raise InputError(f"{path}: not valid JSON: {error}") from None
    except RecursionError:
        raise InputError(f"{path}: {_TOO_DEEP}") from None
    if not isinstance(content, dict):
        raise InputError(f"{path}: expected a JSON object")
    return content


def _text(content: Mapping[str, Any]) -> str:
    """Return the content in the layout in which models are saved, so that equal contents are equal files."""
    return json.dumps(content, indent=1) + "\n"
