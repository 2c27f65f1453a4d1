// Who handed work to whom: the agents below a trace, with the tokens that each took itself.
// $trace: id of the trace.
MATCH path = (t:AgentExecutionTrace)-[:DELEGATED_FROM*0..]->(:AgentExecutionTrace {id: $trace})
OPTIONAL MATCH (t)-[d:DELEGATED_FROM]->(p:AgentExecutionTrace)
RETURN t.id AS trace, length(path) AS depth, CASE length(path) WHEN 0 THEN null ELSE p.id END AS parent,
       CASE length(path) WHEN 0 THEN null ELSE d.at_step END AS at_step, t.agent_name AS agent, t.status AS status,
       t.step_count AS actions, t.model_calls AS model_calls, t.input_tokens AS input_tokens,
       t.cached_tokens AS cached_tokens, t.output_tokens AS output_tokens, t.cost_usd AS cost_usd,
       t.started_at AS started_at
ORDER BY depth, started_at, trace
