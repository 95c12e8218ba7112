"""Convert rows of user files to records; each fault names the column, what was found and what is allowed."""

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
from guardreasoner.sources.conversations import LeftOut, Turn, read_turn
from guardreasoner.sources.slices import SLICES
from guardreasoner.tasks import Task

_TEXT = Annotated[str, Field(pattern=r"\S")]
_TYPES: dict[str, Any] = {
    # pydantic rejects lone surrogates only in fields with a pattern; this one matches every text.
    "response": Annotated[str, Field(pattern="")],
    "reasoning": _TEXT,
    # Integers are accepted as ids; the last annotation is applied first.
    "id": Annotated[
        str,
        Field(pattern=r"^[^\x00-\x1f\x7f]*[^\s\x00-\x1f\x7f][^\x00-\x1f\x7f]*$", max_length=512),
        BeforeValidator(lambda cell: str(cell) if type(cell) is int else cell),
    ],
    "source": Annotated[str, Field(pattern=r"^[^\x00-\x1f\x7f]*$", max_length=512)],
}
"""Optional columns."""
_ID = "id"
_NO_COLUMN = object()
_LABEL_FIELD = "label_"
_LANGUAGE = "language"
_EXTRA_FIELD = "extra_"
_LABELS = "labels"


@dataclass(frozen=True)  # no slots: the command line writes defaults from __dict__
class Columns:
    """Names of the columns of a file.

    Args:
        prompt: column of the user's text.
        response: column of the assistant's text; None: "response", if the row has it.
        labels: column of each task's label; unless a column has that exact name, a dot selects a field of an object. If
            empty, "labels.request" and so on.
        label_map: label by value for each task whose labels differ in the file: ``{request: {1: harmful}}``.
        reasoning: column of the reasoning trace; None: "reasoning", if the row has it.
        id: column of the record's id; the default is used if the row has it. None, or a row without it: file and line.
        source: column of the data set's name; None: "source" if the row has it, else the name of the file.
        messages: column of a conversation as a list of messages (``role`` and ``content``, or ``from`` and ``value``),
            instead of ``prompt``; None: a list in the column of the prompt is read in the same way.
        language: column of the conversation's language, such as "en"; None: the language is unknown.
        extra: further columns by which scores can be split; a null or empty cell is no value.
    """

    prompt: str = "prompt"
    response: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    label_map: Mapping[str, Mapping[Any, str]] = field(default_factory=dict)
    reasoning: str | None = None
    id: str | None = _ID
    source: str | None = None
    messages: str | None = None
    language: str | None = None
    extra: Sequence[str] = ()


_SLICE_VALUE = Annotated[str | None, BeforeValidator(lambda cell: _slice_value(cell))]
_MAX_SLICE_VALUE = 100


