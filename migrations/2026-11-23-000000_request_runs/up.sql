-- Derived: request keys that are not in their table yet. A row for each part of a merged segment's
-- keys, in order; the keys of one part go to the table together when it has some rows.
CREATE TABLE request_runs (
    -- Which part of all keys.
    shard INTEGER NOT NULL,
    -- The position of the segment's first message.
    first_position INTEGER NOT NULL,
    -- For each key: the key (8 bytes, little endian), and how far behind the first position it leads
    -- (4 bytes).
    entries BLOB NOT NULL,
    -- XXH3-64 over all three.
    checksum INTEGER NOT NULL,
    PRIMARY KEY (shard, first_position)
) STRICT, WITHOUT ROWID;
