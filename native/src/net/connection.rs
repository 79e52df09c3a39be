//! One connection: handshakes, streams as they come, keepalive, GOAWAY.

use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use h2::server::{Builder, Connection, SendResponse};
use h2::{Ping, PingPong, RecvStream};
use http::{Method, Request, Response, StatusCode};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::spawn_local;
use tokio::time::{Interval, MissedTickBehavior, interval, sleep, timeout};
use tokio_rustls::TlsAcceptor;

use super::grpc::refuse;
use super::health;
use super::thread::Thread;
use crate::wire::messages::Status;

const EXTPROC: &str = "/envoy.service.ext_proc.v3.ExternalProcessor/Process";
const HEALTH: &str = "/grpc.health.v1.Health/";

/// Source: RFC 9113, 3.4.
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const PREFACE_PAUSE: Duration = Duration::from_millis(10);
const HANDSHAKE: Duration = Duration::from_secs(10);
/// A peer that does not answer a ping until the next one is due is gone.
const KEEPALIVE: Duration = Duration::from_secs(30);

/// What a peer may send on one stream before we read it: Envoy's largest chunk.
const STREAM_WINDOW_BYTES: u32 = 1024 * 1024;
/// The streams' own windows bound the memory; a common one would let slow streams stop the others.
const CONNECTION_WINDOW_BYTES: u32 = (1 << 31) - 1;
const MAX_HEADER_LIST_BYTES: u32 = 64 * 1024;
/// Streams that we ended while the peer still sends: remembered so that what is on its way is not an error.
const RESET_STREAMS: usize = 8192;
const RESET_DURATION: Duration = Duration::from_secs(2);
/// Envoy may cancel many requests in one go.
const PENDING_RESETS: usize = 16 * 1024;

/// What a port serves.
#[derive(Debug, Clone, Copy)]
pub struct ServedPort {
    pub secure: bool,
    pub extproc: bool,
    pub health: bool,
}

/// Serve a connection until it ends.
pub async fn serve(thread: Rc<Thread>, port: ServedPort, tcp: TcpStream) {
    // Without it small answers wait for acknowledgements; a socket that cannot be set so works all the same.
    let _ = tcp.set_nodelay(true);
    let place = thread.connected();
    let number = place.number;
    if !port.secure {
        if let Ok(Some(tcp)) = timeout(HANDSHAKE, speaks_h2(tcp)).await {
            serve_h2(&thread, port, number, tcp).await;
        }
    } else if let Some(config) = thread.shared.settings().tls.clone()
        && let Ok(Ok(stream)) = timeout(HANDSHAKE, TlsAcceptor::from(config).accept(tcp)).await
    {
        serve_h2(&thread, port, number, stream).await;
    }
}

/// The connection, if it begins as HTTP/2 does. Another client is closed in order: with its bytes unread it would be reset,
/// and might not learn that nobody understands it.
async fn speaks_h2(mut tcp: TcpStream) -> Option<TcpStream> {
    let mut begin = [0; PREFACE.len()];
    let mut known = 0;
    while known < PREFACE.len() {
        let size = tcp.peek(&mut begin).await.ok().filter(|size| *size > 0)?;
        if begin[..size] != PREFACE[..size] {
            let mut dropped = [0; 4096];
            while tcp.try_read(&mut dropped).is_ok_and(|size| size > 0) {}
            poll_fn(|cx| Pin::new(&mut tcp).poll_shutdown(cx)).await.ok()?;
            return None;
        }
        known = size;
        if known < PREFACE.len() {
            // What is peeked at stays readable: look again a moment later.
            sleep(PREFACE_PAUSE).await;
        }
    }
    Some(tcp)
}

