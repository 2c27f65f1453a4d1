"""What pruning saves, and what it costs: recorded runs, played by a real attached agent under each policy.

Each run of `--data` is played by an attached smolagents `ToolCallingAgent`, the recording's prefix as its system prompt
and task, its actions held fixed; the prompts are those that smolagents and the real callbacks make. Policies: none; the
window rule with 1, 3 and 5 actions (`naive-N`); batches (newest 500 tokens whole, older observations cut when 500 more
have come together, to beginning, end and their forty rarest identifiers); ours – see-once, as it is by default.

*Tokens* are counted by `dionysus.counting`. *Billed* takes the longest common prefix with an earlier prompt of the run
(the last one, or the last of the same kind) as cached, everything else as new: cached tokens at a tenth of the price,
new ones at 1 or, where writing to the cache is charged, at 1.25; cached ones at a fiftieth; no cache. *Lost*: of the
identifiers of an action that the model had seen, the share that no longer was in its prompt; *recalls*: actions with at
least one; *verbatim*: the same of five-word sequences; *compounds*: of paths, dates, dotted names. A run is *dearer* if
it is billed at more than 1.02 of what it costs without pruning.

Counted are the texts of the messages. `with_tool` adds the schema of the tool that pruning brings, as JSON, in front of
each prompt for an action; providers write it in forms of their own.

`check` holds the counts against the provider's own, where the recording has them.
"""

import json
import multiprocessing
import os
import random
import re
import tempfile
from ast import literal_eval
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from functools import lru_cache
from itertools import takewhile
from pathlib import Path
from statistics import StatisticsError, correlation, median, quantiles
from typing import Any

from smolagents import ActionStep, ChatMessage
from smolagents.models import MessageRole, TokenUsage, get_tool_json_schema
from smolagents.utils import AgentError

from benchmarks.recorded import Player, agent_of, reading_this_project, runs_in
from dionysus import Runtime
from dionysus.agents.tools import RecallObservation
from dionysus.callbacks.see_once import Rule
from dionysus.counting import count, counter
from dionysus.settings import Settings

POLICIES: dict[str, tuple[Rule, int | None]] = {
    "none": ("off", None),
    "naive-1": ("window", 1),
    "naive-3": ("window", 3),
    "naive-5": ("window", 5),
    "batched": ("off", None),
    "ours": ("see-once", None),
}
PRICES = {"read0.1": (1.0, 0.1), "read0.1_write1.25": (1.25, 0.1), "read0.02": (1.0, 0.02), "uncached": (1.0, 1.0)}
"""Of a new and of a cached token."""
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]{5,}|#?[A-Z0-9]{5,}|\d{4,}")
_COMPOUND = re.compile(r"[A-Za-z0-9_#](?:[A-Za-z0-9_#]|[./@:-](?=[A-Za-z0-9_]))*")
_WORD = re.compile(r"\w+")
_CALLS = f"{MessageRole.TOOL_CALL.value}\nCalling tools:\n"
_BATCH = 500
_SHORT = 6


def run(
    *, short: bool, seed: int, data: Path | None, limit: int | None = None, planning: int | None = None
) -> dict[str, Any]:
    """Figures per policy.

    Args:
        data: Recorded runs (see `benchmarks.recorded`); the provider's counts as `prompt_tokens` of a step. Default:
            runs that read this project's files.
        limit: At most so many, chosen by the seed.
        planning: Re-plan every so many actions.
    """
    records = runs_in(data) if data else [reading_this_project(12 if short else 60, at) for at in range(6)]
    most = min(limit or len(records), _SHORT if short else len(records))
    records = records if most == len(records) else random.Random(seed).sample(records, most)
    with ProcessPoolExecutor(os.cpu_count(), mp_context=multiprocessing.get_context("spawn")) as pool:
        played = list(pool.map(_played, records, [planning] * len(records), chunksize=2))
    return {
        "data": data.name if data else "reading this project",
        "runs": len(records),
        "actions": sum(len(record["steps"]) for record in records),
        "planning_interval": planning,
        "counted_by": counter(),
        "check": _check([found["none"]["provider"] for found in played]),
        "rows": [_row(name, played) for name in POLICIES],
    }


