"""``judge``: ask a guard about one conversation, or with --jsonl about each line of a stream."""

import argparse
import json
import logging
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from guardreasoner.cli.guard_engine import add_base_path, add_engine, add_quantization, engine_factory
from guardreasoner.errors import InputError
from guardreasoner.guard import Guard, GuardResult, Query, TaskResult
from guardreasoner.guard.results import GuardSpeed, task_flags
from guardreasoner.records.jsonl import parse_json, read_lines
from guardreasoner.sources.policy_files import read_policy
from guardreasoner.tasks import Task
from guardreasoner.workflow.terminal import show_line, terminal_text

log = logging.getLogger("guardreasoner")

HELP = "judge one conversation (or with --jsonl each line of stdin) with a guard; exit code 1 if it is flagged"

DEFAULT_MODEL = "checkpoints/hsdpo"
_TOY = 10_000_000
"""Parameters below which a model cannot be a guard to deploy."""

_STDIN = Path("stdin")
_FIELDS = ("prompt", "response", "messages", "policy")
_POLICY_HELP = "policy to judge by, or a .txt or .md file with it; with --jsonl for lines without a policy of their own"


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("text", nargs="?", metavar="TEXT", help="what the user wrote; default: read from stdin")
    parser.add_argument("--response", metavar="TEXT", help="what the assistant answered")
    parser.add_argument("--messages", type=Path, metavar="FILE", help="a JSON list of messages")
    parser.add_argument("--policy", metavar="TEXT|FILE", help=_POLICY_HELP)
    parser.add_argument(
        "--model", default=DEFAULT_MODEL, metavar="FOLDER", help=f"model folder or hub id (default {DEFAULT_MODEL})"
    )
    add_base_path(parser)
    add_quantization(parser)
    parser.add_argument(
        "--speed",
        choices=get_args(GuardSpeed),
        help="direct answers at once, reasoned reasons first, auto reasons where the direct answer is unclear",
    )
    add_engine(parser)
    parser.add_argument("--json", action="store_true", help="print the result as one line of JSON")
    parser.add_argument(
        "--jsonl",
        action="store_true",
        help='judge each line of stdin, {"prompt", "response"} or {"messages"}; print a line of JSON for each',
    )


def run(args: argparse.Namespace) -> int:
    """Judge and print.

    Args:
        args: the arguments that :func:`configure` declares.

    Returns:
        1 if a conversation is flagged, else 0. With ``--jsonl``, 2 if a line could not be judged.

    Raises:
        InputError: there is no such model, or an input is invalid.
    """
    policy = None if args.policy is None else read_policy(args.policy, "--policy")
    query = None if args.jsonl else _query(args, policy)
    if args.jsonl and not (args.text is args.response is args.messages is None):
        raise InputError("judge: --jsonl reads conversations from stdin, but one is given", "leave out one of them")
    guard = _guard(args)
    if query is None:
        return _judge_lines(guard, policy)
    result = guard.check(query.prompt, query.response, messages=query.messages, policy=query.policy)
    if args.json:
        print(json.dumps(result.as_json()))
    else:
        for line in result_lines(result, guard.tasks):
            show_line(line)
    return int(result.flagged)


def result_lines(result: GuardResult, tasks: Sequence[Task]) -> list[str]:
    """Return a result as lines for a person; the first one names the tasks that flag the conversation."""
    width = max(map(len, result.tasks))
    names = ", ".join(task.name for task in tasks if task.flags and task_flags(result.tasks[task.name], task))
    flagged = f"flagged by: {names}" + (", because the answer has no clear verdict" if result.unparsed else "")
    lines = [flagged if result.flagged else "not flagged"]
    lines += [f"  {task.name:<{width}}  {_task_line(result.tasks[task.name], task)}" for task in tasks]
    if result.unparsed:
        lines += ["", "answer:", result.completion]
    elif result.reasoning is not None:
        lines += ["", "reasoning:", result.reasoning]
    return lines


def _task_line(result: TaskResult, task: Task) -> str:
    if result.band is None and result.verdict is None:
        return "does not apply"
    parts = [result.verdict or "no clear verdict"]
    if result.score is not None:
        is_of_one_label = not task.ordered and task.flags != "others"
        parts.append(f"{f'P({task.positive})' if is_of_one_label else 'score'} {result.score:.4f}")
    if result.threshold is not None:
        parts.append(f"threshold {result.threshold:.4f}")
    if result.band is not None:
        parts.append(f"band {result.band}")
    return ", ".join(parts)


