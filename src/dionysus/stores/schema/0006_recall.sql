-- Recall by an index of our own: FTS5 tells neither which words hit where, nor what lies beside a hit.
DROP TABLE memory_terms;

ALTER TABLE memories ADD COLUMN actor TEXT NOT NULL DEFAULT '';
ALTER TABLE memories ADD COLUMN tags TEXT NOT NULL DEFAULT '[]';   -- JSON
ALTER TABLE memories ADD COLUMN turn INTEGER;                      -- its place in the course of its session; NULL: it stands alone
CREATE INDEX memories_actor ON memories(actor) WHERE actor <> '';
-- Whose memories there are, found in any case.
CREATE TABLE actors (
  folded TEXT NOT NULL,
  actor  TEXT NOT NULL,
  PRIMARY KEY (folded, actor)
) WITHOUT ROWID;
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

-- What was told again in the same words: the memory it was joined to keeps where it came from.
CREATE TABLE retellings (
  memory_id INTEGER NOT NULL REFERENCES memories(id) ON DELETE CASCADE,
  source    TEXT NOT NULL,
  at        INTEGER NOT NULL,
  basin_id  INTEGER,
  run_id    TEXT,
  step      INTEGER,
  PRIMARY KEY (memory_id, source)
) WITHOUT ROWID;
-- Which memories a pattern was seen in.
CREATE TABLE evidence (
  pattern_id INTEGER NOT NULL REFERENCES memories(id) ON DELETE CASCADE,
  memory_id  INTEGER NOT NULL REFERENCES memories(id) ON DELETE CASCADE,
  PRIMARY KEY (pattern_id, memory_id)
) WITHOUT ROWID;
CREATE INDEX evidence_memory ON evidence(memory_id);
-- Memories that stand alone, by a digest of what they say, white space and case aside: duplicates have the same.
CREATE TABLE sayings (
  digest    BLOB NOT NULL,
  memory_id INTEGER NOT NULL REFERENCES memories(id) ON DELETE CASCADE,
  PRIMARY KEY (digest, memory_id)
) WITHOUT ROWID;
CREATE INDEX sayings_memory ON sayings(memory_id);
-- How far consolidation has looked.
CREATE TABLE consolidated (memory_id INTEGER NOT NULL);
INSERT INTO consolidated VALUES (0);

-- Basins that were active together: a < b.
CREATE TABLE co_activations (
  a      INTEGER NOT NULL REFERENCES basins(id) ON DELETE CASCADE,
  b      INTEGER NOT NULL REFERENCES basins(id) ON DELETE CASCADE,
  weight REAL NOT NULL,                      -- at `at`; it decays
  at     INTEGER NOT NULL,
  PRIMARY KEY (a, b)
) WITHOUT ROWID;
CREATE INDEX co_activations_b ON co_activations(b);

-- What was forgotten or merged leaves a graph too. Where a memory took another's place, its adding comes after this.
CREATE TRIGGER memory_removed AFTER DELETE ON memories BEGIN
  DELETE FROM changes WHERE kind = 'memory' AND key = CAST(OLD.id AS TEXT);
  INSERT INTO changes (kind, key) VALUES ('memory', OLD.id);
END;
CREATE TRIGGER basin_removed AFTER DELETE ON basins BEGIN
  DELETE FROM changes WHERE kind = 'basin' AND key = CAST(OLD.id AS TEXT);
  INSERT INTO changes (kind, key) VALUES ('basin', OLD.id);
END;
CREATE INDEX vectors_embedder ON vectors(embedder);
