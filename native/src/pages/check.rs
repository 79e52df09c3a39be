//! Refuses what is certainly no whole metrics page: the twin of `check_page` in `epp/framework/prometheus_text.py`.

use std::fmt::Write;

/// How much of a wrong page is quoted.
const QUOTED: usize = 20;

/// The last line of an OpenMetrics page, which says that it is whole, with or without an end of its own.
const END_OF_OPENMETRICS: &[u8] = b"# EOF";

/// What is wrong with a page; None if nothing is, as with an empty one.
pub fn problem(page: &[u8]) -> Option<String> {
    if page.last()? != &b'\n' && !ends_as_openmetrics(page) {
        return Some("the metrics page is cut off: its last line has no end".into());
    }
    let first = page.iter().find(|byte| !is_blank(**byte))?;
    if *first == b'#' || *first == b'_' || *first == b':' || first.is_ascii_alphabetic() {
        return None;
    }
    let start = &page[..page.len().min(QUOTED)];
    Some(format!("this is no Prometheus text page: it begins with {}", quoted(start)))
}

fn ends_as_openmetrics(page: &[u8]) -> bool {
    page.strip_suffix(END_OF_OPENMETRICS).is_some_and(|rest| rest.last().is_none_or(|&byte| byte == b'\n'))
}

/// What Python strips.
fn is_blank(byte: u8) -> bool {
    byte.is_ascii_whitespace() || byte == 0x0b
}

/// Bytes as Python shows them.
fn quoted(bytes: &[u8]) -> String {
    let quote = if bytes.contains(&b'\'') && !bytes.contains(&b'"') { b'"' } else { b'\'' };
    let mut text = String::from("b");
    text.push(quote.into());
    for &byte in bytes {
        match byte {
            b'\\' => text.push_str("\\\\"),
            b'\t' => text.push_str("\\t"),
            b'\n' => text.push_str("\\n"),
            b'\r' => text.push_str("\\r"),
            _ if byte == quote => {
                text.push('\\');
                text.push(quote.into());
            }
            b' '..=b'~' => text.push(byte.into()),
            // Writing to a string cannot fail.
            _ => drop(write!(text, "\\x{byte:02x}")),
        }
    }
    text.push(quote.into());
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_that_are_whole() {
        for page in ["", "a 1\n", "# HELP a b\n", "\n\n \n", "\r\n\x0b a 1\n", ":a 1\n", "_ 1\n", "a 1\n# EOF", "# EOF"]
        {
            assert_eq!(problem(page.as_bytes()), None, "{page:?}");
        }
    }

    #[test]
    fn pages_that_are_none() {
        for page in [&b"a 1\nb 2"[..], b"a 1 # EOF", b"a 1\n# EO"] {
            assert!(problem(page).is_some_and(|text| text.contains("cut off")));
        }
        let texts = [
            (&b"{\"a\": 'b\\'}\t\r\x00\xff............\n"[..], r#"b'{"a": \'b\\\'}\t\r\x00\xff.....'"#),
            (b"<a 'b'>\n", r#"b"<a 'b'>\n""#),
            (b"1 2\n", r"b'1 2\n'"),
        ];
        for (page, quoted) in texts {
            let text = problem(page).unwrap_or_default();
            assert_eq!(text, format!("this is no Prometheus text page: it begins with {quoted}"));
        }
    }
}
