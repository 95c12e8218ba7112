"""The server: uvicorn with a limit on how long a client may take, until SIGTERM or Ctrl-C."""

import asyncio
import resource
import socket
from collections.abc import Callable

import h11
import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

from guardreasoner.errors import InputError
from guardreasoner.guard.service.refusals import Refusal
from guardreasoner.workflow import stop_signals

_HEAD_SECONDS = 10.0
"""Longest time from a connection, or from the first byte of a request, to the end of the request's head."""

_GRACE = 5.0
"""Seconds beyond the time-out of a request within which those in progress end after a signal."""


def open_socket(host: str, port: int) -> socket.socket:
    """Return a socket that is bound, and does not listen: clients are refused until the guard is loaded.

    Raises:
        InputError: the port is taken or not permitted.
    """
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    opened = socket.socket(family, kind, protocol)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        opened.bind(address)
    except OSError as error:
        opened.close()
        raise InputError(f"serve: {host}:{port}: {error.strerror}", "--port N takes another port") from None
    return opened


def run_service(app: FastAPI, opened: socket.socket, timeout: float, started: Callable[[], None]) -> None:
    """Serve until SIGTERM or SIGINT; requests in progress are answered, and no new ones are taken.

    Args:
        app: the application.
        opened: socket from :func:`open_socket`.
        timeout: time-out of a request in seconds.
        started: called once the socket listens.

    Raises:
        Stopped: a signal has stopped it.
    """
    _allow_connections()
    config = uvicorn.Config(
        app,
        http=_protocol(min(timeout, _HEAD_SECONDS)),
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=int(timeout + _GRACE),
    )
    server = _Server(config, started)
    server.run(sockets=[opened])  # at the end, it raises the signal again, for the handler of stop_signals
    stop_signals.check()


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, started: Callable[[], None]) -> None:
        super().__init__(config)
        self._when_started = started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._when_started()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await super().shutdown(sockets)
        count = self.server_state.total_requests
        stop_signals.note(f"{count:,} request{'' if count == 1 else 's'} answered")


def _protocol(seconds: float) -> type[H11Protocol]:
    """Return uvicorn's protocol with a time limit for the head of a request, which uvicorn itself waits for forever."""

    class TimedProtocol(H11Protocol):
        head_timer: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self._watch_head()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self._watch_head()

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop_watching()
            super().connection_lost(exc)

        def send_400_response(self, msg: str) -> None:
            """Answer what is no HTTP, in the form of the other errors."""
            body = Refusal(400, "the request is not valid HTTP", "not_http").response().body
            headers = [(b"content-type", b"application/json"), (b"connection", b"close")]
            parts = (
                h11.Response(status_code=400, headers=headers, reason=b"Bad Request"),
                h11.Data(data=bytes(body)),
                h11.EndOfMessage(),
            )
            self.transport.write(b"".join(self.conn.send(part) or b"" for part in parts))
            self.transport.close()

        def _watch_head(self) -> None:
            if self.cycle is not None and not self.cycle.response_complete:
                self._stop_watching()
            elif self.head_timer is None:
                self.head_timer = self.loop.call_later(seconds, self.transport.close)

        def _stop_watching(self) -> None:
            if self.head_timer is not None:
                self.head_timer.cancel()
                self.head_timer = None

    return TimedProtocol


def _allow_connections() -> None:
    """Let the process have as many connections as the system permits; the usual limit is 1,024 files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
