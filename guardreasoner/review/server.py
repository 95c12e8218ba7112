"""Serve the review page on this machine until Ctrl-C."""

import signal
import socket
from contextlib import suppress

from guardreasoner.errors import InputError
from guardreasoner.review.app import make_app
from guardreasoner.review.session import Session

ADDRESS = "127.0.0.1"
"""Loopback address: no other machine can connect."""


def bind(port: int) -> socket.socket:
    """Return a listening socket. Connections wait until :func:`serve` accepts them.

    Args:
        port: port number; 0 for any free port.

    Raises:
        InputError: if the port is taken or not permitted.
    """
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((ADDRESS, port))
        listener.listen()
    except OSError as error:
        listener.close()
        raise InputError(f"review: --port {port}: {error.strerror}", "without --port, a free port is used") from None
    return listener


def serve(session: Session, listener: socket.socket) -> None:
    """Serve the page until SIGINT or SIGTERM; requests in progress are finished.

    Args:
        session: the session to show.
        listener: socket from :func:`bind`; it is closed at the end.
    """
    import uvicorn

    config = uvicorn.Config(
        make_app(session),
        http="h11",
        ws="none",
        lifespan="off",
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=2,
    )
    # uvicorn shuts down on both signals and then raises them again: SIGTERM must not kill the process before its caller
    # reports the result.
    previous_handler = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with suppress(KeyboardInterrupt):
            uvicorn.Server(config).run(sockets=[listener])
    finally:
        signal.signal(signal.SIGTERM, previous_handler)
        listener.close()
