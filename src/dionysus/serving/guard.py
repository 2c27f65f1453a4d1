"""What stands before every application that is served: it lets in who may ask, and as much as is allowed.

Checked in this order: the Host header (so that a page in a browser cannot reach the server under a name of its own),
the length of the URL, the token, the body. Every answer carries the security headers; none allows other origins.
"""

import asyncio
import hmac
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from dionysus.serving.problems import Message, Send, answer, problem

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
    refused_s: float = 2.0
    """Seconds in which a refused client may finish sending."""
    send_s: float = 30.0
    """Seconds in which a reader must take a piece of the answer."""


class _Refused(Exception):
    """The request turned out not to be acceptable while it was read."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status, self.detail = status, detail


class Guard:
    """An ASGI application around another one."""

    def __init__(self, app: Any, access: Access) -> None:
        self._app, self._access = app, access

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        """Answers, or hands on. Paths reach the application undecoded: "%2F" within an id stays one."""
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
            await self._app(scope, self._measured(receive), sending)
        except _Refused as refused:
            if sending.started:
                raise
            if refused.status == 413:
                await self._read_away(receive)
            await answer(sending, problem(refused.status, refused.detail), {"connection": "close"})

    def _refusal(self, scope: dict[str, Any]) -> tuple[int, str, dict[str, str]] | None:
        access = self._access
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        host = headers.get(b"host")
        if host is None or _name_of(host) is None:
            return 400, "the request names no host", {}
        if _name_of(host) not in access.hosts:
            return 421, f"this is not {_name_of(host)!r}; --allow-host makes it a name of this server", {}
        origin = headers.get(b"origin")
        if origin is not None and _name_of(urlsplit(origin).netloc) not in access.hosts:
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

    def _measured(self, receive: Receive) -> Receive:
        """The body, as long as it is small enough and comes fast enough."""
        taken = 0
        whole = False
        until = asyncio.get_running_loop().time() + self._access.body_s

        async def measured() -> Message:
            nonlocal taken, whole
            if whole:  # what comes now is that the client went away
                return await receive()
            try:
                async with asyncio.timeout_at(until):
                    message = await receive()
            except TimeoutError as late:
                raise _Refused(408, f"the body was not there within {self._access.body_s:g} seconds") from late
            taken += len(message.get("body", b""))
            whole = not message.get("more_body", False)
            if taken > self._access.body_bytes:
                raise _Refused(413, f"the body has more than {self._access.body_bytes} bytes")
            return message

        return measured


class _Sending:
    """Sends, with the security headers, to a reader that must keep up."""

    def __init__(self, send: Send, send_s: float) -> None:
        self._send, self._send_s = send, send_s
        self.started = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.started = True
            given = {bytes(name).lower() for name, _ in message.get("headers", ())}
            ours = [(k.encode(), v.encode()) for k, v in _SECURITY.items() if k.encode() not in given]
            message = {**message, "headers": [*message.get("headers", ()), *ours]}
        async with asyncio.timeout(self._send_s):
            await self._send(message)


def _name_of(host: str) -> str | None:
    """The name in a Host header, without port; None: it is none."""
    try:
        parts = urlsplit(f"//{host}")
        parts.port  # noqa: B018 – a port that is none raises
    except ValueError:
        return None
    if not parts.hostname or parts.netloc != host or "@" in host:
        return None
    return f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname.removesuffix(".")
