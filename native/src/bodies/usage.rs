//! Read the token usage of a response while it is forwarded. Twin of `epp/extproc/usage.py`; one table of cases tests both.
//!
//! Source: llm-d-router: pkg/epp/framework/plugins/requesthandling/parsers, pkg/epp/handlers/response.go (the merge rule).

use memchr::memmem;
use serde_json::{Map, Value};

use super::json::Document;
use super::media::{is_encoded, is_event_stream, is_json, media_type};
use super::read::{Read, Reader, Usage};
use super::sse::Scanner;
use crate::wire::headers::HeaderBlock;

/// Longest JSON body that is kept whole; of a longer one only the tail is kept.
const MAX_JSON_BYTES: usize = 1024 * 1024;
/// How much of the end of a long body is searched for `usage`.
const TAIL_BYTES: usize = 64 * 1024;
const MAX_TRIES: usize = 8;
const KEY: &[u8] = b"\"usage\"";

/// One usage object.
#[derive(Debug, Clone, Copy)]
struct Block {
    prompt: u128,
    completion: u128,
    total: u128,
    cached: Option<u128>,
}

impl Usage {
    fn merge(&mut self, block: Option<Block>) {
        let Some(block) = block else { return };
        let or = |new: u128, old: u128| if new != 0 { new } else { old };
        self.prompt_tokens = or(block.prompt, self.prompt_tokens);
        self.completion_tokens = or(block.completion, self.completion_tokens);
        let complete = block.prompt != 0 && block.completion != 0 && block.total != 0;
        self.total_tokens =
            if complete { block.total } else { self.prompt_tokens.saturating_add(self.completion_tokens) };
        self.cached_tokens = block.cached.or(self.cached_tokens);
        self.found = true;
    }
}

#[derive(Debug, Clone, Copy)]
enum Dialect {
    OpenAi,
    Anthropic,
}

/// Usage of one response; the kind of body is known from its first bytes if the headers do not tell.
#[derive(Debug)]
pub struct UsageReader {
    dialect: Dialect,
    body: Body,
}

#[derive(Debug)]
enum Body {
    /// Compressed, or gRPC.
    Unreadable,
    Unknown,
    Events {
        scanner: Scanner,
        usage: Usage,
    },
    Json(Json),
}

#[derive(Debug, Default)]
struct Json {
    data: Vec<u8>,
    /// What came last is a closing brace: without it the document cannot be complete.
    closed: bool,
    cut: bool,
    usage: Option<Usage>,
}

impl UsageReader {
    /// For chat completions, completions, embeddings and responses.
    pub fn openai(headers: &HeaderBlock) -> Self {
        Self::new(Dialect::OpenAi, headers)
    }

    /// For messages.
    pub fn anthropic(headers: &HeaderBlock) -> Self {
        Self::new(Dialect::Anthropic, headers)
    }

    fn new(dialect: Dialect, headers: &HeaderBlock) -> Self {
        let media = media_type(headers);
        let body = if is_encoded(headers) || media.starts_with(b"application/grpc") {
            Body::Unreadable
        } else if is_event_stream(&media) {
            Body::events()
        } else if is_json(&media) {
            Body::Json(Json::default())
        } else {
            Body::Unknown
        };
        Self { dialect, body }
    }

    /// The usage so far, as if the body ended here.
    fn usage(&mut self) -> Usage {
        match &mut self.body {
            Body::Events { scanner, usage } => {
                let (events, unfinished) = scanner.snapshot();
                let mut usage = *usage;
                if let Some(event) = unfinished {
                    usage.merge(self.dialect.of_event(&event));
                }
                Usage { events, ..usage }
            }
            Body::Json(json) => json.result(self.dialect),
            Body::Unreadable | Body::Unknown => Usage::default(),
        }
    }
}

impl Reader for UsageReader {
    fn feed(&mut self, data: &[u8]) {
        if matches!(self.body, Body::Unknown) {
            let Some(first) = data.iter().find(|byte| !is_space(**byte)) else {
                return;
            };
            self.body = if *first == b'{' { Body::Json(Json::default()) } else { Body::events() };
        }
        let dialect = self.dialect;
        match &mut self.body {
            Body::Events { scanner, usage } => scanner.feed(data, |event| usage.merge(dialect.of_event(event))),
            Body::Json(json) => json.feed(data),
            Body::Unreadable | Body::Unknown => {}
        }
    }

    fn result(&mut self) -> Read {
        Read::Usage(self.usage())
    }
}

impl Body {
    fn events() -> Self {
        Self::Events { scanner: Scanner::new(b"usage", b"\"usage\":null"), usage: Usage::default() }
    }
}

impl Json {
    fn feed(&mut self, data: &[u8]) {
        if let Some(last) = data.iter().rev().find(|byte| !is_space(**byte)) {
            self.closed = *last == b'}';
        }
        self.usage = None;
        self.data.extend_from_slice(data);
        if self.data.len() > MAX_JSON_BYTES {
            self.data.drain(..self.data.len() - TAIL_BYTES);
            self.cut = true;
        }
    }

    fn result(&mut self, dialect: Dialect) -> Usage {
        *self.usage.get_or_insert_with(|| {
            let mut usage = Usage::default();
            if self.closed
                && let Some(found) = document_with_usage(&self.data, self.cut)
            {
                usage.merge(dialect.block(&found));
            }
            usage
        })
    }
}

/// The `usage` member of the top-level object: searched at the end of a long body first.
fn document_with_usage(data: &[u8], cut: bool) -> Option<Value> {
    if cut || data.len() > TAIL_BYTES {
        let tail = &data[data.len().saturating_sub(TAIL_BYTES)..];
        if let Some(found) = usage_at_end(tail) {
            return Some(found);
        }
    }
    if cut || memmem::find(data, KEY).is_none() {
        return None;
    }
    Document::parse(data)?.usage
}

