"""Tools of other MCP servers, for our own agents.

A server is named by a URL (streamable HTTP), with a header behind it where it asks for one, or by a command (stdio).
What the servers offered is kept with each run, so that a replay has the same tools without any server; commands are
never taken from a record. Texts of these tools come from outside: they are observations, and no agent of ours takes
them for instructions.
"""

import asyncio
import json
import logging
import re
import shlex
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from concurrent.futures import CancelledError, Future
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from importlib.util import find_spec
from pathlib import PurePath
from typing import Any
from urllib.parse import urlsplit

from smolagents import Tool

from dionysus.errors import BadInput, DionysusError, MissingExtra
from dionysus.findings import outside
from dionysus.mcp_schemas import Definition, definition_of

log = logging.getLogger("dionysus")
_CONNECT_S = 30.0
_END_S = 5.0
_RESULT_CHARS = 1_000_000
_RUNS_OTHERS = re.compile(r"python[\d.]*(\.exe)?|node|npx|bunx|uvx?|deno|java|sh|bash")


class McpTool(Tool):
    """A tool as a server offers it; without a connection it stands there to be replayed."""

    output_type = "string"
    skip_forward_signature_validation = True

    def __init__(self, definition: Definition, call: Callable[[dict[str, Any]], str] | None = None) -> None:
        """
        Args:
            call: Makes the call and returns its text; None: no server is connected.
        """
        self.name, self.description = definition["name"], definition["description"]
        self.inputs, self.server = definition["inputs"], definition["server"]
        self.required = frozenset(definition["required"])
        self._call_server = call
        super().__init__()

    def forward(self, **arguments: Any) -> str:
        """What the server answers.

        Raises:
            DionysusError: It answers with an error, does not answer, or is not connected.
        """
        if self._call_server is None:
            raise DionysusError(f"{self.name} is a tool of the MCP server {self.server!r}, which is not connected")
        given = {k: v for k, v in arguments.items() if v is not None or k in self.required}
        return self._call_server(given)


