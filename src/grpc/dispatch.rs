//! Which service a call goes to.

use std::convert::Infallible;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body as HttpBody;
use tokio_util::either::Either;
use tonic::body::Body;
use tonic::codegen::StdError;
use tonic::server::NamedService;
use tonic::service::Routes;
use tower::Service;

/// Everything that a server serves. One service is called directly, by its name in the path; the
/// router of all the others puts a call's body and answer in boxes several times over, which for a
/// small call is a good part of its cost.
#[derive(Clone)]
pub struct Dispatch<S> {
    direct: S,
    others: Routes,
}

impl<S> Dispatch<S> {
    /// Calls of `direct` go there, all others to `others`.
    pub fn new(direct: S, others: Routes) -> Self {
        Self { direct, others: others.prepare() }
    }
}

impl<S, B> Service<Request<B>> for Dispatch<S>
where
    S: NamedService + Service<Request<B>, Response = Response<Body>, Error = Infallible>,
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<StdError>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Either<S::Future, <Routes as Service<Request<B>>>::Future>;

    /// The generated services are always ready, and so is the router.
    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        if service_name(request.uri().path()) == S::NAME {
            Either::Left(self.direct.call(request))
        } else {
            Either::Right(self.others.call(request))
        }
    }
}

/// The service in a call's path, `/package.Service/Method`. Empty if it is not of this form.
fn service_name(path: &str) -> &str {
    let name = path.strip_prefix('/').and_then(|rest| rest.split_once('/'));
    name.map_or("", |(name, _)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_service_in_the_path() {
        assert_eq!(
            service_name("/peerpost.v1.MessagingService/Send"),
            "peerpost.v1.MessagingService"
        );
        assert_eq!(service_name("/a/b/c"), "a");
        for path in ["", "/", "/a", "a/b", "*"] {
            assert_eq!(service_name(path), "", "{path:?}");
        }
    }
}
