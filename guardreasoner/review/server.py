"""Serves the review page to this machine until somebody presses Ctrl-C."""

import signal
import socket
from contextlib import suppress

from guardreasoner.errors import InputError
from guardreasoner.review.app import make_app
from guardreasoner.review.session import Session

ADDRESS = "127.0.0.1"
"""Of this machine, and reachable from no other."""


def bind(port: int) -> socket.socket:
    """Return a socket at a port; 0 is any free one. From now on it takes calls, which wait until somebody serves.

    Raises:
        InputError: the port is taken, or not for everybody.
    """
    bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((ADDRESS, port))
        bound.listen()
    except OSError as error:
        bound.close()
        raise InputError(f"review: --port {port}: {error.strerror}", "without --port any free one is taken") from None
    return bound


def serve(session: Session, bound: socket.socket) -> None:
    """Serve the page until SIGINT or SIGTERM; requests that were begun are finished.

    Args:
        session: what is rated.
        bound: from :func:`bind`; closed at the end.
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
    # uvicorn ends well on both signals, and then raises them once more for those who start it.
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with suppress(KeyboardInterrupt):
            uvicorn.Server(config).run(sockets=[bound])
    finally:
        signal.signal(signal.SIGTERM, before)
        bound.close()
