"""Conversion of untrusted request bodies to batches; anything else is refused with a one-line message."""

from __future__ import annotations

import base64
import hashlib
import json
import math
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor

from rollflow.files.media import PictureTooLarge, open_picture
from rollflow.files.pictures import from_pictures
from rollflow.prompts import Prompt
from rollflow.rewards.remote.server.limits import Limits, Refusal
from rollflow.rewards.remote.wire import PICTURES, TENSORS, Pictures, SampleBatch, decode, header_of, prompts_of

_DEPTH = 24  # offset of the bits per channel in a PNG, whose header comes first and has a fixed size
_DTYPES = ("BF16", "F16", "F32", "F64", "I16", "I32", "I64", "I8", "U8")
_RANK = 8


Unfit = Callable[[tuple[int, ...]], str | None]
"""The signature of ``RewardModel.unfit``: the reason why samples of a shape cannot be scored; None if they can."""


def _all_fit(shape: tuple[int, ...]) -> None:
    return None


def read(media: str, body: bytes, limits: Limits, unfit: Unfit = _all_fit) -> SampleBatch:
    """Read the batch in a body; sizes are checked by headers before anything is decoded.

    Args:
        media: Media type, as returned by ``check_media``.
        body: The complete body.
        limits: Limits of the server.
        unfit: Function that explains why samples of a shape cannot be scored.

    Raises:
        Refusal: 413 if the body exceeds a limit, 422 if it is malformed.
    """
    batch = _tensors(body, limits, unfit) if media == TENSORS else _pictures(body, limits, unfit)
    _check(batch, limits)
    return batch


def check_media(content_type: str, content_encoding: str = "") -> str:
    """Return the media type of a body.

    Raises:
        Refusal: 415 if the type is not supported, or the body is compressed.
    """
    media = content_type.partition(";")[0].strip().lower()
    if media not in (TENSORS, PICTURES):
        raise Refusal(415, f"expected the Content-Type {TENSORS} or {PICTURES}, not '{media}'")
    if content_encoding.strip().lower() not in ("", "identity"):
        raise Refusal(415, f"expected an uncompressed body, got the Content-Encoding '{content_encoding}'")
    return media


def fingerprint(key: str, body: bytes) -> bytes:
    """Hash of a request's ``Idempotency-Key`` and body, which identifies a repeated request."""
    digest = hashlib.sha256(hashlib.sha256(key.encode()).digest())
    digest.update(body)
    return digest.digest()


def _tensors(body: bytes, limits: Limits, unfit: Unfit) -> SampleBatch:
    expected = "a safetensors file with the tensor 'samples' and prompts in its metadata"
    with _Reading(expected):
        text = header_of(body)
        _check_values(text, limits)
        header = json.loads(text)
        unexpected = header.keys() - {"samples", "__metadata__"}
        dtype, shape = header["samples"]["dtype"], tuple(header["samples"]["shape"])
    if unexpected:
        raise Refusal(422, f"expected {expected}, also got the tensor '{min(unexpected):.50}'")
    if dtype not in _DTYPES:
        raise Refusal(422, f"expected samples of real numbers ({', '.join(_DTYPES)}), got {dtype!s:.50}")
    _check_shape(shape, limits, unfit)
    with _Reading(expected):
        return decode(body, header)


def _pictures(body: bytes, limits: Limits, unfit: Unfit) -> SampleBatch:
    _check_values(body, limits)
    with _Reading('{"images": [PNG in base64, ...], "prompts": ["...", ...]}'):
        content = Pictures.model_validate_json(body)
        prompts = prompts_of(content.prompts)
    _at_most(limits.rows, len(content.images), "samples")
    _check_prompts(prompts, len(content.images), limits)
    return SampleBatch(_pixels(content.images, limits, unfit), prompts)


def _pixels(images: Sequence[str], limits: Limits, unfit: Unfit) -> Tensor:
    files: list[bytes] = []
    sizes: list[tuple[int, int]] = []
    for row, image in enumerate(images):
        file, size = _inspected(row, image, limits)
        files.append(file)
        sizes.append(size)
        _at_most(limits.pixels, sum(width * height for width, height in sizes), "pixels")
    if len(set(sizes)) != 1:
        raise Refusal(422, f"expected images of equal size, got {sorted(set(sizes)) or 'none'}")
    width, height = sizes[0]
    _check_shape((len(files), 3, height, width), limits, unfit)
    # with the strides of a decoded picture, on which the last bits of a reward may depend
    pixels = torch.empty(len(files), height, width, 3).permute(0, 3, 1, 2)
    for row, file in enumerate(files):
        pixels[row] = _decoded(row, file)[0]
    return pixels


