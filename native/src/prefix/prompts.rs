//! The prompts of a request body, hashed and packed. Twin of `epp/framework/prompt_blocks.py`, which says what counts; one
//! table of cases tests both.

use twox_hash::{XxHash3_64, XxHash64};

use super::blocks::{Blocks, Cut, HASH_BYTES, Sink};
use super::compact::{put_text, write};
use super::number::token_id;
use super::tape::{List, Object, Tape, Value};
use super::text::Text;

const END: &[u8] = b"\x1e";
const FIELD: &[u8] = b"\x1f";
const BILLING: &str = "x-anthropic-billing-header";
const TEXT_TYPES: [&str; 3] = ["text", "input_text", "output_text"];
const MEDIA_TYPES: [&str; 9] =
    ["image_url", "audio_url", "video_url", "input_audio", "input_image", "input_file", "image", "document", "file"];
const OF_MEDIUM: &[&str] = &["url", "data", "file_data", "file_id"];
const OF_ITEM: &[&str] = &["image_url", "file_data", "file_url", "file_id", "data", "url"];
const OF_SOURCE: &[&str] = &["data", "url", "file_id"];
/// What is read of a message; what comes after these two follows the content as JSON.
const OF_MESSAGE: [&str; 7] =
    ["content", "role", "tool_calls", "tool_call_id", "name", "reasoning", "reasoning_content"];
const TEMPLATE: [&str; 4] = ["chat_template", "chat_template_kwargs", "documents", "add_generation_prompt"];

/// The packed form; empty if the body is no JSON object, or too deep or too much of one.
pub fn prompt_blocks(body: &[u8], cut: Cut) -> Vec<u8> {
    let Some(tape) = Tape::read(body) else { return Vec::new() };
    let Value::Object(document) = tape.root() else { return Vec::new() };
    let mut packed = Packed { cut, count: 0, prompts: Vec::new() };
    document_prompts(document, &mut packed);
    let head = [&template_hash(document).to_le_bytes()[..], &packed.count.to_le_bytes()].concat();
    [head, packed.prompts].concat()
}

/// The prompts so far.
struct Packed {
    cut: Cut,
    count: u32,
    prompts: Vec<u8>,
}

impl Packed {
    fn text(&mut self, fill: impl FnOnce(&mut Blocks)) {
        let mut blocks = Blocks::new(self.cut);
        fill(&mut blocks);
        let (length, hashes) = blocks.end();
        self.push(0, length, &hashes);
    }

    fn tokens(&mut self, ids: impl Iterator<Item = u32>) {
        let mut blocks = Blocks::new(self.cut);
        ids.for_each(|id| blocks.put(&id.to_le_bytes()));
        let (length, hashes) = blocks.end();
        self.push(1, length / 4, &hashes);
    }

    fn push(&mut self, basis: u8, length: usize, hashes: &[u8]) {
        self.count += 1;
        self.prompts.push(basis);
        let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX).to_le_bytes();
        self.prompts.extend_from_slice(&count(length));
        self.prompts.extend_from_slice(&count(hashes.len() / HASH_BYTES));
        self.prompts.extend_from_slice(hashes);
    }
}

/// A member that is there and not null.
fn given<'a>(object: Object<'a>, name: &str) -> Option<Value<'a>> {
    object.get(name).filter(|value| !value.is_null())
}

fn is_list(value: &Value) -> bool {
    matches!(value, Value::List(_) | Value::Integers(_))
}

fn document_prompts(document: Object, packed: &mut Packed) {
    let conversation = |packed: &mut Packed, system: &str, items: Value| {
        packed.text(|out| {
            put_tools(document, out);
            put_instructions(document.get(system), out);
            put_messages(items, out);
        });
    };
    if let Some(messages) = document.get("messages").filter(is_list) {
        conversation(packed, "system", messages);
    } else if let Some(prompt) = document.get("prompt").filter(|value| value.text().is_some() || is_list(value)) {
        plain(prompt, packed);
    } else if let Some(input) = given(document, "input") {
        if is_conversation(document, input) {
            conversation(packed, "instructions", input);
        } else {
            plain(input, packed);
        }
    } else if let Some(items) = document.get("items").filter(is_list) {
        packed.text(|out| put_messages(items, out));
    } else if let Some(value) = ["text", "input_ids", "token_ids"].iter().find_map(|name| given(document, name)) {
        plain(value, packed);
    }
}

fn is_conversation(document: Object, input: Value) -> bool {
    let has_objects =
        || matches!(input, Value::List(_)) && input.items().into_iter().flatten().any(|item| item.object().is_some());
    given(document, "instructions").is_some() || given(document, "tools").is_some() || has_objects()
}

