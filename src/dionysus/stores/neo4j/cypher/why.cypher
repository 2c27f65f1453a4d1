// Which memories and basins led to an action: what was recalled and activated before it – by its own agent, by the
// agents that handed the work down to it, and by those that it had called by then.
// $trace: id of the trace; $step: number of the action.
MATCH up = (:AgentExecutionTrace {id: $trace})-[:DELEGATED_FROM*0..]->(t:AgentExecutionTrace)
WITH t, CASE length(up) WHEN 0 THEN $step ELSE last(relationships(up)).at_step END AS before
MATCH (t)-[r:RECALLED|ACTIVATED_BASIN]->(x) WHERE r.at_step < before
RETURN type(r) AS link, x.number AS number, coalesce(x.source, x.name, '(forgotten)') AS what, x.text AS text,
       coalesce(r.score, r.strength) AS weight, t.agent_name AS agent, t.id AS trace, r.at_step AS at_step
UNION
MATCH down = (t:AgentExecutionTrace)-[:DELEGATED_FROM*1..]->(:AgentExecutionTrace {id: $trace})
WHERE last(relationships(down)).at_step < $step
MATCH (t)-[r:RECALLED|ACTIVATED_BASIN]->(x)
RETURN type(r) AS link, x.number AS number, coalesce(x.source, x.name, '(forgotten)') AS what, x.text AS text,
       coalesce(r.score, r.strength) AS weight, t.agent_name AS agent, t.id AS trace, r.at_step AS at_step
