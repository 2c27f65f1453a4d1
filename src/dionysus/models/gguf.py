"""The head of a GGUF file: what a model is, how long its context may be, and what it will take in memory.

The format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. Read here, because the package `gguf` needs
NumPy and reads the whole vocabulary for it (docs/decisions/0016), and llama.cpp's binding says no more of a file that
it cannot load than that it cannot.
"""

import mmap
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dionysus.errors import ModelError

_MAGIC = b"GGUF"
_STRING, _ARRAY = 8, 9
_PLAIN = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
"""The types of values that have a fixed size, as `struct` names them."""
_BYTES_OF_CACHE = 2
"""Of a number in the KV cache: half precision."""
_BATCH = 512
"""Tokens that llama.cpp computes at once."""
_MOST_PAIRS, _MOST_TENSORS, _MOST_TEXT = 100_000, 1_000_000, 2**20
"""More than any model has: a damaged head is not read for minutes."""
_MOST_READ = 65_536
"""Numbers of an array; of a longer one only its length is known."""


@dataclass(frozen=True, kw_only=True)
class Head:
    """What the head of a file says of the model in it."""

    name: str
    architecture: str
    context: int
    """Tokens that it was trained for."""
    bytes: int
    """Of the file."""
    bytes_per_token: int
    """Of the KV cache, at half precision; 0 where the head does not say."""
    vocabulary: int

    def memory(self, context: int) -> int:
        """About how many bytes it takes with such a context: weights, KV cache, and the buffer for logits."""
        return self.bytes + context * self.bytes_per_token + 4 * _BATCH * self.vocabulary


def read_head(path: Path) -> Head:
    """Reads the head of a GGUF file.

    Raises:
        ModelError: There is no such file, it is none, or it is cut off.
    """
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            if size < len(_MAGIC):
                raise ModelError(f"{str(path)!r} is no GGUF file: it has {size} bytes")
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                return _Reader(data, path).head()
    except FileNotFoundError as error:
        raise ModelError(f"there is no model file {str(path)!r}") from error
    except OSError as error:
        raise ModelError(f"cannot read the model file {str(path)!r}: {error.strerror or error}") from error


class _Reader:
    def __init__(self, data: mmap.mmap, path: Path) -> None:
        self._data, self._path, self._at = data, path, 0

    def head(self) -> Head:
        if self._take(len(_MAGIC)) != _MAGIC:
            raise ModelError(f"{str(self._path)!r} is no GGUF file: it does not begin with the letters GGUF")
        version, tensors, pairs = self._number("I"), self._number("Q"), self._number("Q")
        if not 2 <= version <= 3:
            raise ModelError(f"{str(self._path)!r} is GGUF of version {version}; versions 2 and 3 can be read")
        if pairs > _MOST_PAIRS or tensors > _MOST_TENSORS:
            raise self._damaged(f"its head speaks of {pairs:,} values and {tensors:,} tensors")
        known = {self._text(): self._value(self._number("I")) for _ in range(pairs)}
        last = 0
        for _ in range(tensors):
            self._text()
            self._skip(8 * self._number("I") + 4)  # its shape, its type
            last = max(last, self._number("Q"))
        self._need(last)  # where the last tensor begins; llama.cpp looks for its end
        return _head(known, len(self._data), self._path)

    def _value(self, kind: int) -> Any:
        """A value; of an array that holds no plain numbers only its length is known."""
        if kind == _STRING:
            return self._text()
        if kind != _ARRAY:
            return self._number(self._plain(kind))
        of, count = self._number("I"), self._number("Q")
        if of == _STRING:
            for _ in range(count):
                self._skip(self._number("Q"))
            return range(count)
        form = self._plain(of)
        if count > _MOST_READ:
            self._skip(count * struct.calcsize(form))
            return range(count)
        return struct.unpack(f"<{count}{form}", self._take(count * struct.calcsize(form)))

    def _plain(self, kind: int) -> str:
        if kind not in _PLAIN:
            raise self._damaged(f"a value of unknown type {kind}")
        return _PLAIN[kind]

    def _text(self) -> str:
        size = self._number("Q")
        if size > _MOST_TEXT:
            raise self._damaged(f"a text of {size:,} bytes in its head")
        return self._take(size).decode("utf-8", errors="replace")

    def _number(self, form: str) -> Any:
        return struct.unpack(f"<{form}", self._take(struct.calcsize(form)))[0]

    def _take(self, size: int) -> bytes:
        start = self._at
        self._skip(size)
        return self._data[start : self._at]

    def _skip(self, size: int) -> None:
        self._need(size)
        self._at += size

    def _need(self, size: int) -> None:
        if self._at + size > len(self._data):
            raise self._damaged(f"its head speaks of more than its {len(self._data):,} bytes")

    def _damaged(self, why: str) -> ModelError:
        return ModelError(f"the model file {str(self._path)!r} is cut off or damaged: {why}; fetch it again")


def _head(known: Mapping[str, Any], size: int, path: Path) -> Head:
    family = known.get("general.architecture")
    if not isinstance(family, str):
        raise ModelError(f"{str(path)!r} holds no language model: its head names no architecture")

    def said(name: str) -> int:
        """A number; where it differs from layer to layer, the largest."""
        value = known.get(f"{family}.{name}", 0)
        number = max(value, default=0) if isinstance(value, tuple) else value
        if not isinstance(number, int) or number < 0:
            raise ModelError(f"the model file {str(path)!r} is damaged: {family}.{name} is {number!r}; fetch it again")
        return number

    context, layers, heads = said("context_length"), said("block_count"), said("attention.head_count")
    if not context or not layers:
        raise ModelError(f"{str(path)!r} holds no language model: its head says neither layers nor context")
    tokens = known.get("tokenizer.ggml.tokens")
    each = said("embedding_length") // heads if heads else 0
    widths = sum(said(f"attention.{part}_length") or each for part in ("key", "value"))
    return Head(
        name=str(known.get("general.name") or path.stem),
        architecture=family,
        context=context,
        bytes=size,
        bytes_per_token=_BYTES_OF_CACHE * layers * widths * (said("attention.head_count_kv") or heads),
        vocabulary=len(tokens) if isinstance(tokens, range) else 0,
    )
