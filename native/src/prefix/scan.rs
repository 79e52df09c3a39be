//! How long the simple things of JSON are; fast, because most of a body is one of them.

/// How many bytes of a string come before its end, an escape or what must not be in it. Without a branch for each byte: 32 at a
/// time as long as nothing is found, then 8.
pub fn plain_length(data: &[u8]) -> usize {
    let ends = |byte: &u8| (*byte < b' ') | (*byte == b'"') | (*byte == b'\\');
    let (chunks, _) = data.as_chunks::<32>();
    let plain = chunks.iter().take_while(|chunk| !chunk.iter().fold(false, |found, byte| found | ends(byte)));
    let start = plain.count() * 32;
    let (words, rest) = data[start..].as_chunks::<8>();
    for (place, word) in words.iter().enumerate() {
        let found = ends_in(u64::from_le_bytes(*word));
        if found != 0 {
            return start + place * 8 + found.trailing_zeros() as usize / 8;
        }
    }
    rest.iter().position(ends).map_or(data.len(), |place| data.len() - rest.len() + place)
}

/// The highest bit of the first byte that ends a run of plain ones; those above it say nothing.
fn ends_in(word: u64) -> u64 {
    const ONES: u64 = u64::MAX / 255;
    let zero = |word: u64| word.wrapping_sub(ONES) & !word;
    let quote = zero(word ^ (ONES * b'"' as u64));
    let escape = zero(word ^ (ONES * b'\\' as u64));
    let control = word.wrapping_sub(ONES * b' ' as u64) & !word;
    (quote | escape | control) & (ONES * 0x80)
}

fn digits(data: &[u8]) -> usize {
    data.iter().take_while(|byte| byte.is_ascii_digit()).count()
}

/// How long the number is that begins here; None if none does.
pub fn number_length(data: &[u8]) -> Option<usize> {
    let mut at = usize::from(data.first() == Some(&b'-'));
    let whole = digits(&data[at..]);
    if whole == 0 || whole > 1 && data[at] == b'0' {
        return None;
    }
    at += whole;
    if data.get(at) == Some(&b'.') {
        let fraction = digits(&data[at + 1..]);
        (fraction > 0).then_some(())?;
        at += 1 + fraction;
    }
    if let Some(b'e' | b'E') = data.get(at) {
        at += 1 + usize::from(matches!(data.get(at + 1), Some(b'+' | b'-')));
        let exponent = digits(&data[at..]);
        (exponent > 0).then_some(())?;
        at += exponent;
    }
    Some(at)
}

/// How long the inside of a list is up to its bracket, if that holds nothing but integers that fit 32 bits, and one at least.
pub fn integers_length(data: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        at += blanks(&data[at..]);
        let start = at;
        at += digits(&data[at..]);
        let number = &data[start..at];
        let fits = match number.len() {
            0 => false,
            1 => true,
            // Of ten digits each, the greater number is the later one in the alphabet.
            length => number[0] != b'0' && (length < 10 || length == 10 && number <= &b"4294967295"[..]),
        };
        fits.then_some(())?;
        at += blanks(&data[at..]);
        match data.get(at)? {
            b',' => at += 1,
            b']' => return Some(at),
            _ => return None,
        }
    }
}

fn blanks(data: &[u8]) -> usize {
    data.iter().take_while(|byte| matches!(byte, b' ' | b'\t' | b'\r' | b'\n')).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_lengths() {
        for length in 0..100 {
            for end in ["\"", "\\", "\n", ""] {
                let text = format!("{}{end}xx\"", "ü".repeat(length));
                assert_eq!(plain_length(text.as_bytes()), 2 * length + if end.is_empty() { 2 } else { 0 });
            }
        }
    }
}
