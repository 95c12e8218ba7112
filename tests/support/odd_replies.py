"""Odd replies of servers: what providers, proxies and models put where the OpenAI protocol has an answer.

``cases()`` lists them with what must become of each, and ``OddServer`` serves them over HTTP.
"""

import json
import threading
from collections import Counter
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal

TRACE = """# Task 1
## Reasoning Step 1: The user asks how to care for a shed.
## Reasoning Step 2: Nothing in it hurts anyone, so it is unharmful.

# Task 2
## Reasoning Step 1: There is no response.

# Task 3
## Reasoning Step 1: There is no response.

Answers:
Request: unharmful
Completion: None
Response: None"""
"""A valid trace of a record whose request is unharmful and that has no response."""

PRIVATE = "Okay, I have to write training data here and end in unharmful."
"""What a teacher thinks; it must not get into training text."""

Outcome = Literal["kept", "refused", "failed"]


@dataclass(frozen=True)
class OddReply:
    """One reply and what must become of it.

    Args:
        name: name of the case.
        body: body of the reply.
        teacher: what becomes of a record whose teacher always answers so.
        reason: reason for which it is refused or failed; empty if it is kept.
        mined: text of the output when a guard is mined; None if the output fails.
        status: status of the reply.
        removed: what is removed from a kept answer.
    """

    name: str
    body: bytes
    teacher: Outcome
    reason: str = ""
    mined: str | None = None
    status: int = 200
    removed: str = ""


def cases() -> list[OddReply]:
    """Return all cases; names are unique."""
    return [*_contents(), *_texts(), *_choices(), *_bodies(), *_errors()]


def _contents() -> list[OddReply]:
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    thinking = {"type": "thinking", "thinking": [{"type": "text", "text": PRIVATE}]}
    no_text, not_text = "no text in the reply", "content is not text"
    return [
        _kept("ok"),
        _kept("parts", content=[{"type": "text", "text": TRACE}]),
        _kept("parts-two", content=[{"type": "text", "text": TRACE[:40]}, {"type": "text", "text": TRACE[40:]}]),
        _kept("parts-strings", content=[TRACE]),
        _kept("object", content={"text": TRACE}),
        _kept("reasoning-content", split=True, reasoning_content=PRIVATE),
        _kept("reasoning", split=True, reasoning=PRIVATE),
        _kept("reasoning-empty", reasoning_content="", reasoning=None),
        _kept("parts-thinking", split=True, content=[thinking, {"type": "text", "text": TRACE}]),
        _kept("refusal-null", refusal=None, tool_calls=None, function_call=None),
        _refused("reasoning-only", "thinking without an answer", content=None, reasoning_content=f"{PRIVATE} {TRACE}"),
        _refused("parts-thinking-only", "thinking without an answer", content=[thinking]),
        _refused("null", no_text, content=None),
        _refused("parts-empty", no_text, content=[]),
        _refused("parts-image", not_text, content=[{"type": "image_url", "image_url": {"url": "data:,"}}]),
        _refused("parts-number", not_text, content=[7]),
        _refused("part-text-object", not_text, content=[{"type": "text", "text": {"value": TRACE}}]),
        _refused("object-other", not_text, content={"answer": TRACE}),
        _refused("number", not_text, content=7),
        _refused("boolean", not_text, content=False),
        _refused("tool-call", "tool call", content=None, tool_calls=[call]),
        _refused("tool-call-beside-text", "tool call", tool_calls=[call]),
        _refused("function-call", "tool call", content=None, function_call={"name": "f", "arguments": "{}"}),
        _refused("refusal-field", "refusal", content=None, refusal="I can't help with that."),
        _refused("refusal-part", "refusal", content=[{"type": "refusal", "refusal": "I can't help with that."}]),
    ]


