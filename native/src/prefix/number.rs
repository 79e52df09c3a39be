//! Numbers of JSON as `orjson` reads and writes them.

use std::io::Write;

/// Whether a number, whose grammar is right, can be held: one that is too large for a double cannot.
pub fn is_finite(raw: &str) -> bool {
    // Without an exponent it takes more than 308 digits.
    let short = raw.len() <= 300 && !raw.bytes().any(|byte| matches!(byte, b'e' | b'E'));
    short || raw.parse().is_ok_and(f64::is_finite)
}

/// The number as a token id.
pub fn token_id(raw: &str) -> Option<u32> {
    if raw == "-0" { Some(0) } else { raw.parse().ok() }
}

/// Write a number: integers of 64 bits keep their digits, others become doubles.
pub fn write(raw: &str, out: &mut Vec<u8>) {
    if raw == "-0" {
        out.push(b'0');
    } else if raw.parse::<u64>().is_ok() || raw.parse::<i64>().is_ok() {
        out.extend_from_slice(raw.as_bytes());
    } else {
        write_double(raw.parse().unwrap_or_default(), out);
    }
}

fn write_double(value: f64, out: &mut Vec<u8>) {
    let start = out.len();
    // A vector takes everything.
    let _ = serde_json::to_writer(&mut *out, &value);
    let _ = out.flush();
    debug_assert!(out.len() > start);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers() {
        for (raw, expected) in [
            ("0", "0"),
            ("-0", "0"),
            ("-0.0", "-0.0"),
            ("18446744073709551615", "18446744073709551615"),
            ("18446744073709551616", "1.8446744073709552e+19"),
            ("-9223372036854775808", "-9223372036854775808"),
            ("-9223372036854775809", "-9.223372036854776e+18"),
            ("1e5", "100000.0"),
            ("1E+2", "100.0"),
            ("1e15", "1000000000000000.0"),
            ("1e16", "1e+16"),
            ("123456789012345680.0", "1.2345678901234568e+17"),
            ("0.00001", "0.00001"),
            ("0.000001", "1e-6"),
            ("1.5e-7", "1.5e-7"),
            ("1e-400", "0.0"),
            ("5e-324", "5e-324"),
            ("1.7976931348623157e308", "1.7976931348623157e+308"),
            ("2.2250738585072011e-308", "2.225073858507201e-308"),
        ] {
            let mut out = Vec::new();
            write(raw, &mut out);
            assert_eq!(String::from_utf8(out).unwrap(), expected, "{raw}");
        }
    }

    #[test]
    fn only_what_a_double_holds() {
        assert!(is_finite("1e308") && is_finite(&"9".repeat(308)) && is_finite("0e999999"));
        assert!(!is_finite("1e309") && !is_finite("-1e400") && !is_finite(&"9".repeat(309)));
    }

    #[test]
    fn token_ids() {
        assert_eq!(token_id("4294967295"), Some(u32::MAX));
        assert_eq!(token_id("-0"), Some(0));
        for raw in ["4294967296", "-1", "1.0", "1e2"] {
            assert_eq!(token_id(raw), None, "{raw}");
        }
    }
}
