"""The REST endpoints: HTTP to a running server, over what real beats and OODA cycles left."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_type_hints
from urllib.parse import quote

import httpx
import pytest
from pydantic import TypeAdapter

from ci.bolt import BoltServer, free_port
from conftest import Clock, Repository, isolate, small_project
from dionysus import Runtime, errors
from dionysus.api import STATUS, routes_over
from dionysus.api.app import status_of
from dionysus.api.examples import EXAMPLES
from dionysus.errors import DionysusError
from dionysus.settings import load_settings
from dionysus.stores import open_store
from dionysus.stores.neo4j import Graph
from dionysus.traces import FullTrace, Replay, TracePage
from dionysus.wire import TokenReport, TraceDetail, TraceList, TraceReplay
from surfaces.servers import Served, served
from surfaces.test_cli import dionysus, one_line

SLOW_HEAD = """
import dionysus.serving.punctual as p
p.HEAD_S = 0.5
p.READ_S = 0.5
from dionysus.cli import main
main()
"""


def a_day(repository: Repository) -> None:
    """Two beats, an idle one, a question, and a run that is killed in its middle."""
    cwd = repository.path
    dionysus("beat", "-q", cwd=cwd)
    (cwd / "src/agents.py").write_text("def run():\n    return 2\n")
    dionysus("beat", "-q", cwd=cwd)
    dionysus("beat", "-q", cwd=cwd)
    dionysus("ask", "what is to be tested?", "-q", cwd=cwd)
    (cwd / "late.py").write_text("x = 1\n")
    killed_beat(cwd)


def killed_beat(cwd: Path) -> None:
    """A beat whose process is killed at its third action."""
    code = (
        "import os, signal\nfrom smolagents import ActionStep\nfrom dionysus import Runtime\n"
        "with Runtime() as r:\n"
        "    r.callbacks.register(ActionStep, lambda s: s.step_number == 3 and os.kill(os.getpid(), signal.SIGKILL))\n"
        "    r.beat()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=cwd, check=False)
    assert done.returncode == -signal.SIGKILL


@pytest.fixture(scope="module")
def day(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One for all tests that only ask."""
    repository = small_project(tmp_path_factory.mktemp("day") / "project")
    with pytest.MonkeyPatch.context() as monkeypatch:
        isolate(monkeypatch, tmp_path_factory.mktemp("home"))
        a_day(repository)
        with served("serve", cwd=repository.path) as server:
            yield server


def get(client: httpx.Client, path: str, answered: int = 200, /, **parameters: Any) -> Any:
    answer = client.get(path, params=parameters or None)
    assert answer.status_code == answered, answer.text[:500]
    kind = "application/json" if answered == 200 else "application/problem+json"
    assert answer.headers["content-type"] == kind
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"] == "no-store"
    body = answer.json()
    assert answered == 200 or body["status"] == answered
    return body


