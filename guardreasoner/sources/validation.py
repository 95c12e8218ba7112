"""One-line messages for JSON values that pydantic rejects."""

from typing import Any

from pydantic import ValidationError

_MAX_FAULTS = 3


def validation_message(error: ValidationError) -> str:
    """Return the first faults in one line, joined by "; ", for example "missing field 'label'"."""
    return "; ".join(_fault_message(fault) for fault in error.errors(include_url=False)[:_MAX_FAULTS])


def _fault_message(fault: Any) -> str:
    field = ".".join(map(str, fault["loc"]))
    if fault["type"] == "missing":
        return f"missing field {field!r}"
    if fault["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        return f"unknown field {field!r}"
    return f"{field}: {fault['msg']}" if field else fault["msg"]