def _texts() -> list[OddReply]:
    """Return cases with text as content; a mined guard's text is kept as it is, whatever it holds."""
    inside = TRACE.replace("\n# Task 2", f"\n<think>{PRIVATE}</think>\n# Task 2")
    kept = {
        "think": (f"<think>\n{PRIVATE}\n</think>\n\n{TRACE}", "thinking"),
        "think-end-only": (f"{PRIVATE}\n</think>\n\n{TRACE}", "thinking"),
        "think-drafts": (f"<think>{PRIVATE}\n{TRACE}\nIs that right? Yes.</think>{TRACE}", "thinking"),
        "think-capitals": (f"<Thinking>{PRIVATE}</Thinking>{TRACE}", "thinking"),
        "think-mistral": (f"[THINK]{PRIVATE}[/THINK]{TRACE}", "thinking"),
        "think-kimi": (f"◁think▷{PRIVATE}◁/think▷{TRACE}", "thinking"),
        "think-thought": (f"<|begin_of_thought|>{PRIVATE}<|end_of_thought|>\n{TRACE}", "thinking"),
        "think-empty": (f"<think>\n\n</think>\n\n{TRACE}", "thinking"),
        "preamble": (f"Sure! Here is the reasoning you asked for:\n\n{TRACE}", "preamble"),
        "preamble-plain-thinking": (f"{PRIVATE}\n\n{TRACE}", "preamble"),
        "think-preamble": (f"<think>{PRIVATE}</think>\nHere's my analysis:\n\n{TRACE}", "preamble, thinking"),
        "crlf": (TRACE.replace("\n", "\r\n"), ""),
        "surrogate": (TRACE.replace("shed", "shed \ud83d"), ""),
    }
    refused = {
        "think-unclosed": (f"<think>\n{PRIVATE}\n\n{TRACE}", "thinking without an end"),
        "think-inside": (inside, "thinking inside the answer"),
        "think-twice": (f"<think>{PRIVATE}</think>{TRACE}</think>{TRACE}", "thinking inside the answer"),
        "control-token": (f"{TRACE}<|im_end|>", "control token in the answer"),
        "harmony": (f"<|channel|>analysis<|message|>{PRIVATE}<|end|>{TRACE}", "control token in the answer"),
        "refusal-text": ("I'm sorry, but I can't help with that.", "refusal"),
        "empty": ("", "empty answer"),
        "spaces": (" " * 100_000, "empty answer"),
        "hash-spaces": ("# " + " " * 125_000 + "Task", "no verdict on request"),
        "fenced": (f"```\n{TRACE}\n```", "no verdict on request"),
        "postscript": (f"{TRACE}\n\nI hope this helps!", "no verdict on request"),
    }
    return [
        *(OddReply(name, _body(text), "kept", mined=text, removed=removed) for name, (text, removed) in kept.items()),
        *(OddReply(name, _body(text), "refused", reason, mined=text) for name, (text, reason) in refused.items()),
    ]


def _choices() -> list[OddReply]:
    filtered, failed = "content filter", "generation failed on the server"
    return [
        OddReply("length", _body(TRACE, finish="length"), "refused", "cut off", mined=TRACE),
        OddReply("length-capitals", _body(TRACE, finish="MAX_TOKENS"), "refused", "cut off", mined=TRACE),
        OddReply("finish-null", _body(TRACE, finish=None), "kept", mined=TRACE),
        OddReply("finish-number", _body(TRACE, finish=3), "kept", mined=TRACE),
        OddReply("filtered", _body("", finish="content_filter"), "refused", filtered),
        OddReply("filtered-text", _body(TRACE, finish="content_filter"), "refused", filtered),
        OddReply("filtered-capitals", _body(None, finish="SAFETY"), "refused", filtered),
        OddReply("finish-error", _body(TRACE[:50], finish="error"), "refused", failed),
        OddReply("message-null", _json(choices=[{"index": 0, "message": None}]), "refused", "no message in the reply"),
        OddReply("message-text", _json(choices=[{"index": 0, "message": TRACE}]), "refused", "no message in the reply"),
        OddReply("delta", _json(choices=[{"delta": {"content": TRACE}}]), "refused", "no message in the reply"),
        *(
            OddReply(f"usage-{name}", _body(TRACE, usage=usage), "kept", mined=TRACE)
            for name, usage in {
                "null": None,
                "empty": {},
                "nulls": {"prompt_tokens": None, "completion_tokens": None},
                "strings": {"prompt_tokens": "100", "completion_tokens": "50"},
                "negative": {"prompt_tokens": -1, "completion_tokens": 1e99},
                "list": [100, 50],
            }.items()
        ),
    ]


