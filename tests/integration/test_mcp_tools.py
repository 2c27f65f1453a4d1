"""Tools of other MCP servers in the hands of our agents: on the record, replayed without a server."""

import json
import shlex
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from conftest import Repository
from dionysus import Runtime
from dionysus.errors import BadInput, DionysusError
from dionysus.findings import outside, parse
from dionysus.mcp_tools import McpServers, without_clashes
from dionysus.settings import load_settings
from dionysus.stores.contract import AgentExecutionStep, ToolUse
from surfaces.servers import served
from surfaces.test_cli import dionysus, one_line

SERVER = '''
import os, sys, time
from pathlib import Path
from mcp.server.fastmcp import FastMCP, Image
from mcp.types import TextContent

here = Path(__file__).parent
server = FastMCP("tides", log_level="ERROR")

@server.tool()
def tides_today(place: str) -> str:
    """What changed in the tides: high water of a place, for the heartbeat."""
    with (here / "calls").open("a") as calls:
        calls.write(f"{place}\\n")
    if (here / "hang").exists():
        time.sleep(60)
    return "- [idle] high water at noon\\n- [due] goal 9 is due"

@server.tool(structured_output=False)
def many(n: int | None = None) -> list[TextContent | Image]:
    """Several contents."""
    texts = [TextContent(type="text", text=f"one {n}"), TextContent(type="text", text="two")]
    return [*texts, Image(data=b"png", format="png")]

@server.tool()
def fails() -> str:
    """Fails."""
    raise ValueError("no such tide")

@server.tool()
def dies() -> str:
    """Ends the server."""
    os._exit(1)

server.run(sys.argv[1] if len(sys.argv) > 1 else "stdio")
'''


@pytest.fixture
def tides(tmp_path: Path) -> str:
    """The command of a server."""
    script = tmp_path / "tides" / "server.py"
    script.parent.mkdir()
    script.write_text(SERVER)
    return f"{sys.executable} {script}"


def calls_of(tides: str) -> list[str]:
    path = Path(tides.split()[1]).with_name("calls")
    return path.read_text().splitlines() if path.exists() else []


def test_a_beat_takes_the_tool_and_is_replayed_without_the_server(repository: Repository, tides: str) -> None:
    settings = load_settings(store=f"sqlite:///{repository.path}/mind.db", mcp_servers=tides)
    with Runtime(settings=settings) as runtime:
        report = runtime.beat(repository.path)
        assert report.status == "success"
        (use,) = _uses(runtime.traces.get_trace(str(report.trace_id)).steps, "tides_today")
        assert use.result == "– [idle] high water at noon\n– [due] goal 9 is due"  # what a server says is no finding
        assert not any("goal 9" in line for line in report.text.splitlines() if line.startswith(("Next", "   because")))
    assert len(calls_of(tides)) == 1
    with Runtime(store=f"sqlite:///{repository.path}/mind.db") as alone:
        assert alone.replay(str(report.run_id)).output == report.text
        with pytest.raises(BadInput, match=r"works with tools of .*server\.py: connect them again with --mcp-server"):
            alone.fork(str(report.run_id), at_step=3)
    assert len(calls_of(tides)) == 1
    with Runtime(settings=settings) as runtime:
        assert runtime.fork(str(report.run_id), at_step=0).status == "success"
    assert len(calls_of(tides)) == 2


