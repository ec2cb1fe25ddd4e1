-- Several tokens a user: each has an id under which it is named, a name for people, and may expire. Those
-- that are there get an id as new ones do: a UUIDv7 of the time at which they were made.
ALTER TABLE tokens ADD COLUMN token_id TEXT;
ALTER TABLE tokens ADD COLUMN display_name TEXT NOT NULL DEFAULT '';
-- Unset: never. The checksum covers it.
ALTER TABLE tokens ADD COLUMN expire_time_us INTEGER;
UPDATE tokens SET token_id =
    substr(printf('%012x', create_time_us / 1000), 1, 8) || '-' ||
    substr(printf('%012x', create_time_us / 1000), 9, 4) || '-7' ||
    substr(lower(hex(randomblob(2))), 1, 3) || '-8' ||
    substr(lower(hex(randomblob(2))), 1, 3) || '-' ||
    lower(hex(randomblob(6)));
CREATE UNIQUE INDEX tokens_by_user ON tokens (user_id, token_id);

-- 0: active. 1: banned. 2: deleted; the row stays, so that nobody ever takes the name over.
ALTER TABLE users ADD COLUMN standing INTEGER NOT NULL DEFAULT 0;
-- When it last changed, and why as far as an operator said so.
ALTER TABLE users ADD COLUMN standing_time_us INTEGER;
ALTER TABLE users ADD COLUMN standing_reason TEXT NOT NULL DEFAULT '';
-- XXH3-64 over the id and the standing: it decides who is let in. Unset while it never changed.
ALTER TABLE users ADD COLUMN standing_checksum INTEGER;

-- What lets new names in where not everybody may register.
CREATE TABLE invites (
    -- SHA-256 of the invite's 16 bytes.
    hash BLOB PRIMARY KEY CHECK (length(hash) = 32),
    invite_id TEXT NOT NULL UNIQUE,
    note TEXT NOT NULL,
    create_time_us INTEGER NOT NULL,
    -- Unset: never.
    expire_time_us INTEGER,
    uses_max INTEGER NOT NULL,
    uses INTEGER NOT NULL,
    -- XXH3-64 over hash, expiry and both counts.
    checksum INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Who did what to whose access. Written in the transaction of the act; never changed.
CREATE TABLE audit_log (
    -- 1: an operator's act, kept for ever. 0: a user's own; of these the newest are kept.
    by_operator INTEGER NOT NULL,
    number INTEGER NOT NULL,
    time_us INTEGER NOT NULL,
    -- `uid:1000` for an operator, `user:alice` for a user.
    actor TEXT NOT NULL,
    -- Such as `token.create`.
    act TEXT NOT NULL,
    -- The user, or the id of an invite.
    subject TEXT NOT NULL,
    -- What else there is to say. Never a secret.
    details TEXT NOT NULL,
    -- XXH3-64 over all of it.
    checksum INTEGER NOT NULL,
    PRIMARY KEY (by_operator, number)
) STRICT, WITHOUT ROWID;
