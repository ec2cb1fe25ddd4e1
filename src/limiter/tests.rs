use std::sync::atomic::AtomicU64;

use super::*;

const SECOND: u64 = 1_000_000_000;
const ALICE: UserId = UserId(1);
const BOB: UserId = UserId(2);

/// A limiter, and its clock in nanoseconds.
fn limiter(adjust: impl FnOnce(&mut Options)) -> (Limiter, Arc<AtomicU64>) {
    let mut options = Options::default();
    adjust(&mut options);
    let nanos = Arc::new(AtomicU64::new(SECOND));
    (Limiter::with_clock(options, Clock::Manual(Arc::clone(&nanos))), nanos)
}

fn at(rate: &str) -> RateLimit {
    rate.parse().expect("a rate")
}

/// How many sends are let through at this moment.
fn sends(limiter: &Limiter, user: UserId) -> usize {
    std::iter::repeat_with(|| limiter.admit_send(user))
        .take(10_000)
        .take_while(Result::is_ok)
        .count()
}

/// How many registrations are let through at this moment.
fn registrations(limiter: &Limiter, from: &str) -> usize {
    let from = Some(from.parse().expect("an address"));
    let all = std::iter::repeat_with(|| limiter.admit_registration(from));
    all.take(10_000).take_while(Result::is_ok).count()
}

#[test]
fn nobody_is_limited_in_sending_unless_it_is_said() {
    let (limiter, _) = limiter(|_| {});
    assert_eq!(sends(&limiter, ALICE), 10_000);
    assert!(!limiter.0.are_sends_limited.load(Ordering::Relaxed));
}

#[test]
fn one_over_the_rate_leaves_the_other_alone_and_comes_again_in_the_time_that_was_said() {
    let (limiter, clock) = limiter(|options| options.send_rate_per_user = at("10/s"));
    assert_eq!(sends(&limiter, ALICE), 10);
    let refused = limiter.admit_send(ALICE).expect_err("refused");
    let rate = Rate::parse("10/s").expect("a rate");
    let retry_after = Duration::from_millis(100);
    assert_eq!(refused, RateExceeded { rate, burst: rate.count(), retry_after });
    assert_eq!(sends(&limiter, BOB), 10);
    clock.fetch_add(SECOND / 10, Ordering::Relaxed);
    assert_eq!(sends(&limiter, ALICE), 1);
    assert_eq!(limiter.refusals()[0], ("send_rate_per_user", 4));
}

#[test]
fn the_burst_is_the_rates_count_unless_it_is_said() {
    let (limiter, _) = limiter(|options| options.send_rate_per_user = at("600/m"));
    assert_eq!(sends(&limiter, ALICE), 600);
    let (limiter, _) = self::limiter(|options| {
        options.send_rate_per_user = at("600/m");
        options.send_burst_per_user = NonZero::new(7);
    });
    assert_eq!(sends(&limiter, ALICE), 7);
}

#[test]
fn what_is_set_for_one_holds_at_once_and_for_them_alone() {
    let (limiter, clock) = limiter(|options| {
        options.send_rate_per_user = at("1/h");
        options.send_burst_per_user = NonZero::new(3);
    });
    assert_eq!(sends(&limiter, ALICE), 3);
    limiter.set(ALICE, UserLimits { send_rate: Some(at("5/s")), ..UserLimits::default() });
    assert_eq!(sends(&limiter, ALICE), 5, "the burst for all is not for a rate of one's own");
    clock.fetch_add(SECOND, Ordering::Relaxed);
    assert_eq!((sends(&limiter, ALICE), sends(&limiter, BOB)), (5, 3));
    limiter.set(ALICE, UserLimits { send_burst: NonZero::new(4), ..UserLimits::default() });
    assert_eq!(sends(&limiter, ALICE), 4, "at the rate for all");
    limiter
        .set(ALICE, UserLimits { send_rate: Some(RateLimit::Unlimited), ..UserLimits::default() });
    assert_eq!(sends(&limiter, ALICE), 10_000);
    limiter.set(ALICE, UserLimits::default());
    assert_eq!(sends(&limiter, ALICE), 3);
    assert!(limiter.users().is_empty());
}

#[test]
fn one_can_be_limited_where_nobody_else_is() {
    let (limiter, _) = limiter(|_| {});
    let one = NonZero::<usize>::MIN;
    let own = UserLimits { send_rate: Some(at("2/s")), subscriptions: Some(one), send_burst: None };
    limiter.set(ALICE, own);
    assert_eq!((sends(&limiter, ALICE), sends(&limiter, BOB)), (2, 10_000));
    assert_eq!(limiter.of_user(ALICE), own);
    assert_eq!(limiter.subscriptions(ALICE), one);
    assert_eq!(limiter.subscriptions(BOB).get(), SUBSCRIPTIONS_PER_USER_DEFAULT);
    limiter.set(ALICE, UserLimits::default());
    assert_eq!(sends(&limiter, ALICE), 10_000);
}

#[test]
fn registrations_count_by_address_and_by_network_of_64_bits() {
    let (limiter, clock) = limiter(|options| options.registration_rate_per_address = at("6/h"));
    assert_eq!(registrations(&limiter, "192.0.2.1"), 6);
    assert_eq!(registrations(&limiter, "::ffff:192.0.2.1"), 0, "the same in another form");
    assert_eq!(registrations(&limiter, "192.0.2.2"), 6);
    assert_eq!(registrations(&limiter, "2001:db8:0:1::1"), 6);
    assert_eq!(registrations(&limiter, "2001:db8:0:1:ffff::2"), 0, "the same network");
    assert_eq!(registrations(&limiter, "2001:db8:0:2::1"), 6);
    clock.fetch_add(600 * SECOND, Ordering::Relaxed);
    assert_eq!(registrations(&limiter, "192.0.2.1"), 1);
}

#[test]
fn this_machines_own_addresses_are_exempt() {
    let (limiter, _) = limiter(|options| options.registration_rate_per_address = at("1/d"));
    for own in ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"] {
        assert_eq!(registrations(&limiter, own), 10_000, "{own}");
    }
    assert!((0..100).all(|_| limiter.admit_registration(None).is_ok()), "a Unix socket");
}

#[test]
fn what_came_to_no_new_name_does_not_count() {
    let (limiter, _) = limiter(|options| options.registration_rate_per_address = at("1/d"));
    let from = Some("192.0.2.1".parse().expect("an address"));
    for _ in 0..10 {
        limiter.admit_registration(from).expect("let through").give_back();
    }
    let registering = limiter.admit_registration(from).expect("let through");
    drop(registering);
    assert!(limiter.admit_registration(from).is_err());
}

#[test]
fn an_address_registers_a_hundred_names_an_hour_by_default() {
    let (limiter, _) = limiter(|_| {});
    assert_eq!(registrations(&limiter, "192.0.2.1"), 100);
}
