"""Answers that say what went wrong: RFC 9457 problem details."""

import json
import re
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from http import HTTPStatus
from typing import Any

PROBLEM = "application/problem+json"
Message = MutableMapping[str, Any]
Send = Callable[[Message], Awaitable[None]]
_DETAIL_CHARS = 2_000


def problem(status: int, detail: str, *, kind: str | None = None, **more: Any) -> dict[str, Any]:
    """The members of a problem.

    Args:
        kind: What went wrong, as the name of an error class; None: what the status says.
        more: Further members.
    """
    slug = re.sub(r"(?<=[a-z])(?=[A-Z])", "-", kind).lower() if kind else None
    return {
        "type": f"urn:dionysus:problem:{slug}" if slug else "about:blank",
        "title": slug.replace("-", " ").capitalize() if slug else HTTPStatus(status).phrase,
        "status": status,
        "detail": detail[:_DETAIL_CHARS],
        **more,
    }


def encoded(members: Mapping[str, Any]) -> bytes:
    """As JSON; lone surrogates become "?"."""
    return json.dumps(members, ensure_ascii=False).encode("utf-8", "replace")


async def answer(send: Send, members: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> None:
    """Sends a problem as the whole response."""
    body = encoded(members)
    given = {"content-type": PROBLEM, "content-length": str(len(body)), **(headers or {})}
    lines = [(name.encode(), value.encode("latin-1")) for name, value in given.items()]
    await send({"type": "http.response.start", "status": members["status"], "headers": lines})
    await send({"type": "http.response.body", "body": body})
