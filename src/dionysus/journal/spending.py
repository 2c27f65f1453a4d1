"""What model calls took, and what pruning kept out of them."""

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

from dionysus.counting import Calibration, note_saving
from dionysus.stores.contract import Usage


@dataclass(kw_only=True)
class KeptOut:
    """What pruning keeps out of a prompt."""

    chars: int = 0
    counted: int = 0
    """By `dionysus.counting`."""

    def __add__(self, other: "KeptOut") -> "KeptOut":
        return KeptOut(chars=self.chars + other.chars, counted=self.counted + other.counted)


@dataclass(kw_only=True)
class Spent:
    """What model calls took."""

    usage: Usage = field(default_factory=Usage)
    model_calls: int = 0
    """Begun, whether they were answered or not."""
    prompt_chars: int = 0
    """Characters sent, over all answered calls."""
    chars_saved: int = 0
    """Characters that pruning kept out, over all answered calls."""
    calibrations: dict[str, Calibration] = field(default_factory=dict)
    """See `note_saving`."""

    def answered(self, usage: Usage, began: Mapping[str, Any]) -> None:
        """Adds what one call took.

        Args:
            began: The body of its `model_started`.
        """
        self.usage += usage
        self.prompt_chars += began.get("prompt_chars", 0)
        self.chars_saved += began.get("pruned_chars", 0)
        note_saving(self.calibrations, usage.input_tokens, began)

    @property
    def tokens_saved(self) -> int:
        """Input tokens that pruning kept out, estimated; see `Calibration`."""
        return sum(calibration.saved for calibration in self.calibrations.values())

    def copy(self) -> "Spent":
        """As it now is."""
        return deepcopy(self)
