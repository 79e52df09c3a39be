//! What kind of body the response headers announce. Twin of `epp/extproc/media.py`.

use crate::wire::headers::HeaderBlock;

/// The media type without parameters, lower case; empty if there is none.
pub fn media_type(headers: &HeaderBlock) -> Vec<u8> {
    let value = headers.get(b"content-type").unwrap_or_default();
    let end = memchr::memchr(b';', value).unwrap_or(value.len());
    value[..end].trim_ascii().to_ascii_lowercase()
}

pub fn is_event_stream(media: &[u8]) -> bool {
    media == b"text/event-stream"
}

/// Also with a structured suffix or line by line.
pub fn is_json(media: &[u8]) -> bool {
    memchr::memmem::find(media, b"json").is_some()
}

/// Whether the body is compressed, so that nothing in it can be read or replaced.
pub fn is_encoded(headers: &HeaderBlock) -> bool {
    let encoding = headers.get(b"content-encoding").unwrap_or_default().trim_ascii();
    !encoding.is_empty() && !encoding.eq_ignore_ascii_case(b"identity")
}

/// Whether the response says of itself that it is a stream of events.
pub fn announces_events(headers: &HeaderBlock) -> bool {
    let value = headers.get(b"content-type").unwrap_or_default();
    const WANTED: &[u8] = b"text/event-stream";
    value.len() >= WANTED.len() && value.windows(WANTED.len()).any(|window| window.eq_ignore_ascii_case(WANTED))
}
