//! One GET of a metrics page over a connection that is kept.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{ACCEPT, ACCEPT_ENCODING, CONTENT_ENCODING, HOST, LOCATION, USER_AGENT};
use http::{HeaderMap, HeaderValue, Request};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http1::{Builder, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::spawn_local;
use tokio::time::timeout;

use super::buffers::Buffers;
use super::check;
use super::excerpt::{Families, excerpt};

/// vLLM answers `/metrics` with a redirect to `/metrics/` in some versions.
const MAX_REDIRECTS: usize = 3;
/// Nobody reads the body of a redirect, but it is in the way of the next answer.
const MAX_REDIRECT_BYTES: usize = 64 * 1024;
/// The part of a page that has come: so small for each connection, as there may be a thousand.
const READ_BYTES: usize = 32 * 1024;
/// A connection that was idle for longer may be forgotten by what is between, without a word.
const MAX_IDLE: Duration = Duration::from_secs(10);
/// Pages that are larger than this are read few at a time.
const HUGE_BYTES: usize = 1024 * 1024;
const HUGE_AT_ONCE: usize = 4;

/// Why there is no page.
#[derive(Debug, PartialEq, Eq)]
pub enum Failure {
    /// What went wrong, for people.
    Problem(String),
    /// Nothing, but somebody else must read it: it is compressed, or on another server.
    Refused,
}

impl From<String> for Failure {
    fn from(problem: String) -> Self {
        Self::Problem(problem)
    }
}

/// Where a page is, and what is wanted of it.
#[derive(Debug, Clone)]
pub struct Target {
    pub address: SocketAddr,
    /// As the `Host` header says it.
    pub host: String,
    /// With the query.
    pub path: String,
    /// For messages.
    pub url: String,
    /// None = the whole page.
    pub families: Option<Families>,
}

/// Bounds of a fetch.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    pub page_bytes: usize,
    pub time: Duration,
}

/// What all fetches of a thread share.
#[derive(Debug)]
pub struct Means {
    pub limits: Limits,
    buffers: Buffers,
    huge: Semaphore,
}

impl Means {
    pub fn new(limits: Limits) -> Self {
        Self { limits, buffers: Buffers::default(), huge: Semaphore::new(HUGE_AT_ONCE) }
    }
}

/// A connection to a target, if one is open.
#[derive(Default)]
pub struct Line {
    connection: Option<(Sender, Instant)>,
}

type Sender = SendRequest<Empty<Bytes>>;

impl Line {
    /// The page, or what of it is wanted.
    pub async fn fetch(&mut self, target: &Target, means: &Means) -> Result<Vec<u8>, Failure> {
        let mut page = means.buffers.take();
        let limit = means.limits.time;
        let read = timeout(limit, self.read(target, means, &mut page)).await;
        let read = read.unwrap_or_else(|_| {
            Err(format!("no whole answer within {} s from {}", limit.as_secs_f64(), target.url).into())
        });
        let found = read.and_then(|()| match check::problem(&page) {
            Some(problem) => Err(problem.into()),
            None => Ok(match &target.families {
                Some(families) => excerpt(&page, families),
                None => std::mem::take(&mut page),
            }),
        });
        means.buffers.give(page);
        found
    }

    async fn read(&mut self, target: &Target, means: &Means, page: &mut Vec<u8>) -> Result<(), Failure> {
        let mut path = target.path.clone();
        for _ in 0..=MAX_REDIRECTS {
            let (sender, response) = self.answered(target, &path).await?;
            let (head, body) = response.into_parts();
            if let Some(location) = redirect(head.status.as_u16(), &head.headers) {
                path = followed(target, &path, location).ok_or(Failure::Refused)?;
                if collect(body, target, means, MAX_REDIRECT_BYTES, page).await.is_ok() {
                    self.keep(sender);
                }
                page.clear();
                continue;
            }
            if head.status != 200 {
                return Err(format!("status {} from {}", head.status.as_u16(), target.url).into());
            }
            if head.headers.get(CONTENT_ENCODING).is_some_and(|coding| coding != "identity") {
                return Err(Failure::Refused);
            }
            collect(body, target, means, means.limits.page_bytes, page).await?;
            self.keep(sender);
            return Ok(());
        }
        Err(Failure::Refused)
    }

    /// For the next request; what cannot be used again says so then.
    fn keep(&mut self, sender: Sender) {
        self.connection = Some((sender, Instant::now()));
    }

    /// Ask, on the kept connection if there is one. A server may have closed that one in the meantime; then a new one is used.
    async fn answered(&mut self, target: &Target, path: &str) -> Result<(Sender, http::Response<Incoming>), String> {
        if let Some((mut sender, since)) = self.connection.take()
            && since.elapsed() <= MAX_IDLE
            && sender.ready().await.is_ok()
        {
            match sender.send_request(request(target, path)?).await {
                Ok(response) => return Ok((sender, response)),
                Err(error) if is_loss(&error) => {}
                Err(error) => return Err(explained(&error, target)),
            }
        }
        let mut sender = connect(target).await?;
        let response = sender.send_request(request(target, path)?).await.map_err(|error| explained(&error, target))?;
        Ok((sender, response))
    }
}

