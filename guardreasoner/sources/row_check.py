"""What a row of the user's own files must be to become a record; each fault says what was found and what is allowed."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, time
from functools import partial
from typing import Annotated, Any

from pydantic import (
    AliasChoices,
    AliasPath,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    create_model,
)

from guardreasoner.errors import InputError
from guardreasoner.records import Record
from guardreasoner.tasks import Task

_TEXT = Annotated[str, Field(pattern=r"\S")]
_TYPES: dict[str, Any] = {
    # A pattern that any text matches makes pydantic look at it: else it lets lone surrogates pass.
    "response": Annotated[str, Field(pattern="")],
    "reasoning": _TEXT,
    # A number is a name as well; the last annotation is the first to see the cell.
    "id": Annotated[
        str,
        Field(pattern=r"^[^\x00-\x1f\x7f]*[^\s\x00-\x1f\x7f][^\x00-\x1f\x7f]*$", max_length=512),
        BeforeValidator(lambda cell: str(cell) if type(cell) is int else cell),
    ],
    "source": Annotated[str, Field(pattern=r"^[^\x00-\x1f\x7f]*$", max_length=512)],
}
"""Columns that a row need not have."""
_LABEL = "label_"
_LABELS = "labels"


@dataclass(frozen=True)  # no slots: the command line writes defaults from __dict__
class Columns:
    """Which column of a file holds what.

    Args:
        prompt: column of the user's text.
        response: column of the assistant's text; None: "response", in rows that have it.
        labels: column by task; a dot leads into an object where no column has it in its name. None given:
            "labels.request" and so on.
        label_map: for tasks whose labels are spelled otherwise in the file, label by word: ``{request: {1: harmful}}``.
        reasoning: column of the trace; None: "reasoning", in rows that have it.
        id: column of the record's id; None: "id" in rows that have it, else file and line.
        source: column that names the data set a row is from; None: "source" in rows that have it, else the file's name.
    """

    prompt: str = "prompt"
    response: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    label_map: Mapping[str, Mapping[Any, str]] = field(default_factory=dict)
    reasoning: str | None = None
    id: str | None = None
    source: str | None = None


class RowParser:
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
        for key, mapping in (("labels", columns.labels), ("label_map", columns.label_map)):
            for name in mapping:
                if name not in known:
                    raise InputError(f"columns.{key}: no task {name!r}; there are {', '.join(known)}")
        for name, words in columns.label_map.items():
            for word, label in words.items():
                if label not in known[name].labels:
                    allowed = ", ".join(known[name].labels)
                    raise InputError(
                        f"columns.label_map.{name}: {word!r} stands for {label!r}; task {name} has the labels {allowed}"
                    )
        fields: dict[str, Any] = {"prompt": (_TEXT, Field(validation_alias=_alias(columns.prompt)))}
        for name in _TYPES:
            column = getattr(columns, name)
            type_ = _TYPES[name] | None
            fields[name] = (type_, Field(... if column else None, validation_alias=_alias(column or name)))
        labels = dict(columns.labels) or {name: f"{_LABELS}.{name}" for name in known}
        for name, column in labels.items():
            given = columns.label_map.get(name, {})
            words = {spelling: label for word, label in given.items() for spelling in text_forms(word)}
            # The words of the file are what the user knows; the labels are allowed beside them.
            allowed = ", ".join(dict.fromkeys([*map(display_value, given), *known[name].labels]))
            words = {label: label for label in known[name].labels} | words
            type_ = Annotated[str | None, BeforeValidator(partial(_label, words, allowed))]
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
        if self._known_labels and (given := row.get(_LABELS)) is not None:
            if not isinstance(given, dict):
                return [f"{_LABELS}: found {describe_value(given)}, expected an object with a label by task"]
            if unknown := [name for name in given if name not in self._known_labels]:
                return [f"{_LABELS}: found {describe_value(unknown[0])}, allowed are {', '.join(self._known_labels)}"]
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


def describe_value(value: Any) -> str:
    """Return what a value is, for a message: its kind and, where it is short, itself."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return f"true or false ({str(value).lower()})"
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "an infinite number"
    if isinstance(value, int | float):
        return f"a number ({_short(str(value))})"
    if isinstance(value, str):
        return repr(_short(value)) if value.strip() else "an empty text"
    if isinstance(value, date | time):
        return f"a date ({value})"
    names: dict[type, str] = {list: "a list", dict: "an object", bytes: "bytes"}
    return names.get(type(value), type(value).__name__)


def _short(text: str) -> str:
    return text if len(text) <= 40 else f"{text[:37]}…"


def _alias(column: str) -> Any:
    return AliasChoices(column, AliasPath(*column.split("."))) if "." in column else column


def display_value(word: Any) -> str:
    """Return a word of a config as text, for a message."""
    return "null" if word is None else next(iter(text_forms(word)), str(word))


def text_forms(value: Any) -> tuple[str, ...]:
    """Return how a word of a config, or a cell, may be display_value in files: two are the same that share a spelling.

    YAML reads 1 as a number and yes as true, CSV knows texts alone, and a column of whole numbers in which one is
    missing often comes as 1.0.
    """
    if value is None:
        return ("",)
    if isinstance(value, bool):
        words = ("true", "yes", "on") if value else ("false", "no", "off")
        return tuple(way(word) for word in words for way in (str.lower, str.capitalize, str.upper))
    if isinstance(value, float) and value.is_integer():
        return (str(value), str(int(value)))
    return (str(value),) if isinstance(value, str | int | float | date) else ()


def _label(words: Mapping[str, str], allowed: str, value: Any) -> str | None:
    """Return the label that a cell stands for; None where it holds none."""
    for spelling in text_forms(value):
        if spelling in words:
            return words[spelling]
    if value is None:
        return None
    raise ValueError(f"found {describe_value(value)}, allowed are {allowed}")


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
    return f"{column}: found {describe_value(value)}, expected text"


def _lone(text: str) -> int | None:
    """Return where the first lone surrogate stands."""
    return next((at for at, character in enumerate(text) if "\ud800" <= character <= "\udfff"), None)
