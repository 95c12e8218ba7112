"""Read policies: a file that maps ids to texts, a folder with a text file for each policy, or a single text."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from guardreasoner.errors import InputError
from guardreasoner.records.jsonl import parse_json, read_jsonl
from guardreasoner.sources.conversations import require_unicode
from guardreasoner.sources.row_parser import text_forms
from guardreasoner.workflow.strict_yaml import parse_yaml

_TEXT_FILES = (".txt", ".md")
_LISTS = (".yaml", ".yml", ".json", ".jsonl")
_MAX_NAME = 1000
"""Characters from which a text is no path."""


def read_policies(path: str | Path) -> dict[str, str]:
    """Read policies by id.

    An id that YAML reads as a number or boolean is known in every form that a cell of a file may have.

    Args:
        path: a YAML or JSON file with the text of each id, a JSONL file of rows with ``id`` and ``text``, or a folder
            of ``.txt`` and ``.md`` files, whose names without the ending are the ids.

    Raises:
        InputError: nothing is found, an id occurs twice, or a text is empty.
    """
    path = Path(path)
    policies: dict[str, str] = {}
    count = 0
    for where, name, text in _entries(path):
        forms = text_forms(name)
        if name is None or not any(form.strip() for form in forms):
            raise InputError(f"{where}: expected an id that is a text")
        policy = _checked(text, where)
        count += 1
        for form in forms:
            if form in policies:
                raise InputError(f"{where}: the id {form!r} occurs twice")
        policies |= dict.fromkeys(forms, policy)
    if not count:
        what = f"no file that ends in {' or '.join(_TEXT_FILES)}" if path.is_dir() else "no policy"
        raise InputError(f"{path}: found {what}, expected at least one policy")
    return policies


def read_policy(text_or_path: str, where: str) -> str:
    """Return a policy that is given as its text or as the path of a text file.

    Args:
        text_or_path: the policy, or the path of a ``.txt`` or ``.md`` file, see :func:`policy_file`.
        where: config key, for messages.

    Raises:
        InputError: the file is missing, of another kind or not UTF-8, or the text is empty.
    """
    if path := policy_file(text_or_path):
        if path.suffix.lower() in _LISTS:
            raise InputError(
                f"{where}: {path}: expected a text, or a file that ends in {' or '.join(_TEXT_FILES)}",
                "data.source.policies reads a file of several policies",
            )
        return _checked(_read(path), str(path))
    return _checked(text_or_path, where)


def policy_file(text_or_path: str) -> Path | None:
    """Return the path of the file that a policy is given as; None if it is the text itself.

    A path is one line that ends like a file name and has a slash or no space, or is the name of a file that exists.
    """
    name = text_or_path.strip()
    is_name = len(name) < _MAX_NAME and len(name.splitlines()) == 1 and name.lower().endswith((*_TEXT_FILES, *_LISTS))
    return Path(name) if is_name and ("/" in name or " " not in name or Path(name).is_file()) else None


def _entries(path: Path) -> Iterator[tuple[str, Any, Any]]:
    """Yield place, id and text of each policy."""
    if path.is_dir():
        for file in sorted(path.iterdir()):
            if file.suffix.lower() in _TEXT_FILES and file.is_file():
                yield str(file), file.stem, _read(file)
        return
    kind = path.suffix.lower()
    if not path.is_file():
        raise InputError(f"{path}: no such file or folder of policies")
    if kind == ".jsonl":
        for number, row in read_jsonl(path):
            where = f"{path}:{number}"
            if missing := [name for name in ("id", "text") if name not in row]:
                raise InputError(f"{where}: missing field {missing[0]!r}, expected id and text")
            yield where, row["id"], row["text"]
        return
    if kind not in (".json", ".yaml", ".yml"):
        raise InputError(f"{path}: expected a name that ends in .yaml, .json or .jsonl, or a folder of text files")
    try:
        content = parse_json(_read(path)) if kind == ".json" else parse_yaml(_read(path))
    except ValueError as error:
        raise InputError(f"{path}: {error}") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        raise InputError(f"{path}{line}: not valid YAML: {getattr(error, 'problem', None) or error}") from None
    if not isinstance(content, dict):
        raise InputError(f"{path}: found {type(content).__name__}, expected a mapping of ids to texts")
    for name, text in content.items():
        yield f"{path}: {name}", name, text


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not valid UTF-8: byte {error.start + 1}") from None


def _checked(text: Any, where: str) -> str:
    """Return a policy without the white space around it; raise ``InputError`` if it is no text or empty."""
    if not isinstance(text, str) or not text.strip():
        found = "an empty policy" if isinstance(text, str) or text is None else type(text).__name__
        raise InputError(f"{where}: found {found}, expected a text")
    try:
        return require_unicode(text.strip(), where)
    except ValueError as error:
        raise InputError(str(error)) from None
