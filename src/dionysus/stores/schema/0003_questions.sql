-- What is asked of many traces at once: filtered in the order of time, and summed up without reading their bodies.
-- A body that is damaged counts for nothing, and leaves the others alone.
DROP INDEX traces_agent;
CREATE INDEX traces_agent ON traces(agent_name, started_at DESC, id DESC);
CREATE INDEX traces_status ON traces(status, started_at DESC, id DESC);
CREATE INDEX traces_success ON traces(success, started_at DESC, id DESC);

ALTER TABLE traces ADD COLUMN model_calls   INTEGER AS (CASE WHEN json_valid(body) THEN json_extract(body, '$.model_calls') END) VIRTUAL;
ALTER TABLE traces ADD COLUMN input_tokens  INTEGER AS (CASE WHEN json_valid(body) THEN json_extract(body, '$.input_tokens') END) VIRTUAL;
ALTER TABLE traces ADD COLUMN cached_tokens INTEGER AS (CASE WHEN json_valid(body) THEN json_extract(body, '$.cached_tokens') END) VIRTUAL;
ALTER TABLE traces ADD COLUMN output_tokens INTEGER AS (CASE WHEN json_valid(body) THEN json_extract(body, '$.output_tokens') END) VIRTUAL;
ALTER TABLE traces ADD COLUMN tokens_saved  INTEGER AS (CASE WHEN json_valid(body) THEN json_extract(body, '$.tokens_saved') END) VIRTUAL;
ALTER TABLE traces ADD COLUMN cost_usd      REAL    AS (CASE WHEN json_valid(body) THEN json_extract(body, '$.cost_usd') END) VIRTUAL;
ALTER TABLE traces ADD COLUMN unpriced      INTEGER AS (CASE WHEN json_valid(body) THEN json_type(body, '$.cost_usd') = 'null' END) VIRTUAL;
ALTER TABLE traces ADD COLUMN estimated     INTEGER AS (CASE WHEN json_valid(body) THEN json_extract(body, '$.usage_estimated') END) VIRTUAL;
CREATE INDEX traces_usage ON traces(
  agent_name, started_at, status, model_calls, input_tokens, cached_tokens, output_tokens, tokens_saved, cost_usd,
  unpriced, estimated
);
