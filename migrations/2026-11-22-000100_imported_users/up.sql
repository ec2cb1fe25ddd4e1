-- Whose a name of another database is here, so that the next import from there takes it for the same.
CREATE TABLE imported_users (
    -- The name's bytes, as they stood there.
    source_name BLOB NOT NULL PRIMARY KEY,
    user_id INTEGER NOT NULL REFERENCES users (id),
    -- XXH3-64 over both: a name that leads to another user would put messages into their mailbox.
    checksum INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
