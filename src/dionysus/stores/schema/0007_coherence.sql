-- What agents' finished runs say of how coherent they usually are, as `dionysus.assessing` measured it.
CREATE TABLE coherence (
  agent_name    TEXT NOT NULL,
  family        TEXT NOT NULL,              -- of tasks; '' where none was named
  detector      INTEGER NOT NULL,           -- version of the monitor
  calibrated_at INTEGER NOT NULL,
  runs          INTEGER NOT NULL,
  body          TEXT NOT NULL,              -- JSON: threshold, profile, habits
  PRIMARY KEY (agent_name, family)
) WITHOUT ROWID;
