"""What a model call cost: the tokens that the provider reports, and their price from a kept price table."""

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
    cached = min(inputs, _cached(message.raw))
    free = bool(getattr(model, "free", False))
    return Usage(
        input_tokens=inputs,
        cached_tokens=cached,
        output_tokens=outputs,
        cost_usd=0.0 if free else _price(model, inputs, cached, outputs),
        estimated=estimated,
    )


def is_priced(model: Any) -> bool:
    """Whether the price of a model's calls is known."""
    return bool(getattr(model, "free", False)) or _price(model, 1, 0, 1) is not None


def _cached(raw: Any) -> int:
    usage = _get(raw, "usage")
    reported = (
        _get(_get(usage, "prompt_tokens_details"), "cached_tokens"),
        _get(usage, "prompt_cache_hit_tokens"),
        _get(usage, "cache_read_input_tokens"),
    )
    return next((int(count) for count in reported if count and isinstance(count, int | float)), 0)


def _get(holder: Any, name: str) -> Any:
    return holder.get(name) if isinstance(holder, dict) else getattr(holder, name, None)


def _price(model: Any, inputs: int, cached: int, outputs: int) -> float | None:
    from genai_prices import Usage as Priced
    from genai_prices import calc_price

    try:
        price = calc_price(
            Priced(input_tokens=inputs, cache_read_tokens=cached, output_tokens=outputs),
            model_ref=str(getattr(model, "model_id", None) or type(model).__name__),
            provider_api_url=getattr(model, "price_url", None),
        )
    except LookupError:  # the table does not know this provider or model: the price is unknown, not zero
        return None
    return float(price.total_price)
