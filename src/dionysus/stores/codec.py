"""How records become columns and properties, the same in every backend.

An instant is an integer of microseconds since 1970, UTC; nested values are JSON text; None is absent.
"""

import json
from collections.abc import Callable
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from cattrs import BaseValidationError, Converter
from cattrs.errors import CattrsError

from dionysus.errors import EntryDamaged

Record = TypeVar("Record")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
hints_of: Callable[[Any], dict[str, Any]] = cache(get_type_hints)
"""The types of a record's fields, by name."""
dumps = json.JSONEncoder(separators=(",", ":")).encode
"""JSON in ASCII, so that lone surrogates come back as they were."""


def to_us(at: datetime) -> int:
    """Microseconds since 1970."""
    return (at - _EPOCH) // timedelta(microseconds=1)


def from_us(us: int) -> datetime:
    """The instant, in UTC."""
    return _EPOCH + timedelta(microseconds=us)


_MISFITS = (CattrsError, BaseValidationError, TypeError, ValueError, LookupError, ArithmeticError, AttributeError)
"""What structuring raises where a value is none of its kind."""
CONVERTER = Converter(omit_if_default=True)
CONVERTER.register_unstructure_hook(datetime, to_us)
CONVERTER.register_structure_hook(datetime, lambda us, _: from_us(us))


def column_of(value: Any, *, pack: Callable[[Any], str] = lambda value: dumps(CONVERTER.unstructure(value))) -> Any:
    """A record's field as a backend keeps it.

    Args:
        pack: Makes the text of a nested value.
    """
    if value is None or isinstance(value, str | bool | int | float):
        return value
    return to_us(value) if isinstance(value, datetime) else pack(value)


def record_of(kind: type[Record], columns: dict[str, Any], *, unpack: Callable[[str], Any] = json.loads) -> Record:
    """The record whose fields `column_of` made these columns of; absent ones get their defaults.

    Args:
        unpack: Reads the text of a nested value.
    """
    hints = hints_of(kind)
    plain = {
        name: unpack(value) if isinstance(value, str) and not _takes_text(hints[name]) else value
        for name, value in columns.items()
    }
    return structured(kind, plain)


def structured(kind: type[Record], plain: Any) -> Record:
    """The record that was unstructured to these plain values.

    Raises:
        EntryDamaged: They are none.
    """
    try:
        return CONVERTER.structure(plain, kind)
    except _MISFITS as error:
        raise EntryDamaged(f"the store is damaged: an entry is no {kind.__name__}; restore a copy") from error


def unfit(record: Any) -> list[str]:
    """The names of a record's fields that would not come back: of another type, with too many bits, or no JSON."""
    return [f.name for f in fields(record) if not _fits(getattr(record, f.name), hints_of(type(record))[f.name])]


def _fits(value: Any, hint: Any) -> bool:
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        return False
    try:
        text = dumps(CONVERTER.unstructure(value))
        back = CONVERTER.structure(json.loads(text), hint)
        if type(back) is float and type(value) is int:
            return bool(back == value)
        return dumps(CONVERTER.unstructure(back)) == text
    except (*_MISFITS, RecursionError):
        return False


def as_unicode(text: str) -> str:
    """Lone surrogates, of undecodable file names, become "?"."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")


def _takes_text(hint: Any) -> bool:
    """Whether a column of this type holds the text itself, not JSON."""
    if get_origin(hint) in (tuple, list, dict):
        return False
    options = get_args(hint) or (hint,)
    return any(option is str or isinstance(option, str) for option in options)
