"""Bodies of requests, whoever sent them, into batches; everything else is refused in one line."""

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
from rollflow.rewards.remote.wire import PICTURES, TENSORS, Batch, Pictures, decode, header_of, prompts_of

_DEPTH = 24  # of a PNG, in bits a channel, is this byte: its header is first, and of fixed size
_DTYPES = ("BF16", "F16", "F32", "F64", "I16", "I32", "I64", "I8", "U8")
_RANK = 8


Unfit = Callable[[tuple[int, ...]], str | None]
"""``RewardModel.unfit``: why samples of a shape cannot be scored; None if they can."""


def _all_fit(shape: tuple[int, ...]) -> None:
    return None


def read(media: str, body: bytes, limits: Limits, unfit: Unfit = _all_fit) -> Batch:
    """The batch in a body of a kind that ``check_media`` lets through.

    Sizes are judged by headers, before anything is decoded.

    Args:
        media: Of the body.
        body: All of it.
        limits: Of a request.
        unfit: Why samples of a shape cannot be scored.

    Raises:
        Refusal: 413 if it is too much, 422 if it is not what it should be.
    """
    batch = _tensors(body, limits, unfit) if media == TENSORS else _pictures(body, limits, unfit)
    _check(batch, limits)
    return batch


def check_media(content_type: str, content_encoding: str = "") -> str:
    """The kind of a body.

    Raises:
        Refusal: 415 if it is none that is read here, or compressed.
    """
    media = content_type.partition(";")[0].strip().lower()
    if media not in (TENSORS, PICTURES):
        raise Refusal(415, f"expected the Content-Type {TENSORS} or {PICTURES}, not '{media}'")
    if content_encoding.strip().lower() not in ("", "identity"):
        raise Refusal(415, f"expected a body that is not compressed, got the Content-Encoding '{content_encoding}'")
    return media


def fingerprint(key: str, body: bytes) -> bytes:
    """By which a request that is made again is known: its ``Idempotency-Key``, and all that it asks."""
    digest = hashlib.sha256(hashlib.sha256(key.encode()).digest())
    digest.update(body)
    return digest.digest()


def _tensors(body: bytes, limits: Limits, unfit: Unfit) -> Batch:
    expected = "a safetensors file with the tensor 'samples' and prompts in its metadata"
    with _Reading(expected):
        text = header_of(body)
        _check_values(text, limits)
        header = json.loads(text)
        strange = header.keys() - {"samples", "__metadata__"}
        dtype, shape = header["samples"]["dtype"], tuple(header["samples"]["shape"])
    if strange:
        raise Refusal(422, f"expected {expected}, got the tensor '{min(strange):.50}', too")
    if dtype not in _DTYPES:
        raise Refusal(422, f"expected samples of real numbers ({', '.join(_DTYPES)}), got {dtype!s:.50}")
    _check_shape(shape, limits, unfit)
    with _Reading(expected):
        return decode(body, header)


def _pictures(body: bytes, limits: Limits, unfit: Unfit) -> Batch:
    _check_values(body, limits)
    with _Reading('{"images": [PNG in base64, ...], "prompts": ["...", ...]}'):
        asked = Pictures.model_validate_json(body)
        prompts = prompts_of(asked.prompts)
    _at_most(limits.rows, len(asked.images), "samples")
    _check_prompts(prompts, len(asked.images), limits)
    return Batch(_pixels(asked.images, limits, unfit), prompts)


def _pixels(images: Sequence[str], limits: Limits, unfit: Unfit) -> Tensor:
    files: list[bytes] = []
    sizes: list[tuple[int, int]] = []
    for row, image in enumerate(images):
        file, size = _judged(row, image, limits)
        files.append(file)
        sizes.append(size)
        _at_most(limits.pixels, sum(width * height for width, height in sizes), "pixels")
    if len(set(sizes)) != 1:
        raise Refusal(422, f"expected images of one size, got {sorted(set(sizes)) or 'none'}")
    width, height = sizes[0]
    _check_shape((len(files), 3, height, width), limits, unfit)
    # with the strides that many pictures have, on which the last bits of a reward may depend
    pixels = torch.empty(len(files), height, width, 3).permute(0, 3, 1, 2)
    for row, file in enumerate(files):
        pixels[row] = _decoded(row, file)[0]
    return pixels


def _judged(row: int, image: str, limits: Limits) -> tuple[bytes, tuple[int, int]]:
    """The file of an image and its size, which may be whatever the header claims."""
    with _Reading(f"a PNG in base64 as image {row}"):
        file = base64.b64decode(image, validate=True)
        with open_picture(file, formats=("PNG",), max_pixels=limits.pixels) as picture:
            animated, size = getattr(picture, "is_animated", False), picture.size
    if animated:
        raise Refusal(422, f"image {row} is a film, of which only one picture would count; send its frames as tensors")
    if file[_DEPTH] > 8:
        raise Refusal(422, f"image {row} has {file[_DEPTH]} bits a channel, of which 8 would be lost; send tensors")
    return file, size


def _decoded(row: int, file: bytes) -> Tensor:
    """(1, 3, H, W)."""
    with _Reading(f"a PNG in base64 as image {row}"), open_picture(file, formats=("PNG",)) as picture:
        with_alpha = picture.convert("RGBA")
    if with_alpha.getchannel("A").getextrema() != (255, 255):
        raise Refusal(422, f"image {row} is transparent in places; put it on a background")
    return from_pictures([with_alpha])


def _check(batch: Batch, limits: Limits) -> None:
    samples, prompts = batch
    _check_prompts(prompts, len(samples), limits)
    for row, sample in enumerate(samples if samples.is_floating_point() else ()):
        if not sample.isfinite().all():
            raise Refusal(422, f"sample {row} has values that are not finite; expected finite numbers")


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
        raise Refusal(422, f"expected one prompt a sample, got {len(prompts)} for {samples}")
    for row, prompt in enumerate(prompts):
        length = len(prompt) + (sum(map(len, prompt.ask)) if isinstance(prompt, Prompt) else 0)
        if length > limits.characters:
            raise Refusal(422, f"prompt {row} has {length} characters; at most {limits.characters}: send a shorter one")


def _check_values(text: bytes, limits: Limits) -> None:
    """Refuse JSON of too many values by its punctuation, before a parser makes objects of them."""
    _at_most(limits.values, text.count(b",") + text.count(b"[") + text.count(b"{"), "values")


def _at_most(limit: int, got: int, what: str) -> None:
    if got > limit:
        raise Refusal(413, f"{got} {what} in one request; at most {limit}: send fewer, or start the server with more")


class _Reading:
    """Turn whatever a parser raises into a refusal of the request; running out of memory is reported as such."""

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
            raise Refusal(503, "the server has too little memory left for this request; try again, or send less")
        if isinstance(error, ValidationError):
            first = error.errors(include_input=False, include_url=False)[0]
            at = ".".join(map(str, first["loc"]))
            raise Refusal(422, f"expected {self.what}; {first['msg'][:200]}{at and f' at {at:.100}'}") from None
        if isinstance(error, PictureTooLarge):
            raise Refusal(413, f"expected {self.what}; {error}") from None
        if isinstance(error, Exception):
            raise Refusal(422, f"expected {self.what}; {type(error).__name__}: {str(error)[:200]}") from None
