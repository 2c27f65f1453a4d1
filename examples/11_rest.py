"""The REST endpoints: serve a store, list its traces, read one again, sum up the tokens."""

import json
import subprocess
import sys
from pathlib import Path
from urllib.parse import quote
from urllib.request import Request, urlopen

from dionysus import Runtime

Path("watched").mkdir(exist_ok=True)
Path("watched/a.py").write_text("x = 1\n")
with Runtime() as runtime:
    runtime.beat("watched")

command = [sys.executable, "-m", "dionysus", "serve", "--port", "0"]  # `dionysus serve`; 0: any free port
server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
assert server.stdout is not None
url = server.stdout.readline().split()[1].removesuffix(";")
token = Path(".dionysus/mind.db-token").read_text().strip()  # made at first start, readable by you only


def get(path: str, accept: str = "application/json") -> str:
    """The answer to a request that carries the token."""
    headers = {"Authorization": f"Bearer {token}", "Accept": accept}
    with urlopen(Request(path, headers=headers)) as answer:
        return str(answer.read().decode())


try:
    page = json.loads(get(f"{url}?agent=heartbeat&limit=5"))
    for trace in page["traces"]:
        print(trace["id"], trace["status"], trace["step_count"], "actions; more:", page["next_cursor"] is not None)
    print(get(f"{url}/{quote(trace['id'], safe='')}/replay", accept="text/plain")[:400])
    print(json.loads(get(url.replace("/traces", "/token-usage")))["total"])
finally:
    server.terminate()
    server.communicate()