def _guard(args: argparse.Namespace) -> Guard:
    if args.model == DEFAULT_MODEL and not Path(args.model).is_dir():
        hint = "python -m guardreasoner fit --config configs/hsdpo.yaml makes it; --model FOLDER names another one"
        raise InputError(f"{args.model}: no such model folder", hint)
    engine = engine_factory(args.engine)
    guard = Guard.load(
        args.model, speed=args.speed, engine=engine, quantization=args.quantization, base_path=args.base_path
    )
    if not guard.engine.needs_weights:
        return guard
    count = sum(parameter.numel() for parameter in guard.backbone.parameters())
    if count < _TOY:
        text = f"note: a model of {count / 1e6:.2f} million parameters shows how a guard works, but cannot be relied on"
        print(terminal_text(text), file=sys.stderr)
    return guard


def _query(args: argparse.Namespace, policy: str | None) -> Query:
    """Return the conversation of the command line; a text that is missing there is read from stdin."""
    if args.messages is not None:
        if args.text is not None or args.response is not None:
            raise InputError("judge: --messages: given beside a text, expected one of them")
        return Query(messages=_read_messages(args.messages), policy=policy)
    text = args.text
    if text is None:
        if sys.stdin.isatty():
            raise InputError("judge: no text", 'python -m guardreasoner judge "text", or send the text to stdin')
        text = _decoded(sys.stdin.buffer.read(), "stdin").rstrip("\r\n")
        if not text.strip():
            raise InputError("stdin: found an empty text, expected what the user wrote")
    return Query(text, args.response, policy=policy)


def _read_messages(path: Path) -> Any:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    try:
        content = parse_json(_decoded(data, str(path)))
    except ValueError as error:
        raise InputError(f"{path}: {error}") from None
    if not isinstance(content, dict) or "messages" not in content:
        return content
    if beside := [name for name in _FIELDS if name != "messages" and content.get(name) is not None]:
        raise InputError(
            f"{path}: found {min(beside)} beside messages, which --messages does not read",
            "put the prompt and the answer into the messages, and the policy into --policy",
        )
    if unread := sorted(name for name in content.keys() - set(_FIELDS) if content[name] is not None):
        print(terminal_text(f"note: {path}: fields that are not read: {', '.join(unread)}"), file=sys.stderr)
    return content["messages"]


def _judge_lines(guard: Guard, policy: str | None) -> int:
    """Print a line of JSON for each line of stdin, as soon as it is judged; return the exit code.

    Args:
        guard: the guard.
        policy: policy of the lines that have none.

    Raises:
        InputError: stdin is empty.
    """
    code = None
    for number, line in read_lines(sys.stdin.buffer, _STDIN):
        if not line.strip():
            continue
        code = code or 0
        try:
            row = _row(line, number)
            answer = _judged(guard, row, policy, number)
        except InputError as error:
            answer, code = {"line": number, "error": str(error)}, 2
        except Exception as error:  # one line at which the engine fails must not end the others
            log.exception("stdin:%s: the guard failed", number)
            answer, code = {"line": number, "error": f"the guard failed: {type(error).__name__}"}, 2
        else:
            code = max(code, int(answer["flagged"]))
        print(json.dumps(answer), flush=True)
    if code is None:
        raise InputError("stdin: found no conversation, expected a line of JSON for each")
    return code


def _judged(guard: Guard, row: Mapping[str, Any], policy: str | None, number: int) -> dict[str, Any]:
    query = Query(**{"policy": policy} | {name: row[name] for name in _FIELDS if row.get(name) is not None})
    try:
        result = guard.check(query.prompt, query.response, messages=query.messages, policy=query.policy)
    except InputError as error:
        raise InputError(f"{_STDIN}:{number}: {error}") from None
    return {**({"id": row["id"]} if "id" in row else {}), **result.as_json()}


def _row(line: bytes, number: int) -> dict[str, Any]:
    where = f"{_STDIN}:{number}"
    try:
        row = parse_json(_decoded(line, where))
    except ValueError as error:
        raise InputError(f"{where}: {error}") from None
    if not isinstance(row, dict):
        raise InputError(f"{where}: expected a JSON object, found {type(row).__name__}")
    if unknown := row.keys() - {*_FIELDS, "id"}:
        raise InputError(f"{where}: unknown field {min(unknown)!r}, expected {', '.join(_FIELDS)} or id")
    return row


def _decoded(data: bytes, where: str) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{where}: not valid UTF-8: byte {error.start + 1}") from None
