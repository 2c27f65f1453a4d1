// What a memory came from, and what it was used in.
// $memory: its id, STORE/NUMBER.
MATCH (m:AgentMemory {id: $memory})
OPTIONAL MATCH (m)-[:LIES_IN]->(b:AttractorBasin)
OPTIONAL MATCH (made:AgentExecutionTrace)-[c:CREATED_MEMORY]->(m)
WITH m, b, collect(CASE WHEN made IS NOT NULL
     THEN {trace: made.id, agent: made.agent_name, at_step: c.at_step} END) AS makers
OPTIONAL MATCH (t:AgentExecutionTrace)-[r:RECALLED]->(m)
WITH m, b, makers, t, r ORDER BY t.started_at DESC, r.at_step
RETURN m.number AS number, m.kind AS kind, m.text AS text, m.at AS at, m.source AS source, m.place AS place,
       b.name AS basin, makers,
       collect(CASE WHEN t IS NOT NULL THEN {trace: t.id, agent: t.agent_name, status: t.status,
               started_at: t.started_at, at_step: r.at_step, score: r.score} END) AS uses
