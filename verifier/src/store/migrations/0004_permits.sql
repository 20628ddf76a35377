-- Schema 4: permits of jobs. A permit is issued with its decision, redeemed once, and ends.

CREATE TABLE permits (
    id              TEXT    NOT NULL PRIMARY KEY CHECK (length(id) = 32),
    secret_sha256   TEXT    NOT NULL UNIQUE CHECK (length(secret_sha256) = 71),
    decision_id     TEXT    NOT NULL UNIQUE REFERENCES decisions (id),
    node            TEXT    NOT NULL,
    pool            TEXT    NOT NULL,
    ak_name         BLOB    NOT NULL,      -- the boot that it rests on
    job_key         BLOB    NOT NULL,      -- DER SubjectPublicKeyInfo
    claims          BLOB    NOT NULL,      -- canonical JSON, each claim with its source
    basis           BLOB    NOT NULL,      -- JSON: what of its node the permit rests on
    token_id        TEXT    UNIQUE,        -- issuer and jti of the CI system's token: one permit a token
    issued_at       INTEGER NOT NULL,
    redeem_by       INTEGER NOT NULL,
    ends_at         INTEGER NOT NULL,
    state           TEXT    NOT NULL CHECK (state IN ('issued', 'redeemed', 'ended')),
    sequence        INTEGER NOT NULL,      -- of the last request about it
    redeemed_at     INTEGER,
    ended_at        INTEGER,
    end_reason      TEXT
);
CREATE INDEX permits_by_node ON permits (node, issued_at);

CREATE TRIGGER permits_no_rewrite BEFORE UPDATE OF id, secret_sha256, decision_id, node, pool, ak_name,
    job_key, claims, basis, token_id, issued_at, redeem_by, ends_at ON permits
BEGIN SELECT RAISE(ABORT, 'a permit is never rewritten'); END;
CREATE TRIGGER permits_no_revival BEFORE UPDATE OF state ON permits
    WHEN OLD.state <> NEW.state AND (OLD.state = 'ended' OR NEW.state = 'issued')
BEGIN SELECT RAISE(ABORT, 'a permit is for one use'); END;
CREATE TRIGGER permits_no_delete BEFORE DELETE ON permits
BEGIN SELECT RAISE(ABORT, 'a permit record is never deleted'); END;
