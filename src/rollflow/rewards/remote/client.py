"""The client of a reward that runs in another process or on another machine."""

from __future__ import annotations

import math
import re
import uuid
from collections.abc import Hashable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urlsplit

import torch
from torch import Tensor

from rollflow import checks
from rollflow.errors import BadReward, BadSetting, RollflowError
from rollflow.extras import requiring
from rollflow.rewards.base import Card, RewardModel
from rollflow.rewards.remote.connection import Call, Connection

if TYPE_CHECKING:
    import httpx
    from pydantic import BaseModel

    from rollflow.rewards.remote.wire import Info

    T = TypeVar("T", bound=BaseModel)


class RemoteReward(RewardModel):
    """A reward hosted by ``rollflow serve-reward``; once loaded, it takes over that reward's attributes.

    Scores equal those of the hosted reward to the last bit. Samples are sent unchanged, in as many requests as the
    server's limits require; if a request is still too large (413), the limits are requested again and the samples are
    sent in halves. If the server does not answer, the run waits: the request is repeated with growing pauses for
    ``patience`` seconds and then fails with ``RewardUnavailable``. ``load`` does not wait, since nothing is lost yet.
    Any other refusal fails at once. The token is read from the environment variable ``ROLLFLOW_TOKEN``.

    Args:
        url: URL of the server.
        timeout: Timeout of a request in seconds. When it is repeated, the server continues its work on it rather than
            start again.
        patience: Seconds from the first failure until an unreachable server is given up.

    Raises:
        RollflowError: If the URL is invalid or a time is negative.
    """

    name = "remote"
    description = "a reward hosted by 'rollflow serve-reward', in another process or on another machine"
    requires = ("httpx", "pydantic")
    remote = True
    card = Card(
        "that of the hosted reward", "nothing", "none here", "that of the hosted reward", "docs/rewards/server.md"
    )

    def __init__(self, url: str = "http://127.0.0.1:8000", timeout: float = 120, patience: float = 600) -> None:
        checks.text("url of remote", url)
        if not re.fullmatch(r"https?://(\[[\da-fA-F:.]+\]|[^\s/:@\[\]]+)(:\d+)?(/[^\s?#]*)?", url):
            raise BadSetting(f"expected a URL such as http://127.0.0.1:8000, not '{url}'")
        try:
            _ = urlsplit(url).port
        except ValueError:
            raise BadSetting(f"the port of '{url}' must be from 0 to 65535") from None
        checks.real("timeout of remote, in seconds,", timeout, above=0)
        checks.real("patience of remote, in seconds,", patience, at_least=0)
        self.url = url.rstrip("/")
        self.timeout = timeout
        self.patience = patience

    @property
    def identity(self) -> str:
        return self._info.identity

    @property
    def place(self) -> Hashable:
        return self.url

    def load(self) -> None:
        vars(self).update(
            name=self._info.name,
            description=self._info.description,
            batch_size=self._info.batch_size,
            structured=self._info.structured,
            held_out=tuple(self._info.held_out),
            bounds=_bounds(self._info),
            zero_is_perfect=self._info.zero_is_perfect,
        )

    def score(self, samples: Tensor, prompts: Sequence[str]) -> Tensor:
        self.load()
        return torch.tensor(self._scores(samples, prompts), dtype=torch.float64)

    @cached_property
    def _connection(self) -> Connection:
        with requiring("reward 'remote'", "server"):
            from rollflow.rewards.remote import deadlines, wire  # noqa: F401  # the connection imports deadlines later
        token = wire.token()
        return Connection(self.url, {"Authorization": f"Bearer {token}"} if token else {}, self.timeout)

    @cached_property
    def _info(self) -> Info:
        from rollflow.rewards.remote.wire import Info

        return self._parsed(Info, self._connection.ask(Call("GET", "/info"), patience=0))

    def _renew(self) -> None:
        """Request the limits again, since the server may have been restarted with others."""
        from rollflow.rewards.remote.wire import Info

        info = self._parsed(Info, self._connection.ask(Call("GET", "/info"), self.patience))
        self._check(info.identity)
        self._info = info

    def _check(self, identity: str) -> None:
        """Check that the server still hosts the same reward.

        Raises:
            RollflowError: If it hosts another one.
        """
        if identity != self._info.identity:
            raise RollflowError(
                f"the server at {self.url} now hosts '{identity}', but the run began with '{self._info.identity}'"
            )

    def _scores(self, samples: Tensor, prompts: Sequence[str]) -> list[float]:
        from rollflow.rewards.remote import wire

        rows = len(samples)
        fits = rows <= self._info.max_rows and -(-samples.numel() // 3) <= (self._info.max_pixels or math.inf)
        body = wire.encode(wire.SampleBatch(samples, prompts)) if fits or rows == 1 else None
        if rows > 1 and (body is None or len(body) > self._info.max_bytes):
            return self._in_halves(samples, prompts)
        headers = {"Content-Type": wire.TENSORS, wire.KEY: uuid.uuid4().hex}
        answer = self._connection.ask(Call("POST", "/score", body, headers), self.patience)
        if answer.status_code == 413 and rows > 1:
            self._renew()
            return self._in_halves(samples, prompts)
        content = self._parsed(wire.Scores, answer)
        self._check(content.reward)
        if len(content.scores) != rows:
            raise BadReward(f"the server at {self.url} gave {len(content.scores)} scores for {rows} samples")
        return content.scores

    def _in_halves(self, samples: Tensor, prompts: Sequence[str]) -> list[float]:
        half = len(samples) // 2
        return self._scores(samples[:half], prompts[:half]) + self._scores(samples[half:], prompts[half:])

    def _parsed(self, kind: type[T], answer: httpx.Response) -> T:
        """Parse the content of an answer.

        Raises:
            BadReward: If the server refuses the request.
            RollflowError: If the token is wrong, or the server is not a reward server.
        """
        from pydantic import ValidationError

        from rollflow.rewards.remote.wire import TOKEN, Failure

        if answer.status_code == 401:
            raise RollflowError(
                f"the reward server at {self.url} requires its token; set {TOKEN} to the value that the server has"
            )
        try:
            if answer.is_success:
                return kind.model_validate_json(answer.content)
            why = Failure.model_validate_json(answer.content).error
        except ValidationError:
            raise RollflowError(
                f"the server at {self.url} (status {answer.status_code}) is not a reward server; start one with "
                "'rollflow serve-reward NAME'"
            ) from None
        raise BadReward(f"the reward server at {self.url} answered {answer.status_code}: {why:.500}")


def _bounds(info: Info) -> tuple[float, float] | None:
    if info.bounds is None:
        return None
    low, high = info.bounds
    return -math.inf if low is None else low, math.inf if high is None else high
