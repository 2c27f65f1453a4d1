"""Writes docs/settings.md from the settings themselves; a test compares the two."""

from pathlib import Path

from dionysus.settings import Settings

HEAD = """# Settings

Flags of the command line go before the environment, that before the defaults. Written by `scripts/settings_page.py`.

| variable | default | |
|---|---|---|
"""


def page() -> str:
    """The page as it should be."""
    rows = []
    for name, field in Settings.model_fields.items():
        variable = field.validation_alias if isinstance(field.validation_alias, str) else f"DIONYSUS_{name.upper()}"
        default = (
            ""
            if field.default is None
            else f"`{str(field.default).lower() if isinstance(field.default, bool) else field.default}`"
        )
        rows.append(f"| `{variable}` | {default} | {field.description} |")
    more = (
        "\n`openai:` models also read `OPENAI_API_KEY` and `OPENAI_BASE_URL`; `local:` models `DIONYSUS_MODELS`\n"
        "(where `dionysus model get` keeps weights, `~/.cache/dionysus/models` by default) and what `huggingface_hub`\n"
        "reads: `HF_HOME`, `HF_TOKEN`, `HF_ENDPOINT`.\n"
    )
    return HEAD + "\n".join(rows) + "\n" + more


if __name__ == "__main__":
    Path(__file__).parents[1].joinpath("docs", "settings.md").write_text(page())
