"""Budgets: what a run, or a day, may take at most."""

import math
from dataclasses import asdict, dataclass, fields
from typing import Any

from dionysus.errors import BadInput

_UNITS = {"calls": "model calls", "tokens": "tokens", "usd": "USD", "seconds": "seconds"}


@dataclass(frozen=True, kw_only=True)
class Budget:
    """Limits over a whole tree of agents, held against before each call; None: no limit.

    No more than `calls` model calls are ever begun. Tokens, money and time are known only after a call: no call begins
    once they are reached, but the one that reaches them may go past them, as may those under way beside it.
    """

    calls: int | None = None
    """Model calls, plans and those of managed agents and tools included."""
    tokens: int | None = None
    """Input (cached ones included) and output tokens."""
    usd: float | None = None
    """Needs a model whose price is known."""
    seconds: float | None = None
    """Time that is worked; what lies between an interruption and going on is not counted."""

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if value is None:
                continue
            whole = name in ("calls", "tokens")
            if isinstance(value, bool) or not isinstance(value, int if whole else int | float) or value < 0:
                raise BadInput(f"budget {name}={value!r} is not a {'whole ' if whole else ''}number ≥ 0")
            if not math.isfinite(value):
                raise BadInput(f"budget {name}={value!r} is no limit; leave it out")

    @classmethod
    def parse(cls, text: str) -> "Budget":
        """Of `calls=20,usd=0.50`.

        Raises:
            BadInput: Not of that form.
        """
        given: dict[str, Any] = {}
        for part in text.split(","):
            name, equals, number = part.strip().partition("=")
            if name not in _UNITS or not equals or name in given:
                raise BadInput(f"budget {text!r}: write {', '.join(f'{n}=N' for n in _UNITS)}, as in calls=20,usd=0.50")
            try:
                given[name] = int(number) if name in ("calls", "tokens") else float(number)
            except ValueError as error:
                raise BadInput(f"budget {name}={number!r} is not a number") from error
        return cls(**given)

    @property
    def is_unlimited(self) -> bool:
        """Whether nothing is limited."""
        return all(getattr(self, f.name) is None for f in fields(self))

    def as_plain(self) -> dict[str, Any]:
        """The limits that are set."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    def __str__(self) -> str:
        return ",".join(f"{name}={value:g}" for name, value in self.as_plain().items())

    def reached(self, *, calls: int, tokens: int, usd: float, seconds: float = 0.0) -> str | None:
        """Which limit is reached, in words; None: one more call may begin."""
        taken = {"calls": calls, "tokens": tokens, "usd": usd, "seconds": seconds}
        for name, limit in self.as_plain().items():
            if taken[name] >= limit:
                return f"{taken[name]:,.10g} of {limit:,.10g} {_UNITS[name]}"
        return None