class McpServers:
    """Servers that are connected at first use; close them at the end."""

    def __init__(self, servers: Sequence[str], *, timeout_s: float) -> None:
        """
        Args:
            servers: `URL`, `URL HEADER: VALUE`, or a command with its arguments.
            timeout_s: Seconds that a call may take.

        Raises:
            BadInput: One of them names no server.
        """
        self._servers = [_parsed(server) for server in servers]
        self._timeout_s = timeout_s
        self._tools: list[McpTool] | None = None
        self._has_lost = False
        """A connection ended by itself: the next use connects anew."""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._lock = threading.RLock()

    def __bool__(self) -> bool:
        return bool(self._servers)

    def definitions(self) -> list[Definition]:
        """What the servers offer, plain, to be kept with a run."""
        return [
            {
                "name": tool.name,
                "description": tool.description,
                "inputs": tool.inputs,
                "required": sorted(tool.required),
                "server": tool.server,
            }
            for tool in self.tools()
        ]

    def tools(self) -> Sequence[McpTool]:
        """Their tools.

        Raises:
            BadInput: A server cannot be reached, or two tools have the same name.
            MissingExtra: The protocol's client is not installed.
        """
        with self._lock:
            if self._has_lost:
                self.close()
            if self._tools is None:
                self._tools = self._all_connected()
            return self._tools

    def close(self) -> None:
        """Ends the connections, the servers that were started for them, and calls that still wait."""
        with self._lock:
            loop, self._loop = self._loop, None
            self._tools, self._has_lost = None, False
        if loop is not None:
            with suppress(TimeoutError):  # a server that does not end is left to the system
                asyncio.run_coroutine_threadsafe(_ended(), loop).result(_END_S)
            loop.call_soon_threadsafe(loop.stop)

    def _all_connected(self) -> list[McpTool]:
        if find_spec("mcp") is None:
            raise MissingExtra("a tool of another MCP server", "mcp")
        try:
            found = [tool for server in self._servers for tool in self._connected(server)]
            names = [tool.name for tool in found]
            twice = sorted({name for name in names if names.count(name) > 1})
            if twice:
                raise BadInput(f"more than one tool of the MCP servers is called {', '.join(twice)}")
        except BaseException:
            self.close()
            raise
        return found

    def _connected(self, server: "_Server") -> list[McpTool]:
        try:
            session, offered = self._session(server)
        except (BadInput, TimeoutError) as error:
            why = str(error) or f"no answer within {_CONNECT_S:g} seconds"
            raise BadInput(f"cannot use the MCP server {server.name!r}: {why}") from error
        found = []
        for tool in offered:
            try:
                found.append(McpTool(definition_of(tool, server.name), self._caller(server, session, tool.name)))
            except Exception as error:  # noqa: BLE001 – whatever a foreign schema brings: one tool less, and said
                log.error("the tool %r of %r is left out: %s", tool.name, server.name, server.reason(error))
        return found

    def _caller(self, server: "_Server", session: Any, name: str) -> Callable[[dict[str, Any]], str]:
        def call(arguments: dict[str, Any]) -> str:
            try:
                result = self._wait(session.call_tool(name, arguments))
            except (Exception, BaseExceptionGroup, CancelledError) as error:
                self._has_lost |= _is_lost(error)
                said = f"{name} of the MCP server {server.name!r} did not answer: {server.reason(error)}"
                raise DionysusError(said) from error
            text = outside(_text_of(result))
            if len(text) > _RESULT_CHARS:
                raise DionysusError(
                    f"{name} answered with {len(text):,} characters, at most {_RESULT_CHARS:,} are taken: ask for less"
                )
            if result.isError:
                raise DionysusError(text or f"{name} failed without a word")
            return text

        return call

    # -- the connections live on a loop in a thread of their own, which no end of the program waits for -----------

    def _session(self, server: "_Server") -> tuple[Any, list[Any]]:
        """A session that stays open until `close`, and what its server offers."""
        ready: Future[tuple[Any, list[Any]]] = Future()

        async def stay() -> None:
            try:
                async with _opened(server, self._timeout_s) as session:
                    ready.set_result((session, await _listed(session)))
                    await asyncio.Event().wait()  # until `close` cancels this
            except (Exception, BaseExceptionGroup) as error:  # noqa: BLE001 – said to whoever asked for the session
                if ready.done():  # each call will say that it got no answer
                    self._has_lost = True
                    log.warning("the MCP server %r ended: %s", server.name, server.reason(error))
                else:
                    ready.set_exception(BadInput(server.reason(error)))

        self._submitted(stay())
        return ready.result(_CONNECT_S + _END_S)

    def _wait(self, calling: Coroutine[Any, Any, Any]) -> Any:
        with self._lock:
            if self._loop is None:
                calling.close()
                raise ConnectionError("the connection was closed")
            task = self._submitted(calling)
        return task.result(self._timeout_s + _END_S)

    def _submitted(self, work: Coroutine[Any, Any, Any]) -> Future[Any]:
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                threading.Thread(target=_run, args=(self._loop,), name="dionysus-mcp", daemon=True).start()
            return asyncio.run_coroutine_threadsafe(work, self._loop)


def stand_ins(definitions: Sequence[Definition]) -> list[McpTool]:
    """The tools of a recorded run, to be replayed."""
    return [McpTool(definition) for definition in definitions]


@dataclass(frozen=True, kw_only=True)
class _Server:
    """A server as it was named."""

    name: str
    """For people, without what may be secret."""
    url: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    command: tuple[str, ...] = ()
    secrets: tuple[str, ...] = ()
    """What must not be said."""

    def reason(self, error: BaseException) -> str:
        """What went wrong, in a line."""
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        if _is_lost(error):
            return "the server ended"
        said = re.sub(r"\w+://[^\s'\"]+", self.name, " ".join(str(error).split()))
        for secret in self.secrets:
            said = said.replace(secret, "…")
        return f"{type(error).__name__}: {said}" if said else type(error).__name__


def _parsed(server: str) -> _Server:
    """A URL with its header, or a command with its arguments.

    Raises:
        BadInput: It is none.
    """
    words = server.split(None, 1)
    if not words:
        raise BadInput("--mcp-server is empty: write a URL, or a command")
    if "://" in words[0]:
        return _by_url(*words)
    try:
        command = tuple(shlex.split(server))
    except ValueError as error:
        raise BadInput(f"--mcp-server {words[0]!r} …: {error}") from error
    hidden = tuple(part for word in command[1:] for part in (word, word.partition("=")[2]) if len(part) > 3)
    return _Server(name=_name_of(command), command=command, secrets=hidden)


