// version: 1
// What Dionysus needs of a graph. `dionysus store init` applies it; again it changes nothing.
// Statements end with a semicolon; what is here is also what `dionysus store status` looks for.

// Identity: what is shipped twice is there once, however many processes ship.
CREATE CONSTRAINT dionysus_graph_name IF NOT EXISTS
FOR (g:DionysusGraph) REQUIRE g.name IS UNIQUE;

CREATE CONSTRAINT agent_execution_trace_id IF NOT EXISTS
FOR (t:AgentExecutionTrace) REQUIRE t.id IS UNIQUE;

CREATE CONSTRAINT agent_execution_step_id IF NOT EXISTS
FOR (s:AgentExecutionStep) REQUIRE s.id IS UNIQUE;

CREATE CONSTRAINT attractor_basin_id IF NOT EXISTS
FOR (b:AttractorBasin) REQUIRE b.id IS UNIQUE;

CREATE CONSTRAINT agent_memory_id IF NOT EXISTS
FOR (m:AgentMemory) REQUIRE m.id IS UNIQUE;

// Lists, newest first: of all traces, of an agent, of a run, of a status.
CREATE INDEX agent_execution_trace_time IF NOT EXISTS
FOR (t:AgentExecutionTrace) ON (t.started_at);

CREATE INDEX agent_execution_trace_agent IF NOT EXISTS
FOR (t:AgentExecutionTrace) ON (t.agent_name);

CREATE INDEX agent_execution_trace_agent_time IF NOT EXISTS
FOR (t:AgentExecutionTrace) ON (t.agent_name, t.started_at);

CREATE INDEX agent_execution_trace_run IF NOT EXISTS
FOR (t:AgentExecutionTrace) ON (t.run_id);

CREATE INDEX agent_execution_trace_status_time IF NOT EXISTS
FOR (t:AgentExecutionTrace) ON (t.status, t.started_at);

CREATE INDEX agent_memory_run IF NOT EXISTS
FOR (m:AgentMemory) ON (m.run_id);
