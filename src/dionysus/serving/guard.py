"""What stands before every application that is served: it lets in who may ask, and as much as is allowed.

Checked in this order: the Host header (so that a page in a browser cannot reach the server under a name of its own),
the length of the URL, the token, the body. Every answer carries the security headers; none allows other origins.
"""

import asyncio
import hmac
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from dionysus.serving.problems import Message, Send, answer, problem

log = logging.getLogger("dionysus")
Receive = Callable[[], Awaitable[Message]]
_SECURITY = {
    "cache-control": "no-store",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}


@dataclass(frozen=True, kw_only=True)
class Access:
    """Who may ask, and how much."""

    token: str | None
    """The bearer token; None: whoever reaches the server may ask."""
    token_in_shell: str | None = None
    """How a command line says the token."""
    hosts: frozenset[str]
    """Names that a Host header may have, lower case, without port."""
    open_paths: frozenset[str] = frozenset()
    """What answers without the token."""
    target_bytes: int = 8_192
    """Of path and query."""
    head_bytes: int = 32_768
    """Of all headers."""
    body_bytes: int = 1_048_576
    body_s: float = 30.0
    """Seconds until the whole body must be there."""
    at_once: int = 100
    """Requests that are answered at the same time."""
    refused_s: float = 2.0
    """Seconds in which a refused client may finish sending."""
    send_s: float = 30.0
    """Seconds in which a reader must take a piece of the answer."""


class _Gone(Exception):
    """The client went away before it had said all."""


class _Refused(Exception):
    """The body is not acceptable."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status, self.detail = status, detail


class Guard:
    """An ASGI application around another one."""

    def __init__(self, app: Any, access: Access) -> None:
        self._app, self._access = app, access
        self._asked = 0

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        """Answers, or hands on, with the whole body at hand.

        Paths reach the application undecoded: "%2F" within an id stays one.
        """
        if scope["type"] != "http":  # the start and the end; web sockets are not served
            await self._app(scope, receive, send)
            return
        scope["path"] = scope["raw_path"].decode("ascii") if scope.get("raw_path") else scope["path"]
        sending = _Sending(send, self._access.send_s)
        refusal = self._refusal(scope)
        if refusal is not None:
            status, detail, headers = refusal
            if status == 413:
                await self._read_away(receive)
            await answer(sending, problem(status, detail), headers)
            return
        try:
            body = await self._body(scope, receive)
        except _Gone:
            return
        except _Refused as refused:
            if refused.status == 413:
                await self._read_away(receive)
            await answer(sending, problem(refused.status, refused.detail), {"connection": "close"})
            return
        self._asked += 1
        try:
            await self._app(scope, _given(body, receive), sending)
        except TimeoutError:
            if not sending.is_late:
                raise
            log.warning("%s is cut off: nobody read its answer for %g s", scope["path"], self._access.send_s)
        finally:
            self._asked -= 1

    def _refusal(self, scope: dict[str, Any]) -> tuple[int, str, dict[str, str]] | None:
        access = self._access
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        names = [name for name, _ in scope["headers"]]
        for name in (b"host", b"origin", b"authorization", b"content-length"):
            if names.count(name) > 1:
                return 400, f"the request has more than one {name.decode()} header", {}
        if self._asked >= access.at_once:
            return 503, f"{access.at_once} requests are being answered; ask again", {"retry-after": "1"}
        host = headers.get(b"host")
        if host is None or name_of(host) is None:
            return 400, "the request names no host", {}
        if name_of(host) not in access.hosts:
            return 421, f"this is not {name_of(host)!r}; --allow-host makes it a name of this server", {}
        origin = headers.get(b"origin")
        if origin is not None and name_of(origin.partition("://")[2]) not in access.hosts:
            return 403, "pages of other origins may not ask", {}
        target = len(scope["path"]) + len(scope["query_string"])
        if target > access.target_bytes:
            return 414, f"the URL has {target} bytes, at most {access.target_bytes} are taken", {}
        if scope["path"] not in access.open_paths and not self._may_ask(headers.get(b"authorization")):
            error = "" if b"authorization" not in headers else ', error="invalid_token"'
            return 401, "ask with the header Authorization: Bearer TOKEN", {"www-authenticate": f"Bearer{error}"}
        head = sum(len(name) + len(value) for name, value in scope["headers"])
        if head > access.head_bytes:
            return 431, f"the headers have {head} bytes, at most {access.head_bytes} are taken", {}
        length = headers.get(b"content-length", "0")
        if length.isdigit() and int(length) > access.body_bytes:
            return 413, f"the body has {length} bytes, at most {access.body_bytes} are taken", {"connection": "close"}
        return None

    def _may_ask(self, authorization: str | None) -> bool:
        if self._access.token is None:
            return True
        scheme, _, given = (authorization or "").partition(" ")
        is_it = hmac.compare_digest(given.strip().encode("latin-1"), self._access.token.encode())
        return scheme.lower() == "bearer" and is_it

    async def _read_away(self, receive: Receive) -> None:
        """What is still sent: who is cut off while sending does not read why."""
        with suppress(TimeoutError):
            async with asyncio.timeout(self._access.refused_s):
                while (await receive()).get("more_body", False):
                    pass

    async def _body(self, scope: dict[str, Any], receive: Receive) -> bytes:
        """The body, if it is small enough and comes fast enough; of those who show no token none is awaited."""
        announced = {b"content-length", b"transfer-encoding"} & {name for name, _ in scope["headers"]}
        if not announced or scope["path"] in self._access.open_paths:
            return b""
        access, body = self._access, b""
        try:
            async with asyncio.timeout(access.body_s):
                more = True
                while more:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise _Gone
                    body += message.get("body", b"")
                    more = message.get("more_body", False)
                    if len(body) > access.body_bytes:
                        raise _Refused(413, f"the body has more than {access.body_bytes} bytes")
        except TimeoutError as late:
            raise _Refused(408, f"the body was not there within {access.body_s:g} seconds") from late
        return body


def _given(body: bytes, receive: Receive) -> Receive:
    """A body that was read; what comes then is that the client went away."""
    left = [body]

    async def given() -> Message:
        if left:
            return {"type": "http.request", "body": left.pop(), "more_body": False}
        return await receive()

    return given


class _Sending:
    """Sends, with the security headers, to a reader that must keep up."""

    def __init__(self, send: Send, send_s: float) -> None:
        self._send, self._send_s = send, send_s
        self.started = self.is_late = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.started = True
            given = {bytes(name).lower() for name, _ in message.get("headers", ())}
            ours = [(k.encode(), v.encode()) for k, v in _SECURITY.items() if k.encode() not in given]
            message = {**message, "headers": [*message.get("headers", ()), *ours]}
        try:
            async with asyncio.timeout(self._send_s):
                await self._send(message)
        except TimeoutError:
            self.is_late = True
            raise


def name_of(host: str) -> str | None:
    """The name in a Host header, lower case and without port; None: it is none."""
    try:
        parts = urlsplit(f"//{host}")
        parts.port  # noqa: B018 – a port that is none raises
    except ValueError:
        return None
    if not parts.hostname or parts.netloc != host or "@" in host:
        return None
    return f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname.removesuffix(".")
