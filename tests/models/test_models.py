"""Opening models, and measuring what they cost."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from smolagents import ChatMessage
from smolagents.models import MessageRole, TokenUsage

from dionysus.errors import BadInput, ModelError
from dionysus.models import open_model
from dionysus.models.hosted import HostedModel
from dionysus.models.metering import measure
from dionysus.models.scripted import ScriptedModel


def answer(tokens: TokenUsage | None, raw: Any = None, text: str = "x" * 40) -> ChatMessage:
    return ChatMessage(role=MessageRole.ASSISTANT, content=text, token_usage=tokens, raw=raw)


@pytest.mark.parametrize("spec", ["", "gpt-4o", "openai:", "scripted:", "Reflex", "hf:x"])
def test_an_unknown_model_says_what_there_is(spec: str) -> None:
    with pytest.raises(BadInput, match="reflex, local:FILE"):
        open_model(spec)


def test_a_hosted_model_needs_a_key_or_an_endpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModelError, match="OPENAI_API_KEY"):
        open_model("openai:gpt-4o")
    assert isinstance(open_model("openai:x", api_base="http://127.0.0.1:1/v1"), HostedModel)
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    assert isinstance(open_model("openai:gpt-4o"), HostedModel)


@pytest.mark.parametrize("text", ["actions: 3", "- a", "{", "actions: []\nother: 1"])
def test_a_script_that_is_none_says_what_it_needs(tmp_path: Path, text: str) -> None:
    (tmp_path / "s.yaml").write_text(text)
    with pytest.raises(BadInput, match="script"):
        open_model(f"scripted:{tmp_path}/s.yaml")


def test_a_used_up_script_says_so() -> None:
    model = ScriptedModel(["one"])
    model.generate([], stop_sequences=["Observation:"])
    with pytest.raises(ModelError, match="used up after 1 action"):
        model.generate([], stop_sequences=["Observation:"])


@pytest.mark.parametrize(
    "usage",
    [
        {"prompt_tokens_details": {"cached_tokens": 60}},
        {"prompt_cache_hit_tokens": 60},
        {"cache_read_input_tokens": 60},
        SimpleNamespace(prompt_tokens_details=SimpleNamespace(cached_tokens=60)),
    ],
)
def test_cached_tokens_as_providers_report_them(usage: Any) -> None:
    model = SimpleNamespace(model_id="gpt-4o", price_url="https://api.openai.com/v1")
    found = measure(model, answer(TokenUsage(100, 10), raw={"usage": usage}), 400)
    assert (found.input_tokens, found.cached_tokens, found.output_tokens, found.estimated) == (100, 60, 10, False)
    uncached = measure(model, answer(TokenUsage(100, 10)), 400)
    assert found.cost_usd is not None
    assert uncached.cost_usd is not None
    assert 0 < found.cost_usd < uncached.cost_usd


@pytest.mark.parametrize(
    "usage",
    [
        {"cache_read_input_tokens": 30, "cache_creation_input_tokens": 50},
        {"prompt_tokens_details": {"cached_tokens": 30, "cache_write_tokens": 50}},
        SimpleNamespace(prompt_tokens_details=SimpleNamespace(cached_tokens=30, cache_creation_tokens=50)),
    ],
)
def test_what_is_written_to_the_cache_costs_more(usage: Any) -> None:
    model = SimpleNamespace(model_id="claude-sonnet-4-5", price_url="https://api.anthropic.com")
    found = measure(model, answer(TokenUsage(100, 10), raw={"usage": usage}), 400)
    assert (found.input_tokens, found.cached_tokens, found.cache_write_tokens) == (100, 30, 50)
    usual = measure(model, answer(TokenUsage(100, 10)), 400)
    assert found.cost_usd == pytest.approx(usual.cost_usd * (20 + 30 * 0.1 + 50 * 1.25 + 50) / 150)  # type: ignore[operator]
    assert (found + found).cache_write_tokens == 100
    more = measure(model, answer(TokenUsage(60, 10), raw={"usage": usage}), 400)
    assert (more.cached_tokens, more.cache_write_tokens) == (30, 30)  # never more than there were


@pytest.mark.parametrize("odd", [-5, True, float("nan"), float("inf"), "60", None, [60]])
def test_odd_counts_of_cached_tokens_count_for_nothing(odd: Any) -> None:
    usage = {"prompt_tokens_details": {"cached_tokens": odd}, "cache_creation_input_tokens": odd}
    found = measure(ScriptedModel([]), answer(TokenUsage(100, 10), raw={"usage": usage}), 400)
    assert (found.cached_tokens, found.cache_write_tokens) == (0, 0)


def test_what_is_not_reported_is_estimated_and_marked() -> None:
    found = measure(SimpleNamespace(model_id="x"), answer(None), 400)
    assert (found.input_tokens, found.output_tokens, found.estimated) == (100, 10, True)


def test_an_unknown_price_is_unknown_not_zero() -> None:
    model = SimpleNamespace(model_id="my-own-model", price_url="http://127.0.0.1:8000/v1")
    assert measure(model, answer(TokenUsage(100, 10)), 400).cost_usd is None
    assert measure(ScriptedModel([]), answer(TokenUsage(100, 10)), 400).cost_usd == 0
