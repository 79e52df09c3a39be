//! Features of blocks, where an engine's blocks and the index's differ in size. Twin of `plugins/kvcache/features.py`.

use super::decode::Features;

/// The features of the index's blocks.
pub fn spread(
    of_engine: &[Features],
    engine_block: usize,
    block: usize,
    blocks: usize,
    head_tokens: usize,
    head: &Features,
) -> Vec<Features> {
    if head.is_empty() && of_engine.iter().all(Vec::is_empty) {
        return Vec::new();
    }
    if engine_block == block && head_tokens == 0 {
        return of_engine[..blocks.min(of_engine.len())].to_vec();
    }
    (0..blocks)
        .map(|index| {
            let (start, end) = (index * block, (index + 1) * block);
            let first = start.saturating_sub(head_tokens) / engine_block;
            let last = end.saturating_sub(head_tokens).div_ceil(engine_block).min(of_engine.len());
            let none = Features::new();
            let front = if start < head_tokens { head } else { &none };
            united(std::iter::once(front).chain(of_engine.get(first..last).unwrap_or(&[])))
        })
        .collect()
}

/// All features in order, each once where it occurs in several parts.
pub fn united<'a>(parts: impl Iterator<Item = &'a Features>) -> Features {
    let filled: Vec<&Features> = parts.filter(|part| !part.is_empty()).collect();
    match filled.as_slice() {
        [] => Features::new(),
        [only] => (*only).clone(),
        several => {
            let mut found = Features::new();
            for feature in several.iter().copied().flatten() {
                if !found.contains(feature) {
                    found.push(feature.clone());
                }
            }
            found
        }
    }
}