/// Read a body to its end.
async fn collect(
    mut body: Incoming,
    target: &Target,
    means: &Means,
    max_bytes: usize,
    into: &mut Vec<u8>,
) -> Result<(), String> {
    let mut permit = None;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| explained(&error, target))?;
        let Some(data) = frame.data_ref() else {
            continue;
        };
        let size = into.len() + data.len();
        if size > max_bytes {
            return Err(format!("the answer of {} is larger than {max_bytes} bytes", target.url));
        }
        if size > HUGE_BYTES && permit.is_none() {
            permit = means.huge.acquire().await.ok();
        }
        into.extend_from_slice(data);
    }
    Ok(())
}

async fn connect(target: &Target) -> Result<Sender, String> {
    let failed = |error: &std::io::Error| format!("cannot connect to {}: {}", target.url, reason(error));
    let tcp = TcpStream::connect(target.address).await.map_err(|error| failed(&error))?;
    tcp.set_nodelay(true).map_err(|error| failed(&error))?;
    let mut builder = Builder::new();
    builder.read_buf_exact_size(Some(READ_BYTES));
    let opened = builder.handshake(TokioIo::new(tcp)).await;
    let (sender, connection) = opened.map_err(|error| explained(&error, target))?;
    // Whoever waits for an answer is told of its failure.
    spawn_local(async move { drop(connection.await) });
    Ok(sender)
}

fn request(target: &Target, path: &str) -> Result<Request<Empty<Bytes>>, String> {
    Request::get(path)
        .header(HOST, &target.host)
        .header(ACCEPT, HeaderValue::from_static("text/plain; version=0.0.4"))
        // Compressing every page would cost the model server more than sending it.
        .header(ACCEPT_ENCODING, HeaderValue::from_static("identity"))
        .header(USER_AGENT, HeaderValue::from_static("endpoint-picker"))
        .body(Empty::new())
        .map_err(|error| format!("{} cannot be asked for: {error}", target.url))
}

fn redirect(status: u16, headers: &HeaderMap) -> Option<&str> {
    matches!(status, 301 | 302 | 303 | 307 | 308).then(|| headers.get(LOCATION)?.to_str().ok()).flatten()
}

/// The path that a redirect leads to; None if it is on another server.
fn followed(target: &Target, path: &str, location: &str) -> Option<String> {
    if let Some(rest) = location.strip_prefix("http://") {
        let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        let path = if path.starts_with('/') { path.into() } else { format!("/{path}") };
        return same(authority, &target.host).then_some(path);
    }
    if location.contains("://") || location.starts_with("//") {
        return None;
    }
    let asked = path.split('?').next().unwrap_or(path);
    Some(match location.chars().next() {
        Some('/') => location.into(),
        Some('?') | None => format!("{asked}{location}"),
        Some(_) => format!("{}{location}", &asked[..=asked.rfind('/').unwrap_or(0)]),
    })
}

/// Whether two authorities name one server; the port of HTTP may be left out.
fn same(one: &str, other: &str) -> bool {
    let whole = |name: &str| name.strip_suffix(":80").unwrap_or(name).to_ascii_lowercase();
    whole(one) == whole(other)
}

/// The connection was gone before an answer came.
fn is_loss(error: &hyper::Error) -> bool {
    error.is_canceled() || error.is_closed() || error.is_incomplete_message() || is_io(error)
}

fn is_io(error: &hyper::Error) -> bool {
    std::error::Error::source(error).is_some_and(|source| source.is::<std::io::Error>())
}

fn explained(error: &hyper::Error, target: &Target) -> String {
    // A body that ends early is reported as an I/O error, one with a wrong chunk too.
    if error.is_parse() || (is_io(error) && kind(error) == Some(std::io::ErrorKind::InvalidInput)) {
        return format!("the answer of {} is no HTTP", target.url);
    }
    format!("the connection to {} was lost before its whole answer came", target.url)
}

fn kind(error: &hyper::Error) -> Option<std::io::ErrorKind> {
    std::error::Error::source(error)?.downcast_ref::<std::io::Error>().map(std::io::Error::kind)
}

/// The system's own words, without its number.
fn reason(error: &std::io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or(&text).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target() -> Target {
        Target {
            address: SocketAddr::from(([127, 0, 0, 1], 8000)),
            host: "127.0.0.1:8000".into(),
            path: "/a/metrics".into(),
            url: "http://127.0.0.1:8000/a/metrics".into(),
            families: None,
        }
    }

    #[test]
    fn redirects_are_followed_on_the_same_server_only() {
        for (location, path) in [
            ("/metrics/", "/metrics/"),
            ("metrics/", "/a/metrics/"),
            ("?x=1", "/a/metrics?x=1"),
            ("", "/a/metrics"),
            ("http://127.0.0.1:8000/b?c", "/b?c"),
            ("http://127.0.0.1:8000", "/"),
        ] {
            assert_eq!(followed(&target(), "/a/metrics", location).as_deref(), Some(path), "{location}");
        }
        for location in
            ["http://127.0.0.1:8001/metrics", "https://127.0.0.1:8000/metrics", "//other/metrics", "ftp://a b"]
        {
            assert!(followed(&target(), "/a/metrics", location).is_none(), "{location}");
        }
    }

    #[test]
    fn the_port_of_http_may_be_left_out() {
        assert!(same("A.example", "a.example:80"));
        assert!(!same("a.example:8000", "a.example"));
    }
}