async fn serve_h2<T: AsyncRead + AsyncWrite + Unpin>(thread: &Rc<Thread>, port: ServedPort, number: usize, io: T) {
    let mut builder = Builder::new();
    builder
        .initial_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_header_list_size(MAX_HEADER_LIST_BYTES)
        .max_concurrent_streams(u32::MAX)
        .max_concurrent_reset_streams(RESET_STREAMS)
        .reset_stream_duration(RESET_DURATION)
        .max_local_error_reset_streams(None)
        .max_pending_accept_reset_streams(PENDING_RESETS)
        .max_send_buffer_size(STREAM_WINDOW_BYTES as usize);
    let Ok(Ok(connection)) = timeout(HANDSHAKE, builder.handshake(io)).await else {
        return;
    };
    let mut served = Served::new(connection);
    loop {
        match poll_fn(|cx| served.next(cx, thread, number)).await {
            Next::Call(request, respond) => dispatch(thread, port, *request, respond),
            Next::Over => return,
        }
    }
}

enum Next {
    Call(Box<Request<RecvStream>>, SendResponse<Bytes>),
    Over,
}

struct Served<T> {
    connection: Connection<T, Bytes>,
    pings: Option<PingPong>,
    due: Interval,
    unanswered: bool,
    going_away: bool,
}

impl<T: AsyncRead + AsyncWrite + Unpin> Served<T> {
    fn new(mut connection: Connection<T, Bytes>) -> Self {
        let mut due = interval(KEEPALIVE);
        due.set_missed_tick_behavior(MissedTickBehavior::Delay);
        due.reset();
        Self { pings: connection.ping_pong(), connection, due, unanswered: false, going_away: false }
    }

    fn next(&mut self, cx: &mut Context, thread: &Thread, number: usize) -> Poll<Next> {
        let (stopping, cut) = thread.control(number, |control| {
            if !control.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
                control.waker = Some(cx.waker().clone());
            }
            (control.stopping, control.cut)
        });
        if cut || !self.is_alive(cx) {
            return Poll::Ready(Next::Over);
        }
        if stopping && !self.going_away {
            self.going_away = true;
            self.connection.graceful_shutdown();
        }
        match self.connection.poll_accept(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Some(Ok((request, respond)))) => Poll::Ready(Next::Call(Box::new(request), respond)),
            Poll::Ready(Some(Err(_)) | None) => Poll::Ready(Next::Over),
        }
    }

    fn is_alive(&mut self, cx: &mut Context) -> bool {
        let Some(pings) = &mut self.pings else { return true };
        if self.unanswered && pings.poll_pong(cx).is_ready() {
            self.unanswered = false;
        }
        while Pin::new(&mut self.due).poll_tick(cx).is_ready() {
            if self.unanswered {
                return false;
            }
            self.unanswered = pings.send_ping(Ping::opaque()).is_ok();
            // Registers for the answer.
            if self.unanswered && pings.poll_pong(cx).is_ready() {
                self.unanswered = false;
            }
        }
        true
    }
}

fn dispatch(thread: &Rc<Thread>, port: ServedPort, request: Request<RecvStream>, mut respond: SendResponse<Bytes>) {
    if !is_grpc(&request) {
        let mut response = Response::new(());
        *response.status_mut() = StatusCode::UNSUPPORTED_MEDIA_TYPE;
        let _ = respond.send_response(response, true);
        return;
    }
    let path = request.uri().path();
    if port.extproc && path == EXTPROC {
        return thread.open(request.into_body(), respond);
    }
    match path.strip_prefix(HEALTH) {
        Some(method) if port.health => {
            let (method, table) = (method.to_owned(), thread.shared.health.subscribe());
            spawn_local(async move { health::serve(&method, request.into_body(), respond, table).await });
        }
        _ => refuse(&mut respond, Status::Unimplemented, "no such service or method on this port"),
    }
}

fn is_grpc(request: &Request<RecvStream>) -> bool {
    let media = request.headers().get(http::header::CONTENT_TYPE).map_or(&b""[..], |value| value.as_bytes());
    request.method() == Method::POST && media.starts_with(b"application/grpc")
}