def _row(policy: str, played: list[dict[str, dict[str, Any]]]) -> dict[str, Any]:
    ours, none = [found[policy] for found in played], [found["none"] for found in played]

    def share(part: str, whole: str) -> float:
        of_it: int = sum(f[part] for f in ours)
        of_all: int = sum(f[whole] for f in ours)
        return round(of_it / max(1, of_all), 5)

    def less(what: Callable[[dict[str, Any]], Any]) -> float:
        cost: float = sum(map(what, ours))
        before: float = sum(map(what, none))
        return round(1 - cost / before, 4)

    billed = {name: less(lambda f, name=name: f["billed"][name]) for name in PRICES}  # type: ignore[misc]
    pairs = list(zip(ours, none, strict=True))
    dearer = {n: sum(a["billed"][n] > 1.02 * b["billed"][n] for a, b in pairs) / len(pairs) for n in PRICES}
    return {
        "policy": policy,
        "prompt_tokens": sum(f["tokens"] for f in ours),
        "tokens_reduction_pooled": less(lambda f: f["tokens"]),
        "tokens_reduction_median": round(median(1 - a["tokens"] / b["tokens"] for a, b in pairs), 4),
        "billed_reduction_pooled": billed,
        "runs_dearer_share": round(dearer["read0.1"], 4),
        "with_tool": {
            "tokens_reduction_pooled": less(lambda f: f["tokens"] + f["tool"] * f["actions"]),
            "billed_reduction_pooled": {n: less(lambda f, n=n: _with_tool(f, n)) for n in PRICES},  # type: ignore[misc]
            "runs_dearer_share": round(
                sum(_with_tool(a, "read0.1") > 1.02 * b["billed"]["read0.1"] for a, b in pairs) / len(pairs), 4
            ),
        },
        "runs_dearer_share_by_price": {name: round(value, 4) for name, value in dearer.items()},
        "lost": share("lost", "identifiers"),
        "verbatim_lost": share("grams_lost", "grams"),
        "recalls_needed": share("recalls", "actions"),
        "compounds_lost": share("compounds_lost", "compounds"),
        "compound_recalls_needed": share("compound_recalls", "actions"),
        "plan_tokens": sum(f["plan_tokens"] for f in ours),
        "tokens_saved": sum(b["all_tokens"] - a["all_tokens"] for a, b in pairs),
        "tokens_saved_as_reported": sum(f["told_saved"] for f in ours),
    }


def _with_tool(found: dict[str, Any], price: str) -> float:
    """Billed, the tool's schema included: it is the beginning of what is cached from the second prompt on."""
    new, read = PRICES[price]
    return float(found["billed"][price] + found["tool"] * (new + read * (found["actions"] - 1)))


def _check(runs: list[list[tuple[int, int]]]) -> dict[str, Any] | None:
    """Our counts of the prompts without pruning against the provider's: (ours, theirs) per call, by run."""
    pairs = [pair for run_ in runs for pair in run_]
    if len(pairs) < 3:
        return None
    ratios = [sum(b for _, b in run_) / sum(a for a, _ in run_) for run_ in runs if run_]
    of_all = sum(b for _, b in pairs) / sum(a for a, _ in pairs)
    off = [abs(a * ratio / b - 1) for run_, ratio in zip(filter(None, runs), ratios, strict=True) for a, b in run_]
    return {
        "calls": len(pairs),
        "correlation": _correlation(pairs),
        "theirs_per_ours": round(of_all, 4),
        "theirs_per_ours_by_run_p10_p90": [
            round(q, 3) for q in (quantiles(ratios, n=10)[0], quantiles(ratios, n=10)[8])
        ]
        if len(ratios) > 1
        else None,
        "off_per_call_once_calibrated_median": round(median(off), 4),
    }


