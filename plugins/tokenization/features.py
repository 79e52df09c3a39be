"""Where media lie in a tokenized prompt, as render services tell it: hashes and ranges by modality."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from epp.framework.keys import MediaFeature


def media_features(
    hashes: Mapping[str, Sequence[str]], ranges: Mapping[str, Sequence[tuple[int, int]]]
) -> tuple[MediaFeature, ...]:
    """The media in the order of the prompt; what has a hash but no range, or the other way round, is left out.

    Args:
        hashes: of each item, by modality.
        ranges: (offset, length) in tokens of each item, by modality.
    """
    return tuple(sorted(_features(hashes, ranges), key=lambda feature: feature.offset_tokens))


def _features(hashes: Mapping[str, Sequence[str]], ranges: Mapping[str, Sequence[tuple[int, int]]]) -> Iterator[MediaFeature]:
    for modality, of_items in hashes.items():
        for digest, (offset, length) in zip(of_items, ranges.get(modality, ()), strict=False):
            yield MediaFeature(modality, digest, offset, length)
