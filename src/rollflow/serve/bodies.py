"""Bodies of requests, whoever sent them, into batches; everything else is refused in one line."""

from __future__ import annotations

import base64
import hashlib
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType

import torch
from PIL import Image
from pydantic import ValidationError
from torch import Tensor

from rollflow.errors import RollflowError
from rollflow.prompts import Prompt
from rollflow.rewards.preprocessing import from_pictures
from rollflow.serve.wire import PICTURES, TENSORS, Batch, Pictures, decode, prompts_of

_DEPTH = 24  # of a PNG, in bits a channel, is this byte: its header is first, and of fixed size


@dataclass(frozen=True)
class Limits:
    """What one server takes on.

    Args:
        megabytes: Of a body.
        rows: Samples of a request.
        pixels: Of the PNGs of a request together; what a tensor holds is limited by its bytes.
        requests: That are read, wait or are scored at once.
        seconds: Until a body is complete.
        characters: Of a prompt, and of the names of what it asks for.
    """

    megabytes: float = 128
    rows: int = 256
    pixels: int = 2**25
    requests: int = 32
    seconds: float = 120
    characters: int = 10_000

    def __post_init__(self) -> None:
        for name, limit in vars(self).items():
            if not 0 < limit < math.inf:
                raise RollflowError(f"the limit of {name} must be above 0, and finite, not {limit}")

    @property
    def bytes(self) -> int:
        """Of a body."""
        return math.ceil(self.megabytes * 1e6)


class Refusal(RollflowError):
    """A request that is not answered with scores.

    Args:
        status: Of HTTP.
        message: What was got, what was expected, and what to do.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(" ".join(message.split()))
        self.status = status


def read(media: str, body: bytes, limits: Limits) -> Batch:
    """The batch in a body of a kind that ``check_media`` lets through.

    Raises:
        Refusal: 413 if it is too much, 422 if it is not what it should be.
    """
    if media == TENSORS:
        with _Reading("a safetensors file with the tensor 'samples' and prompts in its metadata"):
            batch = decode(body)
    else:
        batch = _pictures(body, limits)
    _check(batch, limits)
    return batch


def check_media(content_type: str) -> str:
    """The kind of a body.

    Raises:
        Refusal: 415 if it is none that is read here.
    """
    media = content_type.partition(";")[0].strip().lower()
    if media not in (TENSORS, PICTURES):
        raise Refusal(415, f"expected the Content-Type {TENSORS} or {PICTURES}, not '{media}'")
    return media


def _check(batch: Batch, limits: Limits) -> None:
    samples, prompts = batch
    if samples.ndim == 0 or samples.numel() == 0:
        raise Refusal(422, f"expected samples (B, ...), got shape {tuple(samples.shape)}")
    if samples.dtype == torch.bool or samples.is_complex():
        raise Refusal(422, f"expected samples of real numbers, got {samples.dtype}")
    if len(samples) != len(prompts):
        raise Refusal(422, f"expected one prompt a sample, got {len(prompts)} for {len(samples)}")
    _at_most(limits.rows, len(samples), "samples")
    for row, prompt in enumerate(prompts):
        length = len(prompt) + (sum(map(len, prompt.ask)) if isinstance(prompt, Prompt) else 0)
        if length > limits.characters:
            raise Refusal(422, f"prompt {row} has {length} characters; at most {limits.characters}: send a shorter one")


def fingerprint(key: str, body: bytes) -> bytes:
    """By which a request that is made again is known: its ``Idempotency-Key``, and all that it asks."""
    digest = hashlib.sha256(hashlib.sha256(key.encode()).digest())
    digest.update(body)
    return digest.digest()


def _at_most(limit: int, got: int, what: str) -> None:
    if got > limit:
        raise Refusal(413, f"{got} {what} in one request; at most {limit}: send fewer, or start the server with more")


def _pictures(body: bytes, limits: Limits) -> Batch:
    with _Reading('{"images": [PNG in base64, ...], "prompts": ["...", ...]}'):
        asked = Pictures.model_validate_json(body)
        prompts = prompts_of(asked.prompts)
    _at_most(limits.rows, len(asked.images), "samples")
    return Batch(_pixels(asked.images, limits), prompts)


def _pixels(images: Sequence[str], limits: Limits) -> Tensor:
    pictures: list[Image.Image] = []
    pixels = 0
    for row, image in enumerate(images):
        with _Reading(f"a PNG in base64 as image {row}"):
            png = base64.b64decode(image, validate=True)
            picture = Image.open(io.BytesIO(png), formats=["PNG"])  # only its header: it may claim any size
        pixels += picture.width * picture.height
        _at_most(limits.pixels, pixels, "pixels")
        if png[_DEPTH] > 8:
            raise Refusal(422, f"image {row} has {png[_DEPTH]} bits a channel, of which 8 would be lost; send tensors")
        with _Reading(f"a PNG in base64 as image {row}"):
            with_alpha = picture.convert("RGBA")
        if with_alpha.getchannel("A").getextrema() != (255, 255):
            raise Refusal(422, f"image {row} is transparent in places; put it on a background")
        pictures.append(with_alpha.convert("RGB"))
    sizes = {picture.size for picture in pictures}
    if len(sizes) != 1:
        raise Refusal(422, f"expected images of one size, got {sorted(sizes) or 'none'}")
    return from_pictures(pictures)


class _Reading:
    """Whatever a parser raises, the sender is at fault."""

    def __init__(self, what: str) -> None:
        self.what = what

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        if isinstance(error, ValidationError):
            first = error.errors()[0]
            at = ".".join(map(str, first["loc"]))
            raise Refusal(422, f"expected {self.what}; {first['msg']}{at and f' at {at}'}") from None
        if isinstance(error, Exception):
            raise Refusal(422, f"expected {self.what}; {type(error).__name__}: {str(error)[:200]}") from None
