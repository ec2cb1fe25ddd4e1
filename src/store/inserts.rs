//! The INSERTs of every message, with their text written out.
//!
//! diesel builds the text of an `insert_into` anew at each use, to look its statement up by it: a
//! quarter of the time of storing a message. These have a query id of their own, and so the cached
//! statement is found by that.

use diesel::prelude::*;
use diesel::query_builder::{AstPass, QueryFragment, QueryId};
use diesel::sql_types::{BigInt, Binary, Nullable, Text};
use diesel::sqlite::Sqlite;

/// Defines a row that `execute` stores, its columns in the order of the fields.
macro_rules! insert {
    ($name:ident<'a>: $($rest:tt)*) => {
        insert!(@ $name [<'a>] [<'static>] [<'_>] $($rest)*);
    };
    ($name:ident: $($rest:tt)*) => {
        insert!(@ $name [] [] [] $($rest)*);
    };
    (@ $name:ident [$($a:tt)*] [$($static:tt)*] [$($any:tt)*] $verb:literal $table:literal {
        $first:ident: $first_type:ty = $first_sql:ty $(, $column:ident: $type:ty = $sql:ty)* $(,)?
    }) => {
        pub(super) struct $name $($a)* {
            pub(super) $first: $first_type,
            $(pub(super) $column: $type,)*
        }

        impl QueryId for $name $($any)* {
            type QueryId = $name $($static)*;

            const HAS_STATIC_QUERY_ID: bool = true;
        }

        impl QueryFragment<Sqlite> for $name $($any)* {
            fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Sqlite>) -> QueryResult<()> {
                out.push_sql(concat!($verb, " INTO ", $table, " (", stringify!($first)));
                $(out.push_sql(concat!(", ", stringify!($column)));)*
                out.push_sql(") VALUES (");
                out.push_bind_param::<$first_sql, _>(&self.$first)?;
                $(
                    out.push_sql(", ");
                    out.push_bind_param::<$sql, _>(&self.$column)?;
                )*
                out.push_sql(")");
                Ok(())
            }
        }

        impl RunQueryDsl<SqliteConnection> for $name $($any)* {}
    };
}

insert!(NewLogRow<'a>: "INSERT" "message_log" {
    position: i64 = BigInt,
    message_id: &'a [u8] = Binary,
    sender_id: i64 = BigInt,
    sender_sequence: i64 = BigInt,
    receiver_id: i64 = BigInt,
    receiver_sequence: i64 = BigInt,
    send_time_us: i64 = BigInt,
    request_id: Option<&'a str> = Nullable<Text>,
    content_type: &'a str = Text,
    body_kind: i64 = BigInt,
    body: &'a [u8] = Binary,
    checksum: i64 = BigInt,
    expire_time_us: Option<i64> = Nullable<BigInt>,
    erased_digest: Option<&'a [u8]> = Nullable<Binary>,
});

insert!(NewExpiration: "INSERT" "expirations" {
    expire_time_us: i64 = BigInt,
    position: i64 = BigInt,
});

insert!(NewPending<'a>: "INSERT" "pending_entries" {
    first_position: i64 = BigInt,
    entries: &'a [u8] = Binary,
    checksum: i64 = BigInt,
});

// The same again changes nothing.
insert!(NewRun<'a>: "REPLACE" "mailbox_runs" {
    owner_id: i64 = BigInt,
    first_sequence: i64 = BigInt,
    entries: &'a [u8] = Binary,
});

// The same again changes nothing.
insert!(NewRequestKey: "INSERT OR IGNORE" "request_keys" {
    request_key: i64 = BigInt,
    position: i64 = BigInt,
});

// The same again changes nothing.
insert!(NewRequestRun<'a>: "REPLACE" "request_runs" {
    shard: i64 = BigInt,
    first_position: i64 = BigInt,
    entries: &'a [u8] = Binary,
    checksum: i64 = BigInt,
});
