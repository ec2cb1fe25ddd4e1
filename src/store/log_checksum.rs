//! The checksum of a row of the log.

use xxhash_rust::xxh3::{Xxh3Default, xxh3_64};

use super::inserts::NewLogRow;

/// Rows up to this size are laid out on the stack and hashed at once, without an allocation and without
/// a hasher that has to be set up; the bodies of longer ones are not copied.
pub(super) const SMALL_ROW_BYTES_MAX: usize = 512;

/// The checksum of a row: XXH3-64 over every other column, each number in 8 bytes (little endian),
/// each text and blob after its length, an absent one as the length 2^64 - 1; the time at which it expires
/// (8 bytes after their length) and the digest of an erased body only if there is one of the two. This
/// layout is part of the file format.
pub(super) fn checksum(row: &NewLogRow<'_>) -> i64 {
    let mut small = [0; SMALL_ROW_BYTES_MAX];
    let mut end = 0;
    let mut fits = true;
    each_part(row, |part| match small.get_mut(end..end + part.len()) {
        Some(place) => {
            place.copy_from_slice(part);
            end += part.len();
        }
        None => fits = false,
    });
    if fits {
        return xxh3_64(&small[..end]).cast_signed();
    }
    let mut hasher = Xxh3Default::new();
    each_part(row, |part| hasher.update(part));
    hasher.digest().cast_signed()
}

/// Hands the bytes that the checksum covers to `take`, part by part.
pub(super) fn each_part(row: &NewLogRow<'_>, mut take: impl FnMut(&[u8])) {
    let numbers = [
        row.position,
        row.sender_id,
        row.sender_sequence,
        row.receiver_id,
        row.receiver_sequence,
        row.send_time_us,
        row.body_kind,
    ];
    let variable = [
        Some(row.message_id),
        row.request_id.map(str::as_bytes),
        Some(row.content_type.as_bytes()),
        Some(row.body),
    ];
    for number in numbers {
        take(&number.to_le_bytes());
    }
    let mut take_field = |field: Option<&[u8]>| {
        let length = field.map_or(u64::MAX, |field| field.len() as u64);
        take(&length.to_le_bytes());
        take(field.unwrap_or_default());
    };
    for field in variable {
        take_field(field);
    }
    // Rows of before had neither.
    if row.expire_time_us.is_some() || row.erased_digest.is_some() {
        let expire_time = row.expire_time_us.map(i64::to_le_bytes);
        take_field(expire_time.as_ref().map(<[u8; 8]>::as_slice));
        take_field(row.erased_digest);
    }
}
