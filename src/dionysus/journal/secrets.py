"""Secrets become placeholders before they reach a transcript or the disk; tools get them back at call time.

Known are values handed in (an API key, environment variables that are named like secrets) and texts shaped like
well-known credentials, or assigned to a name like `password`. A placeholder is a keyed digest of the secret, so that
the same secret has the same placeholder in every process that uses a store; the key lies in a file beside the store,
and what stands for what is kept in memory only.
"""

import hashlib
import json
import os
import re
import threading
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from dionysus.errors import BadInput
from dionysus.journal.values import plain
from dionysus.stores.private import kept_beside

_SHAPES = {
    # published token formats: prefix and length as their issuers document them
    "openai-key": r"(?<![A-Za-z0-9])sk-(?:proj-|svcacct-|ant-)?[A-Za-z0-9_-]{20,}",
    "github-token": r"(?<![A-Za-z0-9])(?:gh[pousr]_[A-Za-z0-9]{36,}|github_pat_[A-Za-z0-9_]{40,})",
    "gitlab-token": r"(?<![A-Za-z0-9])glpat-[A-Za-z0-9_-]{20,}",
    "aws-key": r"(?<![A-Za-z0-9])(?:AKIA|ASIA)[A-Z0-9]{16}(?![A-Za-z0-9])",
    "google-key": r"(?<![A-Za-z0-9])AIza[A-Za-z0-9_-]{35}",
    "slack-token": r"(?<![A-Za-z0-9])xox[abeprs]-[A-Za-z0-9-]{10,}",
    "huggingface-token": r"(?<![A-Za-z0-9])hf_[A-Za-z0-9]{30,}",
    "pypi-token": r"(?<![A-Za-z0-9])pypi-[A-Za-z0-9_-]{50,}",
    "npm-token": r"(?<![A-Za-z0-9])npm_[A-Za-z0-9]{36}",
    "stripe-key": r"(?<![A-Za-z0-9])[rs]k_(?:live|test)_[A-Za-z0-9]{20,}",
    "jwt": r"(?<![A-Za-z0-9])eyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}",
    "private-key": r"-----BEGIN [A-Z ]*PRIVATE KEY-----[\s\S]*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)",
    "url-login": r"(?:(?<=https://)|(?<=http://))(?!<secret:)[^\s/@]+(?=@)|(?<=://)(?!<secret:)[^\s/@:]*:[^\s/@]+(?=@)",
}
_SHAPE = re.compile("|".join(f"(?P<{name.replace('-', '_')}>{shape})" for name, shape in _SHAPES.items()))
_HINTS = (
    "sk-", "ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_", "glpat-", "AKIA", "ASIA", "AIza", "xox", "hf_",
    "pypi-", "npm_", "rk_", "sk_", "eyJ", "PRIVATE KEY", "://",
)  # fmt: skip
"""One of these is in each text that has one of the shapes; looking for them is quick."""
_SECRET_NAME = re.compile(r"(?i)(^|_)(api_?key|key|token|secret|password|passwd|passphrase|pwd)$")
_PLACEHOLDER = re.compile(r"<secret:[a-z-]+:[0-9a-f]{10}>")
_ASSIGNED = re.compile(
    r"(?i)(?<!<)((?:password|passwd|passphrase|secret|api[_-]?key|(?:access|auth|refresh)[_-]?token)[\"']?\s*[:=]\s*[\"']?"
    r"|\bbearer\s+)(?!<secret:)(?=[^\s\"',;]*\d)(?=[^\s\"',;]*[A-Za-z])([^\s\"',;<>(){}\[\]$\\]{8,})"
)
"""A name like `password`, and a value that holds letters and digits."""
_NAMES = ("passw", "passphrase", "secret", "api", "token", "bearer")
_DEEPEST = 40
_KEY_BYTES = 32
SHORTEST = 8
"""Shorter values of environment variables are not taken for secrets: they would hit ordinary words."""

_as_json = json.JSONEncoder().encode


def named_secrets(environment: Mapping[str, str]) -> list[str]:
    """Values of the environment variables whose names say that they are secret; paths of key files are none."""
    named = [v for k, v in environment.items() if _SECRET_NAME.search(k) and len(v) >= SHORTEST]
    return [value for value in named if not (os.path.isabs(value) and os.path.exists(value))]


def _mapped(value: Any, change: Callable[[str], str], within: tuple[int, ...] = ()) -> Any:
    """Texts changed, wherever they are; containers in which none was are kept, as are those that hold themselves."""
    if isinstance(value, str):
        changed = change(value)
        return value if changed == value else changed
    if isinstance(value, bytes | bytearray):
        return _mapped_bytes(value, change)
    if len(within) > _DEEPEST or id(value) in within or not isinstance(value, list | tuple | dict | set | frozenset):
        return value
    inside = (*within, id(value))
    if isinstance(value, dict):
        pairs = {_mapped(k, change, inside): _mapped(v, change, inside) for k, v in value.items()}
        kept = len(pairs) == len(value) and all(
            new is old and pairs[new] is value[old] for new, old in zip(pairs, value, strict=True)
        )
        return value if kept else pairs
    items = [_mapped(v, change, inside) for v in value]
    if all(new is old for new, old in zip(items, value, strict=True)):
        return value
    return items if isinstance(value, list) else type(value)(items) if type(value) in _PLAIN else tuple(items)


_PLAIN = (tuple, set, frozenset)


def _mapped_bytes(value: bytes | bytearray, change: Callable[[str], str]) -> bytes | bytearray:
    try:
        text = value.decode("utf-8")
    except UnicodeDecodeError:
        return value
    changed = change(text)
    return value if changed == text else type(value)(changed.encode("utf-8"))


