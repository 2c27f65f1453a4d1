-- Recall by an index of our own: FTS5 tells neither which words hit where, nor what lies beside a hit.
DROP TABLE memory_terms;

ALTER TABLE memories ADD COLUMN actor TEXT NOT NULL DEFAULT '';
ALTER TABLE memories ADD COLUMN tags TEXT NOT NULL DEFAULT '[]';   -- JSON
ALTER TABLE memories ADD COLUMN turn INTEGER;                      -- its place in the course of its session; NULL: it stands alone
CREATE INDEX memories_actor ON memories(actor COLLATE NOCASE) WHERE actor <> '';
CREATE INDEX memories_at ON memories(at);
DROP INDEX memories_basin;
CREATE INDEX memories_turn ON memories(basin_id, turn);

-- Where each word occurs, in blocks of memories by their id; an entry is laid out as `stores/memories.py` says.
CREATE TABLE postings (
  term    TEXT NOT NULL,
  block   INTEGER NOT NULL,
  entries BLOB NOT NULL,
  PRIMARY KEY (term, block)
) WITHOUT ROWID;
-- What the postings cover, written together with them: what differs from `memories` is built again.
CREATE TABLE index_state (
  form     INTEGER NOT NULL,                 -- how words and entries are made
  memories INTEGER NOT NULL,
  ids      INTEGER NOT NULL,                 -- their sum
  words    INTEGER NOT NULL
);
INSERT INTO index_state VALUES (0, 0, 0, 0);

-- What an embedder made of each memory; those of another embedder are made again.
CREATE TABLE embedders (
  id   INTEGER PRIMARY KEY,
  name TEXT NOT NULL UNIQUE
);
CREATE TABLE vectors (
  memory_id INTEGER PRIMARY KEY REFERENCES memories(id) ON DELETE CASCADE,
  embedder  INTEGER NOT NULL REFERENCES embedders(id),
  body      BLOB NOT NULL
);
CREATE INDEX basins_name ON basins(place, name);
CREATE INDEX basins_time ON basins(opened_at DESC, id DESC);
