"""`/api/agents`: traces, one trace, its replay, and token usage."""

from collections.abc import Callable
from functools import partial
from typing import Annotated, Any
from urllib.parse import unquote

from fastapi import APIRouter, Depends, Path, Query, Request, Response
from pydantic_core import PydanticSerializationError, to_json

from dionysus.api.examples import EXAMPLES
from dionysus.api.schemas import StepQuery, TraceQuery, UsageQuery
from dionysus.errors import BadInput
from dionysus.runtime import Runtime
from dionysus.traces import retold, total_usage
from dionysus.traces.render import replay
from dionysus.wire import TokenReport, TraceDetail, TraceList, TraceReplay, as_unicode

TraceId = Annotated[
    str,
    Path(
        description='The whole id of a trace; a "/" within it may be written as %2F.',
        min_length=1,
        examples=["beat-1-3f9a2c"],
    ),
]


def router_over(runtime: Runtime) -> APIRouter:
    """The routes, over what a runtime has on record."""
    router = APIRouter(prefix="/api/agents", tags=["agents"], dependencies=[Depends(_each_once)])

    def route(path: str, answer: type[Any], summary: str, **more: Any) -> Callable[[Any], Any]:
        ok = {"model": answer, "description": str(answer.__doc__), "content": {"application/json": {}}}
        ok["content"] = {"application/json": {"example": EXAMPLES[answer.__name__]}, **more}
        return router.get(path, summary=summary, response_model=None, responses={200: ok})

    @route("/traces", TraceList, "List traces, newest first")
    def list_traces(query: Annotated[TraceQuery, Query()]) -> Response:
        """Pages stay where they are while new traces are written."""
        runtime.mark_interrupted()
        found = runtime.served_traces.page(
            agent_name=query.agent,
            status=query.status,
            success=query.success,
            run_id=query.run,
            since=query.since,
            until=query.until,
            cursor=query.cursor,
            limit=query.limit,
        )
        return json_of(found)

    @route(
        "/traces/{trace_id:path}/replay",
        TraceReplay,
        "Tell a trace again",
        **{"text/plain": {"schema": {"type": "string"}}},
    )
    def replay_trace(request: Request, trace_id: TraceId, query: Annotated[StepQuery, Query()]) -> Response:
        """Plans, thoughts, calls, observations, coherence, what was pruned, activated, kept and delegated, in order.

        With `Accept: text/plain` as a text for people.
        """
        runtime.mark_interrupted()
        story = retold(runtime.served_traces, unquote(trace_id), exact=True, after=query.after, limit=query.limit)
        if _wants_text(request):
            return Response(replay(story).encode("utf-8", "replace"), media_type="text/plain; charset=utf-8")
        return json_of(story)

    @route("/traces/{trace_id:path}", TraceDetail, "Get a trace with its steps")
    def get_trace(trace_id: TraceId, query: Annotated[StepQuery, Query()]) -> Response:
        """With all that is on record of each step, untruncated."""
        runtime.mark_interrupted()
        return json_of(
            runtime.served_traces.get_trace(unquote(trace_id), exact=True, after=query.after, limit=query.limit)
        )

    @route("/token-usage", TokenReport, "Sum up tokens and money")
    def token_usage(query: Annotated[UsageQuery, Query()]) -> Response:
        """Input, cached, written to the cache, output, money, and what pruning saved: per agent, in all, and per run or
        day if asked for."""
        runtime.mark_interrupted()
        sums_of = partial(
            runtime.served_traces.token_usage, agent_name=query.agent, since=query.since, until=query.until
        )
        agents = sums_of()
        more = {f"{per}s": sums_of(by=per, limit=query.limit) if query.by == per else () for per in ("run", "day")}
        report = {"agents": agents, **more, "total": total_usage(agents), "since": query.since, "until": query.until}
        return json_of(report)

    return router


def json_of(value: Any) -> Response:
    """Records, and what is made of them, as a response: instants in ISO 8601, what is no number as null."""
    try:
        body = to_json(value, inf_nan_mode="null")
    except PydanticSerializationError:  # lone surrogates: models and file names hold some
        body = to_json(as_unicode(value), inf_nan_mode="null")
    return Response(body, media_type="application/json")


def _wants_text(request: Request) -> bool:
    accepted = request.headers.get("accept", "")
    return "text/plain" in accepted and "application/json" not in accepted


def _each_once(request: Request) -> None:
    names = [name for name, _ in request.query_params.multi_items()]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise BadInput(f"given more than once: {', '.join(twice)}; give each parameter once")
