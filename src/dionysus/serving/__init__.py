"""How a surface is served over HTTP: who may ask, under which names, and the server itself.

`api` and `mcp_server` are served by it; it knows neither.
"""

import ipaddress
import logging
import secrets
import shlex
import socket
from collections.abc import Callable, Iterable
from importlib.util import find_spec
from pathlib import Path

from dionysus.errors import BadInput, MissingExtra
from dionysus.serving.guard import Access, Guard, name_of
from dionysus.stores.private import kept_beside

__all__ = ["Access", "Guard", "access_for", "listening_at", "needs", "serve", "url_of"]
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "[::1]"})
_SHORTEST_TOKEN = 16
log = logging.getLogger("dionysus")


def needs(what: str, extra: str, *modules: str) -> None:
    """
    Raises:
        MissingExtra: One of these modules is not installed.
    """
    if any(find_spec(module) is None for module in modules):
        raise MissingExtra(what, extra)


def access_for(
    host: str,
    *,
    store: Path | None,
    token: str | None,
    with_token: bool = True,
    names: Iterable[str] = (),
    open_paths: Iterable[str] = (),
) -> Access:
    """Who may ask a server that listens at `host`.

    Args:
        store: The store's file: where no token is given, one is kept in a file beside it, made at first.
        token: The bearer token to ask for.
        with_token: False: whoever reaches the loopback interface may ask.
        names: Host names under which the server is reached, beside those of the loopback interface.
        open_paths: What answers without the token.

    Raises:
        BadInput: No token, or no name, for a server that can be reached from elsewhere; or a token that is too short.
        StoreError: The token's file cannot be made.
    """
    local = is_loopback(host)
    if not (with_token or local):
        raise BadInput(f"without a token nothing is served beyond loopback: leave out --no-token, or --host {host}")
    hosts = {_checked(name) for name in names if name.strip()}
    wildcard = ipaddress.ip_address(host).is_unspecified if _is_address(host) else False
    if wildcard and not hosts:
        raise BadInput(f"--host {host} needs --allow-host NAME: the name under which this machine is reached")
    hosts |= _LOOPBACK | (set() if wildcard else {_checked(name) for name in (host, *_addresses(host))})
    if not with_token:
        return Access(token=None, hosts=frozenset(hosts), open_paths=frozenset(open_paths))
    token = token.strip() if token is not None else None
    if token is not None and (len(token) < _SHORTEST_TOKEN or not token.isascii() or not token.isprintable()):
        raise BadInput(f"DIONYSUS_TOKEN has {len(token)} characters: at least {_SHORTEST_TOKEN}, printable and ASCII")
    if not local:
        log.warning("the token travels unencrypted: put a proxy that speaks TLS before %s", host)
    made, shown = (token, "$DIONYSUS_TOKEN") if token is not None else _token(store)
    return Access(token=made, token_in_shell=shown, hosts=frozenset(hosts), open_paths=frozenset(open_paths))


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach `host`.

    Raises:
        BadInput: It is no address, and no name of one.
    """
    return all(ipaddress.ip_address(address).is_loopback for address in _addresses(host))


def _addresses(host: str) -> set[str]:
    try:
        return {str(info[4][0]).partition("%")[0] for info in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)}
    except (OSError, UnicodeError) as error:
        raise BadInput(f"--host {host!r}: {getattr(error, 'strerror', None) or error}") from error


def listening_at(host: str, port: int) -> socket.socket:
    """A socket that listens; port 0: any free one.

    Raises:
        BadInput: The address is in use, or not this machine's.
    """
    info = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    made = socket.socket(info[0], info[1], info[2])  # with its protocol named, asyncio sends answers at once
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(info[4])
        made.listen(256)
    except OSError as error:
        made.close()
        raise BadInput(f"cannot listen at {host}, port {port}: {error.strerror}; --port 0 takes a free one") from error
    return made


def url_of(at: socket.socket) -> str:
    """Where a socket of `listening_at` is reached."""
    host, port = at.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def serve(app: Guard, at: socket.socket, *, on_stop: Callable[[], None] = lambda: None) -> None:
    """Serves an application until SIGINT or SIGTERM; what is being answered then is answered.

    Args:
        on_stop: Called when the first of these arrives.
    """
    from dionysus.serving.punctual import run

    run(app, at, on_stop=on_stop)


def _token(store: Path | None) -> tuple[str, str]:
    """The token that is kept beside the store, and how a shell says it."""
    if store is None:
        made = secrets.token_urlsafe(32)
        return made, made
    kept = kept_beside(store, "-token", lambda: secrets.token_urlsafe(32).encode() + b"\n", _is_token)
    return kept.decode().strip(), f"$(cat {shlex.quote(str(store) + '-token')})"


def _is_token(content: bytes) -> bool:
    token = content.decode("ascii", "replace").strip()
    return len(token) >= _SHORTEST_TOKEN and token.isascii() and token.isprintable() and " " not in token


def _checked(name: str) -> str:
    """A host's name as it stands in a Host header."""
    name = name.strip()
    found = name_of(f"[{name}]" if _is_address(name) and ":" in name else name)
    if found is None or not name.isascii():
        raise BadInput(f"{name!r} is no name of a host; write it without scheme and path")
    return found


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