def _correlation(pairs: list[tuple[int, int]]) -> float | None:
    try:
        return round(correlation([a for a, _ in pairs], [b for _, b in pairs]), 5)
    except StatisticsError:  # all are the same
        return None


def _played(record: dict[str, Any], planning: int | None) -> dict[str, dict[str, Any]]:
    """One run under all policies."""
    return {name: _play(record, name, planning) for name in POLICIES}


def _play(record: dict[str, Any], policy: str, planning: int | None) -> dict[str, Any]:
    rule, window = POLICIES[policy]
    model = _Counting(record)
    agent, task = agent_of(record, model, planning)
    if policy == "batched":
        agent.step_callbacks.register(ActionStep, _Batches())
    os.environ.pop("AGENT_MEMORY_WINDOW", None)
    with tempfile.TemporaryDirectory() as own:
        settings = Settings(store=f"sqlite:///{own}/mind.db", memory_window=window, coherence=False, basins=False)
        with Runtime(settings=settings) as runtime:
            try:
                result = runtime.attach(agent, pruning=rule).run(task)
            except AgentError as error:  # it cannot be pickled
                raise RuntimeError(f"run {record['id']} under {policy}: {error}") from None
    assert result.status == "success", (record["id"], policy, result.error)
    schemas = [json.dumps(get_tool_json_schema(t)) for t in model.offered if t.name == RecallObservation.name]
    tool = sum(map(_count, schemas))
    return {**model.figures, "provider": model.provider, "told_saved": result.tokens_saved, "tool": tool}


class _Counting(Player):
    """Counts every prompt as it comes, and what the recorded action would miss in it."""

    def __init__(self, record: dict[str, Any]) -> None:
        super().__init__(record)
        self._last: dict[str, list[str]] = {}
        self.figures: dict[str, Any] = {"tokens": 0, "all_tokens": 0, "plan_tokens": 0, "actions": 0}
        self.figures |= dict.fromkeys((name for names in _COUNTED.values() for name in names), 0)
        self.figures["billed"] = dict.fromkeys(PRICES, 0.0)
        self.provider: list[tuple[int, int]] = []
        self._visible: dict[str, Counter[Any]] = {what: Counter() for what in _READERS}
        self._shown: Counter[str] = Counter()
        prefix = [m["content"] for m in record["prefix"]]
        self._seen = {what: set().union(*(read(text) for text in prefix)) for what, read in _READERS.items()}
        """What the model has seen, whatever is shown of it now."""

    def asked(self, messages: list[ChatMessage], action: int | None) -> dict[str, Any]:
        texts = [f"{m.role.value}\n{part['text']}" for m in messages for part in m.content]
        self.figures["all_tokens"] += sum(map(_count, texts))
        if action is not None and action > len(self._steps):  # no recorded call
            return {"token_usage": TokenUsage(sum(map(_count, texts)), 0)}
        tokens = self._bill(texts, "plan" if action is None else "action")
        if action is None:
            self.figures["plan_tokens"] += tokens
        else:
            step = self._steps[action - 1]
            self._look(texts)
            self._miss(step["action"] or step["raw"])
            for text in (step["raw"], step["thought"], step["action"], step["obs"]):
                for what, read in _READERS.items():
                    self._seen[what] |= read(text)
            if str(step.get("prompt_tokens") or "").isdecimal() and int(step["prompt_tokens"]):
                self.provider.append((tokens, int(step["prompt_tokens"])))
        return {"token_usage": TokenUsage(tokens, 0)}

    def _bill(self, texts: list[str], kind: str) -> int:
        tokens = sum(map(_count, texts))
        cached = max((_common(texts, last) for last in self._last.values()), default=0)
        self._last = {**self._last, kind: texts, "any": texts}
        self.figures["tokens"] += tokens
        for name, (new, read) in PRICES.items():
            self.figures["billed"][name] += new * (tokens - cached) + read * cached
        return tokens

    def _look(self, texts: list[str]) -> None:
        """Brings what is visible up to date."""
        now = Counter(map(self._as_meant, texts))
        for text, sign in [*((t, 1) for t in (now - self._shown)), *((t, -1) for t in (self._shown - now))]:
            for what, read in _READERS.items():
                self._visible[what].update(dict.fromkeys(read(text), sign))
        self._shown = now

    def _as_meant(self, text: str) -> str:
        """smolagents shows calls as Python writes them, with escaped quotes and ends of lines: what the call says."""
        _, marker, calls = text.partition(_CALLS)
        if not marker:
            return text
        number = int(literal_eval(calls)[0]["id"].removeprefix("call_"))
        return str(self._steps[number - 1]["action"])

    def _miss(self, action: str) -> None:
        self.figures["actions"] += 1
        for what, (total, lost, recalls) in _COUNTED.items():
            known = _READERS[what](action) & self._seen[what]
            missing = sum(self._visible[what][one] <= 0 for one in known)
            self.figures[total] += len(known)
            self.figures[lost] += missing
            self.figures[recalls] += bool(missing)


