"""What client and server say to each other, and the token that they share.

Samples travel as a safetensors file: the tensor ``samples`` and, in its metadata, the prompts as JSON. Scores come back
as JSON, whose floats are the shortest that read back as the same bits; what is not finite is a string, as in Protocol
Buffers: "NaN", "Infinity", "-Infinity".
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
"""Header by which a request that is made again, with the same body, is known, so that it is not scored again."""
TOKEN = "ROLLFLOW_TOKEN"


class Batch(NamedTuple):
    """What is to be scored.

    Args:
        samples: (B, ...).
        prompts: One each.
    """

    samples: Tensor
    prompts: Sequence[str]


class JsonPrompt(BaseModel):
    """A prompt with what it asks for."""

    model_config = ConfigDict(extra="forbid", strict=True)

    text: str
    ask: dict[str, Annotated[int, Field(ge=0, lt=2**31)]]


class Pictures(BaseModel):
    """The body of a request by other programs.

    Attributes:
        images: PNGs of one size in base64.
        prompts: One each.
    """

    model_config = ConfigDict(extra="forbid", strict=True)

    images: list[str]
    prompts: list[str | JsonPrompt]


def _number(value: object) -> object:
    """What a score may be in JSON, which null or a string stands for where it is not finite."""
    if value is None:
        return math.nan
    if isinstance(value, bool) or (isinstance(value, str) and value not in ("NaN", "Infinity", "-Infinity")):
        raise ValueError("expected a number")
    return value


class Scores(BaseModel):
    """The answer.

    Attributes:
        reward: Identity of the reward that gave them.
        scores: One a sample.
    """

    model_config = ConfigDict(ser_json_inf_nan="strings")

    reward: str
    scores: list[Annotated[float, BeforeValidator(_number)]]


class Info(BaseModel):
    """What a server hosts.

    Attributes:
        name: Of the reward; ``description``, ``differentiable``, ``structured`` and ``held_out`` are its own, too.
        identity: What sets it apart from itself with other settings.
        range: Of its scores, where it tells.
        bounds: Its lowest and highest score, where it tells; null at an end where there is no limit.
        zero_is_perfect: Whether 0 says that all is as asked for; False from a server that does not know the field.
        batch_size: The most samples that it scores at once.
        max_rows: The most samples of a request ...
        max_bytes: ... its largest body ...
        max_pixels: ... and the most pixels of its samples together; None if there is no limit.
        versions: Of what computes the scores.
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
    """Whether the server works, and on how many requests."""

    status: str
    requests: int


class Failure(BaseModel):
    """One line that says why there are no scores."""

    error: str


_PROMPTS = TypeAdapter(list[str | JsonPrompt])


def encode(batch: Batch) -> bytes:
    """A batch as the body of a request."""
    prompts = [
        JsonPrompt(text=str(prompt), ask=dict(prompt.ask)) if isinstance(prompt, Prompt) else str(prompt)
        for prompt in batch.prompts
    ]
    metadata = {"prompts": _PROMPTS.dump_json(prompts).decode()}
    return save({"samples": batch.samples.detach().cpu().contiguous()}, metadata)


def header_of(body: bytes) -> bytes:
    """The JSON with which a safetensors file begins: the dtype, shape and place of each tensor, and the metadata.

    Raises:
        ValueError: If the file is shorter than it says.
    """
    end = 8 + int.from_bytes(body[:8], "little")
    if len(body) < max(end, 9):
        raise ValueError("the file is cut short")
    return body[8:end]


def decode(body: bytes, header: Mapping[str, Any]) -> Batch:
    """The batch of a body that ``encode`` made; one that it did not make raises whatever it may.

    Args:
        body: The file.
        header: Its parsed header.
    """
    prompts = prompts_of(_PROMPTS.validate_json(header["__metadata__"]["prompts"]))
    return Batch(load(body)["samples"], prompts)


def prompts_of(asked: Sequence[str | JsonPrompt]) -> list[str]:
    """Prompts as rewards expect them."""
    return [prompt if isinstance(prompt, str) else Prompt(prompt.text, prompt.ask) for prompt in asked]


def token() -> str | None:
    """The token of the environment; None where there is none.

    Raises:
        RollflowError: If it cannot be sent in a header.
    """
    token = os.environ.get(TOKEN, "")
    if not (token.isascii() and token.isprintable() and " " not in token):
        raise RollflowError(f"{TOKEN} must be printable ASCII without blanks, such as 'openssl rand -hex 32' gives")
    return token or None
