"""Access control: with a key, requests must carry it; without one, they must address this machine by a local name."""

import hmac
import ipaddress
import socket
from collections.abc import Collection

from starlette.types import ASGIApp, Receive, Scope, Send

from guardreasoner.errors import InputError
from guardreasoner.guard.service.refusals import Refusal

KEY_VARIABLE = "GUARD_API_KEY"

OPEN_PATHS = ("/", "/health", "/ready")
"""Paths that need no key: the page, which asks for it, and the probes of an orchestrator. They say nothing about the
guard but that the server is there."""


class Access:
    """Lets a request pass if it has the key or, on a server without a key, if it names this machine as its host.

    The host is checked because a page of another site can make a browser take that site's name for this machine
    (DNS rebinding).

    Args:
        app: the application.
        key: the key; None if there is none.
        hosts: names of this machine, in lower case.
    """

    def __init__(self, app: ASGIApp, key: str | None, hosts: Collection[str]) -> None:
        self.app = app
        self.key = None if key is None else key.encode()
        self.hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and (refusal := self._refusal(scope)) is not None:
            scope["state"]["fields"]["code"] = refusal.code
            await refusal.response()(scope, receive, send)
            return
        await self.app(scope, receive, send)

    def _refusal(self, scope: Scope) -> Refusal | None:
        if self.key is None:
            hosts = [value for name, value in scope["headers"] if name == b"host"]
            if len(hosts) == 1 and _host_name(hosts[0].decode("latin-1")) in self.hosts:
                return None
            return Refusal(421, "the Host header does not name this machine", "wrong_host")
        if scope["path"] in OPEN_PATHS:
            return None
        given = [value for name, value in scope["headers"] if name == b"authorization"]
        scheme, _, key = (given[0] if len(given) == 1 else b"").partition(b" ")
        if hmac.compare_digest(key.strip(), self.key) and scheme.lower() == b"bearer":
            return None
        return Refusal(
            401,
            "expected the header Authorization: Bearer KEY with the key of this server",
            "invalid_api_key",
            kind="authentication_error",
            headers={"www-authenticate": "Bearer"},
        )


def checked_key(key: str | None) -> str | None:
    """Return the key of the environment.

    Raises:
        InputError: it is set, but cannot be sent in a header.
    """
    if key is not None and not (key.isascii() and key.isprintable() and key.strip() == key != ""):
        raise InputError(f"{KEY_VARIABLE}: found a key that is empty or has spaces around it or odd characters")
    return key


def is_loopback(host: str) -> bool:
    """Return whether only programs of this machine can connect to a host's address.

    Raises:
        InputError: there is no such host.
    """
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise InputError(f"serve: --host {host}: no such host") from None
    return all(ipaddress.ip_address(address[4][0]).is_loopback for address in found)


def _host_name(header: str) -> str:
    """Return the name in a Host header, without the port."""
    if header.startswith("["):
        return header.partition("]")[0].removeprefix("[").lower()
    return header.partition(":")[0].lower()
