//! The packed form of a request's prompts, read: their hashes become keys. Twin of `packed_keys` in `plugins/prefix/keys.py`.

use std::num::NonZeroUsize;

use super::blocks::{HASH_BYTES, Scope, chain};

/// Bytes that a token id is hashed as.
const TOKEN_BYTES: u64 = 4;

/// How hashes become keys.
#[derive(Debug, Clone, Copy)]
pub struct Chain<'a> {
    pub scope: Scope<'a>,
    /// Bytes of what each hash is of.
    pub unit_bytes: NonZeroUsize,
    /// Hashes for each block.
    pub stride: NonZeroUsize,
    /// Blocks of each prompt that get keys; 0 = all.
    pub max_blocks: usize,
}

/// What the packed form gives.
#[derive(Debug, PartialEq, Eq)]
pub enum Keys {
    /// Of each prompt that has a whole block, packed.
    Known(Vec<Vec<u8>>),
    /// Fewer hashes were made than are wanted.
    TooFew,
    /// This is no packed form.
    Malformed,
}

/// The keys of all prompts.
pub fn packed_keys(packed: &[u8], how: Chain) -> Keys {
    read(packed, how).unwrap_or(Keys::Malformed)
}

fn read(packed: &[u8], how: Chain) -> Option<Keys> {
    if packed.is_empty() {
        return Some(Keys::Known(Vec::new()));
    }
    let mut rest = packed;
    let template_hash = u64::from_le_bytes(take(&mut rest)?);
    let count = u32::from_le_bytes(take(&mut rest)?);
    let mut prompts = Vec::new();
    for _ in 0..count {
        let [basis] = take(&mut rest)?;
        let length = u64::from(u32::from_le_bytes(take(&mut rest)?));
        let hashes = u32::from_le_bytes(take(&mut rest)?) as usize;
        let (contents, after) = rest.split_at_checked(hashes.checked_mul(HASH_BYTES)?)?;
        rest = after;
        let is_tokens = basis != 0;
        let bytes = if is_tokens { length * TOKEN_BYTES } else { length };
        let mut wanted = usize::try_from(bytes).ok()? / how.unit_bytes / how.stride;
        if how.max_blocks != 0 {
            wanted = wanted.min(how.max_blocks);
        }
        wanted = wanted.checked_mul(how.stride.get())?;
        if hashes < wanted {
            return Some(Keys::TooFew);
        }
        if wanted > 0 {
            let seed = how.scope.seed(is_tokens, template_hash);
            prompts.push(chain(seed, &contents[..wanted * HASH_BYTES], how.stride)?);
        }
    }
    rest.is_empty().then_some(Keys::Known(prompts))
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (value, after) = rest.split_first_chunk()?;
    *rest = after;
    Some(*value)
}

#[cfg(test)]
mod tests {
    use super::super::blocks::{Cut, content_hashes};
    use super::super::prompts::prompt_blocks;
    use super::*;

    fn number(value: usize) -> NonZeroUsize {
        NonZeroUsize::new(value).unwrap()
    }

    fn how(stride: usize, max_blocks: usize) -> Chain<'static> {
        let scope = Scope { model: b"m", salt: b"s" };
        Chain { scope, unit_bytes: number(4), stride: number(stride), max_blocks }
    }

    #[test]
    fn keys_of_text_and_tokens() {
        let cut = Cut { block_bytes: number(4), max_blocks: 5 };
        let packed = prompt_blocks(br#"{"prompt":["abcdefghijklmnopqrstuvwx","abc","abcdefghij"]}"#, cut);
        let keys = |text: &[u8], stride: usize| {
            let cut = Cut { block_bytes: number(4), max_blocks: 0 };
            chain(how(1, 0).scope.seed(false, 0), &content_hashes(text, cut), number(stride)).unwrap()
        };
        let (long, short) = (b"abcdefghijklmnopqrstuvwx", b"abcdefghij");
        assert_eq!(packed_keys(&packed, how(2, 2)), Keys::Known(vec![keys(&long[..16], 2), keys(short, 2)]));
        assert_eq!(packed_keys(&packed, how(1, 1)), Keys::Known(vec![keys(&long[..4], 1), keys(&short[..4], 1)]));
        assert_eq!(packed_keys(&packed, how(7, 0)), Keys::Known(vec![]));
        assert_eq!(packed_keys(&packed, how(2, 0)), Keys::TooFew);
        let tokens = prompt_blocks(br#"{"prompt":[1,2,3]}"#, cut);
        let Keys::Known(found) = packed_keys(&tokens, how(1, 0)) else { panic!() };
        assert_eq!(found.iter().map(Vec::len).collect::<Vec<_>>(), [24]);
    }

    #[test]
    fn what_is_cut_off_or_goes_on_is_malformed() {
        let cut = Cut { block_bytes: number(4), max_blocks: 0 };
        let packed = prompt_blocks(br#"{"prompt":"abcdefgh"}"#, cut);
        assert_eq!(packed_keys(b"", how(1, 0)), Keys::Known(vec![]));
        for length in 1..packed.len() {
            assert_eq!(packed_keys(&packed[..length], how(1, 0)), Keys::Malformed);
        }
        assert_eq!(packed_keys(&[&packed[..], b"x"].concat(), how(1, 0)), Keys::Malformed);
    }
}