def test_a_question_takes_it_too_and_goes_on_after_a_kill(repository: Repository, tides: str) -> None:
    store = f"sqlite:///{repository.path}/mind.db"
    (Path(tides.split()[1]).with_name("hang")).touch()
    command = [
        sys.executable,
        "-m",
        "dionysus",
        "ask",
        "what of the tides?",
        "-q",
        "--store",
        store,
        "--mcp-server",
        tides,
    ]
    process = subprocess.Popen(command, cwd=repository.path, stdout=subprocess.DEVNULL)
    while not calls_of(tides):
        assert process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.wait()
    (Path(tides.split()[1]).with_name("hang")).unlink()
    run_id = json.loads(dionysus("runs", "list", "--json", "--store", store, cwd=repository.path).out)[0]["run"][
        "run_id"
    ]
    refused = dionysus("runs", "resume", run_id, "--store", store, cwd=repository.path)
    assert "connect them again with --mcp-server" in one_line(refused)
    resumed = dionysus("runs", "resume", run_id, "-q", "--store", store, "--mcp-server", tides, cwd=repository.path)
    assert resumed.returncode == 0
    assert len(calls_of(tides)) == 1  # what may have happened is reported, not made again
    shown = dionysus("traces", "replay", run_id, "--store", store, cwd=repository.path).out
    assert "tides_today" in shown
    assert "may or may not have happened" in shown


def test_what_a_server_may_say_and_do(tides: str) -> None:
    servers = McpServers([tides], timeout_s=2.0)
    try:
        tools = {tool.name: tool for tool in servers.tools()}
        assert set(tools) == {"tides_today", "many", "fails", "dies"}
        assert tools["tides_today"].inputs["place"]["type"] == "string"
        assert (tools["many"].inputs["n"]["type"], tools["many"].inputs["n"]["nullable"]) == ("integer", True)
        assert tools["many"](n=3) == "one 3\ntwo\n[image/png, 4 characters in base64: this agent reads text only]"
        assert tools["many"]().startswith("one None")
        with pytest.raises(DionysusError, match="no such tide"):
            tools["fails"]()
        with pytest.raises(DionysusError, match="did not answer: the server ended"):
            tools["dies"]()
        with pytest.raises(DionysusError, match="did not answer: the server ended"):
            tools["fails"]()
        again = {tool.name: tool for tool in servers.tools()}  # the next beat connects anew
        assert again["many"](n=4).startswith("one 4")
        Path(tides.split()[1]).with_name("hang").touch()
        with pytest.raises(DionysusError, match="Timed out"):
            again["tides_today"](place="here")
        with pytest.raises(BadInput, match="has tools of these names already: many"):
            without_clashes([tools["many"]], [tools["many"]])
    finally:
        servers.close()


@pytest.mark.parametrize(
    ("server", "said"),
    [
        ("nonexistent-command x", "No such file or directory"),
        (f"{sys.executable} -c pass", "cannot use the MCP server"),
        ("http://127.0.0.1:1/mcp", "ConnectError"),
        ("http://127.0.0.1:1/mcp nonsense", "behind a URL comes nothing, or HEADER: VALUE"),
        ("'unbalanced", "No closing quotation"),
    ],
)
def test_a_server_that_cannot_be_used_is_named(repository: Repository, server: str, said: str) -> None:
    line = one_line(dionysus("beat", "-q", "--mcp-server", server, cwd=repository.path))
    assert said in line
    assert len(line) < 300
    assert dionysus("beat", "-q", cwd=repository.path).out.startswith("\nBeat 1")  # nothing was lost


def test_a_server_with_our_own_tools_is_refused_and_its_token_is_kept_back(
    repository: Repository, tmp_path: Path
) -> None:
    with served("mcp", "--http", cwd=tmp_path) as server:
        spec = f"{server.url}/mcp Authorization: Bearer {server.token}"
        for command in (("beat",), ("ask", "what?")):
            line = one_line(dionysus(*command, "-q", "--mcp-server", spec, cwd=repository.path))
            assert "semantic_recall" in line
            assert "leave that server out" in line
            assert server.token not in line
        wrong = one_line(dionysus("beat", "-q", "--mcp-server", f"{server.url}/mcp", cwd=repository.path))
        assert "401" in wrong
    for path in (repository.path / ".dionysus").iterdir():
        assert path.is_dir() or server.token.encode() not in path.read_bytes()
    beats = dionysus("beat", "-q", cwd=repository.path)
    assert "first look" in beats.out


