"""Parameters as they are checked, and the answers that only HTTP has; the others are in `dionysus.wire`."""

import re
from typing import Annotated, Any

from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field

from dionysus.stores.contract import Per, Status
from dionysus.traces.service import CURSOR

_INSTANT = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(?:\.\d+)?(?:[Zz]|[+-]\d\d:\d\d)")


def _whole_number(given: Any) -> Any:
    return int(given) if isinstance(given, str) and re.fullmatch(r"-?[0-9]{1,18}", given) else given


def _truth(given: Any) -> Any:
    return {"true": True, "false": False}.get(given, given) if isinstance(given, str) else given


def _instant(given: Any) -> Any:
    if not isinstance(given, str):
        return given
    given = re.sub(r" (\d\d:\d\d)$", r"+\1", given)  # a plus sign that was not encoded arrives as a space
    if not _INSTANT.fullmatch(given):
        raise ValueError("write an instant with its offset from UTC, as in 2026-11-21T08:30:00Z")
    return given


Truth = Annotated[bool, Field(strict=True), BeforeValidator(_truth)]
Instant = Annotated[AwareDatetime, BeforeValidator(_instant)]
Name = Annotated[str, Field(min_length=1)]


class _Parameters(BaseModel):
    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True, frozen=True)


class SpanQuery(_Parameters):
    """Which traces are meant."""

    agent: Annotated[Name | None, Field(examples=["heartbeat"])] = None
    """Only of the agent of this name."""
    since: Annotated[Instant | None, Field(examples=["2026-11-01T00:00:00Z"])] = None
    """Only traces that began then or later."""
    until: Annotated[Instant | None, Field(examples=["2026-12-01T00:00:00Z"])] = None
    """Only traces that began before."""


class UsageQuery(SpanQuery):
    """Which traces are summed up, and how."""

    by: Annotated[Per, Field(examples=["day"])] = "agent"
    """`run` or `day`: such sums, too."""
    limit: Annotated[int, Field(strict=True, ge=1, le=1000, examples=[30]), BeforeValidator(_whole_number)] = 100
    """At most so many of those."""


class TraceQuery(SpanQuery):
    """Which traces are listed, and how many at once."""

    status: Annotated[Status | None, Field(examples=["success"])] = None
    """Only of this status."""
    success: Annotated[Truth | None, Field(examples=[True])] = None
    """Only of those that ended well, or of those that did not; running ones are neither."""
    run: Annotated[Name | None, Field(examples=["beat-1-3f9a2c"])] = None
    """Only of this run."""
    cursor: Annotated[str | None, Field(pattern=f"^{CURSOR}$", examples=["older_1763697480000000_beat-1-3f9a2c"])] = (
        None
    )
    """`next_cursor` or `previous_cursor` of another page."""
    limit: Annotated[int, Field(strict=True, ge=1, le=200, examples=[20]), BeforeValidator(_whole_number)] = 20
    """At most so many."""


class StepQuery(_Parameters):
    """Which steps of a trace are shown."""

    after: Annotated[int, Field(strict=True, ge=0, le=1_000_000, examples=[0]), BeforeValidator(_whole_number)] = 0
    """Only steps behind this order: `next_after` of another answer."""
    limit: Annotated[int, Field(strict=True, ge=1, le=1000, examples=[100]), BeforeValidator(_whole_number)] = 100
    """At most so many steps."""


class Health(BaseModel):
    """The server works, and can read its store."""

    status: Annotated[str, Field(pattern="^ok$")]


class Problem(BaseModel):
    """What went wrong (RFC 9457)."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    type: str
    """A name of the kind of problem; about:blank: what the status says."""
    title: str
    status: int
    detail: str
    """What is wrong here, and what to do."""
    errors: list[dict[str, str]] = []
    """For 422: each parameter with its message."""
