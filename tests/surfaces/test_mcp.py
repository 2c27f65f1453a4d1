"""`dionysus mcp`: every tool, called by the official client and by smolagents' own, over stdio and HTTP."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from mcp import ClientSession, StdioServerParameters
from mcp.client.stdio import stdio_client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import McpError
from mcp.types import (
    CallToolResult,
    CancelledNotification,
    CancelledNotificationParams,
    ClientNotification,
    TextContent,
)
from pydantic import AnyUrl
from smolagents import MCPClient
from smolagents.tools import validate_tool_arguments

from conftest import Repository
from dionysus import Runtime
from surfaces.servers import Served, served
from surfaces.test_cli import dionysus, one_line

TOOLS = {
    "assess_coherence",
    "activate_basin",
    "get_active_basins",
    "semantic_recall",
    "remember",
    "observe_environment",
    "list_goals",
    "list_traces",
    "get_trace",
    "trigger_heartbeat",
}
Call = Callable[..., Awaitable[Any]]


def over_stdio(cwd: Path) -> StdioServerParameters:
    return StdioServerParameters(command=sys.executable, args=["-m", "dionysus", "mcp"], cwd=cwd, env=dict(os.environ))


@asynccontextmanager
async def session(cwd: Path, server: Served | None) -> AsyncIterator[ClientSession]:
    if server is None:
        async with stdio_client(over_stdio(cwd)) as (read, write), ClientSession(read, write) as opened:
            await opened.initialize()
            yield opened
        return
    async with (
        httpx.AsyncClient(headers=server.authorization, timeout=60) as http,
        streamable_http_client(f"{server.url}/mcp", http_client=http) as (read, write, _),
        ClientSession(read, write) as opened,
    ):
        await opened.initialize()
        yield opened


def text_of(result: CallToolResult) -> str:
    (content,) = result.content
    assert isinstance(content, TextContent)
    return content.text


@pytest.fixture(params=["stdio", "http"])
def transport(request: pytest.FixtureRequest, repository: Repository) -> Iterator[Served | None]:
    dionysus("goals", "add", "Count tokens of plans", cwd=repository.path)
    if request.param == "stdio":
        yield None
        return
    with served("mcp", "--http", cwd=repository.path) as server:
        yield server


def test_the_official_client_calls_every_tool(transport: Served | None, repository: Repository) -> None:
    cwd = repository.path
    called: set[str] = set()

    async def calls() -> None:
        async with session(cwd, transport) as opened:
            tools = {tool.name: tool for tool in (await opened.list_tools()).tools}
            assert set(tools) == TOOLS
            for name, tool in tools.items():
                assert tool.description
                assert tool.outputSchema
                assert tool.inputSchema["additionalProperties"] is False
                assert tool.annotations is not None
                reads = name.startswith(("assess", "get", "list", "observe"))
                assert tool.annotations.readOnlyHint is reads
                assert tool.annotations.openWorldHint is (name == "trigger_heartbeat")
                assert reads or tool.annotations.destructiveHint is False

            async def call(name: str, **arguments: Any) -> Any:
                called.add(name)
                result = await opened.call_tool(name, arguments)
                assert not result.isError, text_of(result)
                assert json.loads(text_of(result)) == result.structuredContent
                return result.structuredContent

            async def wrong(name: str, said: str, **arguments: Any) -> None:
                result = await opened.call_tool(name, arguments)
                assert result.isError
                assert said in text_of(result)

            await wrong("assess_coherence", "there is no run yet to assess")
            seen = await call("observe_environment")
            assert (seen["place"], seen["reasons"]) == (str(cwd), ["first look"])
            assert "place" in {finding["kind"] for finding in seen["findings"]}
            assert (await call("get_active_basins"))["basins"] == []

            told: list[str] = []

            async def progress(progress: float, total: float | None, message: str | None) -> None:
                told.append(str(message))

            result = await opened.call_tool("trigger_heartbeat", {}, progress_callback=progress)
            called.add("trigger_heartbeat")
            beat = result.structuredContent
            assert beat is not None
            assert (beat["number"], beat["status"], beat["actions"]) == (1, "success", 10)
            assert told[0] == "step 1: observe_environment"
            assert told[-1] == "step 10: final_answer"
            assert (await call("trigger_heartbeat"))["status"] == "idle"

            listed = await call("list_traces", agent="heartbeat", limit=1)
            assert [t["id"] for t in listed["traces"]] == [beat["trace_id"]]
            assert listed["next_cursor"] is None
            full = await call("get_trace", trace_id=beat["trace_id"])
            assert len(full["steps"]) == 14
            piece = await call("get_trace", trace_id=beat["trace_id"], after=4, limit=3)
            assert piece["steps"] == full["steps"][4:7]
            assert piece["next_after"] == 7
            whole = (await opened.read_resource(AnyUrl(f"dionysus://traces/{beat['trace_id']}/replay"))).contents[0]
            assert "── 1 ── observe_environment" in getattr(whole, "text", "")

            newest = await call("assess_coherence")
            assert newest == await call("assess_coherence", run_id=beat["run_id"])
            assert newest["trace_id"] == beat["trace_id"]
            assert 0 < newest["consciousness_level"] <= 1
            assert {"autonomy", "errors"} <= set(newest["components"])
            assert newest["reason"]

            kept = await call("remember", text="the tides follow the moon; password=hunter2x99")
            recalled = await call("semantic_recall", query="tides and the moon")
            assert [m["id"] for m in recalled["memories"]] == [kept["memory_id"]]
            assert "hunter2x99" not in json.dumps(recalled)
            recalled = await call("semantic_recall", query="token totals of the monitor", limit=3)
            assert len(recalled["memories"]) == 3
            active = await call("get_active_basins", limit=5)
            assert active["basins"][0]["id"] in {a["basin_id"] for a in recalled["activated"]}
            basin = active["basins"][-1]
            driven = await call("activate_basin", basin_id=basin["id"], strength=2.0)
            assert basin["activation"] < driven["activation"] < 1
            levels = {b["id"]: b["activation"] for b in (await call("get_active_basins"))["basins"]}
            assert levels[basin["id"]] == pytest.approx(driven["activation"], abs=0.01)
            (goal,) = (await call("list_goals"))["goals"]
            assert goal["text"] == "Count tokens of plans"

            assert await call("get_active_basins", limit=None, least=None)
            await wrong("activate_basin", "no basin 4711", basin_id=4711, strength=1)
            await wrong("activate_basin", "greater than or equal to 0", basin_id=basin["id"], strength=-1)
            await wrong("activate_basin", "finite number", basin_id=basin["id"], strength="inf")
            await wrong("get_trace", "no trace 'beat'", trace_id="beat")
            await wrong("list_traces", "take next_cursor", cursor="elsewhere")
            await wrong("list_traces", "agnet", agnet="heartbeat")
            await wrong("remember", "empty", text="  ")
            await wrong("semantic_recall", "NUL byte", query="a\0b")
            await wrong("assess_coherence", "no trace 'none'", run_id="none")

    asyncio.run(calls())
    assert called == TOOLS


@pytest.mark.filterwarnings("ignore:Use `streamable_http_client`:DeprecationWarning")  # mcpadapt does not
def test_smolagents_own_client_calls_every_tool(transport: Served | None, repository: Repository) -> None:
    where: Any = over_stdio(repository.path)
    if transport is not None:
        where = {"url": f"{transport.url}/mcp", "transport": "streamable-http", "headers": transport.authorization}
    with MCPClient(where, structured_output=True, adapter_kwargs={"client_session_timeout_seconds": 60.0}) as offered:
        tools = {tool.name: tool for tool in offered}
        assert set(tools) == TOOLS
        for name, arguments in (("list_traces", {}), ("semantic_recall", {"query": "x"}), ("assess_coherence", {})):
            validate_tool_arguments(tools[name], arguments)  # what has a default may be left out
        assert tools["trigger_heartbeat"]()["status"] == "success"
        (trace,) = tools["list_traces"]()["traces"]
        assert tools["get_trace"](trace_id=trace["id"])["steps"][0]["step_type"] == "planning"
        assert tools["assess_coherence"](run_id=trace["id"])["consciousness_level"] > 0
        assert tools["observe_environment"]()["reasons"] == []
        assert tools["list_goals"](closed=True)["goals"]
        assert tools["remember"](text="bread needs salt")["memory_id"]
        assert tools["semantic_recall"](query="salt")["memories"][0]["text"] == "bread needs salt"
        basins = tools["get_active_basins"]()["basins"]
        assert tools["activate_basin"](basin_id=basins[0]["id"], strength=1)["activation"] > basins[0]["activation"]


def test_the_assessment_is_the_one_that_the_plans_showed(repository: Repository) -> None:
    with Runtime(store=f"sqlite:///{repository.path}/mind.db") as runtime:
        report = runtime.beat(repository.path)
        full = runtime.traces.get_trace(str(report.trace_id))
        plans = [step for step in full.steps if step.step_type == "planning" and step.coherence is not None]
        assert [plan.step_number for plan in plans] == [4, 7, 10]
        for plan in plans:
            before = runtime.traces.create_trace("heartbeat", f"until-{plan.step_number}", task=full.trace.task)
            for step in full.steps:
                if step.order < plan.order:
                    names = {"step_number", "step_type", "plan", "thought", "tool_calls", "observation", "error"}
                    names |= {"completed_at"}
                    runtime.traces.add_step(before, {name: getattr(step, name) for name in names})
            assert runtime.assess(before).consciousness_level == plan.coherence


def test_a_members_trace_is_a_resource_too(repository: Repository) -> None:
    dionysus("ask", "what is to be tested?", "-q", cwd=repository.path)

    async def read() -> None:
        async with session(repository.path, None) as opened:
            listed = await opened.call_tool("list_traces", {"agent": "perception"})
            assert listed.structuredContent is not None
            trace_id = listed.structuredContent["traces"][0]["id"]
            assert "/" in trace_id
            told = await opened.read_resource(AnyUrl(f"dionysus://traces/{quote(trace_id, safe='')}/replay"))
            assert getattr(told.contents[0], "text", "").startswith(f"trace {trace_id} · perception · success")

    asyncio.run(read())


SLOW = """
import sys, time
from pathlib import Path
from mcp.server.fastmcp import FastMCP
time.sleep(float(sys.argv[1]))
server = FastMCP("slow", log_level="ERROR")

