"""Runs for tests: an agent that reads and greps our own source, and odd turns of all kinds."""

import random
import re
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from dionysus.coherence import Coherence, Turn

ROOT = Path(__file__).parents[2] / "src"
COMPONENTS = ("autonomy", "errors", "causal", "temporal", "spatial", "integration")
RECIPES = (
    "knead the dough with yeast and lukewarm milk",
    "simmer tomatoes, garlic and basil until thick",
    "whisk egg whites into stiff peaks, fold the chocolate in",
    "roast pumpkin seeds with paprika and honey",
    "braise the lamb shank in red wine and rosemary",
    "pickle cucumbers in vinegar, dill and mustard seed",
    "caramelise onions slowly in butter, deglaze with cider",
    "poach pears in vanilla syrup and cinnamon",
)


def turn(step: int = 1, observation: str = "", **given: Any) -> Turn:
    return Turn(step=step, observation=observation, **given)


def call(step: int, tool: str, given: Any = None, observation: str = "", thought: str = "") -> Turn:
    return Turn(step=step, calls=((tool, {} if given is None else given),), observation=observation, thought=thought)


@cache
def sources() -> dict[str, list[str]]:
    found = {str(p.relative_to(ROOT)): p.read_text().splitlines() for p in sorted(ROOT.rglob("*.py"))}
    return {name: lines for name, lines in found.items() if len(lines) > 60}


def agent_run(seed: int, count: int = 24) -> tuple[str, list[Turn]]:
    """Goal and turns of an agent that follows names through our source: reads a part of a file, greps for a name."""
    chance = random.Random(seed)
    files = sources()
    name = chance.choice(list(files))
    goal = f"Explain how {Path(name).stem} in src/{name} works, and who uses it."
    turns: list[Turn] = []
    wanted, done = Path(name).stem, {""}
    while len(turns) < count:
        lines = files[name]
        defined = [i for i, line in enumerate(lines) if wanted in line]
        start = max(0, chance.choice(defined or [0]) - 5)
        shown = lines[start : start + 40]
        command = f"sed -n '{start + 1},{start + 40}p' src/{name}"
        turns.append(call(len(turns) + 1, "bash", {"command": command}, "\n".join(shown), f"Read {wanted} in {name}."))
        names = set(re.findall(r"\b[a-z]+_[a-z_]+\b|\b[A-Z][a-z]+[A-Z]\w+", "\n".join(shown)))
        wanted = chance.choice(sorted(names - done) or sorted(set(files) - done))
        done |= {wanted}
        hits = [(f, i, line) for f, known in files.items() for i, line in enumerate(known) if wanted in line]
        seen = "\n".join(f"src/{f}:{i + 1}:{line}" for f, i, line in hits[:15])
        turns.append(call(len(turns) + 1, "bash", {"command": f"grep -rn {wanted} src"}, seen, f"Who uses {wanted}?"))
        name = chance.choice(hits)[0] if hits else chance.choice(list(files))
    return goal, turns[:count]


def seeing(turns: Sequence[Turn], observations: Sequence[str]) -> list[Turn]:
    """The same actions with other observations."""
    return [replace(turn, observation=seen) for turn, seen in zip(turns, observations, strict=True)]


def varied() -> list[Turn]:
    """A few dozen turns of every kind."""
    turns = [*agent_run(5, 14)[1], *agent_run(6, 6)[1]]
    odd: list[dict[str, Any]] = [
        {},
        {"thought": "übermäßig 漢字 🦊 \ud800"},
        {"calls": (("look", '{"path": "a/b.py", "deep": [1, {"x": null}]}'), ("look", {"path": "c"}))},
        {"calls": (("edit", {"b": [1, 2.5, True, None], "a": b"\x00\xff"}),), "observation": "ok"},
        {"observation": "Error: no such thing", "calls": (("look", "plain text"),)},
        {"failed": True, "calls": (("look", "plain text"),)},
        {"calls": (("wait", {}),), "observation": "still running, 3 s"},
        {"calls": (("wait", {}),), "observation": "still running, 6 s"},
        {"calls": (("wait", {}),), "observation": "still running, 9 s"},
        {"thought": RECIPES[0], "observation": RECIPES[1]},
        {"thought": RECIPES[2], "observation": RECIPES[3]},
    ]
    return [replace(t, step=i + 1) for i, t in enumerate([*turns, *(Turn(step=0, **one) for one in odd)])]


odd_texts = st.one_of(
    st.text(st.characters(), max_size=30),
    st.sampled_from(
        [
            "",
            " ",
            "\n",
            "\x00\x1b[0m",
            "\ud800\udfff",
            "Error: x",
            "漢字かな交じり文",
            "שלום",
            "a" * 9_000,
            "{",
            '{"a": 1}',
        ]
    ),
)
odd_arguments = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | odd_texts | st.binary(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(odd_texts, inner, max_size=3) | st.tuples(inner, inner),
    max_leaves=6,
)
odd_calls = st.lists(st.tuples(st.sampled_from(["read", "bash", "final_answer"]), odd_arguments), max_size=2)
odd_turns = st.lists(
    st.builds(
        Turn,
        step=st.just(0),
        thought=odd_texts,
        calls=odd_calls.map(tuple),
        observation=odd_texts,
        failed=st.booleans(),
    ),
    min_size=1,
    max_size=14,
).map(lambda turns: [replace(turn, step=i + 1) for i, turn in enumerate(turns)])


def is_sound(found: Coherence | None, turns: Sequence[Turn]) -> Coherence:
    """Asserts what holds of every assessment."""
    assert found is not None
    assert all(0.0 <= score <= 1.0 for score in (found.level, found.confidence, *found.components.values()))
    assert set(found.components) <= set(COMPONENTS)
    assert {"autonomy", "errors"} <= set(found.components)
    assert found.level == min(found.components.values()) == found.components[found.cause]
    assert -1.0 <= found.trend <= 1.0
    assert found.turns == len(turns)
    assert found.consciousness_level == found.level
    assert re.fullmatch(r"(steady|(rising|falling) [+-]\d\.\d\d), confidence (low|fair|high)", found.in_words)
    if found.level < 0.75:
        assert found.since in [turn.step for turn in turns]
        assert re.search(r"\bsteps? (\d|…, \d)", found.reason)
        assert found.advice
    else:
        assert (found.reason, found.advice, found.since) == ("nothing stands out", "", 0)
    for text in (found.reason, found.advice):
        text.encode()  # raises, where it could not be printed
        assert "\n" not in text
        assert "nan" not in re.findall(r"\w+", text.split(":")[0])
    return found
