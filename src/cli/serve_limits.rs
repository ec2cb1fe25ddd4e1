//! The flags of `serve` that set limits.

use std::num::NonZero;

use crate::domain::RateLimit;
use crate::domain::limits::RATE_COUNT_MAX;
use crate::server::{Bounds, Options, ProxyHeader, TrustedProxy};

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Limits")]
pub(super) struct LimitArgs {
    /// How fast each user may send: a count of 1 to 1000000 per s, m, h or d, or `unlimited`. What is
    /// faster is refused (`SEND_RATE_LIMIT`); a repeated `request_id` counts [default: unlimited].
    #[arg(long, env = "PEERPOST_SEND_RATE_PER_USER", value_name = "COUNT/UNIT")]
    send_rate_per_user: Option<RateLimit>,

    /// How many messages a user may send at once, after a while without any: 1 to 1000000 messages. Says
    /// nothing without a rate [default: the rate's count].
    #[arg(
        long,
        env = "PEERPOST_SEND_BURST_PER_USER",
        value_name = "MESSAGES",
        value_parser = clap::value_parser!(u32).range(1..=i64::from(RATE_COUNT_MAX))
    )]
    send_burst_per_user: Option<u32>,

    /// How many names may be registered from an address (of IPv6, from a network of 64 bits): a count per
    /// s, m, h or d, or `unlimited`. What is more is refused (`REGISTRATION_RATE_LIMIT`). This machine's own
    /// addresses and Unix sockets are exempt; behind a proxy set --trusted-proxies [default: 100/h].
    #[arg(long, env = "PEERPOST_REGISTRATION_RATE_PER_ADDRESS", value_name = "COUNT/UNIT")]
    registration_rate_per_address: Option<RateLimit>,

    /// How many subscriptions a user may have open, 1 to 65536. What is more is refused
    /// (`SUBSCRIPTION_LIMIT`) [default: 256].
    #[arg(
        long,
        env = "PEERPOST_SUBSCRIPTIONS_PER_USER",
        value_name = "N",
        value_parser = clap::value_parser!(u64).range(Bounds::SUBSCRIPTIONS_PER_USER.range())
    )]
    subscriptions_per_user: Option<u64>,

    /// How many connections there may be at a time, 1 to 1000000; more wait to be accepted
    /// [default: 16384].
    #[arg(
        long,
        env = "PEERPOST_CONNECTIONS_MAX",
        value_name = "N",
        value_parser = clap::value_parser!(u64).range(Bounds::CONNECTIONS_MAX.range())
    )]
    connections_max: Option<u64>,

    /// How many calls a connection may have open at a time, 1 to 4096; HTTP/2 has clients wait with more
    /// [default: 256].
    #[arg(
        long,
        env = "PEERPOST_STREAMS_PER_CONNECTION",
        value_name = "N",
        value_parser = clap::value_parser!(u64).range(Bounds::STREAMS_PER_CONNECTION.range())
    )]
    streams_per_connection: Option<u64>,

    /// What may wait to be written, 4194304 to 68719476736 bytes: bodies, and 1 KiB a write. What is more
    /// is refused (`WRITE_QUEUE_FULL`) [default: 67108864].
    #[arg(
        long,
        env = "PEERPOST_WRITE_QUEUE_BYTES",
        value_name = "BYTES",
        value_parser = clap::value_parser!(u64).range(Bounds::WRITE_QUEUE_BYTES.range())
    )]
    write_queue_bytes: Option<u64>,

    /// What all connections together may hold of unfinished requests and unread answers, 8388608 to
    /// 68719476736 bytes; over three quarters of it requests of those that hold much are refused, over
    /// all of it the one that stood still for the longest is cut [default: 268435456].
    #[arg(
        long,
        env = "PEERPOST_HELD_BYTES_MAX",
        value_name = "BYTES",
        value_parser = clap::value_parser!(u64).range(Bounds::HELD_BYTES_MAX.range())
    )]
    held_bytes_max: Option<u64>,

    /// The proxies that are believed when they say from whom a call is: addresses, networks such as
    /// 10.0.0.0/8, or `unix` for whoever calls over a Unix socket. Can be repeated [default: none].
    #[arg(
        long,
        env = "PEERPOST_TRUSTED_PROXIES",
        value_name = "ADDRESS[/BITS]|unix",
        value_delimiter = ','
    )]
    trusted_proxies: Vec<TrustedProxy>,

    /// The header in which they say it: `x-forwarded-for` or `forwarded`. The other is not looked at,
    /// since proxies hand it on as it came.
    #[arg(
        long,
        env = "PEERPOST_PROXY_HEADER",
        value_name = "HEADER",
        default_value = "x-forwarded-for",
        value_parser = proxy_header
    )]
    proxy_header: ProxyHeader,
}

fn proxy_header(text: &str) -> Result<ProxyHeader, String> {
    let known = ProxyHeader::ALL.into_iter().find(|it| text.eq_ignore_ascii_case(it.name()));
    known.ok_or_else(|| "must be x-forwarded-for or forwarded".to_owned())
}

impl LimitArgs {
    /// Sets what is given.
    pub(super) fn apply(&self, options: &mut Options) -> anyhow::Result<()> {
        let callers = &mut options.limits.callers;
        if let Some(rate) = self.send_rate_per_user {
            callers.send_rate_per_user = rate;
        }
        callers.send_burst_per_user = self.send_burst_per_user.and_then(NonZero::new);
        if let Some(rate) = self.registration_rate_per_address {
            callers.registration_rate_per_address = rate;
        }
        if let Some(count) = self.subscriptions_per_user {
            callers.subscriptions_per_user = NonZero::try_from(usize::try_from(count)?)?;
        }
        let limits = &mut options.limits;
        if let Some(count) = self.connections_max {
            limits.connections_max = usize::try_from(count)?;
        }
        if let Some(count) = self.streams_per_connection {
            limits.streams_per_connection = u32::try_from(count)?;
        }
        if let Some(bytes) = self.write_queue_bytes {
            limits.write_queue_bytes = usize::try_from(bytes)?;
        }
        if let Some(bytes) = self.held_bytes_max {
            limits.held_bytes_max = usize::try_from(bytes)?;
        }
        options.proxies.trusted.clone_from(&self.trusted_proxies);
        options.proxies.header = self.proxy_header;
        Ok(())
    }
}
