"""``serve``: put a guard behind HTTP."""

import argparse
import os
import re
from typing import TYPE_CHECKING, get_args

from guardreasoner.cli.guard_engine import add_base_path, add_engine, add_quantization, engine_factory
from guardreasoner.errors import InputError
from guardreasoner.guard.results import GuardSpeed
from guardreasoner.workflow import stop_signals
from guardreasoner.workflow.terminal import show_line

if TYPE_CHECKING:
    from guardreasoner.guard.service.judging import ServiceLimits

HELP = "serve a guard over HTTP: a page to try it, moderation, chat and guardrail routes"

_UNITS = {"": 1, "kb": 1_000, "mb": 1_000_000}


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("model", metavar="FOLDER", help="model folder, such as checkpoints/hsdpo")
    add_base_path(parser)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default 127.0.0.1, this machine)")
    parser.add_argument("--port", type=int, default=8080, metavar="N", help="port (default 8080); 0: any free port")
    parser.add_argument("--name", help="name of the model for clients (default: the name of the folder)")
    parser.add_argument("--speed", choices=get_args(GuardSpeed), help="speed of answers if a request names none")
    add_engine(parser)
    parser.add_argument("--queue", type=int, default=256, metavar="N", help="most waiting conversations (default 256)")
    parser.add_argument("--batch", type=int, default=64, metavar="N", help="most conversations a batch (default 64)")
    parser.add_argument(
        "--linger", type=float, default=2.0, metavar="MS", help="wait MS ms for further conversations (default 2)"
    )
    parser.add_argument("--timeout", type=float, default=30.0, metavar="S", help="of a request (default 30 s)")
    parser.add_argument("--max_body", default="1MB", metavar="SIZE", help="most bytes of a body (default 1MB)")
    parser.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), default="float32", help="of the weights")
    add_quantization(parser)
    parser.add_argument("--device", help="device of the weights (default: the first GPU or else the CPU)")
    parser.add_argument("--log_texts", action="store_true", help="log conversations and answers too")


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    with stop_signals.handled():
        return _serve(args)


def _serve(args: argparse.Namespace) -> int:
    from guardreasoner.guard import Guard
    from guardreasoner.guard.service.access import KEY_VARIABLE, checked_key, is_loopback
    from guardreasoner.guard.service.app import LOOPBACK_HOSTS, make_service_app
    from guardreasoner.guard.service.judging import GuardService
    from guardreasoner.guard.service.request_log import logged_to_stderr
    from guardreasoner.guard.service.server import open_socket, run_service

    limits = _limits(args)
    if not 0 <= args.port < 1 << 16:
        raise InputError(f"serve: --port: expected a number from 0 to 65535, got {args.port}")
    key = checked_key(os.environ.get(KEY_VARIABLE))
    if key is None and not is_loopback(args.host):
        raise InputError(
            f"serve: --host {args.host}: other machines could ask without a key",
            f"set {KEY_VARIABLE}; clients then send it as Authorization: Bearer KEY",
        )
    with open_socket(args.host, args.port) as opened:
        guard = Guard.load(
            args.model,
            speed=args.speed,
            engine=engine_factory(args.engine),
            quantization=args.quantization,
            dtype=args.dtype,
            device=args.device,
            base_path=args.base_path,
        )
        service = GuardService(guard, args.name or guard.backbone.name, limits, args.log_texts)
        app = make_service_app(service, key, {*LOOPBACK_HOSTS, args.host.lower()})
        host = f"[{args.host}]" if ":" in args.host else args.host
        address = f"http://{host}:{opened.getsockname()[1]}"
        speeds = ", ".join(guard.speeds)
        line = f"serving {service.name} at {address} (speeds: {speeds}; default: {guard.speed}); stop with Ctrl-C"
        with logged_to_stderr(args.log_texts):
            run_service(app, opened, limits.timeout, lambda: show_line(line))
    return 0


def _limits(args: argparse.Namespace) -> "ServiceLimits":
    from guardreasoner.guard.service.judging import ServiceLimits

    for name, least in (("queue", 1), ("batch", 1), ("linger", 0)):
        if not getattr(args, name) >= least:
            raise InputError(f"serve: --{name}: expected a number of at least {least}, got {getattr(args, name)}")
    if not 0 < args.timeout < 86_400:
        raise InputError(f"serve: --timeout: expected seconds above 0, at most a day, got {args.timeout:g}")
    found = re.fullmatch(r"([1-9]\d{0,9})(kb|mb|)", args.max_body.lower())
    if found is None:
        raise InputError(f"serve: --max_body: expected a size such as 500KB or 1MB, got {args.max_body!r}")
    max_body = int(found[1]) * _UNITS[found[2]]
    return ServiceLimits(args.queue, args.batch, args.linger / 1000, args.timeout, max_body)
