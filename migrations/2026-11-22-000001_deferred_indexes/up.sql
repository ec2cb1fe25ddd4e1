-- The indexes are merged from the log in key order, long after the commit that appended to it. They
-- are derived, so the old ones are dropped and made again from the log when the store is opened.
DROP TABLE mailbox_entries;
DROP TABLE conversation_entries;
DROP TABLE request_ids;

-- How far the indexes go. One row.
CREATE TABLE index_state (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    -- The indexes hold all of the log up to this position.
    merged_through INTEGER NOT NULL,
    -- A merge is under way up to this position; equal to merged_through when none is. What it has
    -- written already is written again, the same, if it is cut off.
    merging_through INTEGER NOT NULL,
    -- 16 random bytes that go into every request key, so that nobody can make two ids collide.
    request_salt BLOB NOT NULL
) STRICT;

-- Derived: what is in no index yet. One row a commit, with the place of each of its messages, so that
-- the entries are in memory quickly after a start. Deleted when they are merged.
CREATE TABLE pending_entries (
    -- The position of the commit's first message.
    first_position INTEGER PRIMARY KEY,
    -- For each message: sender and sequence, receiver and sequence, request key.
    entries BLOB NOT NULL,
    -- XXH3-64 over both.
    checksum INTEGER NOT NULL
) STRICT;

-- Derived: a mailbox's entries in runs. The entry at place i of a run has the sequence
-- first_sequence + i.
CREATE TABLE mailbox_runs (
    owner_id INTEGER NOT NULL,
    first_sequence INTEGER NOT NULL,
    -- For each entry: its position in the log, whether the owner received it, and the other user.
    entries BLOB NOT NULL,
    PRIMARY KEY (owner_id, first_sequence)
) STRICT, WITHOUT ROWID;

-- Derived: which message a sender's idempotency key stands for. Different request ids with the same
-- key are told apart by the log's row.
CREATE TABLE request_keys (
    -- The first 8 bytes of SHA-256 over the salt, the sender and the request id.
    request_key INTEGER NOT NULL,
    position INTEGER NOT NULL,
    PRIMARY KEY (request_key, position)
) STRICT, WITHOUT ROWID;
