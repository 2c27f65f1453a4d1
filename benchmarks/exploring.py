"""Made-up runs in which this project's files are searched and read: what they see is real, what they think is not."""

import random
import re
from pathlib import Path
from typing import Any


def exploring_runs(count: int) -> list[dict[str, Any]]:
    """So many runs, in the form of recorded ones; the same each time."""
    root = Path(__file__).parents[1] / "src"
    texts = {str(path.relative_to(root)): path.read_text() for path in sorted(root.rglob("*.py"))}
    defined = sorted(
        (name, path)
        for path, text in texts.items()
        for name in re.findall(r"^ *(?:class|def) ([A-Za-z]\w{5,})", text, re.M)
    )
    return [_run(number, texts, defined) for number in range(count)]


def _run(number: int, texts: dict[str, str], defined: list[tuple[str, str]]) -> dict[str, Any]:
    chance = random.Random(f"exploring {number}")
    name, path = chance.choice(defined)
    folder = path.rpartition("/")[0]
    seen = {name}
    steps = [_step(f"I look for {name} in {folder}.", f"ls {folder}", _listing(texts, folder))]
    for _ in range(chance.randrange(3, 6)):
        found = _grep(texts, name)
        steps.append(_step(f"Where is {name} used?", f"grep -rn {name} .", found))
        places = re.findall(r"^(\S+?):(\d+):", found, re.M)
        path, line = chance.choice(places)
        text = _lines(texts[path], int(line))
        steps.append(_step(f"{name} is in {path}, line {line}; I read it.", f"sed -n '{line},+12p' {path}", text))
        steps.append(
            _step(f"What does {path} import?", f"grep -n import {path}", _grep({path: texts[path]}, "import "))
        )
        inside = [n for n in re.findall(r"\b([A-Za-z]\w{5,})\(", text) if any(n == d for d, _ in defined)]
        here = [n for n, p in defined if p == path]
        name = chance.choice([n for n in inside or here if n not in seen] or [n for n, _ in defined if n not in seen])
        seen.add(name)
    return {
        "id": f"exploring-{number}",
        "prefix": [{"role": "user", "content": f"Explain what {steps[0]['thought'].split()[3]} does and who uses it."}],
        "steps": steps,
        "success": True,
    }


def _step(thought: str, action: str, seen: str) -> dict[str, Any]:
    return {"thought": thought, "action": action, "raw": action, "obs": seen, "rc": 0}


def _listing(texts: dict[str, str], folder: str) -> str:
    return "\n".join(f"{len(text):>8} {path}" for path, text in texts.items() if path.rpartition("/")[0] == folder)


def _grep(texts: dict[str, str], what: str) -> str:
    found = [
        f"{path}:{number}:{line.strip()}"
        for path, text in texts.items()
        for number, line in enumerate(text.splitlines(), 1)
        if what in line
    ]
    return "\n".join(found[:25])


def _lines(text: str, first: int) -> str:
    lines = text.splitlines()[first - 1 : first + 12]
    return "\n".join(f"{number:>6}\t{line}" for number, line in enumerate(lines, first))
