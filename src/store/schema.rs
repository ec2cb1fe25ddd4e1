//! The tables, as `migrations/` creates them. Their comments are there.

diesel::table! {
    database_state (id) {
        id -> BigInt,
        epoch -> Text,
        create_time_us -> BigInt,
        probe -> Nullable<Binary>,
    }
}

diesel::table! {
    users (id) {
        id -> BigInt,
        name -> Text,
        name_key -> Text,
        ip_address -> Text,
        register_time_us -> BigInt,
        last_seen_time_us -> Nullable<BigInt>,
        acknowledged_through -> BigInt,
        standing -> BigInt,
        standing_time_us -> Nullable<BigInt>,
        standing_reason -> Text,
        standing_checksum -> Nullable<BigInt>,
    }
}

diesel::table! {
    tokens (hash) {
        hash -> Binary,
        user_id -> BigInt,
        create_time_us -> BigInt,
        checksum -> Nullable<BigInt>,
        token_id -> Nullable<Text>,
        display_name -> Text,
        expire_time_us -> Nullable<BigInt>,
    }
}

diesel::table! {
    invites (hash) {
        hash -> Binary,
        invite_id -> Text,
        note -> Text,
        create_time_us -> BigInt,
        expire_time_us -> Nullable<BigInt>,
        uses_max -> BigInt,
        uses -> BigInt,
        checksum -> BigInt,
    }
}

diesel::table! {
    audit_log (by_operator, number) {
        by_operator -> BigInt,
        number -> BigInt,
        time_us -> BigInt,
        actor -> Text,
        act -> Text,
        subject -> Text,
        details -> Text,
        checksum -> BigInt,
    }
}

diesel::table! {
    message_log (position) {
        position -> BigInt,
        message_id -> Binary,
        sender_id -> BigInt,
        sender_sequence -> BigInt,
        receiver_id -> BigInt,
        receiver_sequence -> BigInt,
        send_time_us -> BigInt,
        request_id -> Nullable<Text>,
        content_type -> Text,
        body_kind -> BigInt,
        body -> Binary,
        checksum -> BigInt,
        expire_time_us -> Nullable<BigInt>,
        erased_digest -> Nullable<Binary>,
    }
}

diesel::table! {
    expirations (expire_time_us, position) {
        expire_time_us -> BigInt,
        position -> BigInt,
    }
}

diesel::table! {
    index_state (id) {
        id -> BigInt,
        merged_through -> BigInt,
        merging_through -> BigInt,
        request_salt -> Binary,
        checksum -> Nullable<BigInt>,
    }
}

diesel::table! {
    pending_entries (first_position) {
        first_position -> BigInt,
        entries -> Binary,
        checksum -> BigInt,
    }
}

diesel::table! {
    mailbox_runs (owner_id, first_sequence) {
        owner_id -> BigInt,
        first_sequence -> BigInt,
        entries -> Binary,
    }
}

diesel::table! {
    request_keys (request_key, position) {
        request_key -> BigInt,
        position -> BigInt,
    }
}

diesel::table! {
    request_runs (shard, first_position) {
        shard -> BigInt,
        first_position -> BigInt,
        entries -> Binary,
        checksum -> BigInt,
    }
}

diesel::table! {
    imported_users (source_name) {
        source_name -> Binary,
        user_id -> BigInt,
        checksum -> BigInt,
    }
}

diesel::table! {
    user_limits (user_id) {
        user_id -> BigInt,
        send_rate -> Nullable<Text>,
        send_burst -> Nullable<BigInt>,
        subscriptions -> Nullable<BigInt>,
        checksum -> BigInt,
    }
}

diesel::table! {
    mailboxes (owner_id) {
        owner_id -> BigInt,
        first_sequence -> BigInt,
        removed_through -> BigInt,
        checksum -> BigInt,
    }
}

diesel::table! {
    removed_positions (first_position) {
        first_position -> BigInt,
        last_position -> BigInt,
        checksum -> BigInt,
    }
}

diesel::table! {
    retention_state (id) {
        id -> BigInt,
        scanned_through -> BigInt,
        scanned_count -> BigInt,
        swept_key -> Nullable<BigInt>,
        removed_unswept -> BigInt,
        removed_total -> BigInt,
        checksum -> BigInt,
    }
}

diesel::table! {
    mailbox_sizes (owner_id) {
        owner_id -> BigInt,
        from_sequence -> BigInt,
        through_sequence -> BigInt,
        bytes -> BigInt,
        checksum -> BigInt,
    }
}

diesel::table! {
    user_retention (user_id) {
        user_id -> BigInt,
        age_us -> Nullable<BigInt>,
        messages -> Nullable<BigInt>,
        after_acknowledgement_us -> Nullable<BigInt>,
        checksum -> BigInt,
    }
}

diesel::allow_tables_to_appear_in_same_query!(users, mailboxes);
diesel::allow_tables_to_appear_in_same_query!(users, tokens);
