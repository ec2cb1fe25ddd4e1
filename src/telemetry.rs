//! Traces of calls, for OpenTelemetry: a span for each, below the caller's own if the call names it.
//!
//! They tell which method was called, when, for how long, and what it came to. Nothing of a request, an
//! answer or the metadata is in them, but the ids of the caller's trace (`traceparent`, by the W3C's Trace
//! Context). Without the feature `otel` nothing of this is compiled, and a span is nothing.

#[cfg(feature = "otel")]
pub use exporting::{CallSpan, Exporter, ExporterError};

/// A call's span: none.
#[cfg(not(feature = "otel"))]
#[derive(Debug)]
pub struct CallSpan;

#[cfg(not(feature = "otel"))]
impl CallSpan {
    /// Begins with a call of this method.
    pub fn begin(_method: &'static str, _headers: &http::HeaderMap) -> Self {
        Self
    }

    /// Ends with the call, which came to this gRPC status.
    pub fn end(&mut self, _status: &'static str) {}
}

#[cfg(feature = "otel")]
mod exporting {
    use std::sync::{LazyLock, OnceLock};
    use std::time::Duration;

    use http::HeaderMap;
    use opentelemetry::propagation::{Extractor, TextMapPropagator as _};
    use opentelemetry::trace::{Span as _, SpanKind, Status, Tracer as _, TracerProvider as _};
    use opentelemetry::{Context, KeyValue};
    use opentelemetry_otlp::{SpanExporter, WithExportConfig as _};
    use opentelemetry_sdk::Resource;
    use opentelemetry_sdk::propagation::TraceContextPropagator;
    use opentelemetry_sdk::trace::{Sampler, SdkTracer, SdkTracerProvider, Span};
    use thiserror::Error;

    use crate::version::VERSION;

    const TRACEPARENT: &str = "traceparent";

    /// What a trace is attributed to, unless `OTEL_SERVICE_NAME` says otherwise.
    const SERVICE_NAME: &str = "peerpost";

    /// How long the last spans may take to their collector.
    const STOP_DEADLINE: Duration = Duration::from_secs(2);

    /// The statuses that are the server's errors, by OpenTelemetry's conventions for RPC servers.
    const ERRORS: [&str; 6] =
        ["UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"];

    /// The process's; none is begun before the exporter is started.
    static TRACER: OnceLock<SdkTracer> = OnceLock::new();

    static PROPAGATOR: LazyLock<TraceContextPropagator> =
        LazyLock::new(TraceContextPropagator::new);

    /// Why there are no traces.
    #[derive(Debug, Error)]
    pub enum ExporterError {
        /// The collector's address is no good.
        #[error("cannot send traces: {0}")]
        Exporter(#[from] opentelemetry_otlp::ExporterBuildError),
        /// A process has one exporter.
        #[error("this process sends its traces already")]
        Started,
    }

    /// Sends the spans to a collector, from a thread of its own. Those that come faster than they can be
    /// sent are dropped: at most 2,048 wait, unless `OTEL_BSP_MAX_QUEUE_SIZE` says otherwise.
    #[derive(Debug)]
    pub struct Exporter(SdkTracerProvider);

    impl Exporter {
        /// Sends the spans of this process to a collector that takes OTLP over gRPC, such as
        /// `http://127.0.0.1:4317`: of the calls whose caller decided nothing this share, 0 to 1; of the
        /// others as the caller decided. To be called within the runtime that carries the sending.
        ///
        /// # Errors
        /// [`ExporterError`]. That a collector is not there is none: it may come.
        pub fn start(endpoint: &str, share: f64) -> Result<Self, ExporterError> {
            let exporter = SpanExporter::builder().with_tonic().with_endpoint(endpoint).build()?;
            let mut resource =
                Resource::builder().with_attribute(KeyValue::new("service.version", VERSION));
            if std::env::var_os("OTEL_SERVICE_NAME").is_none() {
                resource = resource.with_service_name(SERVICE_NAME);
            }
            let sampler = Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(share)));
            let provider = SdkTracerProvider::builder()
                .with_batch_exporter(exporter)
                .with_sampler(sampler)
                .with_resource(resource.build())
                .build();
            TRACER.set(provider.tracer(SERVICE_NAME)).map_err(|_| ExporterError::Started)?;
            Ok(Self(provider))
        }

        /// Sends what is left, within 2 seconds; the log says what could not be sent.
        pub async fn stop(self) {
            // It waits for the runtime, which must go on meanwhile.
            let stopping =
                tokio::task::spawn_blocking(move || self.0.shutdown_with_timeout(STOP_DEADLINE));
            match stopping.await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::warn!(%error, "the last traces were not sent"),
                Err(error) => tracing::warn!(%error, "the last traces were not sent"),
            }
        }
    }

    /// A call's span.
    #[derive(Debug)]
    pub struct CallSpan(Option<Span>);

    impl CallSpan {
        /// Begins with a call of this method.
        pub fn begin(method: &'static str, headers: &HeaderMap) -> Self {
            Self(TRACER.get().map(|tracer| {
                let parent =
                    PROPAGATOR.extract_with_context(&Context::new(), &TraceParent(headers));
                tracer
                    .span_builder(method)
                    .with_kind(SpanKind::Server)
                    .with_attributes([
                        KeyValue::new("rpc.system.name", "grpc"),
                        KeyValue::new("rpc.method", method),
                    ])
                    .start_with_context(tracer, &parent)
            }))
        }

        /// Ends with the call, which came to this gRPC status.
        pub fn end(&mut self, status: &'static str) {
            let Some(mut span) = self.0.take() else { return };
            span.set_attribute(KeyValue::new("rpc.response.status_code", status));
            if ERRORS.contains(&status) {
                span.set_attribute(KeyValue::new("error.type", status));
                span.set_status(Status::error(""));
            }
            span.end();
        }
    }

    /// The ids of the caller's trace. Not its `tracestate`, which can hold anything.
    struct TraceParent<'a>(&'a HeaderMap);

    impl Extractor for TraceParent<'_> {
        fn get(&self, key: &str) -> Option<&str> {
            self.0.get(key).filter(|_| key == TRACEPARENT)?.to_str().ok()
        }

        fn keys(&self) -> Vec<&str> {
            vec![TRACEPARENT]
        }
    }

    #[cfg(test)]
    mod tests {
        use opentelemetry::trace::TraceContextExt as _;

        use super::*;

        #[test]
        fn a_callers_trace_is_taken_over_without_its_state() {
            let headers = [
                (TRACEPARENT, "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
                ("tracestate", "a=b"),
            ];
            let headers: HeaderMap = headers
                .into_iter()
                .map(|(name, value)| (name.parse().expect("a name"), value.parse().expect("text")))
                .collect();
            let parent = PROPAGATOR.extract_with_context(&Context::new(), &TraceParent(&headers));
            let span = parent.span().span_context().clone();
            assert_eq!(span.trace_id().to_string(), "0af7651916cd43dd8448eb211c80319c");
            assert_eq!(span.span_id().to_string(), "b7ad6b7169203331");
            assert!(span.is_sampled() && span.trace_state().header().is_empty());
        }
    }
}
