"""Counts tokens offline, and holds the counts against what a provider reports.

No tokenizer is every model's own. Ours – Mistral's Tekken, which the extra `tokens` brings – tells how texts compare
(r = .997 with 10,460 prompt counts of Gemini 3 Pro, docs/decisions/0017), and each run's own reports
tell how many of the provider's tokens one of ours stands for. Without the extra, characters are counted instead.
"""

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

_VOCABULARY = "data/tekken_240911.json"
_PIECE = 20_000
"""Characters that are counted at a time: one run of a million equal letters takes the tokenizer minutes."""
_FRAME = 4
_CHARS_PER_TOKEN = 4
_FEWEST = 3
_SPREAD = 0.1
"""A line is fitted through so many calls whose counts differ by so much, relative to their mean."""


def counter() -> str:
    """What `count` counts: `tekken`, or `characters` where the extra `tokens` is not installed."""
    return "characters" if _encoding() is None else "tekken"


def count(text: str) -> int:
    """The length of a text, in what `counter` says."""
    encoding = _encoding()
    if encoding is None:
        return len(text)
    pieces = (text[at : at + _PIECE] for at in range(0, len(text), _PIECE))
    return sum(len(encoding.encode_ordinary(piece)) for piece in pieces)


def frame() -> int:
    """What a message takes beside its text, in what `counter` says: four tokens, as in OpenAI's chat format."""
    return _FRAME if _encoding() is not None else _FRAME * _CHARS_PER_TOKEN


@cache
def _encoding() -> Any:
    """The tokenizer; None: the extra is not installed. mistral_common itself takes a second to import; its file of the
    vocabulary is all that is needed."""
    found = find_spec("mistral_common")
    if found is None or not found.submodule_search_locations or find_spec("tiktoken") is None:
        return None
    path = Path(next(iter(found.submodule_search_locations))) / _VOCABULARY
    if not path.is_file():  # a release that has another one
        return None
    import tiktoken

    read = json.loads(path.read_text(encoding="utf-8"))
    config = read["config"]
    size = config["default_vocab_size"] - config["default_num_special_tokens"]
    ranks = {base64.b64decode(entry["token_bytes"]): entry["rank"] for entry in read["vocab"][:size]}
    return tiktoken.Encoding(name="tekken", pat_str=config["pattern"], mergeable_ranks=ranks, special_tokens={})


@dataclass(kw_only=True)
class Calibration:
    """How many of a provider's tokens one of ours stands for, from the calls of one agent's run.

    The slope of a line through (our count, reported tokens): what is sent with every prompt beside its messages, such
    as the schemas of tools, is its intercept. With too few calls, or prompts of nearly one length, the plain ratio.
    """

    calls: int = 0
    ours: float = 0.0
    theirs: float = 0.0
    _squares: float = 0.0
    _products: float = 0.0
    kept_out: int = 0
    """What pruning kept out of these prompts, as we count."""

    def add(self, ours: int, theirs: int, kept_out: int) -> None:
        """A call: our count of its prompt, the provider's, and our count of what pruning kept out."""
        self.calls += 1
        self.ours += ours
        self.theirs += theirs
        self._squares += ours * ours
        self._products += ours * theirs
        self.kept_out += kept_out

    @property
    def theirs_per_ours(self) -> float:
        """0 before the first call."""
        if not self.ours:
            return 0.0
        ratio = self.theirs / self.ours
        mean = self.ours / self.calls
        variance = self._squares / self.calls - mean * mean
        if self.calls < _FEWEST or variance < (_SPREAD * mean) ** 2:
            return ratio
        slope = (self._products / self.calls - mean * self.theirs / self.calls) / variance
        return slope if ratio / 2 <= slope <= 2 * ratio else ratio

    @property
    def saved(self) -> int:
        """The provider's tokens that pruning kept out: estimated."""
        return round(self.kept_out * self.theirs_per_ours)


def note_saving(calibrations: dict[str, Calibration], tokens: int, began: Mapping[str, Any]) -> None:
    """Takes a model call into the calibration that it belongs to: of its agent's run, its kind of prompt – tools come
    with some – and what was counted.

    Args:
        tokens: The input tokens that were reported.
        began: The body of the call's `model_started`.
    """
    counted = began.get("counted") or {
        "by": "characters",
        "prompt": began.get("prompt_chars", 0),
        "pruned": began.get("pruned_chars", 0),
    }
    if tokens:
        key = f"{began.get('trace')}:{str(began.get('step')).partition('.')[0]}:{counted['by']}"
        calibrations.setdefault(key, Calibration()).add(counted["prompt"], tokens, counted["pruned"])
