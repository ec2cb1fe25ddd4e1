//! What two pages of metrics, one after the other, say of the time between them.

use std::collections::BTreeMap;
use std::time::Duration;

use super::page::{Histogram, Page, Quantile, Sample};

const CALLS: &str = "rpc_server_call_duration_seconds";
const METHOD: &str = "rpc_method";
const STATUS: &str = "rpc_response_status_code";

/// The most methods that are shown, the busiest; ours has fewer.
const METHODS_MAX: usize = 32;

/// The methods whose calls last as long as a client wants: how long says nothing.
const STREAMS: [&str; 2] = ["SendMessages", "Subscribe"];

/// Statuses that are no errors: a client that went away is its own matter.
const NO_ERRORS: [&str; 2] = ["OK", "CANCELLED"];

/// The figures of a moment. `None` is what the server does not tell, or what there was none of.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Figures {
    pub(super) version: Option<String>,
    pub(super) uptime: Option<Duration>,
    pub(super) is_storage_up: Option<bool>,
    /// Each method that was ever called, by its name without the service's.
    pub(super) methods: Vec<Method>,
    pub(super) errors_per_second: f64,
    /// The most frequent error, and how many of it a second.
    pub(super) worst_error: Option<(String, f64)>,
    pub(super) stored_per_second: Option<f64>,
    pub(super) stored: Option<f64>,
    pub(super) users: Option<f64>,
    pub(super) commits: Timed,
    pub(super) group_writes: Option<f64>,
    pub(super) failures: Option<f64>,
    pub(super) queue: Share,
    pub(super) writes_waiting: Option<f64>,
    pub(super) readers_busy: Option<f64>,
    pub(super) reads_waiting: Option<f64>,
    pub(super) tail: Share,
    pub(super) database_bytes: Option<f64>,
    pub(super) wal_bytes: Option<f64>,
    pub(super) disk_free_bytes: Option<f64>,
    pub(super) subscribers: Option<f64>,
    pub(super) mailboxes_followed: Option<f64>,
    pub(super) lags_per_second: Option<f64>,
    pub(super) replay_pages_per_second: Option<f64>,
    pub(super) connections: Share,
    pub(super) connections_per_second: Option<f64>,
    pub(super) connections_cut: Option<f64>,
    pub(super) held: Share,
    pub(super) resident_bytes: Option<f64>,
    /// The share of tokens that were recognised from memory.
    pub(super) token_hits: Option<f64>,
    /// Until the certificate ends, in seconds; negative when it has.
    pub(super) certificate_seconds: Option<f64>,
}

/// Calls of a method.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Method {
    pub(super) name: String,
    pub(super) is_stream: bool,
    pub(super) calls: Timed,
    pub(super) errors_per_second: f64,
}

/// How many there were a second, and how long they took.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Timed {
    pub(super) per_second: f64,
    pub(super) p50: Quantile,
    pub(super) p99: Quantile,
}

/// How much of a limit is taken.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Share {
    pub(super) taken: Option<f64>,
    pub(super) limit: Option<f64>,
}

impl Share {
    pub(super) fn ratio(self) -> Option<f64> {
        let (taken, limit) = (self.taken?, self.limit?);
        (limit > 0.0).then(|| (taken / limit).clamp(0.0, 1.0))
    }
}

/// Two pages and the time between them.
struct Between<'a> {
    before: &'a Page,
    after: &'a Page,
    seconds: f64,
}

impl Figures {
    /// `now` is in seconds since 1970.
    pub(super) fn between(before: &Page, after: &Page, elapsed: Duration, now: f64) -> Self {
        // A server that was started in between counts from 0 again.
        let is_same = before.value("process_start_time_seconds", &[])
            == after.value("process_start_time_seconds", &[]);
        let nothing = Page::default();
        let before = if is_same { before } else { &nothing };
        let between = Between { before, after, seconds: elapsed.as_secs_f64().max(f64::EPSILON) };
        between.figures(now)
    }
}

