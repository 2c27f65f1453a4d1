"""What model calls took."""

from dataclasses import dataclass, field, replace

from dionysus.stores.contract import Usage


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
    tokens_saved: int = 0
    """Estimated per call: reported input tokens × characters kept out ÷ characters sent."""

    def answered(self, usage: Usage, *, chars: int, pruned: int) -> None:
        """Adds what one call took."""
        self.usage += usage
        self.prompt_chars += chars
        self.chars_saved += pruned
        if chars:
            self.tokens_saved += round(usage.input_tokens * pruned / chars)

    def copy(self) -> "Spent":
        """As it now is."""
        return replace(self)
