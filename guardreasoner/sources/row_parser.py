"""Convert rows of user files to records; each fault names the column, what was found and what is allowed."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
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
from guardreasoner.records import Message, Record
from guardreasoner.sources.conversations import LeftOut, read_messages, require_unicode, turns, with_calls_in_text
from guardreasoner.sources.slices import MAX_SLICE, SLICES
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
_MESSAGES = ("messages", "conversations", "conversation")
"""Columns that hold a conversation as a list of messages in rows without a prompt."""
_LANGUAGE = re.compile(r"[A-Za-z]{2,3}(?:[-_][A-Za-z0-9]+)*")
_ID = "id"
_POLICY_ID = "policy_id"
_NO_COLUMN = object()
_LABEL_FIELD = "label_"
_LABELS = "labels"


@dataclass(frozen=True)  # no slots: the command line writes defaults from __dict__
class Columns:
    """Names of the columns of a file.

    Args:
        prompt: column of the user's text; None: "prompt", if the row has it.
        response: column of the assistant's text; None: "response", if the row has it.
        labels: column of each task's label; unless a column has that exact name, a dot selects a field of an object. If
            empty, "labels.request" and so on.
        label_map: label by value for each task whose labels differ in the file: ``{request: {1: harmful}}``.
        reasoning: column of the reasoning trace; None: "reasoning", if the row has it.
        id: column of the record's id; the default is used if the row has it. None, or a row without it: file and line.
        source: column of the data set's name; None: "source" if the row has it, else the name of the file.
        messages: column of a conversation as a list of messages (``role`` and ``content``, or ``from`` and ``value``)
            or as its JSON text, instead of ``prompt``; None: in rows without a prompt, "messages", "conversations" or
            "conversation". A list in the column of the prompt is read in the same way.
        policy: column of the policy's text; None: "policy", if the row has it and a task or the source has policies.
        policy_id: column of the policy's id in the file of policies; None: "policy_id" if there is such a file and the
            row has the column.
        language: column of the language, an ISO 639 code such as ``en`` or ``pt-BR``; None: no column.
        extra: further columns that the records keep, for scores by slice.
    """

    prompt: str | None = None
    response: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    label_map: Mapping[str, Mapping[Any, str]] = field(default_factory=dict)
    reasoning: str | None = None
    id: str | None = _ID
    source: str | None = None
    messages: str | None = None
    policy: str | None = None
    policy_id: str | None = None
    language: str | None = None
    extra: Sequence[str] = ()


class RowParser:
    """Converts rows to records.

    Args:
        columns: names of the columns.
        tasks: tasks with their permitted labels.
        policies: text of each policy by id; None if there is no file of policies.
        policy: policy of the records whose rows have none.
        max_turns: most messages of the user in a conversation; longer ones are left out. None: no limit.
        labelled: whether each row has a label for at least one task; False ignores all labels and reasoning.

    Raises:
        InputError: ``columns`` names an unknown task, maps a value to a label that its task does not have, names both a
            prompt and messages, or names ids of policies although there are no policies.
    """

    def __init__(
        self,
        columns: Columns,
        tasks: Sequence[Task],
        policies: Mapping[str, str] | None = None,
        policy: str | None = None,
        max_turns: int | None = None,
        labelled: bool = True,
    ) -> None:
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
            _require_unambiguous(mapping, f"columns.label_map.{name}")
        for name in columns.extra:
            if name in SLICES or list(columns.extra).count(name) > 1:
                reason = "is a column of every record already" if name in SLICES else "is given twice"
                raise InputError(f"columns.extra: {name!r} {reason}")
        if columns.prompt is not None and columns.messages is not None:
            raise InputError("columns: found prompt and messages, expected one of them")
        if columns.policy_id is not None and policies is None:
            raise InputError("columns.policy_id: there are no policies", "data.source.policies names their file")
        self.policies = policies
        self.policy = policy
        self.max_turns = max_turns
        self._columns = columns
        self._prompt = columns.prompt or "prompt"
        self._response = columns.response or "response"
        self._has_id = columns.id is not None
        has_policies = any(task.uses_policy for task in tasks) or policies is not None or policy is not None
        self._policy = columns.policy or ("policy" if has_policies else None)
        self._policy_id = columns.policy_id or (_POLICY_ID if policies is not None else None)
        fields: dict[str, Any] = {}
        mapped = {"messages": columns.messages} if columns.messages else {"prompt": self._prompt}
        for name in _TYPES if labelled else _TYPES.keys() - {"reasoning"}:
            column = getattr(columns, name)
            is_default = column is None or (name == "id" and column == _ID)
            mapped |= {} if is_default else {name: column}
            default = None if is_default else ...
            fields[name] = (_TYPES[name] | None, Field(default, validation_alias=_alias(column or name)))
        for name, column, type_ in (
            ("policy", self._policy, _TEXT | None),
            ("language", columns.language, Annotated[str | None, BeforeValidator(_language)]),
        ):
            if column is not None:
                default = None if getattr(columns, name) is None else ...
                fields[name] = (type_, Field(default, validation_alias=_alias(column)))
        named = {name: getattr(columns, name) for name in ("policy", "policy_id", "language")}
        mapped |= {name: column for name, column in named.items() if column is not None}
        mapped |= {f"extra.{column}": column for column in columns.extra}
        labels = dict(columns.labels) or {name: f"{_LABELS}.{name}" for name in known}
        labels = labels if labelled else {}
        for name, column in labels.items():
            mapping = columns.label_map.get(name, {})
            label_by_text = {label: label for label in known[name].labels}
            label_by_text |= {form: label for value, label in mapping.items() for form in text_forms(value)}
            # Mapped values come first in messages, since they are what the file contains; labels are allowed too.
            allowed = ", ".join(dict.fromkeys([*map(display_value, mapping), *known[name].labels]))
            label_type = Annotated[str | None, BeforeValidator(partial(_label, label_by_text, allowed))]
            fields[_LABEL_FIELD + name] = (
                label_type,
                Field(... if columns.labels else None, validation_alias=_alias(column)),
            )
        self._known_labels = () if columns.labels or not labelled else tuple(known)
        self.mapped: dict[str, tuple[str, ...]] = {key: (column,) for key, column in mapped.items()}
        """Columns that a file must have, by config key; one of them is enough."""
        if columns.prompt is None and columns.messages is None:
            self.mapped["prompt"] = (self._prompt, *_MESSAGES)
        if columns.labels or not labelled:
            self.mapped |= {f"labels.{name}": (column,) for name, column in labels.items()}
        else:
            self.mapped["labels"] = (_LABELS, *labels.values())
        self.labelled = tuple(labels)
        """Tasks that a row may have a label for."""
        self.label_columns = tuple(labels.values())
        strict = ConfigDict(strict=True)
        self._rest: type[BaseModel] = create_model("Rest", __config__=strict, **fields)
        prompt: Any = (_TEXT, Field(validation_alias=_alias(self._prompt)))
        self._row: type[BaseModel] = create_model("Row", __config__=strict, prompt=prompt, **fields)

    @property
    def read_columns(self) -> frozenset[str]:
        """Columns that a row is read from, if it has them; of a name with dots, also its first part."""
        columns = self._columns
        named = (getattr(columns, name) or name for name in _TYPES)
        others = (self._prompt, self._policy, self._policy_id, columns.language, _LABELS)
        read = {*named, *_MESSAGES, *self.label_columns, *columns.extra, *filter(None, (*others, columns.messages))}
        return frozenset(read | {name.partition(".")[0] for name in read})

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
        column, messages = self._prompt, tuple[Message, ...]()
        try:
            if (found := self._messages_column(row)) is not None:
                column, messages = found, self._messages(row, found)
            policy = self._policy_of_id(row)
            extra = {column: text for column in self._columns.extra if (text := _extra(row, column)) is not None}
        except ValueError as error:
            return [str(error)]
        try:
            valid = (self._rest if messages else self._row).model_validate(row)
        except ValidationError as error:
            return [_fault(fault, row) for fault in error.errors(include_url=False)]
        values = dict(valid)
        labels = {name: values[_LABEL_FIELD + name] for name in self.labelled}
        if self.labelled and not any(labels.values()):
            return [f"{', '.join(self.label_columns)}: found no label, expected one for at least one task"]
        if policy is not None and values.get("policy") is not None:
            return [f"{self._policy_id}: the row has a policy in {self._policy} too, expected only one"]
        policy = policy or values.get("policy")
        if policy is None and self.policies is None and self._policy is not None and _has_text(row.get(_POLICY_ID)):
            found = f"{_POLICY_ID}: found {describe_value(row[_POLICY_ID])}"
            return [f"{found}, but there are no policies; expected their file in data.source.policies"]
        policy = policy or self.policy
        own_id = values["id"] if self._has_id else None
        record = Record(
            id=f"{id_prefix}{own_id}" if own_id else default_id,
            prompt=None if messages else values["prompt"],
            response=values["response"],
            labels=labels,
            reasoning=values.get("reasoning"),
            source=values["source"] or default_source,
            messages=messages or None,
            policy=None if policy is None else policy.strip(),
            language=values.get("language"),
            extra=extra,
        )
        if any(task.judges == "tool_call" for task in self.tasks):
            record = replace(record, messages=tuple(map(with_calls_in_text, record.messages)))
        if faults := self._judged_faults(record, column):
            return faults
        if self.max_turns is not None and turns(record.messages) > self.max_turns:
            return LeftOut(f"a conversation of more than {self.max_turns} turn{'s' if self.max_turns > 1 else ''}")
        return record

    def _messages_column(self, row: Mapping[str, Any]) -> str | None:
        """Return the column that holds the row's messages; None if the row has a prompt instead, or neither.

        Raises:
            ValueError: the row has both a prompt and messages, or two conversations, and the config does not say which
                to use.
        """
        if self._columns.messages is not None:
            return self._columns.messages
        prompt = _cell(row, self._prompt)
        if self._columns.prompt is None:
            given = [column for column in _MESSAGES if row.get(column) is not None]
            which = "expected one of them; data.source.columns names the one to use"
            if given and prompt is not _NO_COLUMN and prompt is not None:
                raise ValueError(f"{given[0]}: found beside {self._prompt}, {which}")
            for column in given[1:]:
                if row[column] and row[column] != row[given[0]]:
                    raise ValueError(f"{column}: found beside different {given[0]}, {which}")
            if given:
                return given[0]
        is_list = isinstance(prompt, list) and prompt and isinstance(prompt[0], dict)
        return self._prompt if is_list else None

    def _messages(self, row: Mapping[str, Any], column: str) -> tuple[Message, ...]:
        """Return the messages in a column; raise ``ValueError`` with the fault."""
        value = _cell(row, column)
        if value is _NO_COLUMN:
            raise ValueError(_missing(column, row))
        try:
            messages = read_messages(value)
        except ValueError as error:
            found = "" if isinstance(value, list) and value else f"found {describe_value(value)}, "
            raise ValueError(f"{column}: {found}{error}") from None
        if messages[-1].role == "assistant" and _cell(row, self._response) not in (_NO_COLUMN, None):
            raise ValueError(f"{self._response}: the messages hold a response too, expected only one")
        return messages

    def _policy_of_id(self, row: Mapping[str, Any]) -> str | None:
        """Return the policy that the row names by its id; raise ``ValueError`` if there is none with this id."""
        if self.policies is None or self._policy_id is None:
            return None
        value = _cell(row, self._policy_id)
        if value is _NO_COLUMN and self._columns.policy_id is not None:
            raise ValueError(_missing(self._policy_id, row))
        if value is _NO_COLUMN or value is None:
            return None
        policy = next((self.policies[form] for form in text_forms(value) if form in self.policies), None)
        if policy is None:
            raise ValueError(f"{self._policy_id}: found {describe_value(value)}, expected the id of a policy")
        return policy

    def _judged_faults(self, record: Record, column: str) -> list[str]:
        """Return a fault for each label that is about a part which the conversation lacks."""
        faults = []
        for task in self.tasks:
            if record.labels.get(task.name) is None:
                continue
            label = f"the label of {task.name} is about"
            if task.judges == "last_assistant" and record.response is None:
                end = f"{column}: ends with a message of the {record.messages[-1].role}"
                found = f"{self._response}: found none" if len(record.messages) == 1 else end
                faults.append(f"{found}, expected a response of the assistant, which {label}")
            elif task.judges == "tool_call" and not any(message.tool_calls for message in record.messages):
                faults.append(f"{column}: found no tool call, expected one, which {label}")
            if task.uses_policy and record.policy is None:
                found = f"{self._policy or 'policy'}: found none"
                faults.append(f"{found}, expected a policy, which {label}")
        return faults


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


def cell_value(row: Mapping[str, Any], column: str) -> Any:
    """Return the value of a column or of a field that a name with dots selects; None if there is none."""
    value = _cell(row, column)
    return None if value is _NO_COLUMN else value


def _has_text(value: Any) -> bool:
    """Return whether a cell is neither null nor blank."""
    return value is not None and value == value and bool(str(value).strip())  # NaN stands for null in Parquet


def _extra(row: Mapping[str, Any], column: str) -> str | None:
    """Return a cell as text; None if it is missing, null or empty; raise ``ValueError`` if it is longer than a name."""
    value = _cell(row, column)
    if value is _NO_COLUMN or value is None or value != value:  # NaN stands for a missing value in Parquet
        return None
    if isinstance(value, bool):
        return str(value).lower()
    if not isinstance(value, str | int | float | date | time):
        raise ValueError(f"{column}: found {describe_value(value)}, expected text, a number or true or false")
    text = require_unicode(str(value), column).strip()
    if not text.isprintable() or len(text) > MAX_SLICE:
        raise ValueError(f"{column}: found {describe_value(value)}, expected at most {MAX_SLICE} printable characters")
    return text or None


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


def _require_unambiguous(mapping: Mapping[Any, str], where: str) -> None:
    """Raise ``InputError`` if two values that are equal in a file are mapped to different labels."""
    owner: dict[str, Any] = {}
    for value, label in mapping.items():
        for form in text_forms(value):
            other = owner.setdefault(form, value)
            if mapping[other] != label:
                raise InputError(
                    f"{where}: {other!r} is mapped to {mapping[other]!r} and {value!r} to {label!r}, but both match "
                    f"{form!r} in a file; expected one label"
                )


def _label(label_by_text: Mapping[str, str], allowed: str, value: Any) -> str | None:
    """Return the label of a cell; None if the cell is null and null is not mapped."""
    for form in text_forms(value):
        if form in label_by_text:
            return label_by_text[form]
    if value is None:
        return None
    raise ValueError(f"found {describe_value(value)}, allowed are {allowed}")


def _language(value: Any) -> str | None:
    """Return the language code in a cell; None if the cell is null or empty."""
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    if not isinstance(value, str) or not _LANGUAGE.fullmatch(value.strip()):
        raise ValueError(f"found {describe_value(value)}, expected a language code such as en or pt-BR")
    return value.strip()


def _missing(column: str, row: Mapping[str, Any]) -> str:
    return f"{column}: this column is missing; there are {', '.join(map(repr, row)) or 'none'}"


def _fault(error: Any, row: Mapping[str, Any]) -> str:
    """Convert an error of pydantic to a fault."""
    column = ".".join(str(part) for part in error["loc"])
    value, kind = error["input"], error["type"]
    if kind == "missing":
        return _missing(column, row)
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
