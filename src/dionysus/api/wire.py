"""Records as JSON."""

from dataclasses import fields, is_dataclass
from typing import Any

from fastapi import Response
from pydantic_core import PydanticSerializationError, to_json


def json_of(value: Any) -> Response:
    """Records, and what is made of them, as a response: instants in ISO 8601, what is no number as null."""
    try:
        body = to_json(value, inf_nan_mode="null")
    except PydanticSerializationError:  # lone surrogates: models and file names hold some
        body = to_json(as_unicode(value), inf_nan_mode="null")
    return Response(body, media_type="application/json")


def as_unicode(value: Any) -> Any:
    """The same with every text in Unicode: lone surrogates become "?"."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode("utf-8")
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: as_unicode(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, dict):
        return {as_unicode(key): as_unicode(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [as_unicode(item) for item in value]
    return value
