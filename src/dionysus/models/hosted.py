"""Models behind an OpenAI-compatible endpoint: OpenAI, Ollama, vLLM, LM Studio, OpenRouter, llama.cpp …"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

from smolagents import ChatMessage, OpenAIModel
from smolagents.models import (
    ChatMessageStreamDelta,
    ChatMessageToolCallStreamDelta,
    MessageRole,
    TokenUsage,
    remove_content_after_stop_sequences,
)

from dionysus.errors import MissingExtra, ModelError
from dionysus.models.metering import cached_in, written_in

_TRANSPORTS = ("httpx", "httpx2", "httpcore", "httpcore2")
"""What the openai package talks through, in one version or another; it passes on what breaks within a stream."""


class CachedUsage(TokenUsage):
    """smolagents' usage, with the tokens that came from the provider's prefix cache, or were written there."""

    cached_tokens: int = 0
    cache_write_tokens: int = 0

    @classmethod
    def of(cls, usage: Any) -> "CachedUsage":
        """Of what an endpoint reports."""
        made = cls(input_tokens=usage.prompt_tokens, output_tokens=usage.completion_tokens)
        made.cached_tokens = cached_in({"usage": usage})
        made.cache_write_tokens = written_in({"usage": usage})
        return made


class HostedModel(OpenAIModel):
    """smolagents' OpenAI model, also for servers that report no usage."""

    def __init__(
        self, model_id: str, *, api_base: str | None, api_key: str, timeout_s: float, max_tokens: int | None = None
    ) -> None:
        limits = {} if max_tokens is None else {"max_tokens": max_tokens}
        client = {"timeout": timeout_s, "max_retries": 2}
        super().__init__(model_id, api_base=api_base, api_key=api_key, client_kwargs=client, **limits)
        self.spec = f"openai:{model_id}"
        self.price_url = api_base or "https://api.openai.com/v1"
        """By which the price table knows the provider."""

    def generate(
        self,
        messages: list[ChatMessage],
        stop_sequences: list[str] | None = None,
        response_format: dict[str, str] | None = None,
        tools_to_call_from: list[Any] | None = None,
        **kwargs: Any,
    ) -> ChatMessage:
        """One chat completion; `raw` is the server's whole response.

        Raises:
            ModelError: The endpoint did not answer, refused, or sent something else than a completion.
        """
        request = self._request(messages, stop_sequences, response_format, tools_to_call_from, kwargs)
        self._apply_rate_limit()
        response = self._call(request)
        if not getattr(response, "choices", None):
            raise ModelError(
                f"the endpoint's response for {self.model_id!r} holds no choices; is it OpenAI-compatible?"
            )
        message = response.choices[0].message
        content = message.content
        if stop_sequences and content and not self.supports_stop_parameter:
            content = remove_content_after_stop_sequences(content, stop_sequences)
        usage = response.usage
        return ChatMessage(
            role=MessageRole.ASSISTANT,
            content=content,
            tool_calls=message.tool_calls,
            raw=response,
            token_usage=usage and TokenUsage(input_tokens=usage.prompt_tokens, output_tokens=usage.completion_tokens),
        )

    def generate_stream(
        self,
        messages: list[ChatMessage],
        stop_sequences: list[str] | None = None,
        response_format: dict[str, str] | None = None,
        tools_to_call_from: list[Any] | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatMessageStreamDelta]:
        """One chat completion, piece by piece; the last piece has the usage, cached tokens included.

        Raises:
            ModelError: As `generate`; also in the middle of the answer.
        """
        request = self._request(messages, stop_sequences, response_format, tools_to_call_from, kwargs)
        self._apply_rate_limit()
        with self._errors_named():
            stream = self.retryer(
                self.client.chat.completions.create, **request, stream=True, stream_options={"include_usage": True}
            )
            for event in stream:
                if getattr(event, "usage", None):
                    yield ChatMessageStreamDelta(content="", token_usage=CachedUsage.of(event.usage))
                delta = event.choices[0].delta if getattr(event, "choices", None) else None
                if delta is not None:
                    yield ChatMessageStreamDelta(
                        content=delta.content,
                        tool_calls=[
                            ChatMessageToolCallStreamDelta(
                                index=call.index, id=call.id, type=call.type, function=call.function
                            )
                            for call in delta.tool_calls or ()
                        ]
                        or None,
                    )

    def _request(
        self,
        messages: list[ChatMessage],
        stop_sequences: list[str] | None,
        response_format: dict[str, str] | None,
        tools: list[Any] | None,
        more: dict[str, Any],
    ) -> dict[str, Any]:
        request: dict[str, Any] = self._prepare_completion_kwargs(
            messages=messages,
            stop_sequences=stop_sequences,
            response_format=response_format,
            tools_to_call_from=tools,
            model=self.model_id,
            custom_role_conversions=self.custom_role_conversions,
            convert_images_to_image_urls=True,
            **more,
        )
        return request

    def _call(self, request: dict[str, Any]) -> Any:
        with self._errors_named():
            return self.retryer(self.client.chat.completions.create, **request)

    @contextmanager
    def _errors_named(self) -> Iterator[None]:
        from openai import APIConnectionError, APIStatusError, APITimeoutError, OpenAIError

        where = f"the endpoint {self.price_url} of {self.model_id!r}"
        try:
            yield
        except APITimeoutError as error:
            raise ModelError(
                f"{where} did not answer in time; raise DIONYSUS_MODEL_TIMEOUT_S, or look at it"
            ) from error
        except APIConnectionError as error:
            raise ModelError(f"{where} cannot be reached: {error.__cause__ or error}; is it running?") from error
        except APIStatusError as error:
            raise ModelError(f"{where} answered {error.status_code}: {_first_line(error.message)}") from error
        except (OpenAIError, ValueError) as error:  # ValueError: the body is no JSON
            raise ModelError(
                f"{where} sent no completion: {_first_line(str(error))}; is it OpenAI-compatible?"
            ) from error
        except Exception as error:
            if type(error).__module__.partition(".")[0] not in _TRANSPORTS:
                raise
            raise ModelError(f"{where} broke off in the middle of its answer: {_first_line(str(error))}") from error


def _first_line(text: str) -> str:
    return (text.strip().splitlines() or ["no reason given"])[0][:300]


def open_hosted(
    name: str, *, api_base: str | None, api_key: str | None, timeout_s: float, max_tokens: int | None = None
) -> HostedModel:
    """See `open_model`; an endpoint of one's own needs no key."""
    if find_spec("openai") is None:
        raise MissingExtra(f"the model openai:{name}", "openai")
    base = api_base or os.environ.get("OPENAI_BASE_URL")
    key = api_key or os.environ.get("OPENAI_API_KEY") or ("none" if base else None)
    if key is None:
        raise ModelError(
            f"openai:{name} needs a key: set OPENAI_API_KEY, or name an endpoint of your own with --api-base URL"
        )
    return HostedModel(name, api_base=base, api_key=key, timeout_s=timeout_s, max_tokens=max_tokens)
