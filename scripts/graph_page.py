"""Writes the queries of docs/graph.md from those that are asked; a test compares the two."""

import re
from pathlib import Path

from dionysus.stores.neo4j import QUESTIONS

PAGE = Path(__file__).parents[1] / "docs" / "graph.md"
_BLOCKS = re.compile(r"```cypher\n.*```\n", re.DOTALL)


def page() -> str:
    """The page as it should be."""
    blocks = "\n".join(f"```cypher\n{question.cypher}```\n" for question in QUESTIONS)
    return _BLOCKS.sub(lambda _: blocks, PAGE.read_text())


if __name__ == "__main__":
    PAGE.write_text(page())
