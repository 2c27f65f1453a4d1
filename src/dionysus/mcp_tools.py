"""Tools of other MCP servers, for our own agents.

A server is named by a URL (streamable HTTP), with a header behind it where it asks for one, or by a command (stdio).
What the servers offered is kept with each run, so that a replay has the same tools without any server; commands are
never taken from a record. Texts of these tools come from outside: they are observations, and no agent of ours takes
them for instructions.
"""

import json
import logging
import shlex
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import ExitStack, asynccontextmanager
from importlib.util import find_spec
from typing import Any

from smolagents import Tool

from dionysus.errors import BadInput, DionysusError, MissingExtra
from dionysus.findings import outside

log = logging.getLogger("dionysus")
Definition = dict[str, Any]
"""`name`, `description`, `inputs` as smolagents writes them, `server`."""
_CONNECT_S = 30.0


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
        self._call_server = call
        super().__init__()

    def forward(self, **arguments: Any) -> str:
        """What the server answers.

        Raises:
            DionysusError: It answers with an error, does not answer, or is not connected.
        """
        if self._call_server is None:
            raise DionysusError(f"{self.name} is a tool of the MCP server {self.server!r}, which is not connected")
        return self._call_server({name: value for name, value in arguments.items() if value is not None})


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
        self._servers = [(_shown(server), _parsed(server)) for server in servers]
        self._timeout_s = timeout_s
        self._stack: ExitStack | None = None
        self._tools: list[McpTool] = []

    def __bool__(self) -> bool:
        return bool(self._servers)

    def definitions(self) -> list[Definition]:
        """What the servers offer, plain, to be kept with a run."""
        return [
            {"name": tool.name, "description": tool.description, "inputs": tool.inputs, "server": tool.server}
            for tool in self.tools()
        ]

    def tools(self) -> Sequence[McpTool]:
        """Their tools.

        Raises:
            BadInput: A server cannot be reached, or two tools have the same name.
            MissingExtra: The protocol's client is not installed.
        """
        if self._stack is None:
            if any(find_spec(module) is None for module in ("mcp", "mcpadapt")):
                raise MissingExtra("a tool of another MCP server", "mcp")
            with ExitStack() as stack:
                found = [tool for name, means in self._servers for tool in self._connected(stack, name, means)]
                names = [tool.name for tool in found]
                twice = sorted({name for name in names if names.count(name) > 1})
                if twice:
                    raise BadInput(f"more than one MCP server offers {', '.join(twice)}; leave one of them out")
                self._tools = found
                self._stack = stack.pop_all()
        return self._tools

    def close(self) -> None:
        """Ends the connections, and the servers that were started for them."""
        if self._stack is not None:
            self._stack.close()
            self._stack = None

    def _connected(self, stack: ExitStack, server: str, means: Any) -> list[McpTool]:
        from anyio.from_thread import start_blocking_portal

        try:
            portal = stack.enter_context(start_blocking_portal())
            session = stack.enter_context(portal.wrap_async_context_manager(_session(means, self._timeout_s)))
            offered = portal.call(_listed, session)
        except (Exception, BaseExceptionGroup) as error:
            raise BadInput(f"cannot use the MCP server {server!r}: {_reason(error)}") from error

        def caller(name: str) -> Callable[[dict[str, Any]], str]:
            def call(arguments: dict[str, Any]) -> str:
                try:
                    result = portal.call(session.call_tool, name, arguments)
                except (Exception, BaseExceptionGroup) as error:
                    raise DionysusError(
                        f"{name} of the MCP server {server!r} did not answer: {_reason(error)}"
                    ) from error
                text = outside(_text_of(result))
                if result.isError:
                    raise DionysusError(text or f"{name} failed without a word")
                return text

            return call

        return [McpTool(_definition(tool, server), caller(tool.name)) for tool in offered]


def stand_ins(definitions: Sequence[Definition]) -> list[McpTool]:
    """The tools of a recorded run, to be replayed."""
    return [McpTool(definition) for definition in definitions]


def _parsed(server: str) -> Any:
    """A URL with its headers, or a command with its arguments."""
    first, _, rest = server.strip().partition(" ")
    if first.startswith(("http://", "https://")):
        name, colon, value = rest.partition(":")
        if rest and not (colon and name.strip() and value.strip()):
            raise BadInput(f"--mcp-server {_shown(server)!r}: behind a URL comes nothing, or HEADER: VALUE")
        return first, {name.strip(): value.strip()} if rest else {}
    try:
        words = shlex.split(server)
    except ValueError as error:
        raise BadInput(f"--mcp-server {server!r}: {error}") from error
    if not words:
        raise BadInput("--mcp-server is empty: write a URL, or a command")
    return words


def _shown(server: str) -> str:
    """The server without what may be secret."""
    return server.strip().partition(" ")[0] if server.strip().startswith("http") else server.strip()


@asynccontextmanager
async def _session(means: Any, timeout_s: float) -> AsyncIterator[Any]:
    from datetime import timedelta

    import anyio
    from mcp import ClientSession

    async with (
        _transport(means, timeout_s) as (read, write),
        ClientSession(read, write, timedelta(seconds=timeout_s)) as session,
    ):
        with anyio.fail_after(_CONNECT_S):
            await session.initialize()
        yield session


@asynccontextmanager
async def _transport(means: Any, timeout_s: float) -> AsyncIterator[tuple[Any, Any]]:
    if isinstance(means, list):
        from mcp import StdioServerParameters
        from mcp.client.stdio import stdio_client

        async with stdio_client(StdioServerParameters(command=means[0], args=means[1:])) as (read, write):
            yield read, write
        return
    import httpx
    from mcp.client.streamable_http import streamable_http_client

    url, headers = means
    async with (
        httpx.AsyncClient(headers=headers, timeout=timeout_s) as client,
        streamable_http_client(url, http_client=client) as (read, write, _),
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


def _definition(tool: Any, server: str) -> Definition:
    """A tool's schema as smolagents writes it; references in it are resolved."""
    from mcpadapt.smolagents_adapter import SmolAgentsAdapter

    def called(arguments: Any) -> Any:
        raise NotImplementedError("the adapter makes the definition only")

    adapted = SmolAgentsAdapter().adapt(called, tool)
    required = set(tool.inputSchema.get("required", ()))
    inputs = json.loads(json.dumps(adapted.inputs, default=dict))
    for name, schema in inputs.items():
        if name not in required:
            schema["nullable"] = True
        if "type" not in tool.inputSchema["properties"][name]:
            kinds = {choice.get("type", "any") for choice in schema.get("anyOf", ())} - {"null"}
            schema["type"] = kinds.pop() if len(kinds) == 1 else "any"
    return {"name": adapted.name, "description": adapted.description, "inputs": inputs, "server": server}


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


def _reason(error: BaseException) -> str:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    said = " ".join(str(error).split())
    return f"{type(error).__name__}: {said}" if said else type(error).__name__


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
