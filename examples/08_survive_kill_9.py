"""A run that is killed with SIGKILL, and goes on: what it had finished is not done again.

The same program runs twice under one run id. The first time it is killed in the middle of its third page.
"""

import os
import signal
import subprocess
import sys
import tempfile

from smolagents import LogLevel, Model, ToolCallingAgent, tool
from smolagents.models import MessageRole

from dionysus import Runtime
from dionysus.models.scripted import ScriptedModel

folder = sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp()


@tool  # type: ignore[untyped-decorator]
def read(page: int) -> str:
    """Reads a page.

    Args:
        page: Its number.
    """
    print(f"  reading page {page}", flush=True)
    if page == 3 and len(sys.argv) > 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return f"what page {page} says"


read.idempotent = True  # it may be made again where it is not known whether it was made; else the agent would be told


class Reader(Model):
    """Reads five pages, then answers: it goes by what it is shown, as an LLM does."""

    def generate(self, messages, stop_sequences=None, **options):  # type: ignore[no-untyped-def]
        pages = sum(message.role == MessageRole.TOOL_CALL for message in messages)
        call = {"name": "read", "arguments": {"page": pages + 1}}
        last = {"name": "final_answer", "arguments": {"answer": "five pages read"}}
        turn = {"thought": "on", "calls": [call if pages < 5 else last]}
        return ScriptedModel([turn]).generate(messages, ["Observation:"])


with Runtime(store=f"sqlite:///{folder}/mind.db") as runtime:
    if len(sys.argv) == 1:
        print("the first process:")
        done = subprocess.run([sys.executable, __file__, folder], check=False)
        print(f"  it was killed ({done.returncode})\nthe second one:")
    agent = ToolCallingAgent([read], Reader(model_id="reader"), verbosity_level=LogLevel.OFF)
    result = runtime.attach(agent).run("Read the book.", run_id="book")
    print(result.output, "·", result.model_calls, "model calls in all")
