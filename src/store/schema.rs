//! The tables, as `migrations/` creates them. Their comments are there.

diesel::table! {
    database_state (id) {
        id -> BigInt,
        epoch -> Text,
        create_time_us -> BigInt,
        recover_time_us -> Nullable<BigInt>,
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
    }
}

diesel::table! {
    tokens (hash) {
        hash -> Binary,
        user_id -> BigInt,
        create_time_us -> BigInt,
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
    }
}

diesel::table! {
    mailbox_entries (owner_id, sequence) {
        owner_id -> BigInt,
        sequence -> BigInt,
        position -> BigInt,
        received -> Bool,
    }
}

diesel::table! {
    conversation_entries (low_user_id, high_user_id, position) {
        low_user_id -> BigInt,
        high_user_id -> BigInt,
        position -> BigInt,
        low_user_sent -> Bool,
    }
}

diesel::table! {
    request_ids (sender_id, request_id) {
        sender_id -> BigInt,
        request_id -> Text,
        position -> BigInt,
    }
}

diesel::allow_tables_to_appear_in_same_query!(
    users,
    tokens,
    message_log,
    mailbox_entries,
    conversation_entries,
    request_ids,
);
