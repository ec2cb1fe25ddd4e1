use anyhow::Context as _;

use crate::telemetry::Exporter;

/// Where a server's traces go.
#[derive(Debug, clap::Args)]
pub(super) struct TraceArgs {
    /// Where a collector takes traces by OTLP over gRPC, such as `http://127.0.0.1:4317` [default: nowhere].
    #[arg(long, env = "OTEL_EXPORTER_OTLP_ENDPOINT", value_name = "URL")]
    otlp_endpoint: Option<String>,

    /// The share of calls that are traced, 0 to 1, where the caller has not decided it (`traceparent`).
    #[arg(
        long,
        env = "PEERPOST_OTLP_SHARE",
        value_name = "SHARE",
        default_value = "1",
        value_parser = share
    )]
    otlp_share: f64,
}

impl TraceArgs {
    /// Begins to send them, where they go somewhere. To be called within the runtime.
    pub(super) fn start(&self) -> anyhow::Result<Option<Exporter>> {
        let Some(endpoint) = self.otlp_endpoint.as_deref().filter(|it| !it.is_empty()) else {
            return Ok(None);
        };
        let exporter = Exporter::start(endpoint, self.otlp_share)
            .with_context(|| format!("the collector's address is {endpoint}"))?;
        tracing::info!(%endpoint, share = self.otlp_share, "traces");
        Ok(Some(exporter))
    }
}

fn share(text: &str) -> Result<f64, String> {
    let share = text.parse().ok().filter(|share| (0.0..=1.0).contains(share));
    share.ok_or_else(|| "must be 0 to 1".to_owned())
}
