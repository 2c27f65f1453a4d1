"""The agents' prompts: one YAML file each, with Jinja templates in smolagents' form."""

from importlib.resources import files
from typing import Any

import yaml


def prompts(agent: str, *, part: str = "prompts") -> dict[str, Any]:
    """A part of an agent's file; `prompts`: the templates that smolagents takes."""
    text = files("dionysus.agents.prompts").joinpath(f"{agent}.yaml").read_text(encoding="utf-8")
    found: dict[str, Any] = yaml.safe_load(text)[part]
    return found
