// Runs that share a basin with runs that failed, newest first.
// $run: only this run; null: all. $limit: rows at most.
MATCH (failed:AgentExecutionTrace {success: false})-[:ACTIVATED_BASIN]->(b:AttractorBasin)
WITH b, collect(DISTINCT failed.run_id) AS failed_runs
MATCH (t:AgentExecutionTrace)-[l:ACTIVATED_BASIN]->(b) WHERE $run IS NULL OR t.run_id = $run
WITH t, b, max(l.strength) AS strength, [run IN failed_runs WHERE run <> t.run_id] AS failed_runs
WHERE size(failed_runs) > 0
RETURN t.run_id AS run, t.id AS trace, t.agent_name AS agent, t.status AS status, t.started_at AS started_at,
       coalesce(b.name, '(forgotten)') AS basin, strength, size(failed_runs) AS failures, failed_runs[..5] AS failed_runs
ORDER BY started_at DESC, strength DESC, basin LIMIT $limit
