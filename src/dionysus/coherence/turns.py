"""What a run's turns are to the assessment: an action, what it was thought to be for, and what came of it.

A turn is read once, whatever its length: of longer texts the beginning and the end. Structured arguments are compared
argument by argument, not as text.
"""

import hashlib
import json
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import Any

from dionysus.findings import quoted
from dionysus.words import stems

_READ = 3_000
"""Characters of a text that are looked at."""
_DEEPEST = 8
"""Levels of nested arguments that are looked at."""
_LEAVES = 200
"""Arguments that are looked at."""
_NAME = 40
"""Characters of a name that are shown."""
_LIKE = 0.7
"""Arguments that share so much of their trigrams (Dice) are nearly the same."""
_IDENTIFIER = re.compile(r"[^\W\d]\w*(?:[./:-]\w+)*")
_FAILED = re.compile(
    r"\W*(?:traceback \(most recent call last\)|[a-z_.]*(?:error|exception|fatal)\b[^:\n]{0,60}(?:[:\n]|\Z))", re.I
)
_TIMES = re.compile(
    r"\d{4}-\d\d-\d\d[T ]?[\d:.,]*Z?|\b\d\d?:\d\d(?::\d\d)?(?:[.,]\d+)?\b|\b0x[\da-f]+"
    r"|\b\d+(?:[.,]\d+)? ?(?:[nµu]?s|ms|s(?:ec(?:ond)?s?)?|m(?:in(?:ute)?s?)?|h(?:ours?)?)\b"
    r"|\b\d+[hm](?:\d+(?:[.,]\d+)?[ms])+\b",
    re.I,
)
_COMMAND = re.compile(r"(?:^|[|;&(\n])\s*(?:\w+=\S+\s+)*([\w./-]+)")
_INDEX = re.compile(r"\.\d+(?=\.|\Z)")
"""The place of an item in a list, which is no name."""
_FLAG = re.compile(r"(?<=\s)--?[A-Za-z][\w-]*")
_OPERATOR = re.compile(r"<<|>>|&&|\|\||[|<>;]")


@dataclass(frozen=True, kw_only=True)
class Turn:
    """One action of a run and what came of it."""

    step: int
    thought: str = ""
    calls: Sequence[tuple[str, Any]] = ()
    """(tool, arguments): a mapping, or the text that is the only one; none: the action was no call."""
    observation: str = ""
    failed: bool = False
    """It ended in an error. Observations that begin by saying so count as well."""

    @cached_property
    def has_failed(self) -> bool:
        """Whether it failed, or its observation begins by saying that it did."""
        return self.failed or _FAILED.match(self.observation[:300]) is not None

    @property
    def tools_in_words(self) -> str:
        """The tools by name, short."""
        return ", ".join(dict.fromkeys(quoted(name, _NAME) for name in self.tools[:3]))

    @cached_property
    def tools(self) -> tuple[str, ...]:
        """Which tools were called."""
        return tuple(name for name, _ in self.calls)

    @cached_property
    def arguments(self) -> tuple[tuple[str, str], ...]:
        """(path, value) of every argument, by path: the order in which they are given says nothing."""
        leaves = (pair for i, (_, given) in enumerate(self.calls) for pair in _flat(f"{i}", given))
        return tuple(sorted(islice(leaves, _LEAVES)))

    @cached_property
    def said(self) -> str:
        """Thought and action, as text."""
        return "\n".join([clipped(self.thought), *self.tools, *(clipped(value) for _, value in self.arguments)])

    @cached_property
    def same(self) -> str:
        """Equal for equal calls; of a turn without calls, for equal thoughts."""
        if not self.calls:
            return _digest([_even(clipped(self.thought)), _middle(self.thought)])
        return _digest([self.tools, [(path, _even(clipped(value)), _middle(value)) for path, value in self.arguments]])

    @cached_property
    def trigrams(self) -> tuple[Counter[str], ...]:
        """Of each argument; of a turn without calls, of the thought."""
        return tuple(map(_trigrams, [value for _, value in self.arguments] if self.calls else [self.thought]))

    @cached_property
    def seen(self) -> str:
        """Equal for observations that differ in times, durations and addresses at most."""
        return _digest([_even(_TIMES.sub("~", clipped(self.observation))), _middle(self.observation)])

    @cached_property
    def terms(self) -> Counter[str]:
        """Of thought and action."""
        return terms_of(self.said)

    @cached_property
    def seen_terms(self) -> Counter[str]:
        """Of the observation."""
        return terms_of(self.observation)

    @cached_property
    def form(self) -> frozenset[str]:
        """What kind of action it is, whatever it is about: tools, names of arguments, commands, flags, operators."""
        found = set(self.tools) or {"(none)"}
        for path, value in self.arguments:
            lines = value.strip().splitlines() or [""]
            head = lines[0][:300]
            commands = _COMMAND.findall(head)
            found.add(f"{_INDEX.sub('', path)}=")
            found.update(f"first {c}" for c in commands[:1])
            found.update(f"then {c}" for c in commands[1:4])
            found.update(f"flag {f}" for f in _FLAG.findall(head)[:6])
            found.update(f"operator {o}" for o in _OPERATOR.findall(head))
            if len(lines) > 1:
                found.add("lines")
                found.update(f"last {c}" for c in _COMMAND.findall(lines[-1][:200])[:1])
        return frozenset(found)

    @cached_property
    def seen_form(self) -> tuple[Mapping[str, float], float]:
        """What kind of observation it is, whatever it says: how its lines begin, as a unit vector, and log2 of its
        length."""
        counts = Counter(_signature(line) for line in self.observation[:4_000].split("\n")[:60])
        length = math.sqrt(sum(counts.values()))
        return {s: math.sqrt(n) / length for s, n in counts.items()}, math.log2(len(self.observation) + 1)

    @cached_property
    def in_words(self) -> str:
        """The action, short."""
        if not self.calls:
            return quoted(clipped(self.thought), _NAME) or "(nothing)"
        name, given = self.calls[0]
        said = quoted(", ".join(clipped(value) for _, value in islice(_flat("", given), 20) if value.strip()), _NAME)
        more = f" and {len(self.calls) - 1} more" if len(self.calls) > 1 else ""
        return f"{quoted(name, _NAME) or '(no name)'}{' ' if said else ''}{said}{more}"

    def nearly(self, other: "Turn") -> bool:
        """Whether the calls are the same but for small differences in arguments."""
        if self.same == other.same:
            return True
        if self.tools != other.tools or [p for p, _ in self.arguments] != [p for p, _ in other.arguments]:
            return False
        return all(_alike(a, b) >= _LIKE for a, b in zip(self.trigrams, other.trigrams, strict=True))


