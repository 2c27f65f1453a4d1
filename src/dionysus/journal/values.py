"""Values as the journal holds them: `plain` to be read, `exact` to be made again in another process.

Nothing is pickled: a journal, or a cassette from somebody else, must not run code, and secrets are replaced in texts.
"""

import base64
import hashlib
import io
import json
import re
from collections.abc import Callable, Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from fractions import Fraction
from pathlib import Path, PurePath
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

_DEEPEST = 40
"""Levels of nested values that are kept as such; what lies deeper – or refers to itself – is kept as text."""
_BITS = 4096
"""Greater integers are kept as text: Python does not print them."""
_PNG_MODES = ("1", "L", "LA", "I", "I;16", "P", "RGB", "RGBA")
_ADDRESS = re.compile(r"\bat 0x[0-9a-fA-F]{6,16}\b")
_TAG = "$is"


def digest_of(value: Any) -> str:
    """16 hex digits that equal plain values share; addresses of objects, as in `<f at 0x7f…>`, do not count."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    if "at 0x" in text:
        text = _ADDRESS.sub("at 0x", text)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def plain(value: Any) -> Any:
    """`value` as JSON can hold it: images as PNG, bytes as base64; anything else becomes its type's name and its text.

    Never fails, whatever a tool returned: a text that cannot be had is said to be missing.
    """
    return _plain(value, ())


def _plain(value: Any, within: tuple[int, ...]) -> Any:
    if value is None or isinstance(value, str | bool | float):
        return value
    if isinstance(value, int):
        return value if value.bit_length() < _BITS else {"object": "builtins.int", "text": hex(value)}
    kind = name_of(type(value))
    try:
        if isinstance(value, bytes | bytearray):
            return {"type": "bytes", **_bytes(value)}
        if len(within) < _DEEPEST and id(value) not in within:
            inside = (*within, id(value))
            if isinstance(value, Mapping):
                return {str(k): _plain(v, inside) for k, v in value.items()}
            if isinstance(value, list | tuple):
                return [_plain(v, inside) for v in value]
            if isinstance(value, set | frozenset):  # their order is chance
                return {"object": kind, "text": "{" + ", ".join(sorted(map(repr, value))) + "}"}
        if _is_image(value):
            return {"type": "image", "png": _png(value)}
        return {"object": kind, "text": str(value)}
    except Exception as error:  # noqa: BLE001 – the code of a foreign object ran, and what it did is said
        return {"object": kind, "text": f"(no text: {type(error).__name__}: {error})"}


class Lost(Exception):
    """A value of this type cannot be made again from a journal."""


def packed(name: str, value: Any) -> dict[str, Any]:
    """Fields that hold a value: `name` is what to read; where that is not the value itself, `exact` is – or `lost`, the
    name of a type that cannot be made again."""
    read = plain(value)
    if value is None or type(value) in (str, bool, float):
        return {name: read}
    try:
        exact = _exact(value, 0)
    except Lost as lost:
        return {name: read, "lost": str(lost)}
    return {name: read} if exact == read else {name: read, "exact": exact}


def unpacked(name: str, body: Mapping[str, Any]) -> Any:
    """The value that `packed` took; of one that is lost, its text as `LostText`."""
    if "lost" in body:
        read = body[name]
        return LostText(read["text"] if isinstance(read, dict) and "text" in read else json.dumps(read)).of(
            body["lost"]
        )
    return _restored(body["exact"]) if "exact" in body else body[name]


class LostText(str):
    """Stands for a value that a journal cannot hold: its text."""

    kind = ""

    def of(self, kind: str) -> "LostText":
        """Says of which type the value was."""
        self.kind = kind
        return self


def name_of(kind: type) -> str:
    """Module and name of a class."""
    return f"{kind.__module__}.{kind.__qualname__}"


def changes_in(arguments: Mapping[str, Any], before: Any) -> dict[str, Any]:
    """Arguments that a call changed in place: how they look now."""
    now = {name: value for name, value in arguments.items() if isinstance(value, list | dict | set | tuple)}
    found = {name: value for name, value in now.items() if plain(value) != before.get(name)}
    return {"changed": packed("arguments", found)} if found else {}


def change_again(arguments: Mapping[str, Any], body: Mapping[str, Any]) -> None:
    """Changes them as the recorded call did."""
    changed = unpacked("arguments", body["changed"]) if "changed" in body else {}
    for name, value in changed.items() if isinstance(changed, dict) else ():
        _become(arguments.get(name), value)


def _become(given: Any, value: Any) -> bool:
    """Changes a container in place, those within it too; False: it cannot become that."""
    if type(given) is not type(value):
        return False
    if isinstance(given, list):
        for i, new in enumerate(value[: len(given)]):
            if not _become(given[i], new):
                given[i] = new
        given[len(value) :] = value[len(given) :]
    elif isinstance(given, dict):
        for name in [name for name in given if name not in value]:
            del given[name]
        for name, new in value.items():
            if name not in given or not _become(given[name], new):
                given[name] = new
    elif isinstance(given, set):
        given.clear()
        given.update(value)
    elif isinstance(given, tuple) and len(given) == len(value):
        fits = [_become(old, new) or old == new for old, new in zip(given, value, strict=True)]
        return all(fits)
    else:
        return False
    return True


class Said(dict[str, Any]):
    """Arguments whose text is given."""

    def __init__(self, values: Mapping[str, Any], text: str) -> None:
        super().__init__(values)
        self.text = text

    def __str__(self) -> str:
        return self.text


def said_of(inputs: Mapping[str, Any] | None) -> str | None:
    """What the task will say of `additional_args`."""
    arguments = (inputs or {}).get("additional_args")
    return str(arguments) if arguments else None


_AS_TEXT: dict[type, tuple[Callable[[Any], str], Callable[[str], Any]]] = {
    datetime: (datetime.isoformat, datetime.fromisoformat),
    date: (date.isoformat, date.fromisoformat),
    time: (time.isoformat, time.fromisoformat),
    timedelta: (
        lambda v: f"{v.days} {v.seconds} {v.microseconds}",
        lambda t: timedelta(**dict(zip(("days", "seconds", "microseconds"), map(int, t.split()), strict=True))),
    ),
    Decimal: (str, Decimal),
    UUID: (str, UUID),
    complex: (str, complex),
    Fraction: (str, Fraction),
}
_BY_NAME = {kind.__name__: made for kind, (_, made) in _AS_TEXT.items()}
_KINDS: dict[str, Callable[[list[Any]], Any]] = {"tuple": tuple, "set": set, "frozenset": frozenset}


def _exact(value: Any, depth: int) -> Any:
    kind = type(value)
    if value is None or kind in (str, bool, float):
        return value
    if depth > _DEEPEST:
        raise Lost(f"{name_of(kind)}, nested deeper than {_DEEPEST} levels")
    if kind is int:
        return value if value.bit_length() < _BITS else {_TAG: "int", "hex": hex(value)}
    if kind.__module__ == "smolagents.agent_types" and isinstance(value, str):
        return str(value)
    if kind is list:
        return [_exact(v, depth + 1) for v in value]
    if kind is dict:
        if _TAG not in value and all(type(key) is str for key in value):
            return {k: _exact(v, depth + 1) for k, v in value.items()}
        return {_TAG: "dict", "of": [[_exact(k, depth + 1), _exact(v, depth + 1)] for k, v in value.items()]}
    if kind.__name__ in _KINDS and kind.__module__ == "builtins":
        items = value if kind is tuple else sorted(value, key=repr)
        return {_TAG: kind.__name__, "of": [_exact(v, depth + 1) for v in items]}
    if kind is datetime and isinstance(value.tzinfo, ZoneInfo) and value.tzinfo.key:
        return {_TAG: "datetime", "text": value.replace(tzinfo=None).isoformat(), "zone": value.tzinfo.key}
    if kind in _AS_TEXT:
        return {_TAG: kind.__name__, "text": _AS_TEXT[kind][0](value)}
    if kind in (bytes, bytearray):
        return {_TAG: kind.__name__, **_bytes(value)}
    if isinstance(value, PurePath):
        return {_TAG: "path", "text": str(value)}
    if _is_image(value):
        try:
            return {_TAG: "image", "png": _png(value)}
        except Exception as error:
            raise Lost(name_of(kind)) from error
    raise Lost(name_of(kind))


def _restored(value: Any) -> Any:
    if isinstance(value, list):
        return [_restored(v) for v in value]
    if not isinstance(value, dict):
        return value
    kind = value.get(_TAG)
    if kind is None:
        return {k: _restored(v) for k, v in value.items()}
    if kind == "dict":
        return {_restored(k): _restored(v) for k, v in value["of"]}
    if kind in _KINDS:
        return _KINDS[kind]([_restored(v) for v in value["of"]])
    if kind == "datetime" and "zone" in value:
        return datetime.fromisoformat(value["text"]).replace(tzinfo=ZoneInfo(value["zone"]))
    if kind in _BY_NAME:
        return _BY_NAME[kind](value["text"])
    if kind == "int":
        return int(value["hex"], 16)
    if kind == "path":
        return Path(value["text"])
    if kind == "image":
        from PIL import Image

        image = Image.open(io.BytesIO(base64.b64decode(value["png"])))
        image.load()
        return image
    if kind in ("bytes", "bytearray"):
        raw = value["text"].encode() if "text" in value else base64.b64decode(value["base64"])
        return raw if kind == "bytes" else bytearray(raw)
    raise Lost(f"a value of kind {kind!r}, which this version does not know")


def _bytes(value: bytes | bytearray) -> dict[str, str]:
    """As text where they are text, so that secrets in them are found."""
    try:
        return {"text": value.decode("utf-8")}
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(value).decode()}


def _is_image(value: Any) -> bool:
    return hasattr(value, "save") and hasattr(value, "getbands")


def _png(image: Any) -> str:
    buffer = io.BytesIO()
    (image if image.mode in _PNG_MODES else image.convert("RGBA")).save(buffer, format="PNG")
    return base64.b64encode(buffer.getvalue()).decode()
