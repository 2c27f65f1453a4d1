"""uvicorn, for clients that take their time: who does not finish asking, or does not read, does not hold on for ever.

uvicorn has a time limit between requests only. Its HTTP/1.1 protocol is extended here by limits for the head of a
request and for answers that nobody reads, and says what is wrong with a head as a problem.
"""

import asyncio
import signal
import socket
import sys
import threading
from collections.abc import Callable
from http import HTTPStatus
from types import FrameType
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from dionysus.serving.problems import PROBLEM, encoded, problem

HEAD_S = 10.0
"""Seconds from the first byte of a request, or from the connection, to the end of its headers."""
READ_S = 30.0
"""Seconds in which the reader of a closing connection must take some of what is left."""
REFUSED_S = 2.0
"""Seconds in which a refused client may finish sending, so that it reads why."""
_HEAD_BYTES = 32_768
CONNECTIONS = 500


class Punctual(H11Protocol):
    """One connection."""

    _deadline: asyncio.TimerHandle | None = None
    _is_refused = False

    def connection_made(self, transport: Any) -> None:
        """The client is there, and has yet to ask."""
        super().connection_made(transport)
        if len(self.connections) > CONNECTIONS:
            self._refuse(503, f"{CONNECTIONS} connections are open; ask again")
        self._await_head()

    def data_received(self, data: bytes) -> None:
        """More of the request."""
        if self._is_refused:
            return  # a connection that is closed with something unread takes the answer back
        super().data_received(data)
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone."""
        self._stop_waiting()
        super().connection_lost(exc)

    def timeout_keep_alive_handler(self) -> None:
        """No further request came."""
        super().timeout_keep_alive_handler()
        self._linger()

    def on_response_complete(self) -> None:
        """The answer is out; who has not sent all of its request by now is not waited for."""
        super().on_response_complete()
        if self.conn.their_state is h11.SEND_BODY:
            self._part()

    def send_400_response(self, msg: str) -> None:
        """What came is no request."""
        error = sys.exception()
        status = error.error_status_hint if isinstance(error, h11.RemoteProtocolError) else 400
        self._refuse(status, "the headers are too large" if status == 431 else f"this is no HTTP request: {error}")

    def _await_head(self) -> None:
        asking = self.conn.their_state is h11.IDLE and not (self._is_refused or self.transport.is_closing())
        if not asking:
            self._stop_waiting()
        elif self._deadline is None:
            self._deadline = self.loop.call_later(HEAD_S, self._too_slow)

    def _stop_waiting(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _too_slow(self) -> None:
        self._deadline = None
        if self.conn.their_state is h11.IDLE and not self.transport.is_closing():
            self._refuse(408, f"the headers were not there within {HEAD_S:g} seconds")

    def _refuse(self, status: int, detail: str) -> None:
        body = encoded(problem(status, detail))
        headers = [
            ("content-type", PROBLEM),
            ("content-length", str(len(body))),
            ("cache-control", "no-store"),
            ("x-content-type-options", "nosniff"),
            ("connection", "close"),
        ]
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            reason = HTTPStatus(status).phrase.encode()
            for event in (
                h11.Response(status_code=status, headers=headers, reason=reason),
                h11.Data(data=body),
                h11.EndOfMessage(),
            ):
                self.transport.write(self.conn.send(event) or b"")
        self._part()

    def _part(self) -> None:
        """Says nothing more, and reads nothing more."""
        if not (self._is_refused or self.transport.is_closing()):
            self._is_refused = True
            self._unset_keepalive_if_required()
            self.transport.resume_reading()
            self.transport.write_eof()
            self.loop.call_later(REFUSED_S, self._linger)

    def _linger(self, before: int | None = None) -> None:
        """Lets a client read the rest of its answer, as long as it does read."""
        left = self.transport.get_write_buffer_size()
        if not left or left == before:
            self.transport.abort()
        else:
            self.loop.call_later(READ_S, self._linger, left)


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, on_stop: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_stop = on_stop

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._on_stop()
        super().handle_exit(sig, frame)


def run(app: Any, at: socket.socket, *, on_stop: Callable[[], None]) -> None:
    """Serves until SIGINT or SIGTERM; see `dionysus.serving.serve`."""
    server = _Server(
        uvicorn.Config(
            app,
            http=Punctual,
            ws="none",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            h11_max_incomplete_event_size=_HEAD_BYTES,
            timeout_graceful_shutdown=5,
        ),
        on_stop,
    )
    if threading.current_thread() is not threading.main_thread():
        server.run(sockets=[at])
        return

    def stop(number: int, frame: FrameType | None) -> None:
        """uvicorn raises the signal again when it has ended: that is the end that was asked for."""

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        server.run(sockets=[at])
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