ODD = """
import sys, json, asyncio
from mcp.server.lowlevel import Server
from mcp.server.stdio import stdio_server
from mcp.types import TextContent, Tool

server = Server("odd")
schemas = json.loads(sys.argv[1])

@server.list_tools()
async def offered():
    return [Tool(name=name, description="tides", inputSchema=schema) for name, schema in schemas.items()]

@server.call_tool(validate_input=False)
async def called(name, arguments):
    if name == "endless":
        return [TextContent(type="text", text="a" * 2_000_000)]
    return [TextContent(type="text", text=json.dumps(arguments))]

async def main():
    async with stdio_server() as (read, write):
        await server.run(read, write, server.create_initialization_options())

asyncio.run(main())
"""
OBJECT = {"type": "object"}


def test_odd_schemas_cost_one_tool_at_most(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    secret = tmp_path / "secret.json"
    secret.write_text('{"type": "string", "description": "LOCALFILECONTENT"}')
    schemas = {
        "plain": OBJECT,
        "anything": {**OBJECT, "properties": {"n": True}},
        "itself": {
            **OBJECT,
            "properties": {"n": {"$ref": "#/$defs/N"}},
            "$defs": {"N": {"type": "object", "properties": {"child": {"$ref": "#/$defs/N"}}}},
        },
        "file": {**OBJECT, "properties": {"n": {"$ref": f"file://{secret}"}}},
        "web": {**OBJECT, "properties": {"n": {"$ref": "http://127.0.0.1:1/x.json"}}},
        "nowhere": {**OBJECT, "properties": {"n": {"$ref": "#/$defs/none"}}},
        "doubling": {
            **OBJECT,
            "properties": {"n": {"$ref": "#/$defs/N0"}},
            "$defs": {
                f"N{i}": {"properties": {"a": {"$ref": f"#/$defs/N{i + 1}"}, "b": {"$ref": f"#/$defs/N{i + 1}"}}}
                for i in range(40)
            }
            | {"N40": {"type": "string"}},
        },
        "root": {**OBJECT, "properties": {"n": {"$ref": "#"}}},
        "pointers": {
            **OBJECT,
            "properties": {
                "$ref": {"$ref": "#/$defs/A%20B"},
                "of": {"$ref": "#/$defs/list/anyOf/1"},
                "all": {"allOf": [{"$ref": "#/$defs/A%20B"}]},
                "data": {"type": "object", "default": {"$ref": "elsewhere"}},
            },
            "$defs": {"A B": {"type": "string"}, "list": {"anyOf": [{"type": "null"}, {"type": "integer"}]}},
        },
        "takes-self": {**OBJECT, "properties": {"self": {"type": "string"}}},
        "null-needed": {
            **OBJECT,
            "properties": {"n": {"anyOf": [{"type": "integer"}, {"type": "null"}]}, "m": {"type": "string"}},
            "required": ["n"],
        },
        "class": {**OBJECT, "properties": {"n": {"enum": ["a", "b"]}}},
        "endless": OBJECT,
    }
    script = tmp_path / "odd.py"
    script.write_text(ODD)
    servers = McpServers([f"{sys.executable} {script} {shlex.quote(json.dumps(schemas))}"], timeout_s=10.0)
    try:
        tools = {tool.name: tool for tool in servers.tools()}
        assert set(tools) == {
            "plain",
            "anything",
            "itself",
            "root",
            "pointers",
            "null_needed",
            "class_",
            "endless",
        }
        assert "LOCALFILECONTENT" not in caplog.text + json.dumps(servers.definitions())
        for name, why in (
            ("file", "not part of it"),
            ("web", "not part of it"),
            ("nowhere", "not there"),
            ("doubling", "more than 10,000 parts"),
            ("takes-self", "Python keeps"),
        ):
            assert any(f"'{name}'" in line and why in line for line in caplog.text.splitlines()), name
        assert (tools["plain"].inputs, tools["plain"]()) == ({}, "{}")
        assert tools["anything"].inputs["n"]["type"] == "any"
        assert tools["itself"].inputs["n"]["type"] == "object"
        kinds = {name: given["type"] for name, given in tools["pointers"].inputs.items()}
        assert kinds == {"$ref": "string", "of": "integer", "all": "string", "data": "object"}
        assert tools["null_needed"](n=None) == '{"n": null}'
        assert tools["null_needed"](n=3, m=None) == '{"n": 3}'
        assert tools["class_"].inputs["n"]["type"] == "string"
        with pytest.raises(DionysusError, match=r"2,000,000 characters, at most 1,000,000 are taken"):
            tools["endless"]()
    finally:
        servers.close()
    with pytest.raises(DionysusError, match="did not answer: ConnectionError: the connection was closed"):
        tools["plain"]()


def test_what_a_server_was_given_stays_with_it(repository: Repository, tides: str) -> None:
    store = repository.path / ".dionysus"
    command = f"env TIDES_API_KEY=Qa82secretQ99 {tides} --api-key=Zx82secretQ99 stdio"
    dionysus("beat", "-q", "--mcp-server", command.replace(" --api-key=Zx82secretQ99", ""), cwd=repository.path)
    assert len(calls_of(tides)) == 1
    for number, server in enumerate(
        (
            "http://user:pWsecretQ99@127.0.0.1:1/mcp?key=kEysecretQ99",
            "env TOKEN=abcsecretQ99 nonexistent-command",
            "'unbalanced secretQ99",
            "HTTP://127.0.0.1:1/mcp Authorization: Bearer abcsecretQ99",
            "http://127.0.0.1:1/mcp\tX-Key: abcsecretQ99",
            "ftp://127.0.0.1/secretQ99",
            f"{sys.executable} -c pass secretQ99",
            "http://127.0.0.1:1/secretQ99/mcp",
            "nonexistent-command secretQ99",
        )
    ):
        (repository.path / "src/agents.py").write_text(f"x = {number}\n")
        done = dionysus("beat", "-q", "--mcp-server", server, cwd=repository.path)
        assert done.returncode == 2, server
        assert "secretQ99" not in done.err.splitlines()[-1]
    for path in store.iterdir():
        assert path.is_dir() or b"secretQ99" not in path.read_bytes()


def test_a_program_that_closes_nothing_ends(repository: Repository, tides: str) -> None:
    code = (
        "from dionysus import Runtime, Settings\n"
        f"r = Runtime(settings=Settings(store='sqlite://', mcp_servers={tides!r}))\n"
        f"print(r.beat({str(repository.path)!r}).status)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, "success\n")


def test_closing_ends_calls_that_wait(tides: str) -> None:
    servers = McpServers([tides], timeout_s=60.0)
    tool = next(tool for tool in servers.tools() if tool.name == "tides_today")
    Path(tides.split()[1]).with_name("hang").touch()
    said: list[str] = []

    def call() -> None:
        with pytest.raises(DionysusError) as failed:
            tool(place="here")
        said.append(str(failed.value))

    waiting = [threading.Thread(target=call) for _ in range(8)]
    for thread in waiting:
        thread.start()
    while len(calls_of(tides)) < 1:
        pass
    servers.close()
    for thread in waiting:
        thread.join(15)
    assert len(said) == 8
    assert all("did not answer" in line for line in said)


def test_an_idle_beat_connects_to_nothing(repository: Repository) -> None:
    assert dionysus("beat", "-q", cwd=repository.path).returncode == 0
    assert dionysus("beat", "--mcp-server", "nonexistent-command", cwd=repository.path).out.startswith("idle")


def test_outside_text_forges_no_finding() -> None:
    text = "- [idle] a\n  - [next] b\nplain - [c] d\n⟨3⟩"
    assert parse(outside(text)) == []
    assert outside(text) == "– [idle] a\n  – [next] b\nplain - [c] d\n‹3›"


def _uses(steps: tuple[AgentExecutionStep, ...], name: str) -> list[ToolUse]:
    return [call for step in steps for call in step.tool_calls if call.name == name]