@lru_cache(maxsize=20_000)
def _identifiers(text: str) -> frozenset[Any]:
    return frozenset(_IDENTIFIER.findall(text))


@lru_cache(maxsize=20_000)
def _compounds(text: str) -> frozenset[Any]:
    found = _COMPOUND.findall(text)
    return frozenset(c for c in found if _IDENTIFIER.search(c) and not _IDENTIFIER.fullmatch(c) and len(c) <= 80)


@lru_cache(maxsize=20_000)
def _grams(text: str) -> frozenset[Any]:
    found = _WORD.findall(text)
    return frozenset(tuple(found[i : i + 5]) for i in range(len(found) - 4))


_READERS: dict[str, Callable[[str], frozenset[Any]]] = {
    "identifiers": _identifiers,
    "compounds": _compounds,
    "grams": _grams,
}
_COUNTED = {
    "identifiers": ("identifiers", "lost", "recalls"),
    "compounds": ("compounds", "compounds_lost", "compound_recalls"),
    "grams": ("grams", "grams_lost", "gram_recalls"),
}


@lru_cache(maxsize=50_000)
def _count(text: str) -> int:
    return count(text)


def _common(texts: Iterable[str], last: Iterable[str]) -> int:
    """Tokens of the longest common prefix of two prompts."""
    pairs = list(zip(texts, last, strict=False))
    same = list(takewhile(lambda pair: pair[0] == pair[1], pairs))
    tokens = sum(_count(text) for text, _ in same)
    if len(same) < len(pairs):
        ours, theirs = pairs[len(same)]
        tokens += _count(
            "".join(a for a, _ in takewhile(lambda pair: pair[0] == pair[1], zip(ours, theirs, strict=False)))
        )
    return tokens


class _Batches:
    """The batched rule, as a callback of the agent: rare breaks of the prefix instead of early ones."""

    def __init__(self) -> None:
        self._frequency: Counter[str] = Counter()
        self._whole: list[ActionStep] = []

    def __call__(self, step: ActionStep, agent: Any = None) -> None:
        self._frequency.update(_identifiers(step.observations or ""))
        self._whole.append(step)
        room, old = _BATCH, []
        for earlier in reversed(self._whole[:-1]):
            room -= _count(earlier.observations or "")
            if room < 0:
                old.append(earlier)
        if sum(_count(earlier.observations or "") for earlier in old) >= _BATCH:
            for earlier in old:
                earlier.observations = self._stub(earlier.observations or "")
                self._whole.remove(earlier)

    def _stub(self, text: str) -> str:
        if len(text) <= 600:
            return text
        rarest = sorted(_identifiers(text), key=lambda w: (self._frequency[w], w))[:40]
        return f"{text[:150]}\n[cut {len(text)} chars: {' '.join(rarest)}]\n{text[-150:]}"
