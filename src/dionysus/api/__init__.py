"""The REST endpoints: execution traces, their replay and token usage, for programs.

`create_app(runtime, access)` is an ASGI application; `dionysus serve` serves it. Errors are RFC 9457 problems.
"""

from dionysus.api.app import STATUS, create_app, routes_over

__all__ = ["STATUS", "create_app", "routes_over"]
