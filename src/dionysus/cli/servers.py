"""Commands that serve: REST for programs, MCP for agents."""

import os
import signal
import sys
import threading
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

from dionysus.cli.given import ApiBase, ApiKey, BudgetText, Git, McpServer, Model, Store, opened

if TYPE_CHECKING:
    from dionysus.mcp_server import Heartbeats
    from dionysus.runtime import Runtime
    from dionysus.serving import Access

_SETTLE_S = 20.0
"""Seconds that a heartbeat has to come to its next call when the server ends."""

Host = Annotated[str | None, typer.Option("--host", help="Where to listen; default: 127.0.0.1, this machine only.")]
Port = Annotated[
    int | None, typer.Option("--port", min=0, max=65535, help="At which port; 0: any free one; default: 8765.")
]
AllowHost = Annotated[
    list[str] | None, typer.Option("--allow-host", metavar="NAME", help="A further name of this server; repeatable.")
]
NoToken = Annotated[bool, typer.Option("--no-token", help="Ask for no token; on the loopback interface only.")]


def serve(
    store: Store = None,
    host: Host = None,
    port: Port = None,
    allow_host: AllowHost = None,
    no_token: NoToken = False,
) -> None:
    """Serve the REST endpoints: traces, their replay, token usage."""
    from dionysus.serving import listening_at, needs, url_of
    from dionysus.serving import serve as serve_app

    needs("dionysus serve", "api", "fastapi", "uvicorn")
    from dionysus.api import create_app

    with opened(store, host=host, port=port) as runtime:
        access = _access(runtime, allow_host, no_token, open_paths=["/health"])
        with listening_at(runtime.settings.host, runtime.settings.port) as at:
            url = url_of(at) + ("/api/agents/traces" if runtime.settings.agents_api else "/health")
            print(f"serving {url}; Ctrl-C ends it")
            header = "" if access.token_in_shell is None else f' -H "Authorization: Bearer {access.token_in_shell}"'
            print(f"try: curl{header} {url}", flush=True)
            serve_app(create_app(runtime, access), at)


def mcp(
    watch: Annotated[Path, typer.Option("--watch", help="The folder that clients may look at.")] = Path("."),
    http: Annotated[bool, typer.Option("--http", help="Serve streamable HTTP at /mcp, not standard input.")] = False,
    store: Store = None,
    model: Model = None,
    api_base: ApiBase = None,
    api_key: ApiKey = None,
    git: Git = True,
    budget: BudgetText = None,
    mcp_server: McpServer = None,
    host: Host = None,
    port: Port = None,
    allow_host: AllowHost = None,
    no_token: NoToken = False,
) -> None:
    """Serve `dionysus_mcp`: memory, basins, coherence, traces and heartbeats as tools of other agents."""
    from dionysus.serving import listening_at, needs, url_of
    from dionysus.serving import serve as serve_app

    needs("dionysus mcp", "mcp", "mcp", "uvicorn")
    import anyio

    from dionysus.mcp_server import http_app, server_over

    flags = {
        "model": model,
        "api_base": api_base,
        "api_key": api_key,
        "budget": budget,
        "host": host,
        "port": port,
        "mcp_server": mcp_server,
    }
    with opened(store, **flags) as runtime:
        access = _access(runtime, allow_host, no_token) if http else None
        server, beats = server_over(runtime, watch, git=git, access=access)
        try:
            if access is None:
                if sys.stdin.isatty():
                    told = "dionysus_mcp waits for a client on standard input; a client starts it, or take --http"
                    print(told, file=sys.stderr)
                _end_on_signals(runtime, beats)
                anyio.run(server.run_stdio_async)
                return
            with listening_at(runtime.settings.host, runtime.settings.port) as at:
                print(f"serving {url_of(at)}/mcp; Ctrl-C ends it", flush=True)
                if access.token_in_shell is not None:
                    print(f"clients send: Authorization: Bearer {access.token_in_shell}", flush=True)
                serve_app(http_app(server, access), at)
        finally:
            _settle(beats)


def _settle(beats: "Heartbeats") -> None:
    """Ends a heartbeat that goes on; where it hangs in a call, so does nothing else: all that was finished is kept."""
    if not beats.settle(timeout_s=_SETTLE_S):
        print(
            "dionysus: ended in the middle of a call; `dionysus runs list` shows the run", file=sys.stderr, flush=True
        )
        os._exit(1)


def _end_on_signals(runtime: "Runtime", beats: "Heartbeats") -> None:
    """The first SIGINT or SIGTERM ends the server when its heartbeat has ended, the second one at once.

    The thread that reads standard input cannot be woken, so the process is ended under it.
    """

    def end() -> None:
        _settle(beats)
        runtime.close()
        os._exit(0)

    def stop(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        threading.Thread(target=end, daemon=True).start()

    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGTERM, stop)


def _access(
    runtime: "Runtime", allow_host: list[str] | None, no_token: bool, open_paths: list[str] | None = None
) -> "Access":
    from dionysus.serving import access_for

    on = runtime.settings
    return access_for(
        on.host,
        store=runtime.store_path,
        token=on.token.get_secret_value() if on.token else None,
        with_token=not no_token,
        names=[*(allow_host or ()), *on.allowed_hosts.split(",")],
        open_paths=open_paths or (),
    )
