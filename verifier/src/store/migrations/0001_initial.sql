-- Schema 1. Times are unix seconds; digests are text `sha256:<hex>`; names and keys of a TPM are
-- raw bytes. A migration that has been released is never edited: a later one changes what it left.

CREATE TABLE schema_migrations (
    version     INTEGER NOT NULL PRIMARY KEY,
    name        TEXT    NOT NULL,
    sha256      TEXT    NOT NULL,
    applied_at  INTEGER NOT NULL
);

-- Values of the whole installation: verifier id, counters.
CREATE TABLE settings (
    key    TEXT NOT NULL PRIMARY KEY,
    value  BLOB NOT NULL
);

CREATE TABLE nodes (
    name               TEXT    NOT NULL PRIMARY KEY CHECK (length(name) BETWEEN 1 AND 255),
    ek_digest          TEXT    NOT NULL UNIQUE CHECK (length(ek_digest) = 71),
    pool               TEXT    NOT NULL CHECK (length(pool) BETWEEN 1 AND 255),
    status             TEXT    NOT NULL CHECK (status IN ('pending', 'active', 'revoked')),
    ek_certificate     BLOB,
    ek_chain           TEXT    NOT NULL,   -- JSON array of hex DER
    manufacturer       TEXT,
    max_reset_count    INTEGER,
    max_restart_count  INTEGER,
    admitted_by        TEXT,               -- name of the admission rule
    note               TEXT    NOT NULL,
    created_by         TEXT    NOT NULL,
    created_at         INTEGER NOT NULL,
    approved_by        TEXT,
    approved_at        INTEGER,
    version            INTEGER NOT NULL CHECK (version >= 1)
);
CREATE INDEX nodes_by_pool ON nodes (pool, name);

CREATE TABLE boots (
    ak_name        BLOB    NOT NULL PRIMARY KEY,
    node           TEXT    NOT NULL REFERENCES nodes (name) ON DELETE CASCADE,
    reset_count    INTEGER NOT NULL,
    restart_count  INTEGER NOT NULL,
    record         BLOB    NOT NULL,   -- JSON, opaque here
    created_at     INTEGER NOT NULL,
    updated_at     INTEGER NOT NULL,
    version        INTEGER NOT NULL CHECK (version >= 1)
);
CREATE INDEX boots_by_node ON boots (node, created_at);

CREATE TABLE golden_sets (
    pool        TEXT    NOT NULL,
    version     INTEGER NOT NULL CHECK (version >= 1),
    name        TEXT    NOT NULL,
    document    BLOB    NOT NULL,          -- TOML as applied, byte for byte
    sha256      TEXT    NOT NULL,
    envelope    BLOB,                      -- signatures over the document, where there are any
    state       TEXT    NOT NULL
                CHECK (state IN ('proposed', 'signed', 'staged', 'active', 'retired')),
    applied_by  TEXT    NOT NULL,
    applied_at  INTEGER NOT NULL,
    PRIMARY KEY (pool, version)
);
CREATE UNIQUE INDEX golden_sets_one_active ON golden_sets (pool) WHERE state = 'active';

CREATE TABLE endorsements (
    sha256       TEXT    NOT NULL,
    kind         TEXT    NOT NULL CHECK (kind IN ('root', 'intermediate', 'crl')),
    der          BLOB    NOT NULL,
    label        TEXT    NOT NULL,
    imported_by  TEXT    NOT NULL,
    imported_at  INTEGER NOT NULL,
    PRIMARY KEY (kind, sha256)
);

CREATE TABLE admission_rules (
    name           TEXT    NOT NULL PRIMARY KEY,
    root_sha256    TEXT,                   -- NULL: any imported root
    manufacturer   TEXT,                   -- NULL: any
    pool           TEXT    NOT NULL,
    name_template  TEXT    NOT NULL,
    created_by     TEXT    NOT NULL,
    created_at     INTEGER NOT NULL
);

CREATE TABLE admins (
    name         TEXT    NOT NULL PRIMARY KEY,
    role         TEXT    NOT NULL CHECK (role IN ('viewer', 'operator', 'security')),
    spki_sha256  TEXT    NOT NULL UNIQUE,
    created_by   TEXT    NOT NULL,
    created_at   INTEGER NOT NULL,
    revoked_at   INTEGER
);

