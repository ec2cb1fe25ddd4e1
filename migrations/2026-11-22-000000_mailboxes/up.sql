-- What names this database, and the row whose update proves that the disk takes writes again after
-- a failure. One row.
CREATE TABLE database_state (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    epoch TEXT NOT NULL,
    create_time_us INTEGER NOT NULL,
    recover_time_us INTEGER
) STRICT;

CREATE TABLE users (
    id INTEGER PRIMARY KEY,
    -- As registered.
    name TEXT NOT NULL,
    -- In lower case: the form in which names are unique, and the order in which they are listed.
    name_key TEXT NOT NULL UNIQUE,
    ip_address TEXT NOT NULL,
    register_time_us INTEGER NOT NULL,
    last_seen_time_us INTEGER,
    acknowledged_through INTEGER NOT NULL DEFAULT 0
) STRICT;

CREATE TABLE tokens (
    -- SHA-256 of the token's 32 bytes.
    hash BLOB PRIMARY KEY CHECK (length(hash) = 32),
    user_id INTEGER NOT NULL REFERENCES users (id),
    create_time_us INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- The log: the truth. One row a message, appended in commit order and never changed. It names the
-- mailboxes that the message enters and under which sequences, so that every index below can be
-- made again from it. The checksum covers all other columns.
CREATE TABLE message_log (
    position INTEGER PRIMARY KEY,
    -- UUIDv7, 16 bytes.
    message_id BLOB NOT NULL,
    sender_id INTEGER NOT NULL,
    sender_sequence INTEGER NOT NULL,
    -- The sender again for a note to self, under the same sequence.
    receiver_id INTEGER NOT NULL,
    receiver_sequence INTEGER NOT NULL,
    send_time_us INTEGER NOT NULL,
    request_id TEXT,
    content_type TEXT NOT NULL,
    -- 0: text, 1: data.
    body_kind INTEGER NOT NULL,
    body BLOB NOT NULL,
    -- XXH3-64.
    checksum INTEGER NOT NULL
) STRICT;

-- Derived: a mailbox's entries in order.
CREATE TABLE mailbox_entries (
    owner_id INTEGER NOT NULL,
    sequence INTEGER NOT NULL,
    position INTEGER NOT NULL,
    -- 1: the owner received it (a note to self included), 0: they only sent it.
    received INTEGER NOT NULL,
    PRIMARY KEY (owner_id, sequence)
) STRICT, WITHOUT ROWID;

-- Derived: what two users sent each other. One entry serves both mailboxes, since entries of both
-- are in the order of the log.
CREATE TABLE conversation_entries (
    low_user_id INTEGER NOT NULL,
    high_user_id INTEGER NOT NULL,
    position INTEGER NOT NULL,
    -- 1: from the low to the high user (a note to self included), 0: from the high to the low one.
    low_user_sent INTEGER NOT NULL,
    PRIMARY KEY (low_user_id, high_user_id, position)
) STRICT, WITHOUT ROWID;

-- Derived: which message a sender's idempotency key stands for.
CREATE TABLE request_ids (
    sender_id INTEGER NOT NULL,
    request_id TEXT NOT NULL,
    position INTEGER NOT NULL,
    PRIMARY KEY (sender_id, request_id)
) STRICT, WITHOUT ROWID;