impl Between<'_> {
    fn figures(&self, now: f64) -> Figures {
        let value = |name: &str| self.after.value(name, &[]);
        let share = |taken: &str, limit: &str| Share { taken: value(taken), limit: value(limit) };
        let (errors_per_second, worst_error) = self.errors();
        let until = |name: &str| value(name).map(|time| time - now);
        let uptime = until("process_start_time_seconds").map(|seconds| -seconds);
        let disk = |file| self.after.value("peerpost_disk_bytes", &[("file", file)]);
        let reads = |name| self.after.value(name, &[("pool", "reads")]);
        Figures {
            version: self.version(),
            uptime: uptime.and_then(|seconds| Duration::try_from_secs_f64(seconds.max(0.0)).ok()),
            is_storage_up: value("peerpost_storage_up").map(|up| up > 0.0),
            methods: self.methods(),
            errors_per_second,
            worst_error,
            stored_per_second: self.rate("peerpost_messages_stored_total", &[]),
            stored: value("peerpost_messages_stored_total"),
            users: value("peerpost_users_registered_total"),
            commits: self.timed("peerpost_commit_duration_seconds", &[]),
            group_writes: self.came("peerpost_group_writes", &[]).mean(),
            failures: value("peerpost_storage_failures_total"),
            queue: share("peerpost_write_queue_bytes", "peerpost_write_queue_limit_bytes"),
            writes_waiting: value("peerpost_writes_waiting"),
            readers_busy: reads("peerpost_readers_busy"),
            reads_waiting: reads("peerpost_reads_waiting"),
            tail: share("peerpost_tail_messages", "peerpost_merge_messages"),
            database_bytes: disk("database"),
            wal_bytes: disk("wal"),
            disk_free_bytes: value("peerpost_disk_free_bytes"),
            subscribers: value("peerpost_subscribers"),
            mailboxes_followed: value("peerpost_hub_channels"),
            lags_per_second: self.rate("peerpost_subscriber_lags_total", &[]),
            replay_pages_per_second: self.rate("peerpost_replay_pages_total", &[]),
            connections: share("peerpost_connections", "peerpost_connections_max"),
            connections_per_second: self.rate("peerpost_connections_total", &[]),
            connections_cut: value("peerpost_connections_cut_total"),
            held: share("peerpost_held_bytes", "peerpost_held_limit_bytes"),
            resident_bytes: value("process_resident_memory_bytes"),
            token_hits: self.token_hits(),
            certificate_seconds: until("peerpost_tls_certificate_not_after_seconds"),
        }
    }

    fn version(&self) -> Option<String> {
        let info = self.after.all("peerpost_build_info").first()?;
        let version = info.label("version")?;
        let commit = info.label("commit").filter(|commit| !commit.is_empty());
        Some(commit.map_or_else(|| version.to_owned(), |commit| format!("{version} ({commit})")))
    }

    /// What a counter grew by; all of it when it began anew.
    fn grown(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let after = self.after.value(name, labels)?;
        let before = self.before.value(name, labels).unwrap_or(0.0);
        Some(if before <= after { after - before } else { after })
    }

    fn rate(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        // A count of the database is not the process's: what it was before has to be known.
        self.before.value(name, labels)?;
        self.grown(name, labels).map(|grown| grown / self.seconds)
    }

    /// What came to a histogram.
    fn came(&self, name: &str, labels: &[(&str, &str)]) -> Histogram {
        self.after.histogram(name, labels).since(&self.before.histogram(name, labels))
    }

    fn timed(&self, name: &str, labels: &[(&str, &str)]) -> Timed {
        let came = self.came(name, labels);
        Timed {
            per_second: came.count() / self.seconds,
            p50: came.quantile(0.5),
            p99: came.quantile(0.99),
        }
    }

    /// The counts of calls, each with how much it grew.
    fn calls(&self) -> impl Iterator<Item = (&Sample, f64)> {
        let name = format!("{CALLS}_count");
        self.after.all(&name).iter().filter_map(move |sample| {
            let labels = [(METHOD, sample.label(METHOD)?), (STATUS, sample.label(STATUS)?)];
            Some((sample, self.grown(&name, &labels)?))
        })
    }

    fn errors(&self) -> (f64, Option<(String, f64)>) {
        let mut by_status = BTreeMap::<String, f64>::new();
        for (sample, grown) in self.calls().filter(|(sample, _)| is_error(sample)) {
            let status = sample.label(STATUS).unwrap_or_default();
            *by_status.entry(status.to_owned()).or_default() += grown / self.seconds;
        }
        let all = by_status.values().sum();
        let worst = by_status.into_iter().max_by(|(_, one), (_, other)| one.total_cmp(other));
        (all, worst.filter(|(_, rate)| *rate > 0.0))
    }

    fn methods(&self) -> Vec<Method> {
        let mut errors = BTreeMap::<&str, f64>::new();
        for (sample, grown) in self.calls() {
            let grown = if is_error(sample) { grown } else { 0.0 };
            *errors.entry(sample.label(METHOD).unwrap_or_default()).or_default() +=
                grown / self.seconds;
        }
        let mut methods: Vec<_> = errors
            .into_iter()
            .map(|(full, errors_per_second)| {
                let name = full.rsplit('/').next().unwrap_or(full).to_owned();
                let is_stream = STREAMS.contains(&name.as_str());
                let calls = self.timed(CALLS, &[(METHOD, full)]);
                Method { name, is_stream, calls, errors_per_second }
            })
            .collect();
        // In an order that stays, unless there are too many.
        methods.sort_by(|one, other| one.name.cmp(&other.name));
        methods.truncate(METHODS_MAX);
        methods
    }

    fn token_hits(&self) -> Option<f64> {
        let looked_up = |result| self.grown("peerpost_token_lookups_total", &[("result", result)]);
        let (hits, misses) = (looked_up("hit")?, looked_up("miss")?);
        (hits + misses > 0.0).then(|| hits / (hits + misses))
    }
}