def terms_of(text: str, most: int = _READ) -> Counter[str]:
    """Stems, and identifiers as a whole, with how often they occur; of texts of more characters those of both ends."""
    text = clipped(text, most)
    counts = Counter(stems(text))
    for name in _IDENTIFIER.findall(text):
        if len(name) > 3 and (not name.isalpha() or name[1:] != name[1:].lower()):
            counts[f"={name}"] += 1
    return counts


def clipped(text: str, most: int = _READ) -> str:
    """Two thirds of the beginning and one third of the end of a longer text."""
    return text if len(text) <= most else f"{text[: most - most // 3]}\n{text[-(most // 3) :]}"


def _flat(path: str, given: Any, depth: int = 0) -> Iterator[tuple[str, str]]:
    """(path, value) of the leaves of arguments, whatever they are; of what lies too deep only that it is there."""
    if isinstance(given, str) and given[:1] == "{" and not depth:
        with suppress(ValueError, RecursionError):
            given = json.loads(given)
    if isinstance(given, Mapping | list | tuple) and depth >= _DEEPEST:
        yield path, "…"
    elif isinstance(given, Mapping):
        for key, value in given.items():
            yield from _flat(f"{path}.{key}", value, depth + 1)
    elif isinstance(given, list | tuple):
        for place, value in enumerate(given):
            yield from _flat(f"{path}.{place}", value, depth + 1)
    elif given is not None:
        yield path, _text(given)


def _text(value: Any) -> str:
    """A value as text, the same in each process."""
    if isinstance(value, set | frozenset):
        return ", ".join(sorted(map(_text, value)))
    try:
        return str(value)
    except Exception:  # noqa: BLE001 – anybody's object, and integers of thousands of digits
        return type(value).__name__


def _even(text: str) -> str:
    return " ".join(text.split()).replace('"', "'")


def _middle(text: str) -> str:
    """Tells texts apart of which only both ends are read."""
    return _digest(text) if len(text) > _READ else ""


def _digest(what: Any) -> str:
    text = what if isinstance(what, str) else json.dumps(what)
    return hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=8).hexdigest()


def _alike(one: Counter[str], other: Counter[str]) -> float:
    """Dice's coefficient."""
    return 2 * (one & other).total() / (one.total() + other.total())


def _trigrams(text: str) -> Counter[str]:
    text = f"  {clipped(text, 1_000).lower()} "
    return Counter(text[i : i + 3] for i in range(len(text) - 2))


def _signature(line: str) -> str:
    text = re.sub(r"[^\W\d_]+", "a", line[:60])
    return re.sub(r" +", " ", re.sub(r"\d+", "0", text))[:6]
