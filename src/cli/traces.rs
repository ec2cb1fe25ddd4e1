/// Where a server's traces go.
#[derive(Debug, clap::Args)]
#[group(skip)]
pub(super) struct TraceArgs {
    /// Where a collector takes traces by OTLP over gRPC, such as `http://127.0.0.1:4317`; where this is not
    /// set, OTEL_EXPORTER_OTLP_ENDPOINT says it. For a server that was built with the feature `otel`
    /// [default: nowhere].
    #[arg(long, env = "PEERPOST_OTLP_ENDPOINT", value_name = "URL")]
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

fn share(text: &str) -> Result<f64, String> {
    let share = text.parse().ok().filter(|share| (0.0..=1.0).contains(share));
    share.ok_or_else(|| "must be 0 to 1".to_owned())
}

#[cfg(feature = "otel")]
mod sending {
    use anyhow::Context as _;

    use super::TraceArgs;
    use crate::telemetry::Exporter;

    /// OpenTelemetry's own name for the setting.
    const ENDPOINT_VARIABLE: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";

    /// The sending of traces, if they go somewhere.
    pub(in crate::cli) struct Traces(Option<Exporter>);

    impl TraceArgs {
        /// Begins to send them. To be called within the runtime.
        pub(in crate::cli) fn start(&self) -> anyhow::Result<Traces> {
            let of_environment = || std::env::var(ENDPOINT_VARIABLE).ok();
            let endpoint = self.otlp_endpoint.clone().or_else(of_environment);
            let Some(endpoint) = endpoint.filter(|it| !it.is_empty()) else {
                return Ok(Traces(None));
            };
            let exporter = Exporter::start(&endpoint, self.otlp_share)
                .with_context(|| format!("the collector's address is {endpoint}"))?;
            tracing::info!(%endpoint, share = self.otlp_share, "traces");
            Ok(Traces(Some(exporter)))
        }
    }

    impl Traces {
        /// Sends what is left.
        pub(in crate::cli) async fn stop(self) {
            if let Some(exporter) = self.0 {
                exporter.stop().await;
            }
        }
    }
}

#[cfg(not(feature = "otel"))]
mod sending {
    use anyhow::bail;

    use super::TraceArgs;

    /// Traces are not sent.
    pub(in crate::cli) struct Traces;

    impl TraceArgs {
        /// Refuses what this build cannot do.
        pub(in crate::cli) fn start(&self) -> anyhow::Result<Traces> {
            if let Some(endpoint) = &self.otlp_endpoint {
                bail!(
                    "cannot send traces to {endpoint}, with a share of {}: this server was built without \
                     the feature `otel`",
                    self.otlp_share
                );
            }
            Ok(Traces)
        }
    }

    impl Traces {
        #[expect(clippy::unused_async, reason = "as where there is something to send")]
        pub(in crate::cli) async fn stop(self) {}
    }
}
