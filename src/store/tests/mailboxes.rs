//! Where mailboxes begin, and how far what they have lost was looked at.

use super::*;
use crate::store::mailboxes::{self, Floor};

fn floor(connection: &mut SqliteConnection, owner: UserId) -> (i64, i64) {
    let Floor { first, removed_through } = mailboxes::floor(connection, owner).expect("readable");
    (first, removed_through)
}

#[test]
fn a_beginning_only_moves_forward() {
    let scene = Scene::new();
    let (connection, owner) = (&mut connect(&scene.folder), UserId(1));
    assert_eq!(floor(connection, owner), (1, 0), "nothing is lost");
    for (first, has_moved) in [(5, true), (5, false), (4, false), (6, true)] {
        assert_eq!(mailboxes::raise(connection, owner, first), Ok(has_moved), "{first}");
    }
    assert_eq!(floor(connection, owner), (6, 0));
}

#[test]
fn what_was_looked_at_counts_without_a_hole_and_below_the_beginning() {
    let scene = Scene::new();
    let (connection, owner) = (&mut connect(&scene.folder), UserId(1));
    mailboxes::raise(connection, owner, 8).expect("stored");
    let settled = [
        ((2, 2), 0, "the first was not looked at"),
        ((1, 2), 2, "from the beginning"),
        ((4, 5), 2, "one in between was not"),
        ((1, 2), 2, "nothing new"),
        ((3, 3), 3, "the next one"),
        ((2, 4), 4, "some again"),
        ((5, 20), 7, "no further than what is lost"),
    ];
    for (entries, through, why) in settled {
        assert_eq!(mailboxes::settle(connection, owner, entries), Ok(through), "{why}");
        assert_eq!(floor(connection, owner), (8, through), "{why}");
    }
}

#[test]
fn all_can_be_noted_at_once() {
    let scene = Scene::new();
    let connection = &mut connect(&scene.folder);
    for (owner, first) in [(1, 3), (2, 7)] {
        mailboxes::raise(connection, UserId(owner), first).expect("stored");
    }
    mailboxes::settle_all(connection).expect("stored");
    assert_eq!([1, 2, 3].map(|it| floor(connection, UserId(it))), [(3, 2), (7, 6), (1, 0)]);
}
