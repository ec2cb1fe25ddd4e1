//! Where a request goes: one port takes gRPC, gRPC-Web and plain HTTP, the latter two through the gate.

use std::convert::Infallible;
use std::ops::ControlFlow;
use std::pin::Pin;
use std::task::{Context, Poll};

use http::{Method, Request, Response, StatusCode, Version, header};
use hyper::body::Incoming;
use tokio_util::either::Either;
use tonic::body::Body;
use tonic::server::NamedService;
use tower::Service;

use super::gate::Gate;
use super::held::RequestBody;
use crate::grpc::{Coding, Dispatch, FromText, Spoken, web};

/// Everything that a server serves. gRPC goes to its services as it comes; gRPC-Web goes to them
/// translated; all else goes to `plain`.
#[derive(Clone)]
pub(super) struct Front<S, P> {
    grpc: Dispatch<S>,
    plain: P,
    gate: Gate,
}

impl<S, P> Front<S, P> {
    pub(super) fn new(grpc: Dispatch<S>, plain: P, gate: Gate) -> Self {
        Self { grpc, plain, gate }
    }
}

type Answering = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

impl<S, P, F> Service<Request<RequestBody<Incoming>>> for Front<S, P>
where
    S: NamedService
        + Service<Request<RequestBody<Incoming>>, Response = Response<Body>, Error = Infallible>
        + Service<Request<Body>, Response = Response<Body>, Error = Infallible, Future = F>
        + Clone
        + Send
        + 'static,
    F: Future<Output = Result<Response<Body>, Infallible>> + Send + 'static,
    P: Service<
            Request<Body>,
            Response = Response<Body>,
            Error = Infallible,
            Future: Send + 'static,
        > + Clone
        + Send
        + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future =
        Either<<Dispatch<S> as Service<Request<RequestBody<Incoming>>>>::Future, Answering>;

    /// What is behind it is always ready.
    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<RequestBody<Incoming>>) -> Self::Future {
        let spoken = Spoken::by(request.headers());
        if spoken == Spoken::Grpc && request.version() == Version::HTTP_2 {
            return Either::Left(self.grpc.call(request));
        }
        let visit = match self.gate.admit(&request) {
            ControlFlow::Continue(visit) => visit,
            ControlFlow::Break(answer) => return Either::Right(at_once(answer)),
        };
        let answering = match spoken {
            Spoken::Grpc => at_once(refusal(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "gRPC needs HTTP/2; over HTTP/1.1 use gRPC-Web or JSON",
            )),
            Spoken::Web(_) if request.method() != Method::POST => {
                at_once(refusal(StatusCode::METHOD_NOT_ALLOWED, "gRPC-Web is POST"))
            }
            Spoken::Web(coding) => self.web(request, coding),
            Spoken::Other => {
                let request = request.map(|body| Body::new(body.without_messages()));
                Box::pin(self.plain.call(request))
            }
        };
        Either::Right(Box::pin(async move {
            let mut answer = answering.await?;
            visit.mark(answer.headers_mut());
            Ok(answer)
        }))
    }
}

impl<S, P> Front<S, P> {
    fn web<F>(&mut self, request: Request<RequestBody<Incoming>>, coding: Coding) -> Answering
    where
        S: NamedService
            + Service<Request<Body>, Response = Response<Body>, Error = Infallible, Future = F>,
        F: Future<Output = Result<Response<Body>, Infallible>> + Send + 'static,
    {
        let of_answer = coding.of_answer(request.headers());
        let request = web::request(request.map(|body| match coding {
            Coding::Binary => Body::new(body),
            Coding::Text => Body::new(body.decoded(FromText::new)),
        }));
        let answer = self.grpc.call(request);
        Box::pin(async move { Ok(web::answer(answer.await?, of_answer)) })
    }
}

fn at_once(response: Response<Body>) -> Answering {
    Box::pin(std::future::ready(Ok(response)))
}

/// An answer without a service behind it: `{"error": …}`. The text needs no escaping in JSON.
pub(super) fn refusal(status: StatusCode, error: &str) -> Response<Body> {
    let json = format!("{{\"error\": \"{error}\"}}\n");
    let mut response = Response::new(Body::new(json));
    *response.status_mut() = status;
    let content_type = header::HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, content_type);
    response
}

/// Plain HTTP where nothing is served over it.
#[derive(Clone, Copy)]
pub(super) struct NothingElse;

impl Service<Request<Body>> for NothingElse {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = std::future::Ready<Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _request: Request<Body>) -> Self::Future {
        let error = "there is nothing here but gRPC and gRPC-Web";
        std::future::ready(Ok(refusal(StatusCode::NOT_FOUND, error)))
    }
}
