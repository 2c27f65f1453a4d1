"""JSON schemas for what a model may answer, and reading answers by them: finite values, nothing guessed.

The schemas keep to what llama.cpp and OpenAI's strict mode both take: every property required, no others allowed,
what may be left out may be null.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import json_repair
from jsonschema import Draft202012Validator

_ITEMS = 16
"""Of a list, where its tool does not say."""
_EXACT = 2**53 - 1
"""Integers beyond this are not exact in JSON; a bound keeps a small model from writing digits without end."""
_NULL = {"type": "null"}
Inputs = Mapping[str, Mapping[str, Any]]
"""smolagents' form: a JSON schema per argument, `nullable` where it can be left out."""


def object_of(properties: dict[str, Any]) -> dict[str, Any]:
    """An object with all of these properties, and no others."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def string_of(most: int) -> dict[str, Any]:
    """A text of at most so many characters."""
    return {"type": "string", "maxLength": most}


def arguments_of(inputs: Inputs, room: int) -> dict[str, Any]:
    """All arguments of a tool, whose strings share so many characters."""
    room //= max(1, len(inputs))
    return object_of({name: _or_null(spec, _bounded(spec, room)) for name, spec in inputs.items()})


def is_strict(schema: Any) -> bool:
    """Whether OpenAI's strict mode takes it: every object says all its properties."""
    return all(part.get("additionalProperties") is False for part in _parts_of(schema) if part.get("type") == "object")


def cleaned(given: Mapping[str, Any], inputs: Inputs) -> dict[str, Any]:
    """Arguments as the tool takes them: nulls of what may be left out are left out, whole numbers are integers."""
    return {
        name: _fitted(value, inputs[name])
        for name, value in given.items()
        if value is not None or not inputs[name].get("nullable")
    }


def understood(text: str, schema: dict[str, Any], *, cut_off: bool) -> tuple[dict[str, Any] | None, bool]:
    """What is meant, and whether it was repaired: words around the JSON, quotes, commas.

    What was cut off is not repaired: nobody knows how it would have ended.
    """
    valid = Draft202012Validator(_lenient(schema)).is_valid
    inner = text[text.find("{") : text.rfind("}") + 1]
    is_whole = not cut_off and text.rstrip("` \r\n\t").endswith("}")
    for read, candidate in ((json.loads, text), (json.loads, inner), (json_repair.loads, inner if is_whole else "")):
        try:
            said: Any = read(candidate)
            json.dumps(said, allow_nan=False, ensure_ascii=False).encode()  # no numbers or letters that there are not
            if valid(said):
                return said, candidate != text or read is not json.loads
        except (ValueError, RecursionError):
            continue
    return None, False


def _bounded(spec: Any, room: int) -> dict[str, Any]:
    """A schema of finite values within that of an argument; of what it does not know, any plain value."""
    if not isinstance(spec, Mapping):
        return _any(room)
    if spec.get("enum") or "const" in spec:
        return {"enum": list(spec.get("enum") or [spec["const"]])}
    kind = spec.get("type")
    kinds = kind if isinstance(kind, list) else [kind]
    union = spec.get("anyOf") or spec.get("oneOf")
    if isinstance(union, list) and union:
        # smolagents looks at `type` where there is one, too: what it refuses is not offered
        allowed = [part for part in union if kind is None or (isinstance(part, Mapping) and part.get("type") in kinds)]
        if allowed:
            return {"anyOf": [_bounded(part, room) for part in allowed]}
    if isinstance(kind, list):
        return {"anyOf": [_bounded({**spec, "type": one, "anyOf": None, "oneOf": None}, room) for one in kind]}
    if kind == "string":
        return string_of(min(room, spec.get("maxLength", room)))
    if kind == "integer":
        low, high = spec.get("minimum", -_EXACT), spec.get("maximum", _EXACT)
        return {"type": "integer", "minimum": low, "maximum": high} if low <= high else {"type": "integer"}
    if kind in ("number", "boolean", "null"):
        return {"type": kind}
    if kind == "array":
        items = spec.get("items")
        bounded = _or_null(items, _bounded(items, room))
        return {"type": "array", "items": bounded, "maxItems": min(_ITEMS, spec.get("maxItems", _ITEMS))}
    if kind == "object":
        if spec.get("properties"):
            return arguments_of(_nested(spec), room)
        values = spec.get("additionalProperties")
        return {
            "type": "object",
            "additionalProperties": _bounded(values, room) if isinstance(values, Mapping) else _scalar(room),
        }
    return _any(room)


def _scalar(room: int) -> dict[str, Any]:
    return {"anyOf": [string_of(room), {"type": "number"}, {"type": "boolean"}]}


def _any(room: int) -> dict[str, Any]:
    """No objects: those of which the keys are not known have no place in strict mode, and every final answer is any."""
    plain = _scalar(room)
    return {"anyOf": [*plain["anyOf"], {"type": "array", "items": plain, "maxItems": _ITEMS}]}


def _or_null(spec: Any, bounded: dict[str, Any]) -> dict[str, Any]:
    return {"anyOf": [bounded, _NULL]} if isinstance(spec, Mapping) and spec.get("nullable") else bounded


def _nested(spec: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The properties of an object, in smolagents' form: those that are not required as nullable ones."""
    required = spec.get("required", ())
    return {
        name: {**part, "nullable": part.get("nullable", False) or name not in required}
        if isinstance(part, Mapping)
        else {"nullable": name not in required}
        for name, part in spec["properties"].items()
    }


def _fitted(value: Any, spec: Any) -> Any:
    if not isinstance(spec, Mapping):
        return value
    if isinstance(value, dict) and spec.get("properties"):
        return cleaned(value, _nested(spec))
    if isinstance(value, list):
        return [_fitted(item, spec.get("items")) for item in value]
    kind = spec.get("type")
    if type(value) is int and isinstance(kind, list) and "number" in kind and "integer" not in kind:
        return float(value)  # smolagents takes an integer for a number only where nothing else is allowed
    whole = isinstance(value, float) and value.is_integer() and kind == "integer"
    return int(value) if whole else value


def _lenient(schema: Any) -> Any:
    """The same, but that what may be null may be missing: not every server enforces what it is told."""
    if isinstance(schema, list):
        return [_lenient(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    inner = {name: _lenient(part) for name, part in schema.items()}
    if schema.get("type") == "object" and "properties" in schema:
        inner["required"] = [name for name, part in schema["properties"].items() if _NULL not in part.get("anyOf", ())]
    return inner


def _parts_of(schema: Any) -> Iterator[dict[str, Any]]:
    """A schema and all schemas within."""
    within: Sequence[Any] = ()
    if isinstance(schema, dict):
        yield schema
        within = list(schema.values())
    elif isinstance(schema, list):
        within = schema
    for part in within:
        yield from _parts_of(part)
