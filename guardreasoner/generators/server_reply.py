"""Read the outputs of a server's reply; servers put many things where the OpenAI protocol has text."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from guardreasoner.generators.retries import ErrorReply, UnusableReply

_THINKING_FIELDS = ("reasoning_content", "reasoning", "thinking")
_TEXT_PARTS = ("text", "output_text", None)
_THINKING_PARTS = ("thinking", "reasoning", "redacted_thinking")
_PROBLEM_BY_FINISH_REASON = {
    **dict.fromkeys(
        ("content_filter", "safety", "recitation", "prohibited_content", "blocklist", "spii"), "content filter"
    ),
    **dict.fromkeys(("tool_calls", "tool_call", "tool_use", "function_call"), "tool call"),
    **dict.fromkeys(("error", "abort", "cancelled", "insufficient_system_resource"), "generation failed on the server"),
    "refusal": "refusal",
}
_LENGTH = ("length", "max_tokens", "max_output_tokens", "model_length")
"""What servers call the end at the limit on tokens."""
_MAX_DETAIL = 200  # characters


@dataclass(frozen=True, slots=True)
class Output:
    """One output of a reply.

    Args:
        text: the text; empty if there is none.
        finish_reason: why generation ended: "length" at the limit on tokens, or what the server says; None if unknown.
        problem: why the text is not an output of the model, such as "tool call"; details follow a colon. None if it is.
        thinking: whether the server returned thinking apart from the text.
        token_logps: log-probability of each token of the text in nats, None for a token without one; None if the reply
            of the completions endpoint has none.
    """

    text: str
    finish_reason: str | None = None
    problem: str | None = None
    thinking: bool = False
    token_logps: tuple[float | None, ...] | None = None


@dataclass(frozen=True, slots=True)
class ServerReply:
    """What a reply holds.

    Args:
        outputs: the outputs, in the reply's order.
        model: name of the model that answered; None if the server does not say.
        prompt_tokens: tokens of the prompt; None unless the server counts prompt and outputs.
        completion_tokens: tokens of all outputs; None as for ``prompt_tokens``.
    """

    outputs: tuple[Output, ...]
    model: str | None
    prompt_tokens: int | None
    completion_tokens: int | None


def read_reply(body: bytes, chat: bool) -> ServerReply:
    """Read the body of a successful reply.

    Args:
        body: the reply as it was received.
        chat: whether it comes from the chat endpoint; otherwise from the completions endpoint.

    Raises:
        ErrorReply: the body is an error, in spite of the reply's status.
        UnusableReply: the body is not a reply of the protocol, or holds no output.
    """
    reply = _parsed(body)
    _raise_error(reply)
    choices = reply.get("choices")
    if choices is None and "choices" not in reply:
        raise UnusableReply("the reply does not follow the OpenAI protocol: it has no field choices")
    if not isinstance(choices, list) or not choices:
        raise UnusableReply("the reply holds no output")
    outputs = []
    for choice in choices:
        if not isinstance(choice, dict):
            raise UnusableReply("the reply does not follow the OpenAI protocol: a choice is not an object")
        _raise_error(choice)
        if chat:
            outputs.append(_chat_output(choice))
        else:
            output = _output(choice, choice.get("text"), False)
            outputs.append(replace(output, token_logps=_token_logps(choice.get("logprobs"))))
    model = reply.get("model")
    usage = reply.get("usage")
    usage = usage if isinstance(usage, dict) else {}
    counts = (_count(usage.get("prompt_tokens")), _count(usage.get("completion_tokens")))
    return ServerReply(
        tuple(outputs), model if isinstance(model, str) else None, *(counts if None not in counts else (None, None))
    )


def _parsed(body: bytes) -> dict[str, Any]:
    if body.lstrip()[:1] == b"<":
        raise UnusableReply("the reply is a web page, not JSON")
    try:
        reply = json.loads(body)
    except (ValueError, RecursionError):
        streamed = body.lstrip()[:5] == b"data:"
        raise UnusableReply(f"the reply is {'a stream' if streamed else 'not JSON'}") from None
    if not isinstance(reply, dict):
        raise UnusableReply("the reply does not follow the OpenAI protocol: it is not an object")
    return reply


def _raise_error(value: Mapping[str, Any]) -> None:
    """Raise ``ErrorReply`` if an object is an error or has one."""
    error = value if value.get("object") == "error" else value.get("error")
    if error is None and "choices" not in value and "message" not in value:
        error = value.get("detail")  # FastAPI
    if not error:
        return
    fields = error if isinstance(error, dict) else {}
    message = fields.get("message") or fields.get("detail") or error
    code, kind = fields.get("code"), fields.get("type")
    status = _count(code) or _count(fields.get("status"))
    raise ErrorReply(
        _line(message), status, code if isinstance(code, str) else None, kind if isinstance(kind, str) else None
    )


def _chat_output(choice: Mapping[str, Any]) -> Output:
    message = choice.get("message")
    if not isinstance(message, dict):
        return _output(choice, None, False, "no message in the reply")
    thinking = any(isinstance(value := message.get(name), str) and value.strip() for name in _THINKING_FIELDS)
    problem = None
    if refusal := message.get("refusal"):
        problem = f"refusal: {_line(refusal)}"
    elif message.get("tool_calls") or message.get("function_call"):
        problem = "tool call"
    return _output(choice, message.get("content"), thinking, problem)


def _output(choice: Mapping[str, Any], content: Any, thinking: bool, problem: str | None = None) -> Output:
    finish_reason = choice.get("finish_reason")
    finish_reason = finish_reason if isinstance(finish_reason, str) else None
    if finish_reason is not None and finish_reason.casefold() in _LENGTH:
        finish_reason = "length"
    text, thinking_part, content_problem = _text(content)
    problem = problem or _PROBLEM_BY_FINISH_REASON.get((finish_reason or "").casefold()) or content_problem
    thinking = thinking or thinking_part
    if problem is None and text is None:
        problem = "thinking without an answer" if thinking else "no text in the reply"
    return Output(text or "", finish_reason, problem, thinking)


def _text(content: Any) -> tuple[str | None, bool, str | None]:
    """Return the text of a message's content, whether the content also has thinking, and a problem or None.

    The text is None if the content has none.
    """
    texts, thinking = [], False
    for part in content if isinstance(content, list) else [] if content is None else [content]:
        kind, text = (part.get("type"), part.get("text")) if isinstance(part, dict) else (None, part)
        if kind in _THINKING_PARTS:
            thinking = True
        elif kind == "refusal":
            return None, thinking, f"refusal: {_line(part.get('refusal') or text or '')}"
        elif kind not in _TEXT_PARTS or not isinstance(text, str):
            what = kind if isinstance(kind, str) and kind != "text" else type(part).__name__
            return None, thinking, f"content is not text: {_line(what)}"
        else:
            texts.append(text)
    return "".join(texts) if texts else None, thinking, None


def _token_logps(logprobs: Any) -> tuple[float | None, ...] | None:
    values = logprobs.get("token_logprobs") if isinstance(logprobs, dict) else None
    if not isinstance(values, list):
        return None
    return tuple(float(v) if isinstance(v, float | int) and not isinstance(v, bool) else None for v in values)


def _count(value: Any) -> int | None:
    """Return a number of tokens, or a status; None if the value is none."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 16:
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _line(value: Any) -> str:
    """Return a value as one line of limited length."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return " ".join(text[: 4 * _MAX_DETAIL].split())[:_MAX_DETAIL]
