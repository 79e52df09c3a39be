//! JSON values without blanks, as `orjson.dumps` writes what `orjson.loads` read.

use std::borrow::Cow;

use hashbrown::HashMap;
use hashbrown::hash_map::Entry;

use super::blocks::Sink;
use super::number;
use super::tape::{Object, Value};
use super::text::{Piece, Text};

/// Objects with at most so many members are searched for a name.
const FEW: usize = 16;

pub fn write(value: Value, out: &mut impl Sink) {
    match value {
        Value::Null => out.put(b"null"),
        Value::Bool(false) => out.put(b"false"),
        Value::Bool(true) => out.put(b"true"),
        Value::Number(raw) => {
            let mut number = Vec::new();
            number::write(raw, &mut number);
            out.put(&number);
        }
        Value::Text(text) => write_text(text, out),
        Value::Object(object) => {
            out.put(b"{");
            for (place, (name, value)) in unique(object).into_iter().enumerate() {
                if place > 0 {
                    out.put(b",");
                }
                write_text(name, out);
                out.put(b":");
                write(value, out);
            }
            out.put(b"}");
        }
        Value::List(_) | Value::Integers(_) => {
            out.put(b"[");
            for (place, item) in value.items().into_iter().flatten().enumerate() {
                if place > 0 {
                    out.put(b",");
                }
                write(item, out);
            }
            out.put(b"]");
        }
    }
}

/// Of members of the same name the last value, at the first place: as in a dict.
fn unique(object: Object) -> Vec<(Text, Value)> {
    let mut out: Vec<(Text, Value)> = Vec::new();
    let mut places: HashMap<Cow<str>, usize, std::hash::RandomState> = HashMap::default();
    for (name, value) in object.members() {
        let decoded = name.decoded();
        if out.len() < FEW {
            match out.iter_mut().find(|(other, _)| other.is(&decoded)) {
                Some((_, earlier)) => *earlier = value,
                None => out.push((name, value)),
            }
            continue;
        }
        if places.is_empty() {
            places.extend(out.iter().enumerate().map(|(place, (name, _))| (name.decoded(), place)));
        }
        match places.entry(decoded) {
            Entry::Occupied(place) => out[*place.get()].1 = value,
            Entry::Vacant(place) => {
                place.insert(out.len());
                out.push((name, value));
            }
        }
    }
    out
}

/// A string itself.
pub fn put_text(text: Text, out: &mut impl Sink) {
    text.pieces(|piece| match piece {
        Piece::Plain(run) => out.put(run.as_bytes()),
        Piece::Escaped(character) => out.put(character.encode_utf8(&mut [0; 4]).as_bytes()),
    });
}

fn write_text(text: Text, out: &mut impl Sink) {
    out.put(b"\"");
    text.pieces(|piece| match piece {
        Piece::Plain(run) => out.put(run.as_bytes()),
        Piece::Escaped('"') => out.put(b"\\\""),
        Piece::Escaped('\\') => out.put(b"\\\\"),
        Piece::Escaped('\u{8}') => out.put(b"\\b"),
        Piece::Escaped('\t') => out.put(b"\\t"),
        Piece::Escaped('\n') => out.put(b"\\n"),
        Piece::Escaped('\u{c}') => out.put(b"\\f"),
        Piece::Escaped('\r') => out.put(b"\\r"),
        Piece::Escaped(control @ '\0'..='\x1f') => out.put(format!("\\u{:04x}", u32::from(control)).as_bytes()),
        Piece::Escaped(other) => out.put(other.encode_utf8(&mut [0; 4]).as_bytes()),
    });
    out.put(b"\"");
}

#[cfg(test)]
mod tests {
    use super::super::tape::Tape;
    use super::*;

    fn compact(text: &str) -> String {
        let tape = Tape::read(text.as_bytes()).unwrap();
        let mut out = Vec::new();
        write(tape.root(), &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn values() {
        for (text, expected) in [
            (" [ 1 , 2.50, [] , {} ,null,true,false] ", "[1,2.5,[],{},null,true,false]"),
            ("[ 1 ,\n2 ]", "[1,2]"),
            (r#"{"a" : 1, "b":2, "\u0061":[3]}"#, r#"{"a":[3],"b":2}"#),
            (r#""\/\u0041\"\\\b\t\n\f\r\u0001\u007f\ud83d\ude00ü""#, "\"/A\\\"\\\\\\b\\t\\n\\f\\r\\u0001\u{7f}😀ü\""),
        ] {
            assert_eq!(compact(text), expected);
        }
    }

    #[test]
    fn many_members_of_the_same_names() {
        let members =
            |from: usize, to: usize| (from..to).map(|n| format!("\"k{n}\":{n}")).collect::<Vec<_>>().join(",");
        let twice = format!("{{{},{},\"k3\":-3}}", members(0, 100), members(10, 90));
        assert_eq!(compact(&twice), format!("{{{}}}", members(0, 100)).replace(":3,", ":-3,"));
    }
}