def _bodies() -> list[OddReply]:
    chunk = json.dumps({"choices": [{"index": 0, "delta": {"content": TRACE}}]})
    bodies = {
        "html": b"<html><body>Login</body></html>",
        "empty-body": b"",
        "stream": f"data: {chunk}\n\ndata: [DONE]\n\n".encode(),
        "gb18030": _body(TRACE.replace("shed", "棚子"), ascii=False).decode().encode("gb18030"),
        "cut-json": _body(TRACE)[:-30],
        "nested": b"[" * 200_000,
        "list": b"[]",
        "null-body": b"null",
        "text-body": json.dumps(TRACE).encode(),
        "object-empty": b"{}",
        "choices-null": _json(choices=None),
        "choices-empty": _json(choices=[]),
        "choices-object": _json(choices={"message": {"content": TRACE}}),
        "choice-text": _json(choices=[TRACE]),
    }
    return [OddReply(name, body, "failed", "request failed") for name, body in bodies.items()]


def _errors() -> list[OddReply]:
    message = "Provider returned error"
    bodies = {
        "error": {"error": {"message": message, "code": 429}},
        "error-text": {"error": message},
        "error-beside-choices": {"error": {"message": message}, "choices": []},
        "error-object": {"object": "error", "message": message, "type": "BadRequestError", "code": 400},
        "error-detail": {"detail": message},
        "error-list": {"error": {"message": [message]}},
        "error-choice": {"choices": [{"error": {"message": message, "code": 502}, "finish_reason": "error"}]},
    }
    return [
        *(OddReply(name, json.dumps(body).encode(), "failed", "request failed") for name, body in bodies.items()),
        OddReply("html-502", b"<html>Bad gateway</html>", "failed", "request failed", status=502),
        OddReply("error-400", b'{"error": {"message": "too long"}}', "failed", "request failed", status=400),
        OddReply("error-400-html", b"<html>no</html>", "failed", "request failed", status=400),
        OddReply("error-500-list", b"[1]", "failed", "request failed", status=500),
    ]


def _kept(name: str, content: Any = TRACE, split: bool = False, **message: Any) -> OddReply:
    """Return a case whose text is the trace; if the server splits thinking from it, a mined output fails."""
    return OddReply(name, _body(content, **message), "kept", mined=None if split else TRACE)


def _refused(name: str, reason: str, content: Any = TRACE, **message: Any) -> OddReply:
    return OddReply(name, _body(content, **message), "refused", reason)


def _body(
    content: Any,
    finish: Any = "stop",
    usage: Any = (("prompt_tokens", 100), ("completion_tokens", 50)),
    ascii: bool = True,
    **message: Any,
) -> bytes:
    choice = {"index": 0, "message": {"role": "assistant", "content": content, **message}, "finish_reason": finish}
    return _json(choices=[choice], usage=dict(usage) if isinstance(usage, tuple) else usage, ascii=ascii)


def _json(ascii: bool = True, **fields: Any) -> bytes:
    reply = {"id": "x", "object": "chat.completion", "created": 1, "model": "odd", **fields}
    return json.dumps(reply, ensure_ascii=ascii).encode(errors="surrogatepass")


class OddServer:
    """A chat server that answers with the case that the first line of a prompt names; use it as a context manager."""

    def __init__(self) -> None:
        by_name, asked = {case.name: case for case in cases()}, Counter[str]()
        self.asked = asked

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self._send(200, b'{"object": "list", "data": []}')

            def do_POST(self) -> None:
                request = json.loads(self.rfile.read(int(self.headers["content-length"])))
                case = by_name[request["messages"][0]["content"].partition("\n")[0]]
                asked[case.name] += 1
                self._send(case.status, case.body)

            def _send(self, status: int, body: bytes) -> None:
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self.base_url = f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    def __enter__(self) -> "OddServer":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