@server.tool()
def tides_changed(place: str) -> str:
    \"\"\"What changed in the tides, for the heartbeat.\"\"\"
    Path(__file__).with_name("called").touch()
    time.sleep(float(sys.argv[2]))
    return "high water"

server.run()
"""


@pytest.mark.parametrize(("connects_in", "answers_in"), [(3.0, 0.0), (0.0, 4.0)])
def test_a_client_that_gives_up_ends_its_heartbeat(
    repository: Repository, tmp_path: Path, connects_in: float, answers_in: float
) -> None:
    """Before its run has begun, and in the middle of it."""
    script = tmp_path / "slow.py"
    script.write_text(SLOW)
    slow = f"{sys.executable} {script} {connects_in} {answers_in}"
    parameters = over_stdio(repository.path).model_copy(
        update={"args": ["-m", "dionysus", "mcp", "--mcp-server", slow]}
    )

    async def give_up() -> Any:
        async with stdio_client(parameters) as (read, write), ClientSession(read, write) as opened:
            await opened.initialize()
            beating = asyncio.create_task(opened.call_tool("trigger_heartbeat", {}))
            if connects_in:
                await asyncio.sleep(1.0)
            else:
                while not script.with_name("called").exists():
                    await asyncio.sleep(0.05)
            request_id = opened._request_id - 1
            given_up = CancelledNotification(
                method="notifications/cancelled", params=CancelledNotificationParams(requestId=request_id)
            )
            await opened.send_notification(ClientNotification(given_up))
            with pytest.raises(McpError, match="cancelled"):
                await beating
            while True:
                again = await opened.call_tool("trigger_heartbeat", {})
                if not again.isError:
                    return again.structuredContent
                assert "a heartbeat is going on" in text_of(again)
                await asyncio.sleep(0.2)

    second = asyncio.run(give_up())
    assert second["status"] == "success"
    with Runtime(store=f"sqlite:///{repository.path}/.dionysus/mind.db") as runtime:
        runs = {summary.run.run_id: summary for summary in runtime.runs.listed()}
        second_run = runs.pop(second["run_id"])
        assert second_run.actions == 10
        (first,) = runs.values()
        assert first.run.status == "interrupted"
        assert first.actions <= 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_on_stdio(repository: Repository, number: signal.Signals) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "dionysus", "mcp"],
        cwd=repository.path,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        assert process.stdin is not None
        assert process.stdout is not None
        hello = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}
        asked = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": hello}
        process.stdin.write(json.dumps(asked).encode() + b"\n")
        process.stdin.flush()
        assert b"dionysus_mcp" in process.stdout.readline()
        process.send_signal(number)
        assert process.wait(15) == 0
    finally:
        process.kill()
        _, err = process.communicate()
        assert b"Traceback" not in err


def test_over_http_nobody_asks_without_the_token(tmp_path: Path) -> None:
    hello = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {}}
    accept = {"Accept": "application/json, text/event-stream"}
    with served("mcp", "--http", cwd=tmp_path) as server:
        url = f"{server.url}/mcp"
        assert httpx.post(url, json=hello, headers=accept).status_code == 401
        assert httpx.post(url, json=hello, headers={**accept, "Authorization": "Bearer no"}).status_code == 401
        may = {**accept, **server.authorization}
        assert httpx.post(url, json=hello, headers=may).status_code == 200
        assert httpx.post(url, json=hello, headers={**may, "Host": "evil.example"}).status_code == 421
        assert httpx.post(url, json=hello, headers={**may, "Origin": "http://evil.example"}).status_code == 403
        assert httpx.post(url, content=b"a" * 2_000_000, headers=may).status_code == 413
        assert httpx.post(url, content=b"{", headers=may).status_code == 400
        assert httpx.get(url, headers=may).status_code == 405
        asked = {"name": "remember", "arguments": {"text": "cut off"}}
        body = json.dumps({"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": asked}).encode()
        lines = [f"{name}: {value}" for name, value in {**may, "Content-Type": "application/json"}.items()]
        for length in (f"Content-Length: {len(body) + 500}", "Transfer-Encoding: chunked"):
            head = "\r\n".join(["POST /mcp HTTP/1.1", "Host: localhost", *lines, length, "", ""]).encode()
            whole = body if "Length" in length else f"{len(body):x}\r\n".encode() + body + b"\r\n"
            with socket.create_connection(("127.0.0.1", int(server.url.rsplit(":", 1)[1]))) as connection:
                connection.sendall(head + whole)  # and no more: what was not sent whole is not done
        pieces = (b"a" * 100_000 for _ in range(20))
        assert httpx.post(url, content=pieces, headers=may).status_code == 413
        assert httpx.get(f"{server.url}/health", headers=server.authorization).status_code == 404
    with Runtime(store=f"sqlite:///{tmp_path}/.dionysus/mind.db") as runtime:
        assert runtime.memory.recall("cut off") == []
    assert "--no-token" in one_line(dionysus("mcp", "--http", "--no-token", "--host", "0.0.0.0", cwd=tmp_path))
    assert "cannot watch" in one_line(dionysus("mcp", "--watch", "nowhere", cwd=tmp_path, stdin=b""))