class RowParser:
    """Converts rows to records.

    Args:
        columns: names of the columns.
        tasks: tasks with their permitted labels.

    Raises:
        InputError: ``columns`` names an unknown task, or maps a value to a label that its task does not have.
    """

    def __init__(self, columns: Columns, tasks: Sequence[Task]) -> None:
        self.tasks = tuple(tasks)
        known = {task.name: task for task in tasks}
        for key, mapping in (("labels", columns.labels), ("label_map", columns.label_map)):
            for name in mapping:
                if name not in known:
                    raise InputError(f"columns.{key}: no task {name!r}; there are {', '.join(known)}")
        for name, mapping in columns.label_map.items():
            for value, label in mapping.items():
                if label not in known[name].labels:
                    allowed = ", ".join(known[name].labels)
                    raise InputError(
                        f"columns.label_map.{name}: {value!r} is mapped to {label!r}, allowed are {allowed}"
                    )
        for name in columns.extra:
            if name in SLICES or columns.extra.count(name) > 1:
                reason = "is known of every record" if name in SLICES else "is given twice"
                raise InputError(f"columns.extra: {name!r} {reason}")
        self.system_messages = 0
        """Rows so far whose system message was left out."""
        self._prompt = columns.messages or columns.prompt
        self._response = columns.response or "response"
        self._expects_messages = columns.messages is not None
        self._has_id = columns.id is not None
        fields: dict[str, Any] = {"prompt": (_TEXT, Field(validation_alias=_alias(self._prompt)))}
        mapped = {"messages" if columns.messages else "prompt": self._prompt}
        for name in _TYPES:
            column = getattr(columns, name)
            is_default = column is None or (name == "id" and column == _ID)
            mapped |= {} if is_default else {name: column}
            default = None if is_default else ...
            fields[name] = (_TYPES[name] | None, Field(default, validation_alias=_alias(column or name)))
        labels = dict(columns.labels) or {name: f"{_LABELS}.{name}" for name in known}
        for name, column in labels.items():
            mapping = columns.label_map.get(name, {})
            label_by_text = {label: label for label in known[name].labels}
            label_by_text |= {form: label for value, label in mapping.items() for form in text_forms(value)}
            # Mapped values come first in messages, since they are what the file contains; labels are allowed too.
            allowed = ", ".join(dict.fromkeys([*map(display_value, mapping), *known[name].labels]))
            type_ = Annotated[str | None, BeforeValidator(partial(_label, label_by_text, allowed))]
            fields[_LABEL_FIELD + name] = (
                type_,
                Field(... if columns.labels else None, validation_alias=_alias(column)),
            )
        slices = {_LANGUAGE: columns.language} if columns.language else {}
        slices |= {_EXTRA_FIELD + name: name for name in columns.extra}
        for name, column in slices.items():
            fields[name] = (_SLICE_VALUE, Field(validation_alias=_alias(column)))
            mapped[name.replace(_EXTRA_FIELD, "extra.")] = column
        self._extra = tuple(columns.extra)
        self._known_labels = () if columns.labels else tuple(known)
        self.mapped: dict[str, tuple[str, ...]] = {key: (column,) for key, column in mapped.items()}
        """Columns that a file must have, by config key; one of them is enough."""
        if columns.labels:
            self.mapped |= {f"labels.{name}": (column,) for name, column in labels.items()}
        else:
            self.mapped["labels"] = (_LABELS, *labels.values())
        self.labelled = tuple(labels)
        self.label_columns = tuple(labels.values())
        self._model: type[BaseModel] = create_model("Row", __config__=ConfigDict(strict=True), **fields)

    def has_column(self, row: Mapping[str, Any], column: str) -> bool:
        """Return whether a row has a column, or the field of an object that a name with dots selects."""
        return column in row or ("." in column and _cell(row, column) is not _NO_COLUMN)

    def parse(
        self, row: Mapping[str, Any], default_id: str, default_source: str, id_prefix: str = ""
    ) -> Record | LeftOut | list[str]:
        """Convert a row to a record, or return its faults, each "column: what was found, what is allowed".

        Args:
            row: value by column.
            default_id: id of the record if the row has none.
            default_source: source of the record if the row names none.
            id_prefix: text before an id from the row.

        Returns:
            The record; the faults; or why a valid row cannot be used.
        """
        if self._known_labels and (given := row.get(_LABELS)) is not None:
            if not isinstance(given, dict):
                return [f"{_LABELS}: found {describe_value(given)}, expected an object with a label by task"]
            if unknown := [name for name in given if name not in self._known_labels]:
                return [f"{_LABELS}: found {describe_value(unknown[0])}, allowed are {', '.join(self._known_labels)}"]
        value = row.get(self._prompt)
        if self._expects_messages or (isinstance(value, list) and value and isinstance(value[0], dict)):
            turn = self._turn(row)
            if not isinstance(turn, Turn):
                return turn
            self.system_messages += turn.has_system
            row = {**row, self._prompt: turn.prompt}
            if turn.response is not None:
                row[self._response] = turn.response
        try:
            valid = self._model.model_validate(row)
        except ValidationError as error:
            return [_fault(fault, row) for fault in error.errors(include_url=False)]
        values = dict(valid)
        labels = {name: values[_LABEL_FIELD + name] for name in self.labelled}
        if not any(labels.values()):
            return [f"{', '.join(self.label_columns)}: found no label, expected one for at least one task"]
        own_id = values["id"] if self._has_id else None
        return Record(
            id=f"{id_prefix}{own_id}" if own_id else default_id,
            prompt=values["prompt"],
            response=values["response"],
            labels=labels,
            reasoning=values["reasoning"],
            source=values["source"] or default_source,
            language=values.get(_LANGUAGE),
            extra={name: value for name in self._extra if (value := values[_EXTRA_FIELD + name]) is not None},
        )

    def _turn(self, row: Mapping[str, Any]) -> Turn | LeftOut | list[str]:
        value = _cell(row, self._prompt)
        if value is _NO_COLUMN:
            return [f"{self._prompt}: this column is missing; there are {', '.join(map(repr, row)) or 'none'}"]
        try:
            turn = read_turn(value)
        except ValueError as error:
            found = "" if isinstance(value, list) and value else f"found {describe_value(value)}, "
            return [f"{self._prompt}: {found}{error}"]
        if isinstance(turn, Turn) and turn.response is not None and row.get(self._response) is not None:
            return [f"{self._response}: the messages hold a response too, expected only one"]
        return turn


