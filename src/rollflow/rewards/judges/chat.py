"""Chat completions of an OpenAI-compatible API, retried until there is a valid answer."""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, TypeVar

from rollflow import checks
from rollflow.errors import BadReward, BadSetting, RewardUnavailable, RollflowError
from rollflow.extras import requiring
from rollflow.rewards.remote.connection import answered

if TYPE_CHECKING:
    import httpx

T = TypeVar("T")
KEY = "ROLLFLOW_API_KEY"
"""Default environment variable of the API key."""
FIRST_WAIT = 1.0
"""Seconds before the first retry if the server names none; doubled before each further one."""

LONGEST_WAIT = 120.0
"""Longest wait, in seconds, that a server may ask for before it is given up."""

MAX_COMPLETION = 2**22
"""Largest size of a response in bytes."""

_WHOLE = 10  # times the timeout: for a whole response

TRY_AGAIN = frozenset({408, 409, 425, 429})
"""Status codes, besides those from 500, after which the same request may succeed."""

OF_THE_ACCOUNT = frozenset({401, 402, 403, 404})
"""Status codes for a wrong key, quota or address, regardless of the request."""

_FILTERED = re.compile(
    r"content.?(filter|policy|management)|moderation|flagged|safety.?(system|filter|policy|check|reason)"
    r"|(prohibited|inappropriate).?content",
    re.IGNORECASE,
)
"""Texts by which content filters refuse a request, with status 400 or 403."""


class Refused(BadReward):
    """A model, or a filter before it, refused the content of a request; a retry would be refused too."""


@dataclass(frozen=True)
class Chat:
    """A server of chat completions, with timeouts and retries.

    A request is retried if it gets no response, a status of ``TRY_AGAIN`` or of 500 and above, or an invalid answer,
    after as long as the server's ``Retry-After`` header says. A refusal is final.

    Args:
        url: Base URL of the API, to which ``/chat/completions`` is appended.
        key: Name of the environment variable with the API key. It must begin with ``ROLLFLOW_``, so that no other
            secret can be sent to a server. If the variable is not set, no key is sent.
        timeout: Timeout in seconds for connecting and for each part of the response; the whole response may take ten
            times as long.
        retries: Number of tries after the first.

    Raises:
        BadSetting: If the URL is not an HTTP URL, or the name of the variable does not begin with ``ROLLFLOW_``.
    """

    url: str
    key: str
    timeout: float
    retries: int

    def __post_init__(self) -> None:
        checks.text("url", self.url)
        if not re.match(r"https?://[^\s/:]+(:\d+)?(/\S*)?$", self.url):
            raise BadSetting(f"expected a URL such as http://localhost:8000/v1, not '{self.url}'")
        if not re.fullmatch(r"ROLLFLOW_\w+", self.key, re.ASCII):
            raise BadSetting(
                f"key={self.key}: keys are read only from variables whose names begin with ROLLFLOW_, so that no other "
                f"secret is sent anywhere; leave out key= and put the key into {KEY}: export {KEY}=..."
            )

    def client(self) -> httpx.Client:
        """Create a client, which threads may share and which the caller closes."""
        with requiring("a VLM judge", "rewards"):
            from rollflow.rewards.remote import deadlines
        key = os.environ.get(self.key, "").strip()
        return deadlines.client(headers={"Authorization": f"Bearer {key}"} if key else {}, timeout=self.timeout)

    def complete(
        self, client: httpx.Client, body: dict[str, Any], read: Callable[[str], T], stop: threading.Event
    ) -> T:
        """Request a completion and return what ``read`` makes of its text.

        Args:
            client: Client made by ``client``.
            body: Body of the request.
            read: Function that parses the text; a ValueError causes a retry.
            stop: Event that ends the retries, set when the answer is no longer needed.

        Raises:
            Refused: If the model, or a filter before it, refuses the content.
            BadReward: If the server refuses the request.
            RewardUnavailable: If there is no valid answer; the text says what came instead.
        """
        import httpx

        problem, wait = "", 0.0
        for attempt in range(self.retries + 1):
            if stop.wait(wait):
                break
            wait = FIRST_WAIT * 2**attempt
            try:
                request = client.build_request("POST", f"{self.url.rstrip('/')}/chat/completions", json=body)
                response = answered(client, request, _WHOLE * self.timeout, MAX_COMPLETION)
            except httpx.RequestError as error:
                problem = f"{type(error).__name__} {error}".strip()
                continue
            if response.status_code in TRY_AGAIN or response.status_code >= 500:
                problem, wait = _summary(response), _retry_after(response, wait)
                if wait > LONGEST_WAIT:
                    raise RewardUnavailable(f"'{self.url}' asks to wait {wait:.0f} s: {problem}")
            elif response.is_success:
                try:
                    return read(self._content(response))
                except ValueError as error:
                    problem = str(error)
            else:
                raise self._refusal(response)
        raise RewardUnavailable(f"'{self.url}' gave no valid answer (tries: {self.retries + 1}); the last: {problem}")

    def _refusal(self, response: httpx.Response) -> RollflowError:
        """The error for a status that is neither a success nor worth a retry."""
        if response.status_code in (400, 403) and _FILTERED.search(response.text):
            return Refused(f"'{self.url}' refused to judge: {_summary(response)}")
        for_now = response.status_code in OF_THE_ACCOUNT or not response.is_client_error
        kind = RewardUnavailable if for_now else BadReward
        return kind(f"'{self.url}' refused: {_summary(response)}{self._advice(response)}")

    def _advice(self, response: httpx.Response) -> str:
        if response.status_code in (401, 403):
            return f"; put a key that is valid for this server into {self.key}"
        if any(word in response.text for word in ("response_format", "json_schema", "guided")):
            return "; if the server does not support JSON schemas, give strict=false to ask for JSON in words"
        return ""

    def _content(self, response: httpx.Response) -> str:
        """The text of the first choice."""
        try:
            choice = response.json()["choices"][0]
            content, refusal = choice["message"].get("content"), choice["message"].get("refusal")
            if refusal or choice.get("finish_reason") == "content_filter":
                raise Refused(f"'{self.url}' refused to judge: {_excerpt(str(refusal or 'content_filter'))}")
        except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError):
            content = None
        if not isinstance(content, str):
            raise ValueError(f"the response has no text: {_excerpt(response.text)}")
        return content


def _summary(response: httpx.Response) -> str:
    return f"{response.status_code} {_excerpt(response.text)}"


def _excerpt(text: str) -> str:
    return " ".join(text.split())[:300]


def _retry_after(response: httpx.Response, otherwise: float) -> float:
    """Seconds to wait by the Retry-After header, which has a number of seconds or a date."""
    header = response.headers.get("Retry-After", "")
    try:
        seconds = float(header) if header[:1].isdecimal() else parsedate_to_datetime(header).timestamp() - time.time()
    except ValueError:
        return otherwise
    return max(0.0, seconds)
