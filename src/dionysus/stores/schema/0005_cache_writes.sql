-- Tokens that were written to a provider's cache, and sums per run and per day.
ALTER TABLE traces ADD COLUMN cache_write_tokens INTEGER AS (CASE WHEN json_valid(body) THEN json_extract(body, '$.cache_write_tokens') END) VIRTUAL;
DROP INDEX traces_usage;
CREATE INDEX traces_usage ON traces(
  agent_name, started_at, status, model_calls, input_tokens, cached_tokens, cache_write_tokens, output_tokens,
  tokens_saved, cost_usd, unpriced, estimated
);
