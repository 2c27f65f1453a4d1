// Runs that share a basin with runs that failed, newest first.
// $run: only this run; null: all. $limit: rows at most.
MATCH (failed:AgentExecutionTrace {success: false})-[:ACTIVATED_BASIN]->(b:AttractorBasin)
WITH b, min(failed.run_id) AS first, max(failed.run_id) AS last
MATCH (t:AgentExecutionTrace)-[l:ACTIVATED_BASIN]->(b)
WHERE ($run IS NULL OR t.run_id = $run) AND (first <> last OR t.run_id <> first)
WITH t, b, max(l.strength) AS strength
ORDER BY t.started_at DESC, strength DESC, b.name LIMIT $limit
MATCH (failed:AgentExecutionTrace {success: false})-[:ACTIVATED_BASIN]->(b) WHERE failed.run_id <> t.run_id
WITH t, b, strength, collect(DISTINCT failed.run_id) AS failed_runs
RETURN t.run_id AS run, t.id AS trace, t.agent_name AS agent, t.status AS status, t.started_at AS started_at,
       coalesce(b.name, '(forgotten)') AS basin, strength, size(failed_runs) AS failures, failed_runs[..5] AS failed_runs
ORDER BY started_at DESC, strength DESC, basin