-- One hash chain a replica. Rows are never changed and never deleted.
CREATE TABLE audit_entries (
    replica     TEXT    NOT NULL,
    seq         INTEGER NOT NULL CHECK (seq >= 1),
    at          INTEGER NOT NULL,
    kind        TEXT    NOT NULL,
    actor       TEXT    NOT NULL,
    subject     TEXT    NOT NULL,
    body        BLOB    NOT NULL,
    prev_hash   BLOB    NOT NULL CHECK (length(prev_hash) = 32),
    entry_hash  BLOB    NOT NULL CHECK (length(entry_hash) = 32),
    PRIMARY KEY (replica, seq)
);
CREATE INDEX audit_entries_by_subject ON audit_entries (subject, at);

CREATE TRIGGER audit_entries_no_update BEFORE UPDATE ON audit_entries
BEGIN SELECT RAISE(ABORT, 'audit entries are never changed'); END;
CREATE TRIGGER audit_entries_no_delete BEFORE DELETE ON audit_entries
BEGIN SELECT RAISE(ABORT, 'audit entries are never deleted'); END;

-- What the entry (replica, seq) of kind `decision` says, in columns that can be searched.
CREATE TABLE decisions (
    id              TEXT    NOT NULL PRIMARY KEY,
    replica         TEXT    NOT NULL,
    seq             INTEGER NOT NULL,
    at              INTEGER NOT NULL,
    node            TEXT,
    ek_digest       TEXT,
    purpose         TEXT    NOT NULL,
    outcome         TEXT    NOT NULL CHECK (outcome IN ('admitted', 'denied', 'failed')),
    codes           TEXT    NOT NULL,      -- JSON array
    verdict_sha256  TEXT    NOT NULL,
    case_sha256     TEXT    NOT NULL,
    policy_version  TEXT    NOT NULL,
    UNIQUE (replica, seq),
    FOREIGN KEY (replica, seq) REFERENCES audit_entries (replica, seq)
);
CREATE INDEX decisions_by_at ON decisions (at);
CREATE INDEX decisions_by_node ON decisions (node, at);

CREATE TRIGGER decisions_no_update BEFORE UPDATE ON decisions
BEGIN SELECT RAISE(ABORT, 'decisions are never changed'); END;
CREATE TRIGGER decisions_no_delete BEFORE DELETE ON decisions
BEGIN SELECT RAISE(ABORT, 'decisions are never deleted'); END;

-- Bytes of a decision that retention may drop; their digests stay in `decisions`.
CREATE TABLE decision_evidence (
    decision_id  TEXT NOT NULL PRIMARY KEY REFERENCES decisions (id),
    verdict      BLOB NOT NULL,
    case_bytes   BLOB                      -- NULL: in the object folder
);

-- Objects that a decision with evidence needs.
CREATE TABLE decision_objects (
    decision_id  TEXT NOT NULL REFERENCES decisions (id),
    sha256       TEXT NOT NULL,
    PRIMARY KEY (decision_id, sha256)
);
CREATE INDEX decision_objects_by_sha256 ON decision_objects (sha256);

CREATE TABLE certificates (
    serial              TEXT    NOT NULL PRIMARY KEY,
    node                TEXT    NOT NULL,
    decision_id         TEXT    NOT NULL REFERENCES decisions (id),
    not_before          INTEGER NOT NULL,
    not_after           INTEGER NOT NULL,
    spki_sha256         TEXT    NOT NULL,
    certificate_sha256  TEXT,
    status              TEXT    NOT NULL CHECK (status IN ('intent', 'signed', 'revoked')),
    revoked_at          INTEGER,
    revocation_reason   TEXT
);
CREATE INDEX certificates_by_node ON certificates (node, not_after);
CREATE INDEX certificates_by_not_after ON certificates (status, not_after);

CREATE TRIGGER golden_sets_no_rewrite BEFORE UPDATE OF pool, version, name, document, sha256,
    applied_by, applied_at ON golden_sets
BEGIN SELECT RAISE(ABORT, 'a golden set is never rewritten'); END;
CREATE TRIGGER golden_sets_no_delete BEFORE DELETE ON golden_sets
BEGIN SELECT RAISE(ABORT, 'a golden set is never deleted'); END;
CREATE TRIGGER certificates_no_delete BEFORE DELETE ON certificates
BEGIN SELECT RAISE(ABORT, 'a certificate record is never deleted'); END;
CREATE TRIGGER certificates_no_rewrite BEFORE UPDATE OF serial, node, decision_id, not_before,
    not_after, spki_sha256 ON certificates
BEGIN SELECT RAISE(ABORT, 'a certificate record is never rewritten'); END;
