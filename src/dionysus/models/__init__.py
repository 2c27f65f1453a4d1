"""The models that agents think with: `open_model(spec)`.

`reflex` (the default) follows rules and uses no LLM; `openai:NAME` is any OpenAI-compatible endpoint;
`scripted:FILE` plays a script, for tests and examples. Money is never spent unasked: a key that happens to be in
the environment does not switch models.
"""

from pathlib import Path

from smolagents import Model

from dionysus.errors import BadInput

SPECS = "reflex, openai:NAME, scripted:FILE"


def open_model(
    spec: str, *, api_base: str | None = None, api_key: str | None = None, timeout_s: float = 120.0
) -> Model:
    """The model that `spec` names.

    Args:
        api_base: For `openai:`, the URL of the endpoint; default: OPENAI_BASE_URL, then OpenAI's.
        api_key: For `openai:`; default: OPENAI_API_KEY.
        timeout_s: For `openai:`, how long one call may take.

    Raises:
        BadInput: No such model, or a script that cannot be read.
        MissingExtra: The model needs an optional dependency.
        ModelError: No key.
    """
    name, _, rest = spec.partition(":")
    if spec == "reflex":
        from dionysus.models.reflex import Reflex

        return Reflex()
    if name == "openai" and rest:
        from dionysus.models.hosted import open_hosted

        return open_hosted(rest, api_base=api_base, api_key=api_key, timeout_s=timeout_s)
    if name == "scripted" and rest:
        from dionysus.models.scripted import ScriptedModel

        return ScriptedModel.from_file(Path(rest))
    raise BadInput(f"unknown model {spec!r}; there is {SPECS}")