def _inspected(row: int, image: str, limits: Limits) -> tuple[bytes, tuple[int, int]]:
    """Return the file of an image and the size that its header claims."""
    with _Reading(f"a PNG in base64 as image {row}"):
        file = base64.b64decode(image, validate=True)
        with open_picture(file, formats=("PNG",), max_pixels=limits.pixels) as picture:
            animated, size = getattr(picture, "is_animated", False), picture.size
    if animated:
        raise Refusal(422, f"image {row} is animated; send its frames as tensors")
    if file[_DEPTH] > 8:
        raise Refusal(422, f"image {row} has {file[_DEPTH]} bits per channel, expected 8; send tensors instead")
    return file, size


def _decoded(row: int, file: bytes) -> Tensor:
    """Decode a PNG to pixels (1, 3, H, W)."""
    with _Reading(f"a PNG in base64 as image {row}"), open_picture(file, formats=("PNG",)) as picture:
        with_alpha = picture.convert("RGBA")
    if with_alpha.getchannel("A").getextrema() != (255, 255):
        raise Refusal(422, f"image {row} has transparent pixels; put it on a background")
    return from_pictures([with_alpha])


def _check(batch: SampleBatch, limits: Limits) -> None:
    samples, prompts = batch
    _check_prompts(prompts, len(samples), limits)
    for row, sample in enumerate(samples if samples.is_floating_point() else ()):
        if not sample.isfinite().all():
            raise Refusal(422, f"sample {row} has values that are not finite; send finite numbers")


def _check_shape(shape: tuple[Any, ...], limits: Limits, unfit: Unfit) -> None:
    whole = len(shape) <= _RANK and all(type(side) is int for side in shape)
    if not whole or not shape or min(shape) < 1:
        raise Refusal(422, f"expected samples (B, ...) of 1 to {_RANK} dimensions, got shape {str(shape)[:100]}")
    _at_most(limits.rows, shape[0], "samples")
    _at_most(limits.pixels, -(-math.prod(shape) // 3), "pixels")
    why = unfit(shape[1:])
    if why is not None:
        raise Refusal(422, f"samples of this shape cannot be scored: {why}")


def _check_prompts(prompts: Sequence[str], samples: int, limits: Limits) -> None:
    if samples != len(prompts):
        raise Refusal(422, f"expected one prompt per sample, got {len(prompts)} prompts for {samples} samples")
    for row, prompt in enumerate(prompts):
        length = len(prompt) + (sum(map(len, prompt.ask)) if isinstance(prompt, Prompt) else 0)
        if length > limits.characters:
            raise Refusal(422, f"prompt {row} has {length} characters, at most {limits.characters} are allowed")


def _check_values(text: bytes, limits: Limits) -> None:
    """Refuse JSON with too many values, counted by its punctuation before a parser creates objects."""
    _at_most(limits.values, text.count(b",") + text.count(b"[") + text.count(b"{"), "values")


def _at_most(limit: int, got: int, what: str) -> None:
    if got > limit:
        raise Refusal(
            413,
            f"{got} {what} in one request, at most {limit} are allowed; send fewer, or start the server with a higher "
            "limit",
        )


class _Reading:
    """Turns exceptions of a parser into a refusal; running out of memory is reported as such.

    Args:
        what: What the parser expects, for the message.
    """

    def __init__(self, what: str) -> None:
        self.what = what

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        if isinstance(error, Refusal):
            return
        if isinstance(error, MemoryError) or (error is not None and isinstance(error.__cause__, MemoryError)):
            raise Refusal(503, "the server ran out of memory for this request; try again, or send fewer samples")
        if isinstance(error, ValidationError):
            first = error.errors(include_input=False, include_url=False)[0]
            at = ".".join(map(str, first["loc"]))
            raise Refusal(422, f"expected {self.what}; {first['msg'][:200]}{at and f' at {at:.100}'}") from None
        if isinstance(error, PictureTooLarge):
            raise Refusal(413, f"expected {self.what}; {error}") from None
        if isinstance(error, Exception):
            raise Refusal(422, f"expected {self.what}; {type(error).__name__}: {str(error)[:200]}") from None
