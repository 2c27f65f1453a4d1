"""An OpenAI-compatible server on loopback that plays a script and reports usage as real ones do."""

import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Played:
    """What the server was asked, and how it answers."""

    url: str
    actions: Sequence[dict[str, Any]]
    """Tool calls in turn: {"name": …, "arguments": {…}}; {"text": …} where code is asked for, or for a text as
    it is, with a "reason" why it ended; or {"status": 500}; or
    {"raw": …} for a body as it is."""
    report_usage: bool = True
    breaks_off: bool = False
    """Streams end in their middle."""
    requests: list[dict[str, Any]] = field(default_factory=list)
    reported: list[dict[str, Any]] = field(default_factory=list)
    """The usage of each answer."""
    acted: int = 0


@contextmanager
def openai_server(actions: Sequence[dict[str, Any]], *, report_usage: bool = True) -> Iterator[Played]:
    """Serves until the block ends."""
    played = Played(url="", actions=actions, report_usage=report_usage)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            played.requests.append(body)
            status, answer = _answer(played, body)
            if body.get("stream") and status == 200 and not isinstance(answer, bytes):
                return self.send_events(answer)
            data = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def send_events(self, answer: dict[str, Any]) -> None:
            """The answer in pieces of eight characters, then its usage, as server-sent events."""
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            whole = answer["choices"][0]["message"]
            text = whole.get("content") or ""
            deltas = [{"content": text[i : i + 8]} for i in range(0, len(text), 8)]
            calls = enumerate(whole.get("tool_calls") or ())
            deltas += [{"tool_calls": [{"index": i, **call}]} for i, call in calls]
            head = {k: answer[k] for k in ("id", "model", "created")} | {"object": "chat.completion.chunk"}
            events: list[dict[str, Any]] = [
                {**head, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas
            ]
            if answer.get("usage"):
                events.append({**head, "choices": [], "usage": answer["usage"]})
            if played.breaks_off:
                events = events[: len(events) // 2]
                self.send_header("Content-Length", "1000000")
            self.end_headers()
            for event in events:
                self.wfile.write(f"data: {json.dumps(event)}\n\n".encode())
            if not played.breaks_off:
                self.wfile.write(b"data: [DONE]\n\n")

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing on standard error."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    played.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield played
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _answer(played: Played, body: dict[str, Any]) -> tuple[int, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": "1. observe_environment\n2. final_answer"}
    form = body.get("response_format", {}).get("json_schema", {}).get("name")
    reason = "stop"
    if form == "plan":
        message["content"] = '{"steps": [{"name": "final_answer", "why": "enough"}]}'
    if body.get("tools") or "</code>" in (body.get("stop") or ()) or form == "tool_call":
        action = played.actions[min(played.acted, len(played.actions) - 1)]
        played.acted += 1
        if "status" in action:
            return action["status"], {"error": {"message": "the server is tired", "type": "server_error"}}
        if "raw" in action:
            return 200, action["raw"]
        reason = action.get("reason", reason)
        if "text" in action:
            message["content"] = action["text"]
        elif form == "tool_call":
            message["content"] = json.dumps({"thought": "as told", "action": action})
        else:
            call = {"name": action["name"], "arguments": json.dumps(action["arguments"])}
            made = {"id": f"call_{len(played.requests)}", "type": "function", "function": call}
            message |= {"content": None, "tool_calls": [made]}
    size = len(json.dumps(body["messages"]))
    usage = {
        "prompt_tokens": size // 4,
        "completion_tokens": 7,
        "total_tokens": size // 4 + 7,
        "prompt_tokens_details": {"cached_tokens": size // 8},
    }
    answer: dict[str, Any] = {
        "id": f"chatcmpl-{len(played.requests)}",
        "object": "chat.completion",
        "created": 0,
        "model": body["model"],
        "choices": [{"index": 0, "message": message, "finish_reason": reason}],
    }
    if played.report_usage:
        answer["usage"] = usage
        played.reported.append(usage)
    return 200, answer
