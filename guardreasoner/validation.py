"""What a row of the user's own files must be to become a record; each fault says what was found and what is allowed."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, time
from functools import partial
from typing import Annotated, Any

from pydantic import AliasPath, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, create_model

from guardreasoner.errors import InputError
from guardreasoner.records import Record
from guardreasoner.tasks import Task

_OPTIONAL = ("response", "reasoning", "id", "source")
_LABEL = "label_"
_LABELS = "labels"


@dataclass(frozen=True)  # no slots: the command line writes defaults from __dict__
class Columns:
    """Which column of a file holds what.

    Args:
        prompt: column of the user's text.
        response: column of the assistant's text; None: "response", in rows that have it.
        labels: column by task; a dot leads into an object. None given: "labels.request" and so on.
        words: for each task whose labels are other words in the file, the label by word: ``{request: {1: harmful}}``.
        reasoning: column of the trace; None: "reasoning", in rows that have it.
        id: column of the record's id; None: "id" in rows that have it, else file and line.
        source: column that names the data set a row is from; None: "source" in rows that have it, else the file's name.
    """

    prompt: str = "prompt"
    response: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    words: Mapping[str, Mapping[Any, str]] = field(default_factory=dict)
    reasoning: str | None = None
    id: str | None = None
    source: str | None = None


class RowCheck:
    """Turns rows into records.

    Args:
        columns: where a row holds what.
        tasks: what the labels may say.

    Raises:
        InputError: a column or word is mapped for a task that is not there, or to a label that it does not have.
    """

    def __init__(self, columns: Columns, tasks: Sequence[Task]) -> None:
        self.tasks = tuple(tasks)
        known = {task.name: task for task in tasks}
        for key, mapping in (("labels", columns.labels), ("words", columns.words)):
            for name in mapping:
                if name not in known:
                    raise InputError(f"columns.{key}: no task {name!r}; there are {', '.join(known)}")
        for name, words in columns.words.items():
            for word, label in words.items():
                if label not in known[name].labels:
                    allowed = ", ".join(known[name].labels)
                    raise InputError(
                        f"columns.words.{name}: {word!r} stands for {label!r}; task {name} has the labels {allowed}"
                    )
        fields: dict[str, Any] = {"prompt": (_text(), Field(validation_alias=_alias(columns.prompt)))}
        for name in _OPTIONAL:
            column = getattr(columns, name)
            type_ = (_name() if name in ("id", "source") else _text(blank=name != "reasoning")) | None
            fields[name] = (type_, Field(... if column else None, validation_alias=_alias(column or name)))
        labels = dict(columns.labels) or {name: f"{_LABELS}.{name}" for name in known}
        for name, column in labels.items():
            words = {_spelt(word): label for word, label in columns.words.get(name, {}).items()}
            type_ = Annotated[str | None, BeforeValidator(partial(_label, words, known[name].labels))]
            fields[_LABEL + name] = (type_, Field(... if columns.labels else None, validation_alias=_alias(column)))
        self._known_labels = () if columns.labels else tuple(known)
        self.labelled = tuple(labels)
        self.label_columns = tuple(labels.values())
        self._model: type[BaseModel] = create_model("Row", __config__=ConfigDict(strict=True), **fields)

    def record(self, row: Mapping[str, Any], place: str, source: str) -> Record | list[str]:
        """Return the record that a row holds, or its faults, each "column: what was found, what is allowed".

        Args:
            row: value by column.
            place: the record's id where the row has none.
            source: the record's source where the row names none.
        """
        if self._known_labels and isinstance(given := row.get(_LABELS), dict):
            unknown = [name for name in given if name not in self._known_labels]
            if unknown:
                return [f"{_LABELS}: found {describe(unknown[0])}, allowed are {', '.join(self._known_labels)}"]
        try:
            valid = self._model.model_validate(row)
        except ValidationError as error:
            return [_fault(one, row) for one in error.errors(include_url=False)]
        values = dict(valid)
        labels = {name: values[_LABEL + name] for name in self.labelled}
        if not any(labels.values()):
            return [f"{', '.join(self.label_columns)}: found no label, expected one for at least one task"]
        return Record(
            id=values["id"] or place,
            prompt=values["prompt"],
            response=values["response"],
            labels=labels,
            reasoning=values["reasoning"],
            source=values["source"] or source,
        )


def describe(value: Any) -> str:
    """Return what a value is, for a message: its kind and, where it is short, itself."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return f"true or false ({str(value).lower()})"
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "an infinite number"
    if isinstance(value, int | float):
        return f"a number ({value})"
    if isinstance(value, str):
        return repr(value if len(value) <= 40 else f"{value[:37]}…") if value.strip() else "an empty text"
    if isinstance(value, date | time):
        return f"a date ({value})"
    names: dict[type, str] = {list: "a list", dict: "an object", bytes: "bytes"}
    return names.get(type(value), type(value).__name__)


def _text(blank: bool = False) -> Any:
    return str if blank else Annotated[str, Field(pattern=r"\S")]


def _name() -> Any:
    return Annotated[str, Field(pattern=r"^[^\x00-\x1f\x7f]*[^\s\x00-\x1f\x7f][^\x00-\x1f\x7f]*$", max_length=512)]


def _alias(column: str) -> Any:
    return AliasPath(*column.split(".")) if "." in column else column


def _spelt(word: Any) -> str:
    """Return a word as text, so that 1 in YAML is "1" in a CSV file, and true is true in any."""
    return str(word).lower() if isinstance(word, bool) else str(word)


def _label(words: Mapping[str, str], labels: Sequence[str], value: Any) -> Any:
    """Return the label that a cell stands for; None where it holds none."""
    if isinstance(value, str | int | float) and (label := words.get(_spelt(value))) is not None:
        return label
    if value is None or (isinstance(value, str) and value in labels):
        return value
    # The words of the file are what the user knows; the labels are allowed beside them.
    raise ValueError(f"found {describe(value)}, allowed are {', '.join(dict.fromkeys([*words, *labels]))}")


def _fault(error: Any, row: Mapping[str, Any]) -> str:
    """Say what pydantic found wrong with a value, in our words."""
    column = ".".join(str(part) for part in error["loc"])
    value, kind = error["input"], error["type"]
    if kind == "missing":
        return f"{column}: this column is missing; there are {', '.join(map(repr, row)) or 'none'}"
    if kind == "value_error":
        return f"{column}: {error['ctx']['error']}"
    if kind == "string_unicode" or (isinstance(value, str) and (_lone(value) is not None)):
        at = _lone(value)
        code = "" if at is None else f" (U+{ord(value[at]):04X}) at character {at + 1}"
        return f"{column}: found a lone surrogate{code}, expected Unicode text"
    if kind == "string_pattern_mismatch" and value.strip():
        return f"{column}: found a control character, expected a name on one line"
    if kind == "string_too_long":
        return f"{column}: found {len(value)} characters, allowed are {error['ctx']['max_length']}"
    return f"{column}: found {describe(value)}, expected text"


def _lone(text: str) -> int | None:
    """Return where the first lone surrogate stands."""
    return next((at for at, character in enumerate(text) if "\ud800" <= character <= "\udfff"), None)