def test_what_a_day_left(day: Served) -> None:
    with day.client() as client:
        listed = get(client, "/api/agents/traces")["traces"]
        assert [t["agent_name"] for t in listed].count("heartbeat") == 3
        assert {"consciousness_manager", "perception", "reasoning", "metacognition"} <= {
            t["agent_name"] for t in listed
        }
        assert [t["started_at"] for t in listed] == sorted((t["started_at"] for t in listed), reverse=True)
        (cut,) = get(client, "/api/agents/traces", status="interrupted")["traces"]
        assert (cut["success"], cut["step_count"]) == (False, 3)
        assert get(client, "/api/agents/traces", success="false")["traces"] == [cut]
        assert get(client, "/api/agents/traces", agent="heartbeat", success="true", until=cut["started_at"])["traces"]
        assert get(client, "/api/agents/traces", since=cut["started_at"])["traces"][0] == cut
        assert get(client, "/api/agents/traces", until=listed[-1]["started_at"])["traces"] == []
        assert get(client, "/api/agents/traces", agent="nobody")["traces"] == []

        with Runtime(store=f"sqlite:///{day.cwd}/.dionysus/mind.db") as runtime:
            for trace in listed:
                full = runtime.traces.get_trace(trace["id"], exact=True)
                got = get(client, f"/api/agents/traces/{trace['id']}")
                assert TypeAdapter(FullTrace).validate_python(got) == full
                assert TraceDetail.of(full).model_dump(mode="json") == got

        beat = next(t for t in listed if t["agent_name"] == "heartbeat" and t["success"])
        story = get(client, f"/api/agents/traces/{beat['id']}/replay")
        assert [s["step_type"] for s in story["scenes"]].count("planning") == 4
        assert [s["coherence"] is not None for s in story["scenes"] if s["step_type"] == "planning"][1:] == [True] * 3
        moments = [m for s in story["scenes"] for m in s["moments"]]
        assert {"plan", "thought", "call", "observation", "pruned", "basin", "memory"} <= {m["kind"] for m in moments}
        assert sum(s["chars_pruned"] for s in story["scenes"]) > 0

        asked = next(t for t in listed if t["agent_name"] == "consciousness_manager")
        told = get(client, f"/api/agents/traces/{asked['id']}/replay")
        members = [m["trace"]["agent_name"] for s in told["scenes"] for m in s["delegated"]]
        assert members == ["perception", "reasoning", "metacognition"]
        text = client.get(f"/api/agents/traces/{asked['id']}/replay", headers={"Accept": "text/plain"})
        assert text.headers["content-type"] == "text/plain; charset=utf-8"
        assert text.text == dionysus("traces", "replay", asked["id"], cwd=day.cwd).out.rstrip("\n")
        assert "    trace " in text.text

        usage = get(client, "/api/agents/token-usage")
        by_agent = {u["agent_name"]: u for u in usage["agents"]}
        for name, total in by_agent.items():
            own = [t for t in listed if t["agent_name"] == name]
            assert (total["traces"], total["model_calls"]) == (len(own), sum(t["model_calls"] for t in own))
        assert usage["total"]["model_calls"] == sum(t["model_calls"] for t in listed)
        assert get(client, "/api/agents/token-usage", agent="perception")["agents"] == [by_agent["perception"]]
        assert (usage["runs"], usage["days"]) == ([], [])
        runs = get(client, "/api/agents/token-usage", by="run")["runs"]
        assert [u["run_id"] for u in runs] == list(dict.fromkeys(t["run_id"] for t in listed))
        days = get(client, "/api/agents/token-usage", by="day", limit="1")["days"]
        assert len(days) == 1
        assert days[0]["day"] == max(t["started_at"] for t in listed)[:10]


def test_a_run_that_is_killed_while_the_server_is_up(repository: Repository) -> None:
    dionysus("beat", "-q", cwd=repository.path)
    with served("serve", cwd=repository.path) as server, server.client() as client:
        (repository.path / "late.py").write_text("x = 2\n")
        killed_beat(repository.path)
        (cut, done) = get(client, "/api/agents/traces")["traces"]
        assert (cut["status"], cut["step_count"], done["status"]) == ("interrupted", 3, "success")
        assert (
            get(client, "/api/agents/token-usage")["total"]["model_calls"] == cut["model_calls"] + done["model_calls"]
        )


def test_steps_in_pieces_come_to_the_whole(day: Served) -> None:
    with day.client() as client:
        trace = get(client, "/api/agents/traces", agent="heartbeat", success="true")["traces"][0]
        for path, name in (
            (f"/api/agents/traces/{trace['id']}", "steps"),
            (f"/api/agents/traces/{trace['id']}/replay", "scenes"),
        ):
            whole = get(client, path)
            pieces: list[Any] = []
            after: int | None = 0
            while after is not None:
                piece = get(client, path, limit=3, after=after)
                pieces += piece[name]
                after = piece["next_after"]
            assert pieces == whole[name]
            assert whole["next_after"] is None


