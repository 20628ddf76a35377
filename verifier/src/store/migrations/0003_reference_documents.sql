-- Schema 3: golden sets, parts that they include, site policies and the ring of security keys live one life:
-- observed, proposed, signed, staged, active, retired. Sets of schema 1 were never signed: they stay for the
-- record and are in force no more.

CREATE TABLE reference_documents (
    kind             TEXT    NOT NULL CHECK (kind IN ('golden', 'policy', 'keys')),
    name             TEXT    NOT NULL CHECK (length(name) BETWEEN 1 AND 63),
    version          INTEGER NOT NULL CHECK (version >= 1),
    pool             TEXT,                     -- of a golden set; NULL: a part, or another kind
    document         BLOB    NOT NULL,         -- TOML as proposed, byte for byte
    sha256           TEXT    NOT NULL CHECK (length(sha256) = 71),
    payload          BLOB    NOT NULL,         -- canonical JSON of it: what is signed
    state            TEXT    NOT NULL
                     CHECK (state IN ('observed', 'proposed', 'signed', 'staged', 'active', 'retired')),
    origin           TEXT    NOT NULL,         -- where it comes from, in words
    proposed_by      TEXT    NOT NULL,
    proposed_at      INTEGER NOT NULL,
    approved_under   INTEGER,                  -- version of the ring of keys that staged or activated it
    PRIMARY KEY (kind, name, version)
);
CREATE INDEX reference_documents_by_sha256 ON reference_documents (sha256);
CREATE INDEX reference_documents_by_state ON reference_documents (state);

CREATE TABLE reference_signatures (
    kind       TEXT    NOT NULL,
    name       TEXT    NOT NULL,
    version    INTEGER NOT NULL,
    key_id     TEXT    NOT NULL CHECK (length(key_id) = 71),
    signature  BLOB    NOT NULL,
    added_by   TEXT    NOT NULL,
    added_at   INTEGER NOT NULL,
    PRIMARY KEY (kind, name, version, key_id),
    FOREIGN KEY (kind, name, version) REFERENCES reference_documents (kind, name, version)
);

-- Then a version was one of its pool: names that two pools had are told apart by the pool.
INSERT INTO reference_documents
    SELECT 'golden',
           CASE WHEN (SELECT count(DISTINCT pool) FROM golden_sets other WHERE other.name = golden_sets.name) > 1
                THEN substr(golden_sets.name, 1, 20) || '.' || substr(lower(hex(pool)), 1, 40)
                ELSE golden_sets.name END,
           version, pool, document, sha256, x'', 'retired', 'schema 1', applied_by, applied_at, NULL
    FROM golden_sets ORDER BY pool, version;
DROP TABLE golden_sets;

CREATE TRIGGER reference_documents_no_rewrite BEFORE UPDATE OF kind, name, version, pool, document, sha256,
    payload, origin, proposed_by, proposed_at ON reference_documents
BEGIN SELECT RAISE(ABORT, 'a reference document is never rewritten'); END;
CREATE TRIGGER reference_documents_no_delete BEFORE DELETE ON reference_documents
BEGIN SELECT RAISE(ABORT, 'a reference document is never deleted'); END;
CREATE TRIGGER reference_documents_never_again BEFORE UPDATE OF state ON reference_documents
    WHEN OLD.state = 'retired'
BEGIN SELECT RAISE(ABORT, 'a retired document is never used again'); END;
CREATE TRIGGER reference_signatures_no_rewrite BEFORE UPDATE ON reference_signatures
BEGIN SELECT RAISE(ABORT, 'a signature is never rewritten'); END;
CREATE TRIGGER reference_signatures_no_delete BEFORE DELETE ON reference_signatures
BEGIN SELECT RAISE(ABORT, 'a signature is never deleted'); END;
