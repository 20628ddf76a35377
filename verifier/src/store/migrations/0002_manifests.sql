-- Schema 2: manifests of files that the kernel's IMA list may name. Golden sets and recorded decisions
-- name them by digest, so that none is ever changed or removed.

CREATE TABLE manifests (
    sha256       TEXT    NOT NULL PRIMARY KEY CHECK (length(sha256) = 71),
    name         TEXT    NOT NULL,
    files        INTEGER NOT NULL,
    document     BLOB    NOT NULL,
    imported_by  TEXT    NOT NULL,
    imported_at  INTEGER NOT NULL
);

CREATE TRIGGER manifests_no_rewrite BEFORE UPDATE ON manifests
BEGIN SELECT RAISE(ABORT, 'a manifest is never rewritten'); END;
CREATE TRIGGER manifests_no_delete BEFORE DELETE ON manifests
BEGIN SELECT RAISE(ABORT, 'a manifest is never deleted'); END;