def _by_url(url: str, rest: str = "") -> _Server:
    parts = urlsplit(url)
    if parts.scheme.lower() not in ("http", "https") or not parts.hostname:
        raise BadInput(f"--mcp-server {parts.scheme}://…: write http:// or https:// and a host")
    host = parts.netloc.rpartition("@")[2]
    name, colon, value = (part.strip() for part in rest.partition(":"))
    shown = f"{parts.scheme.lower()}://{host}" + ("/…" if parts.path.strip("/") else "")
    if rest.strip() and not (name and colon and value):
        raise BadInput(f"--mcp-server {shown!r}: behind a URL comes nothing, or HEADER: VALUE")
    hidden = (value, value.split()[-1] if value else "", parts.query, parts.password or "")
    return _Server(
        name=shown,
        url=url,
        headers={name: value} if rest.strip() else {},
        secrets=tuple(secret for secret in hidden if len(secret) > 3),
    )


def _name_of(command: Sequence[str]) -> str:
    """The program; of those that only run another one, that one's name: other arguments may be secret."""
    words = list(command)
    if PurePath(words[0]).name == "env":
        words = [word for word in words[1:] if not ("=" in word or word.startswith("-"))] or words[:1]
    if not _RUNS_OTHERS.fullmatch(PurePath(words[0]).name):
        return words[0]
    what = next((word for word in words[1:] if not word.startswith("-")), None)
    return words[0] if what is None or "=" in what else f"{words[0]} {PurePath(what.partition('://')[0]).name}"


@asynccontextmanager
async def _opened(server: _Server, timeout_s: float) -> AsyncIterator[Any]:
    from mcp import ClientSession

    async with (
        _transport(server, timeout_s) as (read, write),
        ClientSession(read, write, timedelta(seconds=timeout_s)) as session,
    ):
        async with asyncio.timeout(_CONNECT_S):
            await session.initialize()
        yield session


@asynccontextmanager
async def _transport(server: _Server, timeout_s: float) -> AsyncIterator[tuple[Any, Any]]:
    if server.url is None:
        from mcp import StdioServerParameters
        from mcp.client.stdio import stdio_client

        parameters = StdioServerParameters(command=server.command[0], args=list(server.command[1:]))
        async with stdio_client(parameters) as (read, write):
            yield read, write
        return
    import httpx
    from mcp.client.streamable_http import streamable_http_client

    async with (
        httpx.AsyncClient(headers=dict(server.headers), timeout=timeout_s) as client,
        streamable_http_client(server.url, http_client=client) as (read, write, _),
    ):
        yield read, write


async def _listed(session: Any) -> list[Any]:
    found: list[Any] = []
    cursor = None
    while True:
        page = await session.list_tools(cursor)
        found += page.tools
        cursor = page.nextCursor
        if cursor is None:
            return found


async def _ended() -> None:
    """All that goes on on this loop is over: sessions, servers, calls."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    if others:
        await asyncio.wait(others, timeout=_END_S)


def _is_lost(error: BaseException) -> bool:
    """Whether a call failed because its connection is no more."""
    gone = type(error).__name__ in ("ClosedResourceError", "BrokenResourceError", "EndOfStream")
    return gone or "Connection closed" in str(error)


def _run(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    loop.run_forever()
    loop.close()


# -- answers ------------------------------------------------------------------------------------------


def _text_of(result: Any) -> str:
    """All that an answer says, in order."""
    parts = [_part(content) for content in result.content]
    if not parts and result.structuredContent is not None:
        parts = [json.dumps(result.structuredContent, ensure_ascii=False)]
    return "\n".join(parts)


def _part(content: Any) -> str:
    if content.type == "text":
        return str(content.text)
    if content.type == "resource" and hasattr(content.resource, "text"):
        return str(content.resource.text)
    if content.type == "resource_link":
        return f"[{content.name}: {content.uri}]"
    kind = getattr(content, "mimeType", None) or content.type
    return f"[{kind}, {len(getattr(content, 'data', ''))} characters in base64: this agent reads text only]"


def without_clashes(own: Sequence[Tool], others: Sequence[Tool]) -> list[Tool]:
    """An agent's own tools and those of servers.

    Raises:
        BadInput: A server offers a tool that the agent has already.
    """
    names = {tool.name for tool in own} | {"final_answer"}
    clashing = [tool for tool in others if tool.name in names]
    if clashing:
        told = ", ".join(f"{tool.name} of {getattr(tool, 'server', '?')!r}" for tool in clashing)
        raise BadInput(f"the agent has tools of these names already: {told}; leave that server out")
    return [*own, *others]