def test_a_hundred_traces_page_forth_and_back_while_new_ones_are_written(tmp_path: Path) -> None:
    clock = Clock()
    with Runtime(store=f"sqlite:///{tmp_path}/.dionysus/mind.db", clock=clock) as runtime:
        ids = [runtime.traces.create_trace("old", f"old-{i:03}") for i in range(100)][::-1]
        with served("serve", cwd=tmp_path) as server, server.client() as client:
            forth: list[str] = []
            page = get(client, "/api/agents/traces", limit=7)
            assert page["previous_cursor"] is None
            while True:
                forth += [t["id"] for t in page["traces"]]
                runtime.traces.create_trace("new", f"new-{len(forth)}")
                if page["next_cursor"] is None:
                    break
                page = get(client, "/api/agents/traces", limit=7, cursor=page["next_cursor"])
            assert forth == ids
            back = [t["id"] for t in page["traces"]][::-1]
            while page["previous_cursor"] is not None:
                page = get(client, "/api/agents/traces", limit=11, cursor=page["previous_cursor"])
                back += [t["id"] for t in page["traces"]][::-1]
            assert [name for name in back if name.startswith("old")] == ids[::-1]
            assert len([name for name in back if name.startswith("new")]) == 15
            first = get(client, "/api/agents/traces", limit=11)
            assert page["traces"][0]["id"] == first["traces"][0]["id"]
            assert len(get(client, "/api/agents/traces", agent="old", limit=200)["traces"]) == 100


def test_only_health_answers_without_the_token(day: Served) -> None:
    token_file = Path(os.readlink(f"/proc/{day.process.pid}/cwd"), ".dionysus/mind.db-token")
    assert token_file.stat().st_mode & 0o777 == 0o600
    assert len(day.token) >= 43
    schema = httpx.get(f"{day.url}/openapi.json", headers=day.authorization).json()
    paths = [path.replace("{trace_id}", "x") for path in schema["paths"]]
    assert len(paths) == 5
    for path in [*paths, "/", "/openapi.json", "/docs", "/nothing", "/health/", "//health", "/health/../openapi.json"]:
        for headers in (
            {},
            {"Authorization": "Bearer wrong"},
            {"Authorization": day.token},
            {"Authorization": "Bearer"},
        ):
            answer = httpx.get(f"{day.url}{path}", headers=headers)
            assert answer.status_code == (200 if path == "/health" else 401), path
            if answer.status_code == 401:
                assert answer.headers["www-authenticate"].startswith("Bearer")
                assert answer.headers["content-type"] == "application/problem+json"
    assert httpx.get(f"{day.url}/health").json() == {"status": "ok"}
    assert (
        "access-control-allow-origin"
        not in httpx.get(f"{day.url}/health", headers={"Origin": "http://localhost"}).headers
    )


def raw(server: Served, sent: bytes, *, wait_s: float = 5.0) -> bytes:
    """What comes back for these bytes, until the server closes or falls silent."""
    host, port = server.url.removeprefix("http://").rsplit(":", 1)
    with socket.create_connection((host, int(port)), timeout=wait_s) as connection:
        connection.sendall(sent)
        answer = b""
        try:
            while piece := connection.recv(65536):
                answer += piece
        except TimeoutError:
            pass
        return answer


