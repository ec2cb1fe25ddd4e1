//! What holds of any bytes that are read as packed entries: where fuzzing gets in. Compiled for tests
//! alone (feature `testing`), and no part of the interface.

use super::packed;

/// Bytes of a run are unreadable, or mean entries that go up, and packed again mean the same.
///
/// # Panics
/// If that does not hold.
pub fn check_run(first_sequence: i64, bytes: &[u8]) {
    let all: Vec<_> = packed::entries(first_sequence, bytes).collect();
    let read: Vec<_> = all.iter().map_while(|entry| entry.ok()).collect();
    assert!(all.len() <= read.len() + 1, "it goes on after what is unreadable");
    assert!(read.is_sorted_by(|one, next| one.position < next.position), "{read:?}");
    let packed = packed::run(&read);
    assert!(packed.len() <= bytes.len(), "packed again it is longer");
    let again: Result<Vec<_>, _> = packed::entries(first_sequence, &packed).collect();
    assert_eq!(again.as_deref(), Ok(&read[..]));
}

/// Bytes of a commit's placements are unreadable, or mean the same when they are packed again.
///
/// # Panics
/// If that does not hold.
pub fn check_placements(bytes: &[u8]) {
    let Ok(read) = packed::read_placements(bytes) else { return };
    let packed = packed::placements(&read);
    assert!(packed.len() <= bytes.len(), "packed again they are longer");
    assert_eq!(packed::read_placements(&packed), Ok(read));
}
