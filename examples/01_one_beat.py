"""One heartbeat over this folder, in a store in memory: what changed, what to do next."""

from pathlib import Path

from dionysus import Runtime

with Runtime(store="sqlite://", model="reflex") as runtime:
    runtime.tell("look at the examples first")
    report = runtime.beat(watch=Path(__file__).parent)
    print(report.text)

    full = runtime.traces.get_trace(str(report.trace_id))
    for step in full.steps:
        tools = ", ".join(call.name for call in step.tool_calls)
        print(f"{step.step_type:<9} {step.step_number:>2}  {tools or f'coherence {step.coherence}'}")
