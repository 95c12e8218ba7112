"""The parts of a conversation as pages show them."""

from guardreasoner.records import Message, Record, ToolCall
from guardreasoner.workflow.shown_parts import shown_parts


def test_one_turn_has_a_prompt_and_a_response() -> None:
    assert shown_parts(Record("r", "How?")) == [("prompt", "How?")]
    record = Record("r", "How?", "So.", policy="Be good.")
    assert shown_parts(record) == [("policy", "Be good."), ("prompt", "How?"), ("response", "So.")]


def test_each_message_and_each_call_is_a_part() -> None:
    messages = [
        Message("system", "Be good."),
        Message("user", "How?"),
        Message("assistant", "", (ToolCall("tide", '{"day": 1}'),)),
        Message("tool", "3 m"),
        Message("assistant", "3 m."),
    ]
    assert shown_parts(Record("r", messages=messages)) == [
        ("system", "Be good."),
        ("user", "How?"),
        ("tool call", 'tide {"day": 1}'),
        ("tool", "3 m"),
        ("assistant", "3 m."),
    ]


def test_the_middle_of_a_long_conversation_is_left_out() -> None:
    record = Record("r", messages=[Message("user" if n % 2 == 0 else "assistant", str(n)) for n in range(100)])
    parts = shown_parts(record)
    assert [text for _, text in parts] == [*"0123", "80 more parts of the conversation", *map(str, range(84, 100))]
    assert len(shown_parts(record, shorten=False)) == 100
