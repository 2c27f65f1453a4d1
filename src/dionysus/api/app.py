"""The application: routes, the one table from errors to statuses, and the description that it gives of itself."""

import logging
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from starlette.exceptions import HTTPException

from dionysus import __version__
from dionysus.api import agents
from dionysus.api.schemas import Health, Problem
from dionysus.errors import (
    BadInput,
    CallbackFailed,
    CallUncertain,
    Damaged,
    DionysusError,
    EntryDamaged,
    MissingExtra,
    ModelError,
    NotFound,
    ReplayDiverged,
    RunChanged,
    RunHeld,
    StoreError,
    StoreTooNew,
    ToolRefused,
)
from dionysus.runtime import Runtime
from dionysus.serving import Access, Guard
from dionysus.serving.problems import PROBLEM, encoded, problem

log = logging.getLogger("dionysus")
STATUS: dict[type[DionysusError], int] = {
    BadInput: 422,
    NotFound: 404,
    RunHeld: 409,
    RunChanged: 409,
    ReplayDiverged: 409,
    CallUncertain: 409,
    ToolRefused: 403,
    StoreError: 503,
    StoreTooNew: 500,
    Damaged: 500,
    EntryDamaged: 500,
    ModelError: 502,
    MissingExtra: 501,
    CallbackFailed: 500,
    DionysusError: 500,
}
"""What an error is answered with; where a class is not named, its base counts."""
_WHEN = {
    400: "No HTTP request, or one that names no host.",
    401: "No bearer token, or not the right one.",
    403: "From a page of another origin.",
    404: "There is none of that id.",
    405: "Another method.",
    408: "The request did not come in time.",
    413: "The body is too large.",
    414: "The URL is too long.",
    421: "The Host header names another server.",
    422: "A parameter that cannot be used; `errors` says which.",
    431: "The headers are too large.",
    500: "A fault of the server, or a damaged journal.",
    503: "The store cannot be read now.",
}
_ABOUT = """What agents did, step by step, as Dionysus has it on record; read only.

Every request but `/health` carries `Authorization: Bearer TOKEN`. Lists come in pages: `next_cursor` leads to older
traces, `previous_cursor` to newer ones, whatever is written meanwhile. Instants are UTC. Money is in US dollars, and
`null` where the price of a call is not known. Text that is no Unicode has "?" in its place."""


def create_app(runtime: Runtime, access: Access) -> Guard:
    """The endpoints over a runtime, for those whom `access` lets in. Whoever calls keeps the runtime open meanwhile."""
    return Guard(routes_over(runtime), access)


def routes_over(runtime: Runtime) -> FastAPI:
    """The endpoints without a guard before them, with their OpenAPI description."""
    app = FastAPI(
        title="Dionysus",
        version=__version__,
        description=_ABOUT,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        separate_input_output_schemas=False,
        default_response_class=Response,
        generate_unique_id_function=lambda route: route.name,
    )
    own = APIRouter()

    @own.get("/health", summary="Whether the server works", tags=["server"])
    def health() -> Response:
        """Reads from the store; answers without a token."""
        runtime.check_store()
        runtime.served_traces.list_traces(limit=1)
        return agents.json_of({"status": "ok"})

    app.include_router(own)
    if runtime.settings.agents_api:
        app.include_router(agents.router_over(runtime))
    app.add_exception_handler(DionysusError, _failed)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _refused)
    app.add_exception_handler(Exception, _broken)
    app.openapi = _described(app)  # type: ignore[method-assign]
    return app


def status_of(error: DionysusError) -> int:
    """The status that an error is answered with."""
    return next(STATUS[kind] for kind in type(error).__mro__ if kind in STATUS)


def _failed(request: Request, error: Exception) -> Response:
    assert isinstance(error, DionysusError)
    status = status_of(error)
    if status >= 500:
        log.error("%s %s: %s", request.method, request.url.path, error)
    return _answer(problem(status, str(error), kind=type(error).__name__))


def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    wrong = [
        {
            "parameter": ".".join(str(part) for part in e["loc"][1:]) or str(e["loc"][0]),
            "message": e["msg"].removeprefix("Value error, "),
        }
        for e in error.errors()
    ]
    said = "; ".join(f"{e['parameter']}: {e['message']}" for e in wrong)
    return _answer(problem(422, said, kind="BadInput", errors=wrong))


def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    detail = error.detail
    if error.status_code == 404:
        detail = f"there is nothing at {request.url.path}; /openapi.json describes what there is"
    if error.status_code == 405:
        detail = f"{request.method} is not for {request.url.path}"
    return _answer(problem(error.status_code, detail), error.headers)


def _broken(request: Request, error: Exception) -> Response:
    return _answer(problem(500, "a fault of the server; its log says more"))


def _answer(members: dict[str, Any], headers: Any = None) -> Response:
    return Response(encoded(members), members["status"], headers=headers, media_type=PROBLEM)


def _described(app: FastAPI) -> Callable[[], dict[str, Any]]:
    """The OpenAPI description, with problems and the token, which no route knows of."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            made = get_openapi(
                title=app.title, version=app.version, description=app.description, routes=app.routes, tags=_TAGS
            )
            components = made.setdefault("components", {})
            schemas = components.setdefault("schemas", {})
            for name in ("HTTPValidationError", "ValidationError"):
                schemas.pop(name, None)
            schemas["Problem"] = Problem.model_json_schema(mode="serialization")
            schemas["Health"] = Health.model_json_schema(mode="serialization")
            components["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
            for path, methods in made["paths"].items():
                for operation in methods.values():
                    _describe(path, operation)
            app.openapi_schema = made
        return app.openapi_schema

    return openapi


_TAGS = [
    {"name": "agents", "description": "Execution traces and what they cost."},
    {"name": "server", "description": "The server itself."},
]


_LINKS = {
    "list_traces": [
        ("get_trace", "trace_id", "/traces/0/id"),
        ("replay_trace", "trace_id", "/traces/0/id"),
        ("list_traces", "cursor", "/next_cursor"),
        ("list_traces", "run", "/traces/0/run_id"),
        ("token_usage", "agent", "/traces/0/agent_name"),
    ]
}


def _describe(path: str, operation: dict[str, Any]) -> None:
    is_open = path == "/health"
    if is_open:
        operation["responses"]["200"] = {
            "description": "It does.",
            "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Health"}}},
        }
    operation["security"] = [] if is_open else [{"token": []}]
    not_here = {401, 404, 422} if is_open else set() if "{" in path else {404}
    for status, when in _WHEN.items():
        if status not in not_here:
            example = problem(status, when)
            content = {"schema": {"$ref": "#/components/schemas/Problem"}, "example": example}
            operation["responses"][str(status)] = {
                "description": f"{HTTPStatus(status).phrase}: {when}",
                "content": {PROBLEM: content},
            }
    if is_open:
        operation["responses"].pop("422", None)
    links = _LINKS.get(operation["operationId"])
    if links:
        operation["responses"]["200"]["links"] = {
            f"{target}_by_{parameter}": {"operationId": target, "parameters": {parameter: f"$response.body#{where}"}}
            for target, parameter, where in links
        }