def test_wrong_requests_get_right_answers(day: Served) -> None:
    with day.client() as client:
        assert "/etc/passwd" in get(client, "/api/agents/traces/..%2F..%2Fetc%2Fpasswd", 404)["detail"]
        told = f"Authorization: Bearer {day.token}\r\nConnection: close\r\n\r\n".encode()
        climbing = raw(day, b"GET /api/agents/traces/../../../etc/passwd HTTP/1.1\r\nHost: localhost\r\n" + told)
        assert climbing.startswith(b"HTTP/1.1 404")
        assert get(client, "/nothing", 404)["detail"].startswith("there is nothing at /nothing")
        refused = client.post("/api/agents/traces")
        assert (refused.status_code, refused.headers["allow"]) == (405, "GET")
        assert get(client, "/api/agents/traces", 414, cursor="a" * 9000)["title"] == "Request-URI Too Long"
        assert client.get("/health", headers={"X-Long": "a" * 40_000}).status_code == 431
        assert raw(day, b"GET /health HTTP/1.1\r\nX: " + b"a" * 200_000).startswith(b"HTTP/1.1 431")
        assert client.request("GET", "/health", content=b"a" * 2_000_000).status_code == 413
        for host in ("evil.example", "localhost.evil.example", "localhost@evil.example", "127.0.0.1.nip.io", "[::1"):
            assert client.get("/health", headers={"Host": host}).status_code in (400, 421), host
        for host in ("localhost", "LOCALHOST:80", "[::1]:9", "127.0.0.1"):
            assert client.get("/health", headers={"Host": host}).status_code == 200
        for origin in ("https://evil.example", "http://[", "null", "http://localhost.evil.example"):
            assert client.get("/health", headers={"Origin": origin}).status_code == 403, origin
        assert client.get("/health", headers={"Origin": "http://LocalHost:3000"}).status_code == 200
        for header in (b"Origin", b"Authorization", b"Host"):
            twice = header + b": http://localhost\r\n" + header + b": http://localhost\r\n"
            first = b"" if header == b"Host" else b"Host: localhost\r\n"
            assert raw(day, b"GET /health HTTP/1.1\r\n" + first + twice + b"\r\n").startswith(b"HTTP/1.1 400")
        assert raw(day, b"GET /health HTTP/1.1\r\n\r\n").startswith(b"HTTP/1.1 400")
        assert b'"title": "Bad Request"' in raw(day, b"\x16\x03\x01 nonsense\r\n\r\n")
        for wrong, said in (
            ({"limit": "0"}, "limit: Input should be greater than or equal to 1"),
            ({"limit": "twenty"}, "limit: Input should be a valid integer"),
            ({"since": "2026-11-21"}, "as in 2026-11-21T08:30:00Z"),
            ({"status": "done"}, "status: Input should be 'running', 'success'"),
            ({"success": "yes"}, "success: Input should be a valid boolean"),
            ({"cursor": "../../etc"}, "cursor: String should match pattern"),
            ({"agnet": "heartbeat"}, "agnet: Extra inputs are not permitted"),
        ):
            problem = get(client, "/api/agents/traces", 422, **wrong)
            assert said in problem["detail"]
            assert [e["parameter"] for e in problem["errors"]] == list(wrong)
        assert "given more than once: limit" in get(client, "/api/agents/traces?limit=1&limit=2", 422)["detail"]
        assert client.get("/api/agents/traces?since=2026-11-21T00:00:00+00:00").status_code == 200  # "+" as it is


