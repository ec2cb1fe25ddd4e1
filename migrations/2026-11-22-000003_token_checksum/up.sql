-- XXH3-64 over the hash and the user: a token that is taken for another user's would open their mailbox.
-- Unset in rows of an earlier version.
ALTER TABLE tokens ADD COLUMN checksum INTEGER;
