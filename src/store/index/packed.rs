//! Entries as bytes: the runs of a mailbox, and what a commit added to the indexes.
//!
//! Numbers are unsigned LEB128, seven bits a byte, least significant first. Both layouts are part of
//! the file format.

use super::entry::{Entry, Placement, RequestKey};
use crate::domain::UserId;

/// The bytes are not what was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("packed entries cannot be read")]
pub(super) struct Unreadable;

/// The bytes of a run of entries with consecutive sequences: for each, twice the step from the
/// position before it, plus 1 if it was received; then the peer.
pub(super) fn run(entries: &[Entry]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(entries.len() * 4);
    let mut before = 0;
    for entry in entries {
        let step = (entry.position - before).cast_unsigned();
        put(&mut bytes, step << 1 | u64::from(entry.received));
        put(&mut bytes, entry.peer.0.cast_unsigned());
        before = entry.position;
    }
    bytes
}

/// The entries of a run, the first with `first_sequence`. After an item that is an error there are
/// no more.
pub(super) fn entries(
    first_sequence: i64,
    bytes: &[u8],
) -> impl Iterator<Item = Result<Entry, Unreadable>> {
    let mut rest = bytes;
    let (mut sequence, mut position) = (first_sequence, 0_i64);
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let entry = next_entry(&mut rest, sequence, position);
        match &entry {
            Some(entry) => (sequence, position) = (sequence.saturating_add(1), entry.position),
            None => rest = &[],
        }
        Some(entry.ok_or(Unreadable))
    })
}

fn next_entry(rest: &mut &[u8], sequence: i64, before: i64) -> Option<Entry> {
    let (step, peer) = (take(rest)?, take(rest)?);
    let position = before.checked_add((step >> 1).cast_signed())?;
    let received = step & 1 == 1;
    let ascends = position > before;
    ascends.then_some(Entry { sequence, position, received, peer: UserId(peer.cast_signed()) })
}

/// The bytes of a commit's placements: for each the sender, their sequence, the receiver, theirs,
/// and 1 with the 8 bytes of the request key (little endian), or 0.
pub(super) fn placements(placements: &[Placement]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(placements.len() * 24);
    for placement in placements {
        put(&mut bytes, placement.sender.0.cast_unsigned());
        put(&mut bytes, placement.sender_sequence.cast_unsigned());
        put(&mut bytes, placement.receiver.0.cast_unsigned());
        put(&mut bytes, placement.receiver_sequence.cast_unsigned());
        bytes.push(u8::from(placement.request_key.is_some()));
        if let Some(RequestKey(key)) = placement.request_key {
            bytes.extend_from_slice(&key.to_le_bytes());
        }
    }
    bytes
}

/// Reads [`placements`] back.
pub(super) fn read_placements(bytes: &[u8]) -> Result<Vec<Placement>, Unreadable> {
    let mut rest = bytes;
    let mut placements = Vec::with_capacity(bytes.len() / 12);
    while !rest.is_empty() {
        placements.push(next_placement(&mut rest).ok_or(Unreadable)?);
    }
    Ok(placements)
}

fn next_placement(rest: &mut &[u8]) -> Option<Placement> {
    let mut number = || take(rest).map(u64::cast_signed);
    let (sender, sender_sequence) = (UserId(number()?), number()?);
    let (receiver, receiver_sequence) = (UserId(number()?), number()?);
    let has_key = number()? != 0;
    let request_key = if has_key {
        let (key, after) = rest.split_first_chunk::<8>()?;
        *rest = after;
        Some(RequestKey(i64::from_le_bytes(*key)))
    } else {
        None
    };
    Some(Placement { sender, sender_sequence, receiver, receiver_sequence, request_key })
}

fn put(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push(low_bits(number) | 0x80);
        number >>= 7;
    }
    bytes.push(low_bits(number));
}

fn low_bits(number: u64) -> u8 {
    number.to_le_bytes()[0] & 0x7f
}

fn take(rest: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..u64::BITS).step_by(7) {
        let (byte, after) = rest.split_first()?;
        *rest = after;
        let bits = u64::from(byte & 0x7f);
        if bits << shift >> shift != bits {
            return None;
        }
        number |= bits << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(sequence: i64, position: i64, received: bool, peer: i64) -> Entry {
        Entry { sequence, position, received, peer: UserId(peer) }
    }

    #[test]
    fn a_run_reads_back_as_it_was_written() {
        let written = [
            entry(7, 1, true, 1),
            entry(8, 200, false, 300),
            entry(9, 1 << 40, true, i64::MAX),
            entry(10, i64::MAX >> 1, false, 2),
        ];
        let bytes = run(&written);
        let read: Result<Vec<_>, _> = entries(7, &bytes).collect();
        assert_eq!(read.expect("readable"), written);
    }

    #[test]
    fn the_layouts_stay_the_same_across_versions() {
        assert_eq!(run(&[entry(1, 3, true, 2), entry(2, 103, false, 300)]), [7, 2, 200, 1, 172, 2]);
        let placement = Placement {
            sender: UserId(1),
            sender_sequence: 2,
            receiver: UserId(300),
            receiver_sequence: 4,
            request_key: Some(RequestKey(0x0102_0304_0506_0708)),
        };
        let without = Placement { request_key: None, ..placement };
        let bytes = placements(&[placement, without]);
        assert_eq!(bytes, [1, 2, 172, 2, 4, 1, 8, 7, 6, 5, 4, 3, 2, 1, 1, 2, 172, 2, 4, 0]);
        assert_eq!(read_placements(&bytes), Ok(vec![placement, without]));
    }

    #[test]
    fn what_was_not_written_so_is_unreadable() {
        let overlong = [0x80; 10];
        let too_large = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02];
        for bytes in [&[0x80][..], &[2], &[0, 1], &overlong, &too_large] {
            assert_eq!(entries(1, bytes).last(), Some(Err(Unreadable)), "{bytes:?}");
        }
        for bytes in [&[1, 2, 3][..], &[1, 2, 3, 4, 1, 0, 0], &overlong] {
            assert_eq!(read_placements(bytes), Err(Unreadable), "{bytes:?}");
        }
    }
}