/// Members that form an object together with the last brace of a document are members of its top level.
fn usage_at_end(tail: &[u8]) -> Option<Value> {
    let mut end = tail.len();
    for _ in 0..MAX_TRIES {
        end = memmem::rfind(&tail[..end], KEY)?;
        let document = [b"{", &tail[end..]].concat();
        if let Some(usage) = Document::parse(&document).and_then(|document| document.usage) {
            return Some(usage);
        }
    }
    None
}

impl Dialect {
    fn of_event(self, data: &[u8]) -> Option<Block> {
        let document = Document::parse(data)?;
        let kind = document.kind.as_ref().and_then(Value::as_str);
        match self {
            Self::OpenAi => match kind {
                Some("response.completed" | "response.incomplete" | "response.failed") => {
                    self.block(document.response?.get("usage")?)
                }
                Some(other) if other.starts_with("response.") => None,
                _ => self.block(&document.usage?),
            },
            Self::Anthropic => match kind? {
                // The count of the first event is a placeholder; the real one is in message_delta.
                "message_start" => {
                    let block = self.block(document.message?.get("usage")?)?;
                    Some(Block { completion: 0, ..block })
                }
                "message_delta" => self.block(&document.usage?),
                _ => None,
            },
        }
    }

    fn block(self, usage: &Value) -> Option<Block> {
        let usage = usage.as_object()?;
        Some(match self {
            Self::OpenAi => Block {
                prompt: first(usage, ["prompt_tokens", "input_tokens"]),
                completion: first(usage, ["completion_tokens", "output_tokens"]),
                total: number(usage.get("total_tokens")),
                cached: ["prompt_tokens_details", "input_tokens_details"]
                    .iter()
                    .filter_map(|name| {
                        usage.get(*name)?.as_object()?.get("cached_tokens").filter(|value| !value.is_null())
                    })
                    .next_back()
                    .map(|value| number(Some(value))),
            },
            Self::Anthropic => Block {
                prompt: number(usage.get("input_tokens")),
                completion: number(usage.get("output_tokens")),
                total: 0,
                cached: usage.get("cache_read_input_tokens").filter(|v| !v.is_null()).map(|value| number(Some(value))),
            },
        })
    }
}

/// The first of these members that is there and not null.
fn first(usage: &Map<String, Value>, names: [&str; 2]) -> u128 {
    number(names.iter().filter_map(|name| usage.get(*name)).find(|value| !value.is_null()))
}

/// A token count from what servers write: a number or a numeric string, else 0; never negative.
fn number(value: Option<&Value>) -> u128 {
    match value {
        Some(Value::Number(number)) => match number.as_u64() {
            Some(whole) => u128::from(whole),
            None => number.as_f64().map_or(0, whole),
        },
        Some(Value::String(text)) => text_number(text),
        _ => 0,
    }
}

fn whole(number: f64) -> u128 {
    // A cast saturates: negative becomes 0. Infinity is no count.
    if number.is_finite() { number as u128 } else { 0 }
}

/// As Python's `float` reads it: blanks around, underscores between digits.
fn text_number(text: &str) -> u128 {
    let text = text.trim();
    if !text.contains('_') {
        return text.parse().map_or(0, whole);
    }
    let bytes = text.as_bytes();
    let is_digit = |index: Option<usize>| index.and_then(|i| bytes.get(i)).is_some_and(u8::is_ascii_digit);
    let legal = (0..bytes.len())
        .filter(|index| bytes[*index] == b'_')
        .all(|index| is_digit(index.checked_sub(1)) && is_digit(index.checked_add(1)));
    if legal { text.replace('_', "").parse().map_or(0, whole) } else { 0 }
}

/// White space as Python's `bytes.strip` has it.
fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t'..=b'\r')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(mut reader: UsageReader, body: &str) -> Usage {
        reader.feed(body.as_bytes());
        reader.usage()
    }

    #[test]
    fn openai_json() {
        let body = r#"{"usage":{"prompt_tokens":"7","completion_tokens":10,"total_tokens":17,
                       "prompt_tokens_details":{"cached_tokens":3}}}"#;
        let usage = read(UsageReader::openai(&HeaderBlock::default()), body);
        assert_eq!((usage.prompt_tokens, usage.completion_tokens, usage.total_tokens), (7, 10, 17));
        assert_eq!((usage.cached_tokens, usage.events, usage.found), (Some(3), 0, true));
    }

    #[test]
    fn anthropic_events() {
        let body = "data: {\"type\":\"message_start\",\"message\":{\"usage\":{\"input_tokens\":1000,\
                    \"cache_read_input_tokens\":800,\"output_tokens\":1}}}\n\ndata: {\"type\":\"message_delta\",\
                    \"usage\":{\"output_tokens\":200}}\n\n";
        let usage = read(UsageReader::anthropic(&HeaderBlock::default()), body);
        assert_eq!((usage.prompt_tokens, usage.completion_tokens, usage.total_tokens), (1000, 200, 1200));
        assert_eq!((usage.cached_tokens, usage.events), (Some(800), 2));
    }

    #[test]
    fn numbers() {
        let of = |text: &str| number(Some(&serde_json::from_str(text).unwrap()));
        for (text, expected) in [
            ("7", 7),
            ("-7", 0),
            ("7.9", 7),
            ("1e3", 1000),
            ("\" 7 \"", 7),
            ("\"1_0\"", 10),
            ("\"_1\"", 0),
            ("\"nan\"", 0),
            ("\"inf\"", 0),
            ("true", 0),
            ("[]", 0),
        ] {
            assert_eq!(of(text), expected, "{text}");
        }
    }
}
