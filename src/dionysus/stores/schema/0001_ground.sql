-- Texts of any size, once each: `pack` in database.py replaces long strings by their digest.
CREATE TABLE texts (
  digest TEXT PRIMARY KEY,
  body   BLOB NOT NULL                       -- UTF-8, lone surrogates passed through
);

CREATE TABLE runs (
  run_id     TEXT PRIMARY KEY,
  agent_name TEXT NOT NULL,
  status     TEXT NOT NULL,
  started_at INTEGER NOT NULL,               -- microseconds since 1970, UTC; so in all tables
  holder     TEXT
);
CREATE INDEX runs_status ON runs(status);

-- The journal: append-only.
CREATE TABLE events (
  run_id   TEXT NOT NULL,
  seq      INTEGER NOT NULL,
  kind     TEXT NOT NULL,
  position TEXT NOT NULL,
  at       INTEGER NOT NULL,
  digest   TEXT,
  body     TEXT NOT NULL,                    -- packed JSON
  PRIMARY KEY (run_id, seq)
) WITHOUT ROWID;
CREATE INDEX events_position ON events(run_id, position);

CREATE TABLE traces (
  id         TEXT PRIMARY KEY,
  agent_name TEXT NOT NULL,
  run_id     TEXT NOT NULL,
  status     TEXT NOT NULL,
  success    INTEGER,
  started_at INTEGER NOT NULL,
  body       TEXT NOT NULL                   -- packed JSON of the whole record
);
CREATE INDEX traces_time ON traces(started_at DESC, id DESC);
CREATE INDEX traces_agent ON traces(agent_name, started_at DESC);
CREATE INDEX traces_run ON traces(run_id);

CREATE TABLE steps (
  trace_id TEXT NOT NULL,
  ord      INTEGER NOT NULL,
  id       TEXT NOT NULL UNIQUE,
  body     TEXT NOT NULL,
  PRIMARY KEY (trace_id, ord)
);

CREATE TABLE basin_links (
  trace_id TEXT NOT NULL,
  basin_id INTEGER NOT NULL,
  strength REAL NOT NULL,
  at_step  INTEGER,
  PRIMARY KEY (trace_id, basin_id, at_step)
);

CREATE TABLE basins (
  id           INTEGER PRIMARY KEY,
  name         TEXT NOT NULL,
  place        TEXT NOT NULL,
  opened_at    INTEGER NOT NULL,
  closed_at    INTEGER,
  activation   REAL NOT NULL,
  habituation  REAL NOT NULL,
  activated_at INTEGER
);

CREATE TABLE memories (
  id       INTEGER PRIMARY KEY,
  kind     TEXT NOT NULL,
  text     TEXT NOT NULL,
  at       INTEGER NOT NULL,
  source   TEXT NOT NULL,
  place    TEXT NOT NULL,
  basin_id INTEGER REFERENCES basins(id),
  run_id   TEXT,
  step     INTEGER,
  UNIQUE (place, source)
);
CREATE INDEX memories_kind ON memories(kind, at DESC);
CREATE INDEX memories_basin ON memories(basin_id);
CREATE INDEX memories_run ON memories(run_id);
-- The stems of each memory, as `dionysus.words` makes them; rowid = memories.id.
CREATE VIRTUAL TABLE memory_terms USING fts5(terms, tokenize = "unicode61 remove_diacritics 0 tokenchars '#'");

CREATE TABLE notes (
  id      INTEGER PRIMARY KEY,
  text    TEXT NOT NULL,
  at      INTEGER NOT NULL,
  read_in INTEGER
);

CREATE TABLE goals (
  id         INTEGER PRIMARY KEY,
  text       TEXT NOT NULL,
  status     TEXT NOT NULL,
  created_at INTEGER NOT NULL,
  due_at     INTEGER,
  progress   TEXT NOT NULL
);

CREATE TABLE mental_models (
  id          INTEGER PRIMARY KEY,
  place       TEXT NOT NULL,
  kind        TEXT NOT NULL,
  subject     TEXT NOT NULL,
  prediction  TEXT NOT NULL,
  held        INTEGER NOT NULL,
  failed      INTEGER NOT NULL,
  deadline_at INTEGER,
  settled     INTEGER NOT NULL,
  UNIQUE (place, kind, subject, prediction)
);

CREATE TABLE beats (
  number      INTEGER PRIMARY KEY,
  place       TEXT NOT NULL,
  status      TEXT NOT NULL,
  started_at  INTEGER NOT NULL,
  run_id      TEXT,
  reasons     TEXT NOT NULL,
  report      TEXT NOT NULL,
  next_action TEXT,
  snapshot    TEXT
);
CREATE INDEX beats_place ON beats(place, number DESC);
