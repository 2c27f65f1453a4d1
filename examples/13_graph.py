"""Traces in Neo4j: ship them, and ask what only a graph answers. Set NEO4J_URI and NEO4J_PASSWORD before."""

import sys
from pathlib import Path

from dionysus import Runtime
from dionysus.errors import DionysusError

Path("watched").mkdir(exist_ok=True)
with Runtime() as runtime:
    for text in ("tides = 1\n", "tides = 2  # the tide table counts\n"):
        Path("watched/tides.py").write_text(text)
        runtime.beat("watched")
    runtime.remember("The tide table hangs in the attic.")
    answer = runtime.ask("Where does the tide table hang?", "watched")  # all of it is kept, whatever Neo4j does
    try:
        shipper = runtime.shipper
        shipper.initialise()  # once; `dionysus store init`
        shipper.ship()  # it would go by itself, in the background
    except DionysusError as error:
        sys.exit(f"no graph: {error}")
    print("waiting:", shipper.backlog().waiting)

    for agent in runtime.lineage.delegation(answer.run_id):
        print("  " * agent.depth + agent.agent, agent.model_calls, "calls", agent.input_tokens, "tokens in")
    number, causes = runtime.lineage.why(answer.run_id)
    for cause in causes:
        print(f"before action {number}:", cause.link, cause.what, f"{cause.weight:.2f}")

    count = "MATCH (t:AgentExecutionTrace)-[:HAS_STEP]->(s) RETURN count(DISTINCT t) AS traces, count(s) AS steps"
    print(shipper.graph.read(lambda tx: tx.run(count).data()))