fn is_error(sample: &Sample) -> bool {
    sample.label(STATUS).is_some_and(|status| !NO_ERRORS.contains(&status))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A page of a server under load, `step` seconds after another of it.
    pub(crate) fn page(step: u32) -> Page {
        let calls = |method: &str, status: &str, quick: u32, slow: u32| {
            let labels = format!(
                "rpc_method=\"peerpost.v1.MessagingService/{method}\",\
                 rpc_response_status_code=\"{status}\""
            );
            let (quick, all) = (quick * step, (quick + slow) * step);
            format!(
                "{CALLS}_bucket{{{labels},le=\"0.001\"}} 0\n\
                 {CALLS}_bucket{{{labels},le=\"0.0025\"}} {quick}\n\
                 {CALLS}_bucket{{{labels},le=\"+Inf\"}} {all}\n\
                 {CALLS}_sum{{{labels}}} {step}\n{CALLS}_count{{{labels}}} {all}\n"
            )
        };
        let sends = calls("SendMessage", "OK", 1_000, 0);
        let refused = calls("SendMessage", "RESOURCE_EXHAUSTED", 0, 8);
        let reads = calls("GetMessages", "OK", 40, 0);
        let left = calls("GetMessages", "CANCELLED", 1, 0);
        let streams = calls("Subscribe", "OK", 2, 0);
        let text = format!(
            "{sends}{refused}{reads}{left}{streams}peerpost_build_info{{version=\"0.1.0\",commit=\"abcdef123456 2026-11-22\"}} 1\n\
             process_start_time_seconds 1000\nprocess_resident_memory_bytes 50331648\n\
             peerpost_storage_up 1\npeerpost_storage_failures_total 0\n\
             peerpost_messages_stored_total {stored}\npeerpost_users_registered_total 1234\n\
             peerpost_commit_duration_seconds_bucket{{le=\"0.001\"}} 0\n\
             peerpost_commit_duration_seconds_bucket{{le=\"0.0025\"}} {commits}\n\
             peerpost_commit_duration_seconds_bucket{{le=\"+Inf\"}} {commits}\n\
             peerpost_commit_duration_seconds_sum 1\n\
             peerpost_group_writes_bucket{{le=\"+Inf\"}} {commits}\n\
             peerpost_group_writes_sum {stored}\n\
             peerpost_write_queue_bytes 524288\npeerpost_write_queue_limit_bytes 67108864\n\
             peerpost_writes_waiting 0\npeerpost_readers_busy{{pool=\"reads\"}} 1\n\
             peerpost_reads_waiting{{pool=\"reads\"}} 0\n\
             peerpost_tail_messages 65536\npeerpost_merge_messages 131072\n\
             peerpost_disk_bytes{{file=\"database\"}} 323518464\n\
             peerpost_disk_bytes{{file=\"wal\"}} 4136512\npeerpost_disk_free_bytes 53687091200\n\
             peerpost_subscribers 34\npeerpost_hub_channels 30\n\
             peerpost_subscriber_lags_total {step}\npeerpost_replay_pages_total {step}\n\
             peerpost_connections 40\npeerpost_connections_max 16384\n\
             peerpost_connections_total 40\npeerpost_connections_cut_total 0\n\
             peerpost_held_bytes 1048576\npeerpost_held_limit_bytes 268435456\n\
             peerpost_token_lookups_total{{result=\"hit\"}} {hits}\n\
             peerpost_token_lookups_total{{result=\"miss\"}} {step}\n\
             peerpost_tls_certificate_not_after_seconds 2000000\n",
            stored = 5_000_000 + 1_000 * step,
            commits = 100 * step,
            hits = 999 * step,
        );
        Page::parse(&text)
    }

    pub(crate) fn figures() -> Figures {
        Figures::between(&page(1), &page(3), Duration::from_secs(2), 91_000.0)
    }

    #[test]
    fn rates_and_quantiles_are_of_the_time_between() {
        let figures = figures();
        assert_eq!(figures.version.as_deref(), Some("0.1.0 (abcdef123456 2026-11-22)"));
        assert_eq!(figures.uptime, Some(Duration::from_hours(25)));
        assert_eq!(figures.stored_per_second, Some(1_000.0));
        assert_eq!(Some(figures.errors_per_second), Some(8.0));
        assert_eq!(figures.worst_error, Some(("RESOURCE_EXHAUSTED".to_owned(), 8.0)));
        assert_eq!((figures.commits.per_second, figures.group_writes), (100.0, Some(10.0)));
        assert_eq!(figures.commits.p50, Quantile::At(0.00175));
        assert_eq!(figures.token_hits, Some(0.999));
        assert_eq!(figures.tail.ratio(), Some(0.5));
        assert_eq!(figures.certificate_seconds, Some(1_909_000.0));
        let names: Vec<_> = figures.methods.iter().map(|method| method.name.as_str()).collect();
        assert_eq!(names, ["GetMessages", "SendMessage", "Subscribe"]);
        let [reads, sends, _] = &figures.methods[..] else { panic!("{figures:?}") };
        assert_eq!((reads.calls.per_second, reads.errors_per_second), (41.0, 0.0));
        assert_eq!((sends.calls.per_second, sends.errors_per_second), (1_008.0, 8.0));
        // 2,016 calls: the 1,995.84th of the 2,000 between 1 and 2.5 ms.
        let Quantile::At(p99) = sends.calls.p99 else { panic!("{sends:?}") };
        assert!((p99 - 0.002_496_88).abs() < 1e-9, "{p99}");
    }

    #[test]
    fn a_server_that_was_started_again_counts_from_nothing() {
        let restarted = |page: Page| {
            let text = "process_start_time_seconds 9\npeerpost_messages_stored_total 7\n\
                        rpc_server_call_duration_seconds_count{rpc_method=\"a/B\",\
                        rpc_response_status_code=\"INTERNAL\"} 4\n";
            Figures::between(&page, &Page::parse(text), Duration::from_secs(2), 10.0)
        };
        let figures = restarted(page(1));
        assert_eq!(figures.stored_per_second, None, "of a database that it found");
        assert_eq!(Some(figures.errors_per_second), Some(2.0));
        assert_eq!(figures.methods[0].name, "B");
    }

    #[test]
    fn an_empty_page_says_nothing() {
        let figures = Figures::between(&Page::default(), &Page::default(), Duration::ZERO, 0.0);
        assert_eq!((figures.version, figures.uptime, figures.token_hits), (None, None, None));
        assert!(figures.methods.is_empty() && figures.commits.p50 == Quantile::Unknown);
    }
}
