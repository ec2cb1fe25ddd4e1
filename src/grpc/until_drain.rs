use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http::{HeaderMap, Request, Response};
use http_body::{Body as HttpBody, Frame};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::Status;
use tonic::body::Body;
use tonic::server::NamedService;
use tower::Service;

use super::error::CallError;

/// Wraps a service that knows nothing of the drain, such as reflection, so that its open responses
/// end with it.
#[derive(Clone)]
pub struct UntilDrain<S> {
    inner: S,
    drain: CancellationToken,
}

impl<S> UntilDrain<S> {
    /// Wraps `inner`, whose responses end with UNAVAILABLE when `drain` is cancelled.
    pub fn new(inner: S, drain: CancellationToken) -> Self {
        Self { inner, drain }
    }
}

impl<S: NamedService> NamedService for UntilDrain<S> {
    const NAME: &'static str = S::NAME;
}

impl<S, B> Service<Request<B>> for UntilDrain<S>
where
    S: Service<Request<B>, Response = Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let response = self.inner.call(request);
        let drain = Box::pin(self.drain.clone().cancelled_owned());
        Box::pin(async move {
            let Ok(response) = response.await;
            Ok(response.map(|inner| Body::new(Ending { inner, drain: Some(drain) })))
        })
    }
}

/// A response's body that ends with UNAVAILABLE at the drain.
struct Ending {
    inner: Body,
    /// `None` after it has ended.
    drain: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
}

impl HttpBody for Ending {
    type Data = bytes::Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let Self { inner, drain } = &mut *self;
        let Some(draining) = drain else {
            return Poll::Ready(None);
        };
        if let Poll::Ready(frame) = Pin::new(inner).poll_frame(context) {
            return Poll::Ready(frame);
        }
        ready!(draining.as_mut().poll(context));
        *drain = None;
        let mut trailers = HeaderMap::new();
        let ended = Status::from(CallError::ShuttingDown).add_header(&mut trailers);
        Poll::Ready(Some(ended.map(|()| Frame::trailers(trailers))))
    }
}
