//! A request body without its long texts: all that is looked at unless somebody reads the prompt itself. The reference is in
//! `tests/native/test_outline.py`.

use super::tape::{Tape, Value};
use super::text::Text;

/// Longer texts are cut, in bytes as they are written.
pub const LONG_BYTES: usize = 512;
/// What is left of a long text. Not empty, as a prompt must not be.
const CUT: &str = "\"…\"";
/// Longer lists of token ids are cut to their first one.
const MANY_IDS: usize = 64;
/// Members of the body that are prompts. Texts of its other members are kept: names and salts are told apart by all of them.
const PROMPTS: [&str; 5] = ["prompt", "input", "text", "system", "instructions"];

/// The body in which long texts within its values, and those of prompts, are cut; None if it is no JSON object, or too deep or
/// too much of one.
pub fn outline(body: &[u8]) -> Option<Vec<u8>> {
    let tape = Tape::read(body)?;
    let mut out = Vec::with_capacity(1024);
    out.push(b'{');
    for (place, (name, value)) in tape.root().object()?.members().enumerate() {
        put_name(place, name, &mut out);
        match value {
            Value::Text(text) if !PROMPTS.iter().any(|prompt| name.is(prompt)) => put_text(text.raw, &mut out),
            value => put(value, &mut out),
        }
    }
    out.push(b'}');
    Some(out)
}

fn put(value: Value, out: &mut Vec<u8>) {
    match value {
        Value::Null => out.extend_from_slice(b"null"),
        Value::Bool(true) => out.extend_from_slice(b"true"),
        Value::Bool(false) => out.extend_from_slice(b"false"),
        Value::Number(raw) => out.extend_from_slice(raw.as_bytes()),
        Value::Text(Text { raw, .. }) if raw.len() > LONG_BYTES => out.extend_from_slice(CUT.as_bytes()),
        Value::Text(Text { raw, .. }) => put_text(raw, out),
        Value::Integers(integers) => {
            let few = integers.numbers().take(MANY_IDS + 1).count() <= MANY_IDS;
            put_list(integers.numbers().take(if few { MANY_IDS } else { 1 }).map(Value::Number), out);
        }
        Value::List(list) => put_list(Value::List(list).items().into_iter().flatten(), out),
        Value::Object(object) => {
            out.push(b'{');
            for (place, (name, value)) in object.members().enumerate() {
                put_name(place, name, out);
                put(value, out);
            }
            out.push(b'}');
        }
    }
}

fn put_list<'a>(values: impl Iterator<Item = Value<'a>>, out: &mut Vec<u8>) {
    out.push(b'[');
    for (place, value) in values.enumerate() {
        if place > 0 {
            out.push(b',');
        }
        put(value, out);
    }
    out.push(b']');
}

fn put_name(place: usize, name: Text, out: &mut Vec<u8>) {
    if place > 0 {
        out.push(b',');
    }
    put_text(name.raw, out);
    out.push(b':');
}

fn put_text(raw: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    out.extend_from_slice(raw.as_bytes());
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_are_cut_but_not_those_that_tell_apart() {
        let long = "x".repeat(LONG_BYTES + 1);
        let short = "y".repeat(LONG_BYTES);
        let ids = vec!["1"; MANY_IDS + 1].join(",");
        let few = vec!["2"; MANY_IDS].join(",");
        let cases = [
            (format!(r#"{{"model":"{long}","cache_salt":"{long}"}}"#), None),
            (format!(r#"{{"prompt":"{long}"}}"#), Some(r#"{"prompt":"…"}"#.to_owned())),
            (format!(r#"{{"pr\u006fmpt":"{long}"}}"#), Some(r#"{"pr\u006fmpt":"…"}"#.to_owned())),
            (format!(r#"{{"prompt":"{short}"}}"#), None),
            (
                format!(
                    r#"{{"messages":[{{"role":"user","content":"{long}"}},["{short}",1.5e3,null,true,false,{{}}]]}}"#
                ),
                Some(format!(
                    r#"{{"messages":[{{"role":"user","content":"…"}},["{short}",1.5e3,null,true,false,{{}}]]}}"#
                )),
            ),
            (format!(r#"{{"prompt":[[{ids}],[{few}],[]]}}"#), Some(format!(r#"{{"prompt":[[1],[{few}],[]]}}"#))),
        ];
        for (body, expected) in cases {
            let found = String::from_utf8(outline(body.as_bytes()).unwrap()).unwrap();
            assert_eq!(found, expected.unwrap_or(body));
        }
        for body in ["", "[]", "{", "1"] {
            assert!(outline(body.as_bytes()).is_none());
        }
    }
}
