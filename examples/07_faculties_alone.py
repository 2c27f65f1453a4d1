"""Perception, reasoning and metacognition without a manager: each is an agent that runs alone."""

from dionysus import MetacognitionAgent, PerceptionAgent, Runtime

with Runtime(store="sqlite://") as runtime, runtime.senses(".") as senses:
    for kind in (PerceptionAgent, MetacognitionAgent):
        agent = kind(kind.tools_over(senses), runtime.model)
        print(f"{agent.name}:", runtime.attach(agent).run("What is there to do here?").output, sep="\n", end="\n\n")