/// A text, token ids, or several of one of both; nothing for anything else.
fn plain(value: Value, packed: &mut Packed) {
    match value {
        Value::Text(text) => packed.text(|out| put_text(text, out)),
        Value::Integers(ids) => packed.tokens(ids.values()),
        Value::List(list) => several(value, list, packed),
        _ => {}
    }
}

fn several(value: Value, list: List, packed: &mut Packed) {
    let items = || value.items().into_iter().flatten();
    match items().next() {
        Some(Value::Text(_)) if items().all(|item| item.text().is_some()) => {
            for text in items().filter_map(Value::text) {
                packed.text(|out| put_text(text, out));
            }
        }
        Some(Value::Number(_)) => {
            if let Some(ids) = token_ids(Value::List(list)) {
                packed.tokens(ids.into_iter());
            }
        }
        Some(first) if is_list(&first) && items().all(is_token_list) => {
            for item in items() {
                match item {
                    Value::Integers(ids) => packed.tokens(ids.values()),
                    other => packed.tokens(token_ids(other).unwrap_or_default().into_iter()),
                }
            }
        }
        _ => {}
    }
}

fn is_token_list(value: Value) -> bool {
    matches!(value, Value::Integers(_)) || token_ids(value).is_some()
}

/// The items of a list, if all are token ids.
fn token_ids(value: Value) -> Option<Vec<u32>> {
    value.items()?.map(|item| if let Value::Number(raw) = item { token_id(raw) } else { None }).collect()
}

fn put_tools(document: Object, out: &mut impl Sink) {
    for name in ["tools", "functions"] {
        let tools = document.get(name);
        if let Some(tools) = tools.filter(|tools| tools.items().is_some_and(|mut items| items.next().is_some())) {
            write(tools, out);
            out.put(END);
        }
    }
}

/// A system text, or its blocks.
fn put_instructions(value: Option<Value>, out: &mut impl Sink) {
    let Some(value) = value else { return };
    if let Value::Text(text) = value {
        put_text(text, out);
    } else if let Some(items) = value.items() {
        for item in items.filter(|item| !own_text(*item).is_some_and(|text| text.starts_with(BILLING))) {
            put_item(item, out);
        }
    } else {
        return;
    }
    out.put(END);
}

/// Messages, or one of the user.
fn put_messages(value: Value, out: &mut impl Sink) {
    if let Some(items) = value.items() {
        for message in items {
            put_message(message, out);
            out.put(END);
        }
    } else {
        out.put(b"user");
        out.put(FIELD);
        put_content(value, out);
        out.put(END);
    }
}

fn put_message(message: Value, out: &mut impl Sink) {
    if let Value::Text(text) = message {
        return put_text(text, out);
    }
    let Some([Some(content), role, after @ ..]) = message.object().map(|object| object.pick(OF_MESSAGE)) else {
        return write(message, out);
    };
    if let Some(Value::Text(role)) = role {
        put_text(role, out);
    }
    out.put(FIELD);
    put_content(content, out);
    for value in after.into_iter().flatten().filter(|value| !value.is_null()) {
        out.put(FIELD);
        write(value, out);
    }
}

fn put_content(content: Value, out: &mut impl Sink) {
    match content {
        Value::Text(text) => put_text(text, out),
        Value::Null => {}
        Value::List(_) | Value::Integers(_) => {
            content.items().into_iter().flatten().for_each(|item| put_item(item, out))
        }
        _ => write(content, out),
    }
}

/// A piece of content: its text, the hash of its medium, or else all of it.
fn put_item(item: Value, out: &mut impl Sink) {
    if let Some(text) = own_text(item) {
        return put_text(text, out);
    }
    match item.object().and_then(medium) {
        Some((kind, text)) => {
            out.put(kind.as_bytes());
            out.put(format!(":{:016x}", XxHash64::oneshot(0, text.decoded().as_bytes())).as_bytes());
        }
        None => write(item, out),
    }
}

fn own_text(item: Value) -> Option<Text> {
    if let Value::Text(text) = item {
        return Some(text);
    }
    let [text, kind] = item.object()?.pick(["text", "type"]);
    let text = text?.text()?;
    let is_text = match kind {
        None | Some(Value::Null) => true,
        Some(Value::Text(kind)) => TEXT_TYPES.iter().any(|name| kind.is(name)),
        Some(_) => false,
    };
    is_text.then_some(text)
}

/// The type of a medium, and what tells it from others: where it is, or its data.
fn medium(item: Object) -> Option<(&'static str, Text)> {
    let kind = item.get("type")?.text()?;
    let kind = MEDIA_TYPES.into_iter().find(|name| kind.is(name))?;
    let own = item.get(kind);
    if let Some(text) = own.and_then(Value::text) {
        return Some((kind, text));
    }
    let text = own
        .and_then(Value::object)
        .and_then(|own| first_text(own, OF_MEDIUM))
        .or_else(|| first_text(item, OF_ITEM))
        .or_else(|| first_text(item.get("source")?.object()?, OF_SOURCE))?;
    Some((kind, text))
}

