"""What is shown in short once it was seen: the rules of pruning, as pure functions of what an agent did.

A rule reads an agent's plans and actions in their order and answers, after each action, with the `Cut`s that hold from
the next prompt on, for good. It knows nothing of smolagents, of journals or of clocks, so the same history always gives
the same prompts – when a run is resumed, replayed, or only asked what pruning would have saved.

See-once cuts a text when the model has seen it whole exactly once: an edit there is followed only by tokens that are
uncached anyway, so it breaks no cached prefix (figures in docs/decisions/0005). The window rule keeps the newest
actions whole. Both show the beginning and end of what is too large to be shown at all.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

Rule = Literal["see-once", "window", "off"]
FORM = 2
"""Changes when the same history is cut to something else: a run that was begun before would get other prompts."""
Part = Literal["observation", "thought", "error"]
_NAME = r"[A-Za-z_][A-Za-z0-9_]{5,}|#?[A-Z0-9]{5,}|\d{4,}"
_IDENTIFIER = re.compile(_NAME)
_COMPOUND = re.compile(r"[A-Za-z0-9_#](?:[A-Za-z0-9_#]|[./@:-](?=[A-Za-z0-9_]))*")
"""Paths, dates, addresses, dotted names: what says something only as a whole. An identifier is one, too."""
_LONGEST = 80
"""Characters of a compound that a stub may hold; most longer ones are encoded data."""
_WORD = re.compile(r"\w+")
_FIVE = 5
_FETCHED_AGAIN = 0.9
_STUB_SHARE = 0.35
"""A stub that is longer, relative to what it stands for, is no bargain …"""
_THOUGHT_SHARE = 0.75
"""… nor is a thought that is shown by its ends."""
_READ = 200_000
"""Of a text, so much of its beginning and of its end is looked at."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What is cut, and what is kept of it. Lengths are in characters."""

    least: int = 200
    """Shorter observations and errors stay whole; a stub may always spend so much on identifiers."""
    names: float = 1 / 8
    """Share of a text that its stub may spend on identifiers, if that is more; paths and dates get up to 1/20 more."""
    thought: int = 2_000
    """A longer thought is shown by its beginning and end once the model has acted on it; 0: never."""
    arriving: int = 100_000
    """A longer observation is shown by its beginning and end from the first; 0: never."""
    whole: Mapping[str, int] = field(default_factory=dict)
    """By tool: in how many prompts its observations are shown whole; others in one."""


@dataclass(frozen=True, kw_only=True)
class Acted:
    """An action that has ended, as prompts show it."""

    number: int
    thought: str = ""
    calls: str = ""
    tools: frozenset[str] = frozenset()
    """Names of the tools that it called."""
    observation: str = ""
    error: str = ""


@dataclass(frozen=True, kw_only=True)
class Cut:
    """A decision: this part of this action is shown as this stub from now on."""

    step: int
    before_step: int
    """The first action whose prompt shows the stub."""
    stub: str
    chars_saved: int
    """Against what was shown before."""
    part: Part = "observation"


def head_of_stub(chars: int, step: int) -> str:
    """How a stub begins."""
    return f"[cut {chars} chars; recall_observation({step})]"


