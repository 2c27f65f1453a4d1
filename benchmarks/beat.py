"""How long a beat on `reflex` takes over a folder of 5,000 files: the first, one with changes, an idle one.

Beats run in this process, without the start of Python; `process_s` is a whole `dionysus beat` with it.
"""

import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from dionysus import Runtime

FILES = 5_000
CHANGED = 20


def run(*, short: bool, seed: int, data: Path | None) -> dict[str, Any]:
    """Seconds, as medians over the rounds."""
    rounds = [_round(seed + n, data) for n in range(2 if short else 7)]
    return {
        "files": rounds[0]["files"],
        "rounds": len(rounds),
        **{f"{name}_s": round(median(r[name] for r in rounds), 3) for name in ("first", "changed", "idle", "process")},
    }


def _round(seed: int, data: Path | None) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        watch = data or _made_up(Path(folder) / "watched", random.Random(seed))
        store = f"sqlite:///{folder}/mind.db"
        with Runtime(store=store) as runtime:
            first = _timed(runtime, watch)
            if data is None:
                for number in range(CHANGED):
                    path = watch / f"package_{number}" / "module_0.py"
                    path.write_text(path.read_text() + f"\n\ndef added_{seed}():\n    return {number}\n")
            else:
                runtime.tell("something to wake for")
            changed = _timed(runtime, watch)
            idle = _timed(runtime, watch)
        began = time.perf_counter()
        command = [sys.executable, "-m", "dionysus", "beat", "-q", "--watch", str(watch)]
        subprocess.run([*command, "--store", f"sqlite:///{folder}/other.db"], check=True, capture_output=True)
        files = sum(p.is_file() for p in watch.rglob("*") if ".git" not in p.parts)
        return {
            "files": files,
            "first": first,
            "changed": changed,
            "idle": idle,
            "process": time.perf_counter() - began,
        }


def _timed(runtime: Runtime, watch: Path) -> float:
    began = time.perf_counter()
    runtime.beat(watch)
    return time.perf_counter() - began


def _made_up(root: Path, chance: random.Random) -> Path:
    """A repository of 5,000 files, most of them small sources, in one commit."""
    for number in range(FILES):
        path = root / f"package_{number % 100}" / f"module_{number // 100}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = [f"def function_{number}_{i}(x):\n    return x + {chance.random()}\n" for i in range(10)]
        path.write_text(f'"""Module {number}."""\n\n' + "\n\n".join(lines))
    git = ["git", "-C", str(root), "-c", "user.name=bench", "-c", "user.email=bench@example.org"]
    for arguments in (["init", "-q"], ["add", "-A"], ["commit", "-q", "-m", "Made up"]):
        subprocess.run([*git, *arguments], check=True, capture_output=True)
    return root
