//! gRPC over HTTP/2: headers, status, trailers.

use bytes::Bytes;
use h2::SendStream;
use h2::server::SendResponse;
use http::{HeaderMap, HeaderValue, Response};

use crate::wire::messages::Status;

const CONTENT_TYPE: HeaderValue = HeaderValue::from_static("application/grpc");

/// The headers of a response that has messages.
pub fn accepted() -> Response<()> {
    let mut response = Response::new(());
    response.headers_mut().insert(http::header::CONTENT_TYPE, CONTENT_TYPE);
    response
}

fn trailers(status: Status, details: &str) -> HeaderMap {
    let mut trailers = HeaderMap::with_capacity(2);
    trailers.insert("grpc-status", HeaderValue::from(status as u16));
    if !details.is_empty()
        && let Ok(value) = HeaderValue::from_str(&percent_encoded(details))
    {
        trailers.insert("grpc-message", value);
    }
    trailers
}

/// Source: grpc/grpc: doc/PROTOCOL-HTTP2.md, "Status-Message".
fn percent_encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if matches!(byte, b' '..=b'~') && byte != b'%' {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

/// End a response that has begun. Fails only if the peer has left, which then ends the stream anyway.
pub fn end_with(send: &mut SendStream<Bytes>, status: Status, details: &str) {
    let _ = send.send_trailers(trailers(status, details));
}

/// A response without any message.
pub fn refuse(respond: &mut SendResponse<Bytes>, status: Status, details: &str) {
    let mut response = accepted();
    response.headers_mut().extend(trailers(status, details));
    let _ = respond.send_response(response, true);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_percent_encoded() {
        assert_eq!(percent_encoded("a b"), "a b");
        assert_eq!(percent_encoded("ü 100%\n"), "%C3%BC 100%25%0A");
    }
}
