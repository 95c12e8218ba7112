"""The parts of a conversation under the names that pages and texts show them with."""

from guardreasoner.records import Record

_FIRST, _LAST = 4, 16
"""Parts shown of the beginning and the end of a long conversation; the end is what most tasks judge."""


def shown_parts(record: Record, shorten: bool = True) -> list[tuple[str, str]]:
    """Return name and text of each part of a record, in order, with the policy first.

    A conversation of one turn has a prompt and a response. In others, each message is named after its author, and a
    call of a tool is a part of its own.

    Args:
        record: the record.
        shorten: whether to leave out parts in the middle of a long conversation; a part says how many.
    """
    if record.is_one_turn:
        parts = [("prompt", record.prompt), *([] if record.response is None else [("response", record.response)])]
    else:
        parts = record.parts()
    if shorten and (left_out := len(parts) - _FIRST - _LAST) > 1:
        parts = [*parts[:_FIRST], ("…", f"{left_out} more parts of the conversation"), *parts[-_LAST:]]
    return [*([] if record.policy is None else [("policy", record.policy)]), *parts]
