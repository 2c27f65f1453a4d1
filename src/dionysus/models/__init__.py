"""The models that agents think with: `open_model(spec)`.

`reflex` (the default) follows rules and uses no LLM; `openai:NAME` is any OpenAI-compatible endpoint;
`local:FILE.gguf` is llama.cpp in this process; `scripted:FILE` plays a script, for tests and examples. Money is never
spent unasked: a key that happens to be in the environment does not switch models.
"""

from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from smolagents import Model

from dionysus.errors import BadInput, MissingExtra

SPECS = "reflex, local:FILE.gguf (or smollm2), openai:NAME, scripted:FILE"
ToolCalls = Literal["schema", "native"]


def open_model(
    spec: str,
    *,
    api_base: str | None = None,
    api_key: str | None = None,
    timeout_s: float = 120.0,
    tool_calls: ToolCalls | None = None,
    max_tokens: int | None = None,
    context: int | None = None,
    threads: int | None = None,
) -> Model:
    """The model that `spec` names.

    Args:
        api_base: For `openai:`, the URL of the endpoint; default: OPENAI_BASE_URL, then OpenAI's.
        api_key: For `openai:`; default: OPENAI_API_KEY.
        timeout_s: For `openai:` and `local:`, how long one call may take.
        tool_calls: For `openai:` and `local:`: `schema` holds every call to a JSON schema of what is offered
            (`ConstrainedModel`), `native` leaves the form to the model. Default: `schema` for local models.
        max_tokens: Of one answer; default: 1024 for `local:`, the endpoint's for `openai:`.
        context: For `local:`, tokens of prompt and answer together; default: what the model takes, up to 16,384.
        threads: For `local:`; default: the cores that this process may use.

    Raises:
        BadInput: No such model, a script that cannot be read, or a limit that is none.
        MissingExtra: The model needs an optional dependency.
        ModelError: No key, no such file, or none that can be used.
    """
    name, _, rest = spec.partition(":")
    if spec == "reflex":
        from dionysus.models.reflex import Reflex

        return Reflex()
    if name == "openai" and rest:
        from dionysus.models.hosted import open_hosted

        hosted = open_hosted(rest, api_base=api_base, api_key=api_key, timeout_s=timeout_s, max_tokens=max_tokens)
        return _constrained(hosted, max_tokens, needs="openai") if tool_calls == "schema" else hosted
    if name == "local" and rest:
        from dionysus.models.local import MAX_TOKENS, LocalModel

        most = max_tokens or MAX_TOKENS
        local = LocalModel(rest, context=context, threads=threads, max_tokens=most, timeout_s=timeout_s)
        return local if tool_calls == "native" else _constrained(local, most, needs="local")
    if name == "scripted" and rest:
        from dionysus.models.scripted import ScriptedModel

        return ScriptedModel.from_file(Path(rest))
    raise BadInput(f"unknown model {spec!r}; there is {SPECS}")


def _constrained(model: Model, max_tokens: int | None, *, needs: str) -> Model:
    if find_spec("json_repair") is None or find_spec("jsonschema") is None:
        raise MissingExtra("tool calls by schema", needs)
    from dionysus.models.constrained import ConstrainedModel

    return ConstrainedModel(model, max_tokens=max_tokens)
