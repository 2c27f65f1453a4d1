-- Runs that go on, and runs that share the beginning of another.
ALTER TABLE runs ADD COLUMN request TEXT NOT NULL DEFAULT '{}';   -- packed JSON: what was asked for
ALTER TABLE runs ADD COLUMN parent TEXT;                          -- the run it was forked from …
ALTER TABLE runs ADD COLUMN parent_seq INTEGER;                   -- … up to and with this event
DROP INDEX events_position;                                       -- a run's events are read in order, as a whole
CREATE INDEX runs_time ON runs(started_at DESC, run_id DESC);

-- What model calls took, by UTC day, over all processes: what a daily budget is held against.
CREATE TABLE spending (
  day           TEXT PRIMARY KEY,
  calls         INTEGER NOT NULL,
  input_tokens  INTEGER NOT NULL,
  output_tokens INTEGER NOT NULL,
  cost_usd      REAL NOT NULL,
  unpriced      INTEGER NOT NULL             -- calls whose price is not known
);
