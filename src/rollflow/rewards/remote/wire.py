"""The wire format between client and server, and the token that they share.

Samples are sent as a safetensors file with the tensor ``samples`` and, in its metadata, the prompts as JSON. Scores
come back as JSON, whose floats are the shortest that parse to the same bits; values that are not finite are strings,
as in Protocol Buffers: "NaN", "Infinity", "-Infinity".
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, NamedTuple

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PositiveInt, TypeAdapter
from safetensors.torch import load, save
from torch import Tensor

from rollflow.errors import RollflowError
from rollflow.prompts import Prompt

TENSORS, PICTURES = "application/x-safetensors", "application/json"
KEY = "Idempotency-Key"
"""Header that identifies a repeated request with the same body, so that it is not scored twice."""
TOKEN = "ROLLFLOW_TOKEN"


class SampleBatch(NamedTuple):
    """Samples to score.

    Args:
        samples: Samples (B, ...).
        prompts: Prompt of each sample.
    """

    samples: Tensor
    prompts: Sequence[str]


class JsonPrompt(BaseModel):
    """A prompt with the counts that it asks for."""

    model_config = ConfigDict(extra="forbid", strict=True)

    text: str
    ask: dict[str, Annotated[int, Field(ge=0, lt=2**31)]]


class Pictures(BaseModel):
    """The body of a request in JSON, for clients other than rollflow.

    Attributes:
        images: PNG files of equal size, in base64.
        prompts: Prompt of each image.
    """

    model_config = ConfigDict(extra="forbid", strict=True)

    images: list[str]
    prompts: list[str | JsonPrompt]


def _number(value: object) -> object:
    """Accept a number, or null or one of three strings for values that are not finite."""
    if value is None:
        return math.nan
    if isinstance(value, bool) or (isinstance(value, str) and value not in ("NaN", "Infinity", "-Infinity")):
        raise ValueError("expected a number")
    return value


class Scores(BaseModel):
    """The answer to a request for scores.

    Attributes:
        reward: Identity of the reward.
        scores: Score of each sample.
    """

    model_config = ConfigDict(ser_json_inf_nan="strings")

    reward: str
    scores: list[Annotated[float, BeforeValidator(_number)]]


class Info(BaseModel):
    """The hosted reward and the limits of the server.

    The attributes ``name``, ``identity``, ``description``, ``differentiable``, ``structured``, ``held_out``,
    ``zero_is_perfect`` and ``batch_size`` are those of the reward.

    Attributes:
        range: Range of the scores in words; None if unknown.
        bounds: Lowest and highest score, null where there is no limit; None if unknown.
        zero_is_perfect: As of the reward; False for servers that do not send this field.
        max_rows: Largest number of samples per request.
        max_bytes: Largest size of a request's body.
        max_pixels: Largest number of pixels of all samples in a request; None if there is no limit.
        versions: Versions of rollflow, torch and Python on the server.
    """

    name: Annotated[str, Field(max_length=1000)]
    identity: Annotated[str, Field(max_length=100_000)]
    description: Annotated[str, Field(max_length=100_000)]
    range: str | None
    bounds: tuple[float | None, float | None] | None = None
    zero_is_perfect: bool = False
    differentiable: bool
    structured: bool
    held_out: list[str]
    batch_size: PositiveInt
    max_rows: PositiveInt
    max_bytes: PositiveInt
    max_pixels: PositiveInt | None = None
    versions: dict[str, str]


class Health(BaseModel):
    """The state of the server.

    Attributes:
        status: Always ``ok``; a server in trouble answers with an error status.
        requests: Number of requests in progress.
    """

    status: str
    requests: int


class Failure(BaseModel):
    """The answer to a refused request.

    Attributes:
        error: Reason for the refusal, in one line.
    """

    error: str


_PROMPTS = TypeAdapter(list[str | JsonPrompt])


def encode(batch: SampleBatch) -> bytes:
    """Encode a batch as the body of a request."""
    prompts = [
        JsonPrompt(text=str(prompt), ask=dict(prompt.ask)) if isinstance(prompt, Prompt) else str(prompt)
        for prompt in batch.prompts
    ]
    metadata = {"prompts": _PROMPTS.dump_json(prompts).decode()}
    return save({"samples": batch.samples.detach().cpu().contiguous()}, metadata)


def header_of(body: bytes) -> bytes:
    """Extract the JSON header of a safetensors file: type, shape and offsets of each tensor, and the metadata.

    Raises:
        ValueError: If the file is shorter than its header claims.
    """
    end = 8 + int.from_bytes(body[:8], "little")
    if len(body) < max(end, 9):
        raise ValueError("the file is truncated")
    return body[8:end]


def decode(body: bytes, header: Mapping[str, Any]) -> SampleBatch:
    """Decode a body made by ``encode``; any other body may raise any exception.

    Args:
        body: Content of the safetensors file.
        header: Parsed header of the file.
    """
    prompts = prompts_of(_PROMPTS.validate_json(header["__metadata__"]["prompts"]))
    return SampleBatch(load(body)["samples"], prompts)


def prompts_of(prompts: Sequence[str | JsonPrompt]) -> list[str]:
    """Convert prompts of the wire format to those that rewards expect."""
    return [prompt if isinstance(prompt, str) else Prompt(prompt.text, prompt.ask) for prompt in prompts]


def token() -> str | None:
    """Read the token from the environment; None if it is not set.

    Raises:
        RollflowError: If the token cannot be sent in a header.
    """
    token = os.environ.get(TOKEN, "")
    if not (token.isascii() and token.isprintable() and " " not in token):
        raise RollflowError(
            f"{TOKEN} must be printable ASCII without spaces, such as the output of 'openssl rand -hex 32'"
        )
    return token or None