class Whole:
    """The rule that cuts nothing but what is too large to be shown."""

    def __init__(self, limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        self._open: list[Acted] = []
        """Actions that are shown whole, and may be cut."""
        self._shown: dict[int, int] = {}
        """Characters that are shown of observations that were cut as they arrived."""

    def read(self, *texts: str) -> None:
        """The model sees these anyway: prompt, task, plans."""

    def acted(self, action: Acted) -> list[Cut]:
        """An action ended; what is cut from the next prompt on."""
        cuts: list[Cut] = []
        waiting: list[Acted] = []
        for earlier in self._open:
            due = self._prompts(earlier) <= action.number - earlier.number
            if due:
                cuts += self._cuts(earlier, action.number + 1)
            else:
                waiting.append(earlier)
        self._open = [*waiting, action]
        return cuts + self._arriving(action)

    def _prompts(self, action: Acted) -> int:
        """In how many prompts it is shown whole."""
        return max([1, *(self.limits.whole.get(tool, 1) for tool in action.tools)])

    def _cuts(self, action: Acted, before: int) -> list[Cut]:
        return []

    def _arriving(self, action: Acted) -> list[Cut]:
        text, most = action.observation, self.limits.arriving
        if not most or len(text) <= most:
            return []
        piece = most // 5
        stub = f"{text[:piece]}\n{head_of_stub(len(text), action.number)}\n{text[-piece:]}"
        if len(stub) >= len(text):
            return []
        self._shown[action.number] = len(stub)
        return [self._cut(action.number, action.number + 1, "observation", stub, len(text))]

    def _shown_of(self, action: Acted, part: Part, text: str) -> int:
        """Characters that prompts show of it."""
        return self._shown.get(action.number, len(text)) if part == "observation" else len(text)

    def _cut(self, step: int, before: int, part: Part, stub: str, shown: int) -> Cut:
        return Cut(step=step, before_step=before, part=part, stub=stub, chars_saved=shown - len(stub))


class Window(Whole):
    """The newest actions whole; of older observations the first hundred characters."""

    def __init__(self, window: int, limits: Limits | None = None) -> None:
        super().__init__(limits)
        self._window = window

    def _prompts(self, action: Acted) -> int:
        return max(self._window, super()._prompts(action))

    def _cuts(self, action: Acted, before: int) -> list[Cut]:
        cuts = []
        for part, text in _texts(action):
            shown = self._shown_of(action, part, text)
            stub = f"{head_of_stub(len(text), action.number)} {text[:100]}…"
            if len(text) > self.limits.least and len(stub) < shown:
                cuts.append(self._cut(action.number, before, part, stub, shown))
        return cuts


class SeeOnce(Whole):
    """Each observation whole once, then a stub with the identifiers, paths and dates that are visible nowhere else.

    What was cut and is fetched again – nine tenths of its five-word sequences – stays: the agent needs it.
    """

    def __init__(self, limits: Limits | None = None) -> None:
        super().__init__(limits)
        self._seen: set[str] = set()
        self._gone: set[tuple[str, ...]] = set()
        """Five-word sequences that were cut."""
        self._pinned: set[tuple[str, ...]] = set()
        """Those of them that were fetched again."""

    def read(self, *texts: str) -> None:
        for text in map(_looked_at, texts):
            self._seen.update(_IDENTIFIER.findall(text), _COMPOUND.findall(text))

    def acted(self, action: Acted) -> list[Cut]:
        kept = "\n".join(self._ends(action.thought)) if self._is_long(action.thought) else action.thought
        self.read(kept, action.calls)
        return super().acted(action)

    def _cuts(self, action: Acted, before: int) -> list[Cut]:
        cuts = []
        for part, text in _texts(action):
            shown = self._shown_of(action, part, text)
            stub = self._stub(text, action.number, shown)
            if stub is not None:
                cuts.append(self._cut(action.number, before, part, stub, shown))
            elif shown == len(text):
                self.read(text)  # it stays, so later stubs need not name what it holds
        if self._is_long(action.thought):
            first, last = self._ends(action.thought)
            middle = action.thought[len(first) : len(action.thought) - len(last)]
            names = " ".join([head_of_stub(len(middle), action.number), *self._names(middle)])
            stub = f"{first}\n{names}\n{last}"
            if len(stub) <= _THOUGHT_SHARE * len(action.thought):
                self._gone |= _five_grams(_looked_at(middle))
                self.read(names)
                cuts.append(self._cut(action.number, before, "thought", stub, len(action.thought)))
        return cuts

    def _stub(self, text: str, step: int, shown: int) -> str | None:
        """None: it stays as it is shown, for good."""
        if len(text) < self.limits.least:
            return None
        names = self._names(text)
        stub = " ".join([head_of_stub(len(text), step), *names])
        if len(stub) > _STUB_SHARE * shown:
            return None
        grams = _five_grams(_looked_at(text))
        if grams and len((grams & self._gone) - self._pinned) >= _FETCHED_AGAIN * len(grams):
            self._pinned |= grams
            return None
        self._gone |= grams
        self.read(*names)
        return stub

    def _names(self, text: str) -> list[str]:
        """What of a text is visible nowhere else, as far as there is room, in order of appearance.

        Identifiers first, the shortest before all, since that keeps most of them; then what they are part of.
        """
        looked = _looked_at(text)
        new = [w for w in dict.fromkeys(_IDENTIFIER.findall(looked)) if w not in self._seen]
        room = max(self.limits.least, len(looked) * self.limits.names)
        keep: set[str] = set()
        for word in sorted(new, key=len):
            if len(word) + 1 > room:
                break
            room -= len(word) + 1
            keep.add(word)
        room += len(looked) / 20
        parts = {
            whole: _IDENTIFIER.findall(whole)
            for whole in dict.fromkeys(_COMPOUND.findall(looked))
            if whole not in self._seen and len(whole) <= _LONGEST and not _IDENTIFIER.fullmatch(whole)
        }
        for whole in sorted((w for w, inner in parts.items() if inner), key=len):
            inner = [word for word in parts[whole] if word in keep]
            more = len(whole) + 1 - sum(len(word) + 1 for word in inner)
            if more > room:
                break
            room -= more
            keep.difference_update(inner)
            keep.add(whole)
        return sorted(keep, key=looked.find)

    def _is_long(self, thought: str) -> bool:
        return bool(self.limits.thought) and len(thought) > self.limits.thought

    def _ends(self, thought: str) -> tuple[str, str]:
        """An eighth of the limit of its beginning, three eighths of its end, where it comes to its point."""
        eighth = self.limits.thought // 8
        return thought[:eighth], thought[-3 * eighth :]


def identifiers(text: str) -> list[str]:
    """The names and numbers of a text that a stub would keep, in order."""
    return _IDENTIFIER.findall(_looked_at(text))


def rule_of(rule: Rule, *, window: int, limits: Limits) -> Whole | None:
    """The rule of that name; None: nothing is cut."""
    if rule == "off" or (rule == "window" and window >= 999):
        return None
    return Window(window, limits) if rule == "window" else SeeOnce(limits)


def cuts_of(rule: Whole, prompt: Iterable[str], actions: Iterable[Acted]) -> list[Cut]:
    """All cuts of a whole history."""
    rule.read(*prompt)
    return [cut for action in actions for cut in rule.acted(action)]


def _texts(action: Acted) -> list[tuple[Part, str]]:
    return [("observation", action.observation), ("error", action.error)]


def _looked_at(text: str) -> str:
    return text if len(text) <= 2 * _READ else f"{text[:_READ]}\n{text[-_READ:]}"


def _five_grams(text: str) -> set[tuple[str, ...]]:
    found = _WORD.findall(text)
    return {tuple(found[i : i + _FIVE]) for i in range(len(found) - _FIVE + 1)}