fn first_text<'a>(object: Object<'a>, names: &[&str]) -> Option<Text<'a>> {
    names.iter().find_map(|name| object.get(name)?.text())
}

fn template_hash(document: Object) -> u64 {
    let mut members = Vec::new();
    for (name, value) in TEMPLATE.iter().filter_map(|name| Some((name, given(document, name)?))) {
        members.extend_from_slice(if members.is_empty() { b"[[\"" } else { b",[\"" });
        members.extend_from_slice(name.as_bytes());
        members.extend_from_slice(b"\",");
        write(value, &mut members);
        members.push(b']');
    }
    if members.is_empty() {
        return 0;
    }
    members.push(b']');
    XxHash3_64::oneshot(&members)
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;

    use super::super::blocks::content_hashes;
    use super::*;

    const CUT: Cut = Cut { block_bytes: NonZeroUsize::new(4).unwrap(), max_blocks: 0 };

    fn packed(template: u64, prompts: &[(u8, u32, &[u8])]) -> Vec<u8> {
        let mut out = [&template.to_le_bytes()[..], &(prompts.len() as u32).to_le_bytes()].concat();
        for (basis, length, data) in prompts {
            let hashes = content_hashes(data, CUT);
            out.push(*basis);
            out.extend_from_slice(&length.to_le_bytes());
            out.extend_from_slice(&((hashes.len() / 8) as u32).to_le_bytes());
            out.extend_from_slice(&hashes);
        }
        out
    }

    fn text(body: &str, expected: &str) {
        let wanted = packed(0, &[(0, expected.len() as u32, expected.as_bytes())]);
        assert_eq!(prompt_blocks(body.as_bytes(), CUT), wanted, "{body}");
    }

    #[test]
    fn parts_in_the_order_of_templates() {
        text(
            r#"{"messages":[{"content":"h\u0069","role":"user","name":"n"},"s"],"system":"sys","tools":[ {"b":1,"a":2} ]}"#,
            "[{\"b\":1,\"a\":2}]\x1esys\x1euser\x1fhi\x1f\"n\"\x1es\x1e",
        );
        text(r#"{"input":"hi","instructions":"i"}"#, "i\x1euser\x1fhi\x1e");
        text(r#"{"items":[{"type":"call", "x":1}]}"#, "{\"type\":\"call\",\"x\":1}\x1e");
        text(r#"{"messages":[],"system":["x-anthropic-billing-header: 1","a"]}"#, "a\x1e");
        text(
            r#"{"messages":[{"content":[{"type":"image_url","image_url":{"url":"u"}},{"type":"image"}]}]}"#,
            "\x1fimage_url:9b7d7b3f5b0d1b0a{\"type\":\"image\"}\x1e"
                .replace("9b7d7b3f5b0d1b0a", &format!("{:016x}", XxHash64::oneshot(0, b"u")))
                .as_str(),
        );
    }

    #[test]
    fn tokens() {
        let ids = [1, 0, 0, 0, 255, 255, 255, 255];
        let one = packed(0, &[(1, 2, &ids)]);
        for body in [
            r#"{"prompt":[1, 4294967295]}"#,
            r#"{"token_ids":[1,4294967295]}"#,
            r#"{"prompt":null,"input":[1,4294967295]}"#,
        ] {
            assert_eq!(prompt_blocks(body.as_bytes(), CUT), one, "{body}");
        }
        let several = packed(0, &[(1, 2, &ids), (1, 0, b""), (1, 1, &[0; 4])]);
        assert_eq!(prompt_blocks(br#"{"prompt":[[1,4294967295],[],[-0]]}"#, CUT), several);
        for body in [
            r#"{"prompt":[1,"a"]}"#,
            r#"{"prompt":[[1],[1.0]]}"#,
            r#"{"prompt":[]}"#,
            r#"{"prompt":[4294967296]}"#,
            "{}",
        ] {
            assert_eq!(prompt_blocks(body.as_bytes(), CUT), packed(0, &[]), "{body}");
        }
    }

    #[test]
    fn what_is_no_document_has_no_result() {
        for body in [&b""[..], b"[]", b"{", b"\x00\x00\x00\x00\x05hello"] {
            assert_eq!(prompt_blocks(body, CUT), b"");
        }
    }

    #[test]
    fn templates() {
        let hash = XxHash3_64::oneshot(br#"[["documents",[1]],["add_generation_prompt",false]]"#);
        let body = br#"{"add_generation_prompt":false,"chat_template":null,"documents":[ 1 ],"prompt":"x"}"#;
        assert_eq!(prompt_blocks(body, CUT), packed(hash, &[(0, 1, b"x")]));
    }
}
