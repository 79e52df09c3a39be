"""Parameters of tokenizer and token-producer: which back end turns prompts into tokens.

Source: llm-d-router: pkg/epp/framework/plugins/requestcontrol/dataproducer/tokenizer/tokenizer.go
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from epp.framework.params import DurationS, Former, Ignored, Int, Params, exclusive


def _check_socket(path: str) -> str:
    if not path:
        raise ValueError("socketFile must not be empty")
    return path


class Resolution(Params):
    """A size in pixels."""

    width: Int = Field(default=640, gt=0, description="Pixels.")
    height: Int = Field(default=360, gt=0, description="Pixels.")


class DynamicTokens(Params):
    """Tokens from the number of pixels."""

    factor: float = Field(default=1024, gt=0, description="Pixels per token.")


class StaticImageTokens(Params):
    """A fixed number of tokens per image."""

    static_token: Int = Field(default=0, ge=0, description="Tokens per image, at least 1 is counted.")


class ImageEstimate(Params):
    """Tokens of an image."""

    mode: Literal["dynamic", "static"] = Field(default="dynamic", description="From the pixels, or fixed.")
    default_resolution: Resolution = Field(default_factory=Resolution, description="Of images whose size is unknown.")
    dynamic: DynamicTokens = Field(default_factory=DynamicTokens, description="Options of `dynamic`.")
    static: StaticImageTokens = Field(default_factory=StaticImageTokens, description="Options of `static`.")


class StaticFrameTokens(Params):
    """A fixed number of tokens per frame."""

    num_tokens_per_frame: Int = Field(default=0, ge=0, description="Tokens per frame.")


class FrameTokens(Params):
    """Tokens of a frame."""

    mode: Literal["dynamic", "static"] = Field(default="dynamic", description="From the pixels, or fixed.")
    dynamic: DynamicTokens = Field(default_factory=DynamicTokens, description="Options of `dynamic`.")
    static: StaticFrameTokens = Field(default_factory=StaticFrameTokens, description="Options of `static`.")


class SampledFrames(Params):
    """Frames at a fixed rate."""

    sample_fps: float = Field(default=1, gt=0, alias="sampleFPS", description="Frames per second.")
    temporal_patch_size: Int = Field(default=0, ge=0, description="Frames that are merged into one; 0 = none.")


class StridedFrames(Params):
    """Every n-th frame of the source."""

    default_source_fps: float = Field(default=24, gt=0, alias="defaultSourceFPS", description="Frames per second there.")
    frame_stride: Int = Field(default=1, gt=0, description="Source frames per used frame.")


class FrameCount(Params):
    """How many frames of a video are used."""

    mode: Literal["sampled", "strided"] = Field(default="sampled", description="At a fixed rate, or every n-th.")
    min_frames: Int = Field(default=0, ge=0, description="Fewest frames; 0 = no limit.")
    max_frames: Int = Field(default=0, ge=0, description="Most frames; 0 = no limit.")
    sampled: SampledFrames = Field(default_factory=SampledFrames, description="Options of `sampled`.")
    strided: StridedFrames = Field(default_factory=StridedFrames, description="Options of `strided`.")


class VideoEstimate(Params):
    """Tokens of a video: frames times tokens per frame."""

    tokens_per_frame: FrameTokens = Field(default_factory=FrameTokens, description="Tokens of a frame.")
    frames: FrameCount = Field(default_factory=FrameCount, description="Frames of a video.")
    default_resolution: Resolution = Field(default_factory=Resolution, description="Of videos whose size is unknown.")
    default_duration: float = Field(default=10, gt=0, description="Seconds of videos whose length is unknown.")
    max_video_tokens: Int = Field(default=0, ge=0, description="Most tokens of a video; 0 = no limit.")


class StaticAudioTokens(Params):
    """A fixed number of tokens per sound."""

    num_tokens: Int = Field(default=0, ge=0, description="Tokens per sound, at least 1 is counted.")


class DynamicAudioTokens(Params):
    """Tokens from the length of a sound."""

    tokens_per_second: float = Field(default=12.5, gt=0, description="Tokens per second.")
    overhead_tokens: Int = Field(default=14, gt=0, description="Tokens around each sound.")
    bytes_per_second: Int = Field(default=16000, gt=0, description="Bytes per second where only the size is known.")


class AudioEstimate(Params):
    """Tokens of a sound."""

    mode: Literal["dynamic", "static"] = Field(default="dynamic", description="From the length, or fixed.")
    dynamic: DynamicAudioTokens = Field(default_factory=DynamicAudioTokens, description="Options of `dynamic`.")
    static: StaticAudioTokens = Field(default_factory=StaticAudioTokens, description="Options of `static`.")
    default_duration: float = Field(default=10, gt=0, description="Seconds of sounds whose length is unknown.")
    max_audio_tokens: Int = Field(default=0, ge=0, description="Most tokens of a sound; 0 = no limit.")


class Estimate(Params):
    """No model: 4 bytes of text per token."""

    image: ImageEstimate = Field(default_factory=ImageEstimate, description="Tokens of images.")
    video: VideoEstimate = Field(default_factory=VideoEstimate, description="Tokens of videos.")
    audio: AudioEstimate | None = Field(
        default=None, description="Tokens of sounds; absent: a quarter of the bytes of their Base64 text."
    )


class RenderService(Params):
    """A vLLM server that renders and tokenizes prompts."""

    url: Annotated[str, Former("http")] = Field(
        default="http://localhost:8000", min_length=1, description="Base URL, plain HTTP."
    )
    timeout: DurationS = Field(
        default=5.0, gt=0, description="Deadline of a call; no request waits longer for its tokens than for any other data."
    )
    mm_timeout: DurationS = Field(default=30.0, gt=0, description="Deadline of a call with media, likewise.")


class TokenizerService(Params):
    """A tokenizer service over a Unix socket."""

    socket_file: Annotated[str, AfterValidator(_check_socket)] = Field(
        default="/tmp/tokenizer/tokenizer-uds.socket", description="Path of the socket."
    )


class BackEnds(Params):
    """At most one of the back ends."""

    uds_tokenizer_config: TokenizerService | None = Field(default=None, description="Tokenize over a Unix socket.")
    vllm: Annotated[RenderService | None, Former("vllmHTTP")] = Field(
        default=None, description="Let a vLLM server render and tokenize."
    )
    estimate: Estimate | None = Field(default=None, description="Estimate, without a model.")
    backend: Annotated[str, Ignored("the section that is given decides")] = Field(
        default="", description="Name of the back end."
    )

    @model_validator(mode="after")
    def _check_single(self) -> BackEnds:
        names = ("uds_tokenizer_config", "vllm", "estimate")
        given = [type(self).model_fields[name].alias or name for name in names if getattr(self, name) is not None]
        if len(given) > 1:
            raise exclusive(f"at most one back end is allowed, given are {' and '.join(given)}")
        return self


class TokenizerParams(BackEnds):
    """Parameters of tokenizer; without a back end the model's tokenizer is loaded into this process."""

    model_name: str = Field(
        min_length=1,
        description="The base model: an id of the Hugging Face hub or what the service knows it by; without a service also a "
        "directory, or a `tokenizer.json`.",
    )


class TokenProducerParams(BackEnds):
    """Parameters of token-producer; without a back end tokens are estimated."""

    model_name: str = Field(default="", description="The base model as the service knows it; the two services need it.")

    @model_validator(mode="after")
    def _check_model(self) -> TokenProducerParams:
        if not self.model_name and (self.vllm is not None or self.uds_tokenizer_config is not None):
            raise ValueError("modelName is required with vllm and udsTokenizerConfig")
        return self
