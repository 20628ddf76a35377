-- Schema 5: what ends permits is found without reading a node's whole history, or the whole chain.

-- Denials of a node since a permit was given.
CREATE INDEX decisions_not_admitted ON decisions (node, replica, seq) WHERE outcome <> 'admitted';
-- Changes of what nodes are judged by since then; queries repeat the condition word for word.
CREATE INDEX audit_entries_of_grounds ON audit_entries (replica, seq)
    WHERE kind IN ('endorsement', 'golden-set', 'policy', 'security-keys');
-- Permits that a denial ends.
CREATE INDEX permits_not_ended ON permits (node, ends_at) WHERE state <> 'ended';
