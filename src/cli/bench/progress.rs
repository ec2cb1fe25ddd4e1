//! What is to be seen while a run goes on: a bar on stderr, where that is a terminal.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use super::meter::Meter;
use super::options::{Extent, Load};

const REDRAW_INTERVAL: Duration = Duration::from_millis(200);

const TEMPLATE: &str = "{prefix:28} [{wide_bar}] {percent:>3} %  {msg}";

/// Runs `work` and shows meanwhile how far the run is that `meter` counts.
pub(super) async fn shown<F: Future>(
    label: &str,
    load: &Load,
    meter: &Meter,
    work: F,
) -> F::Output {
    let begin = Instant::now();
    let bar = bar(
        label,
        match load.extent {
            Extent::Duration(duration) => milliseconds(load.warm_up + duration),
            Extent::Count(count) => count,
        },
    );
    let mut redraw = tokio::time::interval(REDRAW_INTERVAL);
    tokio::pin!(work);
    loop {
        tokio::select! {
            output = &mut work => {
                bar.finish_and_clear();
                return output;
            }
            _ = redraw.tick() => {
                let measured = meter.measured();
                bar.set_message(format!("{measured} measured"));
                bar.set_position(match load.extent {
                    Extent::Duration(_) => milliseconds(begin.elapsed()),
                    Extent::Count(_) => measured,
                });
            }
        }
    }
}

/// Runs `work` of which nothing can be said but that it goes on.
pub(super) async fn waited<F: Future>(label: &str, work: F) -> F::Output {
    let bar = ProgressBar::new_spinner();
    bar.set_message(label.to_owned());
    bar.enable_steady_tick(REDRAW_INTERVAL);
    let output = work.await;
    bar.finish_and_clear();
    output
}

fn bar(label: &str, length: u64) -> ProgressBar {
    let bar = ProgressBar::new(length).with_prefix(label.to_owned());
    match ProgressStyle::with_template(TEMPLATE) {
        Ok(style) => bar.with_style(style.progress_chars("=> ")),
        // The template is a constant; without it the bar looks otherwise.
        Err(_) => bar,
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
