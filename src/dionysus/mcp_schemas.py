"""Schemas of other servers' tools as smolagents writes them; what comes from outside is resolved within itself only."""

import keyword
import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import unquote

from smolagents.tools import AUTHORIZED_TYPES

from dionysus.errors import BadInput

Definition = dict[str, Any]
"""`name`, `description`, `inputs` as smolagents writes them, `required`, `server`."""
_SCHEMA_PARTS = 10_000
_KINDS = {str: "string", bool: "boolean", int: "integer", float: "number", type(None): "null"}
_TAKEN = {"self", "args", "sanitize_inputs_outputs"}
"""Names of arguments that calls of smolagents' tools have themselves."""


def definition_of(tool: Any, server: str) -> Definition:
    """A tool's schema as smolagents writes it. References within it are resolved; none to elsewhere is followed.

    Raises:
        BadInput: It is none that an agent could call.
    """
    schema = tool.inputSchema if isinstance(tool.inputSchema, dict) else {}
    required = [name for name in schema.get("required") or () if isinstance(name, str)]
    resolving = _Resolving(schema)
    inputs = {
        name: _input(resolving.resolved(given), optional=name not in required)
        for name, given in (schema.get("properties") or {}).items()
    }
    unusable = sorted(_TAKEN & set(inputs))
    if unusable:
        raise BadInput(f"an argument is called {', '.join(unusable)}, which Python keeps for itself")
    return {
        "name": _identifier(tool.name),
        "description": tool.description or tool.name,
        "inputs": inputs,
        "required": required,
        "server": server,
    }


class _Resolving:
    """References within one schema, replaced by what they name; one that names itself may be anything."""

    def __init__(self, root: Mapping[str, Any]) -> None:
        self._root, self._parts = root, 0

    def resolved(self, schema: Any, within: tuple[str, ...] = ()) -> Any:
        """
        Raises:
            BadInput: It refers to what is not part of it, or grows beyond all measure.
        """
        self._parts += 1
        if self._parts > _SCHEMA_PARTS:
            raise BadInput(f"its schema has more than {_SCHEMA_PARTS:,} parts")
        if isinstance(schema, list):
            return [self.resolved(part, within) for part in schema]
        if not isinstance(schema, dict):
            return schema
        beside = {key: self._keyword(key, part, within) for key, part in schema.items() if key != "$ref"}
        if "$ref" not in schema:
            return beside
        reference = schema["$ref"]
        if reference in within:
            return beside
        found = self.resolved(self._named(reference), (*within, reference))
        return {**(found if isinstance(found, dict) else {}), **beside}

    def _keyword(self, key: str, part: Any, within: tuple[str, ...]) -> Any:
        if key in ("default", "const", "enum", "examples"):  # data, not schemas
            return part
        if key in ("properties", "patternProperties", "$defs", "definitions") and isinstance(part, dict):
            named = {} if key in ("$defs", "definitions") else part  # what is defined stands where it is used
            return {name: self.resolved(inner, within) for name, inner in named.items()}
        return self.resolved(part, within)

    def _named(self, reference: Any) -> Any:
        if not isinstance(reference, str) or not (reference == "#" or reference.startswith("#/")):
            raise BadInput(f"its schema refers to {str(reference)[:80]!r}, which is not part of it")
        target: Any = self._root
        for part in unquote(reference).split("/")[1:]:
            name = part.replace("~1", "/").replace("~0", "~")
            if isinstance(target, list) and name.isdigit():
                target = dict(enumerate(target)).get(int(name))
            else:
                target = target.get(name) if isinstance(target, dict) else None
        if target is None:
            raise BadInput(f"its schema refers to {reference!r}, which is not there")
        return target


def _input(schema: Any, *, optional: bool) -> dict[str, Any]:
    """One argument: `type`, `description`, and `nullable` where it may be left out or null."""
    plain: dict[str, Any] = schema if isinstance(schema, dict) else {}
    choices = [
        choice for name in ("anyOf", "oneOf", "allOf") for choice in plain.get(name, ()) if isinstance(choice, dict)
    ]
    listed = [_KINDS.get(type(value), "any") for value in plain.get("enum", ())]
    named = plain.get("type") or [choice.get("type", "any") for choice in choices] or listed or "any"
    kinds = dict.fromkeys(kind if kind in AUTHORIZED_TYPES else "any" for kind in _flat(named))
    told = [kind for kind in kinds if kind != "null"]
    return {
        **plain,
        "type": told[0] if len(told) == 1 else "any" if "any" in told or not told else told,
        "description": str(plain.get("description") or "see the tool's description"),
        **({"nullable": True} if optional or "null" in kinds else {}),
    }


def _flat(named: Any) -> Iterator[Any]:
    for kind in named if isinstance(named, list) else [named]:
        yield from kind if isinstance(kind, list) else [kind]


def _identifier(name: str) -> str:
    """A name that Python code can call."""
    made = re.sub(r"\W", "_", name)
    made = made if made and not made[0].isdigit() else f"_{made}"
    return f"{made}_" if keyword.iskeyword(made) else made
