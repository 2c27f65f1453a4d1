"""What a model call cost: the tokens that the provider reports, and their price from a kept price table."""

from math import isfinite
from typing import Any

from smolagents import ChatMessage

from dionysus.stores.contract import Usage

_CHARS_PER_TOKEN = 4
"""For providers that report nothing; such counts are marked estimated."""


def measure(model: Any, message: ChatMessage, prompt_chars: int) -> Usage:
    """The usage of one call.

    Cached tokens are read where OpenAI (`prompt_tokens_details.cached_tokens`), DeepSeek
    (`prompt_cache_hit_tokens`) and Anthropic (`cache_read_input_tokens`) report them.

    Args:
        model: The model that answered; one with `free = True` costs nothing.
        prompt_chars: Characters sent, for an estimate where nothing is reported.
    """
    reported = message.token_usage
    estimated = reported is None
    if reported is None:
        answer = len(message.content or "") + sum(len(str(c.function.arguments)) for c in message.tool_calls or ())
        inputs, outputs = prompt_chars // _CHARS_PER_TOKEN, answer // _CHARS_PER_TOKEN
    else:
        inputs, outputs = reported.input_tokens, reported.output_tokens
    cached = min(inputs, cached_in(message.raw))
    written = min(inputs - cached, written_in(message.raw))
    free = bool(getattr(model, "free", False))
    return Usage(
        input_tokens=inputs,
        cached_tokens=cached,
        cache_write_tokens=written,
        output_tokens=outputs,
        cost_usd=0.0 if free else _price(model, inputs, cached, written, outputs),
        estimated=estimated,
        mended=int(field_of(message.raw, "mended") or 0),
        tokens_per_s=_speed(message.raw),
    )


def is_priced(model: Any) -> bool:
    """Whether the price of a model's calls is known."""
    return bool(getattr(model, "free", False)) or _price(model, 1, 0, 0, 1) is not None


def cached_in(raw: Any) -> int:
    """The cached tokens that a provider's response reports."""
    usage = field_of(raw, "usage")
    reported = (
        field_of(field_of(usage, "prompt_tokens_details"), "cached_tokens"),
        field_of(usage, "prompt_cache_hit_tokens"),
        field_of(usage, "cache_read_input_tokens"),
    )
    return _first(reported)


def written_in(raw: Any) -> int:
    """The tokens that a provider's response says were written to its cache: Anthropic's `cache_creation_input_tokens`,
    OpenRouter's `prompt_tokens_details.cache_write_tokens`."""
    usage = field_of(raw, "usage")
    details = field_of(usage, "prompt_tokens_details")
    return _first(
        (
            field_of(usage, "cache_creation_input_tokens"),
            field_of(details, "cache_write_tokens"),
            field_of(details, "cache_creation_tokens"),
        )
    )


def _first(reported: tuple[Any, ...]) -> int:
    counts = (n for n in reported if isinstance(n, int | float) and not isinstance(n, bool))
    return next((int(n) for n in counts if isfinite(n) and n > 0), 0)


def _speed(raw: Any) -> float | None:
    """Of the answer, where the server says so, as llama.cpp does."""
    speed = field_of(field_of(raw, "timings"), "predicted_per_second")
    return float(speed) if isinstance(speed, int | float) and speed > 0 else None


def field_of(holder: Any, name: str) -> Any:
    """Of a provider's response, whether it is a dict or an object; None: there is none."""
    return holder.get(name) if isinstance(holder, dict) else getattr(holder, name, None)


def _price(model: Any, inputs: int, cached: int, written: int, outputs: int) -> float | None:
    from genai_prices import Usage as Priced
    from genai_prices import calc_price

    try:
        price = calc_price(
            Priced(input_tokens=inputs, cache_read_tokens=cached, cache_write_tokens=written, output_tokens=outputs),
            model_ref=str(getattr(model, "model_id", None) or type(model).__name__),
            provider_api_url=getattr(model, "price_url", None),
        )
    except LookupError:  # the table does not know this provider or model: the price is unknown, not zero
        return None
    return float(price.total_price)
