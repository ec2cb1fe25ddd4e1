-- What an operator set for single users, beside what holds for everybody. Unset: as for everybody.
CREATE TABLE user_limits (
    user_id INTEGER NOT NULL PRIMARY KEY REFERENCES users (id),
    -- A count and a unit of time, such as 10/s (s, m, h, d), or `unlimited`.
    send_rate TEXT,
    -- Messages at once.
    send_burst INTEGER,
    -- Subscriptions that may be open.
    subscriptions INTEGER,
    -- XXH3-64 over all of it: a limit that was not set would be held against a user, or one that was
    -- would not.
    checksum INTEGER NOT NULL
) STRICT;
