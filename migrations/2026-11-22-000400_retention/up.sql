-- Where mailboxes begin, of those that have lost entries. The others begin with 1.
CREATE TABLE mailboxes (
    owner_id INTEGER PRIMARY KEY,
    -- The first entry that the mailbox still has; one after the last when it has none.
    first_sequence INTEGER NOT NULL,
    -- Below first_sequence. The messages of the entries up to here are gone from the log, unless another
    -- mailbox still has them; those between are still to be looked at.
    removed_through INTEGER NOT NULL,
    -- XXH3-64 over the others: a mailbox that begins elsewhere would hide messages, or show a gap.
    checksum INTEGER NOT NULL
) STRICT;

-- The positions whose rows were removed from the log, so that a row that was lost is told apart. Disjoint,
-- and no two of them adjacent.
CREATE TABLE removed_positions (
    first_position INTEGER PRIMARY KEY,
    last_position INTEGER NOT NULL,
    -- XXH3-64 over both.
    checksum INTEGER NOT NULL
) STRICT;

-- What retention has done. At most one row.
CREATE TABLE retention_state (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    -- The mailboxes of all messages up to this position were held against the bound of messages below.
    scanned_through INTEGER NOT NULL,
    scanned_count INTEGER NOT NULL,
    -- Request keys up to this one were looked through for messages that are gone, since the last time
    -- that all were; NULL when that is not under way.
    swept_key INTEGER,
    -- The rows removed since it began the last time, and in all.
    removed_unswept INTEGER NOT NULL,
    removed_total INTEGER NOT NULL,
    -- XXH3-64 over the others.
    checksum INTEGER NOT NULL
) STRICT;

-- What is kept of single users' mailboxes, in place of what the server keeps. NULL: not a reason to remove
-- anything.
CREATE TABLE user_retention (
    user_id INTEGER PRIMARY KEY REFERENCES users (id),
    age_us INTEGER,
    messages INTEGER,
    after_acknowledgement_us INTEGER,
    -- XXH3-64 over the others: what was meant to be kept would be removed.
    checksum INTEGER NOT NULL
) STRICT;

-- When a message's body goes, if it is to. Then the checksum covers these columns too; else it is as it was.
ALTER TABLE message_log ADD COLUMN expire_time_us INTEGER;
-- Where the body is gone: the first 16 bytes of SHA-256 over the database's salt, the position and what the
-- body was, to tell whether a send that is repeated is the same.
ALTER TABLE message_log ADD COLUMN erased_digest BLOB;

-- The messages whose bodies are to go.
CREATE TABLE expirations (
    expire_time_us INTEGER NOT NULL,
    position INTEGER NOT NULL,
    PRIMARY KEY (expire_time_us, position)
) STRICT, WITHOUT ROWID;

-- How large mailboxes are: of those that got a message while their sizes were bounded.
CREATE TABLE mailbox_sizes (
    owner_id INTEGER PRIMARY KEY,
    -- The bytes of the bodies of the entries from this one on.
    from_sequence INTEGER NOT NULL,
    -- Up to this one.
    through_sequence INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    -- XXH3-64 over the others: a mailbox that seems full would take nothing.
    checksum INTEGER NOT NULL
) STRICT;
