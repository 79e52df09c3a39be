"""MediaSizes: how many tokens an image, a video or a sound takes, from its size as far as that is known."""

from __future__ import annotations

import math
import re
from base64 import b64decode
from binascii import Error as Base64Error
from typing import NamedTuple

from epp.framework.types import HeaderView
from plugins.tokenization.parameters import AudioEstimate, Estimate, FrameCount, FrameTokens, VideoEstimate

DURATION, RESOLUTION, FPS = "x-llm-d-video-duration-seconds", "x-llm-d-video-resolution", "x-llm-d-video-fps"
VIDEO_HEADERS = frozenset({DURATION, RESOLUTION, FPS})
_DATA_URL = re.compile(r"data:image/[^,]*base64,")
_SIZE = re.compile(r"\s*(\d{1,9})\s*[xX]\s*(\d{1,9})\s*")
_HEAD_CHARACTERS = 256 * 1024
"""Of the Base64 text of an image, enough for what a camera writes in front of the size."""
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_JPEG_ALONE = frozenset({0x01, *range(0xD0, 0xDA)})
"""Markers without a length."""


class VideoFacts(NamedTuple):
    """What a request's headers tell of its videos; 0 = nothing."""

    duration_s: float = 0.0
    width: int = 0
    height: int = 0
    fps: float = 0.0

    @classmethod
    def of(cls, headers: HeaderView) -> VideoFacts:
        """Read them; what cannot be read is as if it were not there."""
        size = _SIZE.fullmatch(headers.get(RESOLUTION) or "")
        width, height = (int(size[1]), int(size[2])) if size else (0, 0)
        known = width and height
        return cls(_positive(headers.get(DURATION)), width if known else 0, height if known else 0, _positive(headers.get(FPS)))


class MediaSizes:
    """Counts tokens by the rules of the parameters; at least one for each."""

    def __init__(self, params: Estimate) -> None:
        self._params = params

    def image_tokens(self, url: str) -> int:
        """Of an image; the pixels of PNG, GIF and JPEG images in ``data:`` URLs are counted."""
        image = self._params.image
        if image.mode == "static":
            return max(image.static.static_token, 1)
        default = image.default_resolution
        width, height = image_size(url) or (default.width, default.height)
        return max(int(width * height / image.dynamic.factor), 1)

    def video_tokens(self, facts: VideoFacts) -> int:
        """Of a video: frames times tokens of a frame, at most ``maxVideoTokens``."""
        video = self._params.video
        tokens = _frames(video, facts) * _frame_tokens(video.tokens_per_frame, video, facts)
        return max(min(tokens, video.max_video_tokens) if video.max_video_tokens else tokens, 1)

    def audio_tokens(self, data: str) -> int:
        """Of a sound, by its Base64 text or its URL."""
        audio = self._params.audio
        if audio is None:
            return max(-(-len(data) // 4), 1)
        if audio.mode == "static":
            return max(audio.static.num_tokens, 1)
        tokens = audio.dynamic.overhead_tokens + math.ceil(_seconds(audio, data) * audio.dynamic.tokens_per_second)
        return max(min(tokens, audio.max_audio_tokens) if audio.max_audio_tokens else tokens, 1)


def image_size(url: str) -> tuple[int, int] | None:
    """Width and height of an image in a ``data:`` URL; None if they cannot be read."""
    prefix = _DATA_URL.match(url)
    if prefix is None:
        return None
    text = url[prefix.end() : prefix.end() + _HEAD_CHARACTERS]
    try:
        head = b64decode(text[: len(text) // 4 * 4])
    except (Base64Error, ValueError):
        return None
    width, height = _png(head) or _gif(head) or _jpeg(head) or (0, 0)
    return (width, height) if width and height else None


def _png(head: bytes) -> tuple[int, int] | None:
    if not head.startswith(b"\x89PNG\r\n\x1a\n") or len(head) < 24:
        return None
    return int.from_bytes(head[16:20], "big"), int.from_bytes(head[20:24], "big")


def _gif(head: bytes) -> tuple[int, int] | None:
    if not head.startswith((b"GIF87a", b"GIF89a")) or len(head) < 10:
        return None
    return int.from_bytes(head[6:8], "little"), int.from_bytes(head[8:10], "little")


def _jpeg(head: bytes) -> tuple[int, int] | None:
    """The size stands in the frame header, behind segments of any length."""
    position = 2 if head.startswith(b"\xff\xd8") else len(head)
    while position + 9 <= len(head) and head[position] == 0xFF:
        marker = head[position + 1]
        if marker in _JPEG_FRAMES:
            return int.from_bytes(head[position + 7 : position + 9], "big"), int.from_bytes(
                head[position + 5 : position + 7], "big"
            )
        length = 0 if marker in _JPEG_ALONE else int.from_bytes(head[position + 2 : position + 4], "big")
        position += 1 if marker == 0xFF else 2 + length
    return None


def _frames(video: VideoEstimate, facts: VideoFacts) -> int:
    frames = video.frames
    duration_s = facts.duration_s or video.default_duration
    if frames.mode == "strided":
        count = int(duration_s * (facts.fps or frames.strided.default_source_fps)) // frames.strided.frame_stride
        return _within(frames, count)
    count = _within(frames, int(duration_s * frames.sampled.sample_fps))
    merged = frames.sampled.temporal_patch_size
    return count // merged if merged > 1 else count


def _within(frames: FrameCount, count: int) -> int:
    count = max(count, frames.min_frames)
    return min(count, frames.max_frames) if frames.max_frames else count


def _frame_tokens(tokens: FrameTokens, video: VideoEstimate, facts: VideoFacts) -> int:
    if tokens.mode == "static":
        return max(tokens.static.num_tokens_per_frame, 1)
    default = video.default_resolution
    width, height = (facts.width, facts.height) if facts.width else (default.width, default.height)
    return max(int(width * height / tokens.dynamic.factor), 1)


def _seconds(audio: AudioEstimate, data: str) -> float:
    """From the bytes that Base64 text stands for; of a sound elsewhere nothing is known."""
    text = data.partition(";base64,")[2] if data.startswith("data:") else data
    if not text or text.startswith(("http://", "https://")):
        return audio.default_duration
    return len(text) * 3 / 4 / audio.dynamic.bytes_per_second


def _positive(text: str | None) -> float:
    try:
        value = float(text or "")
    except ValueError:
        return 0.0
    return value if 0 < value < math.inf else 0.0