def test_slow_clients_do_not_hold_on(repository: Repository) -> None:
    """With the limits set to half a second."""
    starter = repository.path.parent / "patient.py"
    starter.write_text(SLOW_HEAD)
    command = [sys.executable, str(starter), "serve", "--port", "0"]
    process = subprocess.Popen(command, cwd=repository.path, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        url = process.stdout.readline().split()[1].rsplit("/api", 1)[0]
        server = Served(url, "", "", process, repository.path)
        host, port = url.removeprefix("http://").rsplit(":", 1)
        silent = [socket.create_connection((host, int(port))) for _ in range(20)]
        assert httpx.get(f"{url}/health").status_code == 200  # others are served meanwhile
        assert raw(server, b"GET /health HTTP/1.1\r\nHost: local").startswith(b"HTTP/1.1 408")
        dripping = socket.create_connection((host, int(port)), timeout=10)
        answer, began = b"", time.monotonic()
        for byte in b"GET /health HTTP/1.1\r\nHost: localhost\r\nX-Padding: " + b"a" * 1000:
            try:
                dripping.send(bytes([byte]))
            except (BrokenPipeError, ConnectionResetError):
                break
            time.sleep(0.02)
        assert time.monotonic() - began < 15  # not the twenty seconds that the drip would take
        for connection in silent:
            connection.settimeout(5)
            answer = connection.recv(1000)
            assert answer.startswith(b"HTTP/1.1 408")
            connection.close()
        dripping.close()
        assert httpx.get(f"{url}/health").status_code == 200
    finally:
        process.terminate()
        process.wait(20)
        process.communicate()


def test_who_does_not_send_what_was_announced_is_parted_from(day: Served) -> None:
    """Without a token, and without waiting for the time that a body has."""
    host, port = day.url.removeprefix("http://").rsplit(":", 1)
    stalled = []
    for _ in range(20):
        connection = socket.create_connection((host, int(port)), timeout=10)
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n")
        assert connection.recv(4096).startswith(b"HTTP/1.1 200")
        connection.sendall(b"x")
        stalled.append(connection)
    for connection in stalled:
        while connection.recv(4096):  # ends, for the server says nothing more
            pass
        connection.close()
    with day.client() as client:
        assert client.get("/health").status_code == 200


def test_more_connections_than_there_are_places(tmp_path: Path) -> None:
    starter = tmp_path / "few.py"
    starter.write_text(
        "import dionysus.serving.punctual as p\np.CONNECTIONS = 3\nfrom dionysus.cli import main\nmain()\n"
    )
    process = subprocess.Popen(
        [sys.executable, str(starter), "serve", "--port", "0"], cwd=tmp_path, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        url = process.stdout.readline().split()[1].rsplit("/api", 1)[0]
        host, port = url.removeprefix("http://").rsplit(":", 1)
        held = [socket.create_connection((host, int(port))) for _ in range(3)]
        refused = httpx.get(f"{url}/health")
        assert (refused.status_code, refused.headers["content-type"]) == (503, "application/problem+json")
        for connection in held:
            connection.close()
        assert any(httpx.get(f"{url}/health").status_code == 200 for _ in range(20))
    finally:
        process.terminate()
        process.communicate()


def test_it_answers_under_the_names_that_it_is_given(tmp_path: Path) -> None:
    given = ("--host", "127.0.0.2", "--allow-host", "Dio.Example.", "--allow-host", "other.example:8817")
    with served("serve", *given, cwd=tmp_path) as server, server.client() as client:
        assert server.url.startswith("http://127.0.0.2:")
        assert get(client, "/api/agents/traces")
        for host in ("dio.example", "OTHER.example:1", "localhost"):
            assert client.get("/health", headers={"Host": host}).status_code == 200, host
    assert "is no name of a host" in one_line(dionysus("serve", "--allow-host", "http://x/", cwd=tmp_path))
    (tmp_path / ".dionysus/mind.db-token").unlink()
    (tmp_path / ".dionysus/mind.db-token").symlink_to("/nonexistent/token")
    assert "cannot keep" in one_line(dionysus("serve", cwd=tmp_path))
    (tmp_path / ".dionysus/mind.db-token").unlink()
    (tmp_path / ".dionysus/mind.db-token").write_text("short")
    assert "is none that Dionysus made" in one_line(dionysus("serve", cwd=tmp_path))


def test_any_id_can_be_paged_over(tmp_path: Path) -> None:
    ids = ["a" * 600, "two\nlines", "100 %2F", "é/…", "../x", "run/replay", "?#&="]
    with Runtime(store=f"sqlite:///{tmp_path}/.dionysus/mind.db", clock=Clock()) as runtime:
        for name in ids:
            runtime.traces.create_trace("mine", "r", trace_id=name)
    with served("serve", cwd=tmp_path) as server, server.client() as client:
        page = get(client, "/api/agents/traces", limit=1)
        found = [page["traces"][0]["id"]]
        while page["next_cursor"] is not None:
            page = get(client, "/api/agents/traces", limit=1, cursor=page["next_cursor"])
            found.append(page["traces"][0]["id"])
        assert found == ids[::-1]
        for name in ids:
            assert get(client, f"/api/agents/traces/{quote(name, safe='')}")["trace"]["id"] == name


def test_how_it_starts(tmp_path: Path) -> None:
    assert "--no-token" in one_line(dionysus("serve", "--no-token", "--host", "0.0.0.0", cwd=tmp_path))
    assert "needs --allow-host" in one_line(dionysus("serve", "--host", "0.0.0.0", "--port", "0", cwd=tmp_path))
    assert "at least 16" in one_line(dionysus("serve", cwd=tmp_path, environment={"DIONYSUS_TOKEN": "short"}))
    assert "Name or service not known" in one_line(dionysus("serve", "--host", "nowhere.invalid", cwd=tmp_path))
    with served("serve", "--no-token", cwd=tmp_path) as server:
        assert httpx.get(f"{server.url}/api/agents/traces").json()["traces"] == []
        port = server.url.rsplit(":", 1)[1]
        assert "Address already in use" in one_line(dionysus("serve", "--port", port, cwd=tmp_path))
    given = {"DIONYSUS_TOKEN": "a token of one's own", "DIONYSUS_ALLOWED_HOSTS": "mind.example"}
    with served("serve", "--store", "sqlite://", "--host", "0.0.0.0", cwd=tmp_path, environment=given) as server:
        url = server.url.replace("0.0.0.0", "127.0.0.1")
        headers = {"Authorization": "Bearer a token of one's own", "Host": "mind.example"}
        assert httpx.get(f"{url}/api/agents/traces", headers=headers).status_code == 200
        assert httpx.get(f"{url}/api/agents/traces", headers={**headers, "Host": "other.example"}).status_code == 421
    with (
        served("serve", cwd=tmp_path, environment={"DIONYSUS_AGENTS_API": "false"}) as server,
        server.client() as client,
    ):
        assert get(client, "/api/agents/traces", 404)
        assert list(client.get("/openapi.json").json()["paths"]) == ["/health"]


def test_a_store_that_is_damaged_or_gone_is_said(tmp_path: Path) -> None:
    with Runtime(store=f"sqlite:///{tmp_path}/.dionysus/mind.db") as runtime:
        trace = runtime.traces.create_trace("mine", "run-1")
        runtime.traces.add_step(trace, {"step_number": 1, "step_type": "action", "observation": "x" * 4000})
    with served("serve", cwd=tmp_path) as server, server.client() as client:
        assert get(client, f"/api/agents/traces/{trace.replace('/', '%2F')}")["steps"]
        import sqlite3

        with sqlite3.connect(tmp_path / ".dionysus/mind.db") as database:
            database.execute("DELETE FROM texts")
        problem = get(client, f"/api/agents/traces/{trace}", 500)
        assert "is missing; restore a copy" in problem["detail"]
        assert problem["type"] == "urn:dionysus:problem:entry-damaged"
        assert get(client, "/api/agents/traces")["traces"]
        for file in (tmp_path / ".dionysus").glob("mind.db*"):
            if file.is_file() and "token" not in file.name:
                file.unlink()
        with Runtime(store=f"sqlite:///{tmp_path}/.dionysus/mind.db") as runtime:
            runtime.traces.create_trace("other", "run-2")
        for path in ("/health", "/api/agents/traces"):
            assert "is not the file that was opened" in get(client, path, 503)["detail"]


def test_texts_that_are_no_unicode_and_numbers_that_are_none(tmp_path: Path) -> None:
    with Runtime(store=f"sqlite:///{tmp_path}/.dionysus/mind.db") as runtime:
        trace = runtime.traces.create_trace("mine", "run/replay", task="a \ud800 lone one")
        runtime.traces.add_step(trace, {"step_number": 1, "step_type": "action", "observation": "half a pair \udcff"})
    with served("serve", cwd=tmp_path) as server, server.client() as client:
        assert get(client, "/api/agents/traces")["traces"][0]["task"] == "a ? lone one"
        whole = get(client, "/api/agents/traces/run%2Freplay%2Fmine")
        assert whole["steps"][0]["observation"] == "half a pair ?"
        assert get(client, "/api/agents/traces/run%2Freplay%2Fmine/replay")["scenes"]
        text = client.get("/api/agents/traces/run%2Freplay%2Fmine/replay", headers={"Accept": "text/plain"}).text
        assert "half a pair ?" in text
        assert get(client, "/api/agents/traces/run%2Freplay", 404)


def test_schemathesis_finds_nothing(repository: Repository) -> None:
    """All its checks, over traces among which are those that the description's examples name."""
    path = repository.path / ".dionysus/mind.db"
    with Runtime(store=f"sqlite:///{path}", new_suffix=lambda: "3f9a2c") as runtime:
        assert runtime.beat(repository.path).trace_id == "beat-1-3f9a2c"
        runtime.ask("what is to be tested?", repository.path)
    with served("serve", cwd=repository.path) as server:
        command = [sys.executable, "-m", "schemathesis.cli", "run", f"{server.url}/openapi.json", "--no-color"]
        options = [
            "--checks",
            "all",
            "--mode",
            "all",
            "--max-examples",
            "20",
            "--seed",
            "7",
            "--generation-database",
            "none",
        ]
        header = f"Authorization: Bearer {server.token}"
        done = subprocess.run(
            [*command, *options, "-H", header],
            cwd=repository.path,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
        assert "No issues found" in done.stdout
        assert "5 selected / 5 total" in done.stdout


def test_each_error_has_its_status() -> None:
    kinds = [k for k in vars(errors).values() if isinstance(k, type) and issubclass(k, DionysusError)]
    assert len(kinds) >= 14
    for kind in kinds:
        error = kind.__new__(kind)
        assert status_of(error) == next(STATUS[base] for base in kind.__mro__ if base in STATUS)
        assert 400 <= status_of(error) < 600
    assert status_of(errors.WatchError("x")) == 422
    assert status_of(errors.NotFound("trace", "x", see="y")) == 404


def test_the_description_is_what_is_served() -> None:
    with Runtime(store="sqlite://") as runtime:
        schema = routes_over(runtime).openapi()
    assert set(schema["paths"]) == {
        "/health",
        "/api/agents/traces",
        "/api/agents/traces/{trace_id}",
        "/api/agents/traces/{trace_id}/replay",
        "/api/agents/token-usage",
    }
    for path, methods in schema["paths"].items():
        assert methods["get"]["security"] == ([] if path == "/health" else [{"token": []}])
    for answer, record in ((TraceList, TracePage), (TraceDetail, FullTrace), (TraceReplay, Replay)):
        assert set(answer.model_fields) == set(get_type_hints(record))
    for model in (TraceList, TraceDetail, TraceReplay, TokenReport):
        example = EXAMPLES[model.__name__]
        assert json.loads(model.model_validate(example).model_dump_json()) == json.loads(json.dumps(example))


@pytest.fixture
def from_the_graph(tmp_path: Path, bolt: BoltServer, graph: Graph) -> dict[str, str]:
    """An environment in which the endpoints answer from Neo4j; another store shipped a beat there."""
    (tmp_path / "other").mkdir()
    (tmp_path / "other/a.py").write_text("x = 1\n")
    shipped = {"neo4j_uri": bolt.uri, "neo4j_username": bolt.user, "neo4j_password": bolt.password}
    with Runtime(store=f"sqlite:///{tmp_path}/other.db", settings=load_settings(**shipped)) as runtime:
        runtime.beat(tmp_path / "other")
        runtime.shipper.ship()
    return {**bolt.environment, "DIONYSUS_TRACES_FROM": "neo4j"}


def test_the_endpoints_answer_from_neo4j(tmp_path: Path, from_the_graph: dict[str, str]) -> None:
    (tmp_path / "here").mkdir()
    with served("serve", cwd=tmp_path / "here", environment=from_the_graph) as server, server.client() as client:
        (trace,) = client.get("/api/agents/traces").json()["traces"]
        assert (trace["agent_name"], trace["status"], trace["planning_count"]) == ("heartbeat", "success", 4)
        found = client.get(f"/api/agents/traces/{trace['id']}").json()
        store = open_store(f"sqlite:///{tmp_path}/other.db")
        steps = store.records.steps(trace["id"])
        store.close()
        assert [step["observation"] for step in found["steps"]] == [step.observation for step in steps]
        story = client.get(f"/api/agents/traces/{trace['id']}/replay").json()
        assert [scene["step_type"] for scene in story["scenes"]].count("planning") == 4
        assert client.get("/api/agents/token-usage").json()["total"]["model_calls"] == 14
        assert client.get("/health").json() == {"status": "ok"}


def test_a_graph_that_is_down_is_a_503(tmp_path: Path) -> None:
    environment = {"NEO4J_URI": f"bolt://127.0.0.1:{free_port()}", "DIONYSUS_TRACES_FROM": "neo4j"}
    with served("serve", cwd=tmp_path, environment=environment) as server, server.client() as client:
        for path in ("/api/agents/traces", "/api/agents/traces/x", "/api/agents/token-usage", "/health"):
            answer = client.get(path)
            assert answer.status_code == 503
            assert "cannot be reached: Connection refused" in answer.json()["detail"]


def test_a_database_that_was_not_set_up_is_a_503(tmp_path: Path, bolt: BoltServer) -> None:
    bolt.empty()
    environment = {**bolt.environment, "DIONYSUS_TRACES_FROM": "neo4j"}
    with served("serve", cwd=tmp_path, environment=environment) as server, server.client() as client:
        answer = client.get("/api/agents/traces")
        assert answer.status_code == 503
        assert "`dionysus store init`" in answer.json()["detail"]
