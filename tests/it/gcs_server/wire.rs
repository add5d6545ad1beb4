//! The sockets: accepting connections, reading requests, sending answers, and breaking connections when a fault says
//! so. A request's body is always read to its end before the answer goes out or the connection breaks; otherwise it
//! would be chance whether the client sees an answer or an error while it still writes.

use super::Shared;
use super::fault::Action;
use super::reply::{self, Body, Spoil};
use super::routes::{Failed, carry_out};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use std::error::Error;
use std::sync::Arc;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

/// A connection that ends without an answer.
#[derive(Debug, PartialEq, thiserror::Error)]
enum Cut {
    #[error("closed without an answer")]
    Close,
    #[error("reset")]
    Reset,
}

/// Serves until `stop` is used or dropped. What is still under way then is dropped with the runtime.
pub(super) fn run(listener: std::net::TcpListener, shared: Arc<Shared>, stop: oneshot::Receiver<()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime can be built");
    runtime.block_on(async {
        let listener = TcpListener::from_std(listener).expect("the listener does not block");
        tokio::select! {
            _ = stop => {}
            () = accept(listener, shared) => {}
        }
    });
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    loop {
        let (stream, _) = listener.accept().await.expect("a connection can be accepted");
        stream.set_nodelay(true).expect("a TCP socket has this option");
        tokio::spawn(serve(stream, shared.clone()));
    }
}

async fn serve(stream: TcpStream, shared: Arc<Shared>) {
    let service = service_fn(move |request| respond(shared.clone(), request));
    let mut connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    let ended = (&mut connection).await;
    if ended.is_err_and(|cause| cause.source().and_then(|it| it.downcast_ref()) == Some(&Cut::Reset)) {
        // Dropping a socket that does not linger sends RST instead of FIN.
        let stream = connection.into_parts().io.into_inner();
        stream.set_zero_linger().expect("a TCP socket has this option");
    }
}

async fn respond(shared: Arc<Shared>, request: Request<Incoming>) -> Result<Response<Body>, Cut> {
    let (head, mut body) = request.into_parts();
    let head_only = head.method == Method::HEAD;
    let action = shared.arrived(&format!("{} {}", head.method, head.uri));
    match action {
        Some(Action::Reset) => return drained(&mut body).await.and(Err(Cut::Reset)),
        Some(Action::Status(status)) => {
            drained(&mut body).await?;
            return Ok(reply::fault(status).into_response(head_only, Spoil::Nothing));
        }
        Some(Action::Delay(time)) => tokio::time::sleep(time).await,
        _ => {}
    }
    let done = carry_out(&shared, &head, &mut body).await;
    drained(&mut body).await?;
    let reply = match done {
        Ok(reply) => reply,
        Err(Failed::Refused(refusal)) => refusal.into_reply(),
        Err(Failed::Gone) => return Err(Cut::Close),
    };
    match action {
        Some(Action::ResetAfter) => Err(Cut::Reset),
        Some(Action::CloseAfter) => Err(Cut::Close),
        Some(Action::StatusAfter(status)) => Ok(reply::fault(status).into_response(head_only, Spoil::Nothing)),
        Some(Action::Truncate(bytes)) => Ok(reply.into_response(head_only, Spoil::Cut(bytes))),
        Some(Action::Flip) => Ok(reply.into_response(head_only, Spoil::Flip)),
        _ => Ok(reply.into_response(head_only, Spoil::Nothing)),
    }
}

async fn drained(body: &mut Incoming) -> Result<(), Cut> {
    while let Some(frame) = body.frame().await {
        frame.map_err(|_| Cut::Close)?;
    }
    Ok(())
}