class Secrets:
    """The secrets met in one process, and their placeholders."""

    def __init__(self, known: Iterable[str] = (), *, key: bytes | None = None, pattern: str | None = None) -> None:
        """
        Args:
            key: Of the placeholders' digests, up to 64 bytes; the same in all processes that share transcripts.
                Default: a random one.
            pattern: A regular expression; what matches it is secret, too.

        Raises:
            BadInput: The pattern is none.
        """
        self._key = key or os.urandom(32)
        try:
            self._pattern = re.compile(pattern) if pattern else None
        except re.error as error:
            raise BadInput(f"the secret pattern {pattern!r} is no regular expression: {error}") from error
        self._values: dict[str, str] = {}
        self._lock = threading.Lock()
        self._known_as: dict[str, str] = {}
        """Secrets that a record from elsewhere has under a placeholder of its own."""
        forms = {
            form: self._placeholder(value)
            for value in known
            if value
            for form in (value, repr(value)[1:-1], _as_json(value)[1:-1])
        }
        self._known = sorted(forms.items(), key=lambda pair: len(pair[0]), reverse=True)
        """Known secrets as they are, as Python and as JSON show them, and what stands for each."""
        self._hints = (*_HINTS, *(_as_json(form)[1:-1] for form in forms))

    def hide(self, text: str) -> str:
        """`text` with each secret replaced by `<secret:KIND:DIGEST>`; the same secret gets the same placeholder."""
        for form, name in self._known:
            if form in text:
                text = text.replace(form, name)
        if any(hint in text for hint in _HINTS):
            text = _SHAPE.sub(lambda m: self._placeholder(m[0], m.lastgroup), text)
        low = text.lower()
        if any(name in low for name in _NAMES):
            for value in sorted({m[2] for m in _ASSIGNED.finditer(text)}, key=len, reverse=True):
                name = self._placeholder(value)
                self._learn(value, name)  # it has no shape of its own: a tool may say it again without its name
                text = text.replace(value, name)
        if self._pattern is not None:
            text = self._pattern.sub(lambda m: self._placeholder(m[0]) if m[0] else "", text)
        return text

    def hide_in(self, value: Any) -> Any:
        """`hide`, for every text within lists, tuples and dicts; the value itself where nothing is to hide."""
        return _mapped(value, self.hide)

    def hide_in_plain(self, value: Any) -> Any:
        """`hide_in`, quick where there is nothing to hide: one look at the whole value as JSON."""
        text = _as_json(value)
        low = text.lower()
        if self._pattern or any(hint in text for hint in self._hints) or any(name in low for name in _NAMES):
            return self.hide_in(value)
        return value

    def hide_in_body(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """`hide_in_plain` for what the journal writes: the names of its own fields stay, whatever is secret."""
        hidden = self.hide_in_plain(list(body.values()))
        return dict(zip(body, hidden, strict=True))

    def align(self, then: Any, now: Any) -> None:
        """Where a recorded plain value has a placeholder of another store and the one that is given now has a secret,
        that secret is known from here on, under that placeholder."""
        if isinstance(then, str) and isinstance(now, str):
            names = _PLACEHOLDER.findall(then)
            parts = [re.escape(part) for part in _PLACEHOLDER.split(then)]
            found = re.fullmatch("(.+?)".join(parts), now, re.DOTALL) if names else None
            for name, value in zip(names, found.groups() if found else (), strict=False):
                if value != name:
                    self._known_as[value] = name
                    self._learn(value, name)
        elif isinstance(then, dict) and isinstance(now, dict):
            for key in then.keys() & now.keys():
                self.align(then[key], now[key])
        elif isinstance(then, list) and isinstance(now, list):
            for one, other in zip(then, now, strict=False):
                self.align(one, other)

    def _learn(self, value: str, name: str) -> None:
        """From here on this value is hidden wherever it is."""
        with self._lock:
            self._values[name] = value
            if (value, name) not in self._known:
                others = [pair for pair in self._known if pair[0] != value]
                self._known = sorted([*others, (value, name)], key=lambda pair: len(pair[0]), reverse=True)
                self._hints = (*self._hints, _as_json(value)[1:-1])

    def placeholders(self, value: Any, *, known: bool) -> set[str]:
        """The placeholders in a value's texts that this process can put the secret in place of – or that it cannot."""
        found = set(_PLACEHOLDER.findall(_as_json(plain(value))))
        return {name for name in found if (name in self._values) is known}

    def restore_in(self, value: Any) -> Any:
        """The real values in place of this process's placeholders; the value itself where it holds none."""
        return _mapped(value, self._restore) if self._values else value

    def _restore(self, text: str) -> str:
        return _PLACEHOLDER.sub(lambda m: self._values.get(m[0], m[0]), text) if "<secret:" in text else text

    def _placeholder(self, value: str, kind: str | None = None) -> str:
        """Its kind follows from the secret alone, not from how it was met."""
        if value in self._known_as:
            return self._known_as[value]
        if kind is None:
            shape = _SHAPE.fullmatch(value)
            kind = shape.lastgroup if shape else None
        digest = hashlib.blake2b(value.encode("utf-8", "surrogatepass"), key=self._key, digest_size=5).hexdigest()
        name = f"<secret:{(kind or 'other').replace('_', '-')}:{digest}>"
        self._values[name] = value
        return name


def key_beside(store: Path | None) -> bytes:
    """The key of a store's placeholders, from a file of its own that only the owner reads; made where there is none.

    Raises:
        StoreError: It cannot be made or read.
    """
    if store is None:
        return os.urandom(32)
    return kept_beside(store, "-key", lambda: os.urandom(_KEY_BYTES), lambda made: len(made) == _KEY_BYTES)
