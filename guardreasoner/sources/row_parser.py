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
_LABEL_FIELD = "label_"
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
        id: column of the record's id; None: "id" if the row has it, else file and line.
        source: column of the data set's name; None: "source" if the row has it, else the name of the file.
    """

    prompt: str = "prompt"
    response: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    label_map: Mapping[str, Mapping[Any, str]] = field(default_factory=dict)
    reasoning: str | None = None
    id: str | None = None
    source: str | None = None


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
        fields: dict[str, Any] = {"prompt": (_TEXT, Field(validation_alias=_alias(columns.prompt)))}
        for name in _TYPES:
            column = getattr(columns, name)
            type_ = _TYPES[name] | None
            fields[name] = (type_, Field(... if column else None, validation_alias=_alias(column or name)))
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
        self._known_labels = () if columns.labels else tuple(known)
        self.labelled = tuple(labels)
        self.label_columns = tuple(labels.values())
        self._model: type[BaseModel] = create_model("Row", __config__=ConfigDict(strict=True), **fields)

    def parse(self, row: Mapping[str, Any], default_id: str, default_source: str) -> Record | list[str]:
        """Convert a row to a record, or return its faults, each "column: what was found, what is allowed".

        Args:
            row: value by column.
            default_id: id of the record if the row has none.
            default_source: source of the record if the row names none.
        """
        if self._known_labels and (given := row.get(_LABELS)) is not None:
            if not isinstance(given, dict):
                return [f"{_LABELS}: found {describe_value(given)}, expected an object with a label by task"]
            if unknown := [name for name in given if name not in self._known_labels]:
                return [f"{_LABELS}: found {describe_value(unknown[0])}, allowed are {', '.join(self._known_labels)}"]
        try:
            valid = self._model.model_validate(row)
        except ValidationError as error:
            return [_fault(fault, row) for fault in error.errors(include_url=False)]
        values = dict(valid)
        labels = {name: values[_LABEL_FIELD + name] for name in self.labelled}
        if not any(labels.values()):
            return [f"{', '.join(self.label_columns)}: found no label, expected one for at least one task"]
        return Record(
            id=values["id"] or default_id,
            prompt=values["prompt"],
            response=values["response"],
            labels=labels,
            reasoning=values["reasoning"],
            source=values["source"] or default_source,
        )


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
