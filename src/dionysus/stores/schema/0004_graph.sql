-- What a graph gets: each trace, step, link, basin and memory, in the order of its last change. A graph that has received
-- everything up to some `seq` lacks what comes behind it; what changes again moves to the end.
CREATE TABLE changes (
  seq  INTEGER PRIMARY KEY AUTOINCREMENT,
  kind TEXT NOT NULL,                        -- trace, step, activation, recall, basin, memory
  key  TEXT NOT NULL,                        -- the id; of edges a JSON array
  UNIQUE (kind, key)
);
-- How far each graph is, by the id that `dionysus store init` gave it.
CREATE TABLE shipments (
  graph_id   TEXT PRIMARY KEY,
  target     TEXT NOT NULL,                  -- URI and database, without user and password
  position   INTEGER NOT NULL,               -- `changes.seq` up to which it has everything, but what it refused
  met_at     INTEGER NOT NULL,               -- when it was last found at its target
  shipped_at INTEGER                         -- when something last arrived; NULL: nothing did
);
-- What a graph did not take, with the reason.
CREATE TABLE refusals (
  graph_id   TEXT NOT NULL,
  kind       TEXT NOT NULL,
  key        TEXT NOT NULL,
  reason     TEXT NOT NULL,
  refused_at INTEGER NOT NULL,
  PRIMARY KEY (graph_id, kind, key)
);
-- The last attempt at each target that failed; none where the last one went well.
CREATE TABLE shipping_failures (
  target    TEXT PRIMARY KEY,
  reason    TEXT NOT NULL,
  failed_at INTEGER NOT NULL,
  retry_at  INTEGER NOT NULL                 -- before that no process tries again
);
-- Sets apart what several stores ship to one graph: numbers of basins and memories are a store's own.
CREATE TABLE identity (store_id TEXT NOT NULL);
INSERT INTO identity VALUES (lower(hex(randomblob(8))));

-- Memories that a recall brought to a step.
CREATE TABLE recalls (
  trace_id  TEXT NOT NULL,
  memory_id INTEGER NOT NULL,
  at_step   INTEGER NOT NULL,
  score     REAL NOT NULL,
  PRIMARY KEY (trace_id, memory_id, at_step)
) WITHOUT ROWID;

-- An activation without a step was kept once more each time.
DELETE FROM basin_links WHERE at_step IS NULL AND rowid NOT IN (
  SELECT max(rowid) FROM basin_links WHERE at_step IS NULL GROUP BY trace_id, basin_id
);
CREATE UNIQUE INDEX basin_links_once ON basin_links(trace_id, basin_id, coalesce(at_step, ''));

INSERT INTO changes (kind, key) SELECT 'basin', id FROM basins ORDER BY id;
INSERT INTO changes (kind, key) SELECT 'memory', id FROM memories ORDER BY id;
INSERT INTO changes (kind, key) SELECT 'trace', id FROM traces ORDER BY started_at, id;
INSERT INTO changes (kind, key) SELECT 'step', id FROM steps ORDER BY rowid;
INSERT INTO changes (kind, key) SELECT 'activation', json_array(trace_id, basin_id, at_step) FROM basin_links;

-- Not INSERT OR REPLACE: within a trigger the conflict rule of the statement that fired it counts.
CREATE TRIGGER basin_added AFTER INSERT ON basins BEGIN
  DELETE FROM changes WHERE kind = 'basin' AND key = CAST(NEW.id AS TEXT);
  INSERT INTO changes (kind, key) VALUES ('basin', NEW.id);
END;
CREATE TRIGGER basin_changed AFTER UPDATE ON basins BEGIN
  DELETE FROM changes WHERE kind = 'basin' AND key = CAST(NEW.id AS TEXT);
  INSERT INTO changes (kind, key) VALUES ('basin', NEW.id);
END;
CREATE TRIGGER memory_added AFTER INSERT ON memories BEGIN
  DELETE FROM changes WHERE kind = 'memory' AND key = CAST(NEW.id AS TEXT);
  INSERT INTO changes (kind, key) VALUES ('memory', NEW.id);
END;
CREATE TRIGGER memory_changed AFTER UPDATE ON memories BEGIN
  DELETE FROM changes WHERE kind = 'memory' AND key = CAST(NEW.id AS TEXT);
  INSERT INTO changes (kind, key) VALUES ('memory', NEW.id);
END;
CREATE TRIGGER trace_added AFTER INSERT ON traces BEGIN
  DELETE FROM changes WHERE kind = 'trace' AND key = NEW.id;
  INSERT INTO changes (kind, key) VALUES ('trace', NEW.id);
END;
CREATE TRIGGER trace_changed AFTER UPDATE ON traces BEGIN
  DELETE FROM changes WHERE kind = 'trace' AND key = NEW.id;
  INSERT INTO changes (kind, key) VALUES ('trace', NEW.id);
END;
CREATE TRIGGER step_added AFTER INSERT ON steps BEGIN
  DELETE FROM changes WHERE kind = 'step' AND key = NEW.id;
  INSERT INTO changes (kind, key) VALUES ('step', NEW.id);
END;
CREATE TRIGGER step_changed AFTER UPDATE ON steps BEGIN
  DELETE FROM changes WHERE kind = 'step' AND key = NEW.id;
  INSERT INTO changes (kind, key) VALUES ('step', NEW.id);
END;
CREATE TRIGGER activation_added AFTER INSERT ON basin_links BEGIN
  DELETE FROM changes WHERE kind = 'activation' AND key = json_array(NEW.trace_id, NEW.basin_id, NEW.at_step);
  INSERT INTO changes (kind, key) VALUES ('activation', json_array(NEW.trace_id, NEW.basin_id, NEW.at_step));
END;
CREATE TRIGGER recall_added AFTER INSERT ON recalls BEGIN
  DELETE FROM changes WHERE kind = 'recall' AND key = json_array(NEW.trace_id, NEW.memory_id, NEW.at_step);
  INSERT INTO changes (kind, key) VALUES ('recall', json_array(NEW.trace_id, NEW.memory_id, NEW.at_step));
END;