def describe_value(value: Any) -> str:
    """Describe a value for a message: its type and, if short, the value itself."""
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


def _cell(row: Mapping[str, Any], column: str) -> Any:
    """Return the value of a column or of a field that a name with dots selects; ``_NO_COLUMN`` if there is none."""
    if column in row:
        return row[column]
    value: Any = row
    for part in column.split("."):
        if not isinstance(value, Mapping) or part not in value:
            return _NO_COLUMN
        value = value[part]
    return value


def _alias(column: str) -> Any:
    return AliasChoices(column, AliasPath(*column.split("."))) if "." in column else column


def display_value(value: Any) -> str:
    """Return the text form of a config value for a message."""
    return "null" if value is None else next(iter(text_forms(value)), str(value))


def text_forms(value: Any) -> tuple[str, ...]:
    """Return the text forms of a config value or a cell; two values are equal if they share a form.

    YAML reads 1 as a number and yes as true, CSV has only texts, and integers in a column with missing values are often
    written as 1.0.
    """
    if value is None:
        return ("",)
    if isinstance(value, bool):
        words = ("true", "yes", "on") if value else ("false", "no", "off")
        return tuple(change_case(word) for word in words for change_case in (str.lower, str.capitalize, str.upper))
    if isinstance(value, float) and value.is_integer():
        return (str(value), str(int(value)))
    return (str(value),) if isinstance(value, str | int | float | date) else ()


def _slice_value(value: Any) -> str | None:
    """Return the text of a cell by which scores are split; None if it is null or empty."""
    text = text_forms(value)[0].strip() if isinstance(value, str | int | float | date | None) else value
    if not isinstance(text, str):
        raise ValueError(f"found {describe_value(value)}, expected text or a number")
    if not text.isprintable() or len(text) > _MAX_SLICE_VALUE:
        raise ValueError(f"found {describe_value(value)}, expected at most {_MAX_SLICE_VALUE} printable characters")
    return text or None


def _label(label_by_text: Mapping[str, str], allowed: str, value: Any) -> str | None:
    """Return the label of a cell; None if the cell is null and null is not mapped."""
    for form in text_forms(value):
        if form in label_by_text:
            return label_by_text[form]
    if value is None:
        return None
    raise ValueError(f"found {describe_value(value)}, allowed are {allowed}")


def _fault(error: Any, row: Mapping[str, Any]) -> str:
    """Convert an error of pydantic to a fault."""
    column = ".".join(str(part) for part in error["loc"])
    value, kind = error["input"], error["type"]
    if kind == "missing":
        return f"{column}: this column is missing; there are {', '.join(map(repr, row)) or 'none'}"
    if kind == "value_error":
        return f"{column}: {error['ctx']['error']}"
    if kind == "string_unicode" or (isinstance(value, str) and (_lone_surrogate(value) is not None)):
        index = _lone_surrogate(value)
        code = "" if index is None else f" (U+{ord(value[index]):04X}) at character {index + 1}"
        return f"{column}: found a lone surrogate{code}, expected Unicode text"
    if kind == "string_pattern_mismatch" and value.strip():
        return f"{column}: found a control character, expected a name on one line"
    if kind == "string_too_long":
        return f"{column}: found {len(value)} characters, allowed are {error['ctx']['max_length']}"
    return f"{column}: found {describe_value(value)}, expected text"


def _lone_surrogate(text: str) -> int | None:
    """Return the index of the first lone surrogate; None if there is none."""
    return next((index for index, character in enumerate(text) if "\ud800" <= character <= "\udfff"), None)
