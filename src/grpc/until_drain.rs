use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use http::{HeaderMap, Request, Response};
use http_body::{Body as HttpBody, Frame};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::Status;
use tonic::body::Body;
use tonic::server::NamedService;
use tower::Service;

use super::error::CallError;

/// Wraps a service that knows nothing of the drain, such as reflection: its open calls end with it.
#[derive(Clone)]
pub struct UntilDrain<S> {
    inner: S,
    drain: CancellationToken,
}

impl<S> UntilDrain<S> {
    /// Wraps `inner`, whose calls end with UNAVAILABLE when `drain` is cancelled.
    pub fn new(inner: S, drain: CancellationToken) -> Self {
        Self { inner, drain }
    }
}

impl<S: NamedService> NamedService for UntilDrain<S> {
    const NAME: &'static str = S::NAME;
}

impl<S, B> Service<Request<B>> for UntilDrain<S>
where
    S: Service<Request<Ending<B>>, Response = Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let drain = self.drain.clone();
        // The request ends too: whoever still reads it would keep the call open.
        let response = self.inner.call(request.map(|body| Ending::new(body, &drain, None)));
        Box::pin(async move {
            let Ok(response) = response.await;
            let status = Status::from(CallError::ShuttingDown);
            Ok(response.map(|body| Body::new(Ending::new(body, &drain, Some(status)))))
        })
    }
}

/// A body that ends at the drain: a response's with a status, a request's just so.
pub struct Ending<B> {
    inner: B,
    status: Option<Status>,
    /// `None` after the end.
    drain: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
}

impl<B> Ending<B> {
    fn new(inner: B, drain: &CancellationToken, status: Option<Status>) -> Self {
        let drain = Some(Box::pin(drain.clone().cancelled_owned()));
        Self { inner, status, drain }
    }
}

impl<B: HttpBody + Unpin> HttpBody for Ending<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let Some(drain) = &mut self.drain else {
            return Poll::Ready(None);
        };
        if drain.as_mut().poll(context).is_pending() {
            return Pin::new(&mut self.inner).poll_frame(context);
        }
        self.drain = None;
        let trailers = self.status.take().map(|status| {
            let mut trailers = HeaderMap::new();
            // It fails only on details that are no header value, and these are encoded as one.
            let _ = status.add_header(&mut trailers);
            Ok(Frame::trailers(trailers))
        });
        Poll::Ready(trailers)
    }
}
