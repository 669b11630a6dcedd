"""A reward by a vision-language model, over any OpenAI-compatible API."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import threading
from collections.abc import Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from PIL import Image
from torch import Tensor

from rollflow import checks
from rollflow.errors import BadSetting
from rollflow.files.pictures import as_pictures
from rollflow.rewards.base import Card, PictureReward
from rollflow.rewards.judges.answer_cache import AnswerCache, user_cache
from rollflow.rewards.judges.chat import KEY, Chat, Refused
from rollflow.rewards.judges.rubric_files import rubric as rubric_of
from rollflow.rewards.judges.rubrics import Rubric

if TYPE_CHECKING:
    import httpx


class _Case(NamedTuple):
    """A picture to judge and the text of the request; equal cases are judged once."""

    size: tuple[int, int]
    pixels: bytes
    question: str
    schema: str


class VLMJudge(PictureReward):
    """The score of a vision-language model's answers to a rubric.

    Each picture takes one chat completion, with the picture as a PNG data URL, the rubric's question, temperature 0,
    and a strict JSON schema of the answer. The answer is also checked against the schema here, and requested again if
    it does not match. Answers are stored on disk, so that no picture is paid for twice. Every frame of a film is
    judged.

    The rubrics are ``alignment`` (0 to 10), ``erasure`` (the number of excluded concepts that are not visible),
    ``counts`` (minus the squared errors), or a file.

    Args:
        url: Base URL of the API.
        model: Name of the model in the API; required.
        rubric: Name of a rubric, a ``Rubric``, or the path of a file (.txt, .md, .yaml, .yml).
        key: Name of the environment variable with the API key, which must begin with ``ROLLFLOW_``. If the variable is
            not set, no key is sent.
        timeout: Timeout in seconds for connecting and for each part of the response.
        retries: Number of tries after the first.
        concurrency: Number of simultaneous requests.
        cache: Folder of the stored answers; ``auto`` is the user's cache folder, None disables storing.
        strict: Whether to send the schema as ``response_format``; if False, it is described in the question.
        temperature: Sampling temperature; None sends none, for models that do not accept it.
        refused: Reward of a picture that the model, or a filter before it, refuses to judge; None raises an error.

    Cost: one request per picture that was not judged before.

    Raises:
        RollflowError: If a setting is invalid; from ``load`` and ``score`` if no model is given.
        BadReward: From ``score`` if the server refuses a request, or a picture while ``refused`` is None.
        RewardUnavailable: From ``score`` if an answer is missing; the others are stored.
    """

    name = "vlm-judge"
    description = "a vision-language model's answers to a rubric, over an OpenAI-compatible API"
    card = Card(
        range="alignment 0 to 10; erasure 0 to the number of concepts; counts at most 0",
        download="nothing",
        memory="that of the server",
        licence="that of the model behind the API",
        reference="erasure and counts: Kim et al. 2025, arXiv 2503.19385",
    )
    requires = ("httpx",)
    loads_later = True
    remote = True

    def __init__(
        self,
        url: str = "https://api.openai.com/v1",
        model: str | None = None,
        rubric: str | Rubric = "alignment",
        key: str = KEY,
        timeout: float = 60.0,
        retries: int = 4,
        concurrency: int = 8,
        cache: str | None = "auto",
        strict: bool = True,
        temperature: float | None = 0.0,
        refused: float | None = None,
    ) -> None:
        checks.real("timeout of vlm-judge, in seconds,", timeout, above=0)
        checks.whole("retries of vlm-judge", retries, at_least=0)
        checks.whole("concurrency of vlm-judge", concurrency, at_least=1, at_most=1000)
        checks.instance("rubric of vlm-judge", rubric, str, Rubric)
        checks.flag("strict of vlm-judge", strict)
        for name, value, kind in (
            ("model", model, str | None),
            ("key", key, str),
            ("cache", cache, str | None),
            ("temperature", temperature, float | None),
            ("refused", refused, float | None),
        ):
            checks.as_annotated(f"{name} of vlm-judge", value, kind)
        self.model = model
        self.rubric = rubric_of(rubric) if isinstance(rubric, str) else rubric
        self.structured = self.rubric.structured
        if self.rubric.bounds is not None:
            low, high = self.rubric.bounds
            self.bounds = (low, high) if refused is None else (min(low, refused), max(high, refused))
        self.chat = Chat(url, key, timeout, retries)
        self.concurrency = concurrency
        self.cache = AnswerCache(
            None if cache is None else user_cache() / "vlm-judge" if cache == "auto" else Path(cache)
        )
        self.strict = strict
        self.temperature = temperature
        self.refused = refused

    @property
    def identity(self) -> str:
        settings = (
            f"{self.chat.url}, {self.model}, {self.rubric!r}, strict={self.strict}, temperature={self.temperature}"
        )
        settings += "" if self.refused is None else f", refused={self.refused}"
        return f"{self.name}({settings})"

    @property
    def place(self) -> Hashable:
        return (self.chat.url, self.model)

    def check(self, prompt: str) -> None:
        self._check_model()
        self.rubric.question(prompt)

    def _check_model(self) -> None:
        if self.model is None:
            raise BadSetting("vlm-judge needs the name of a model: vlm-judge(url=..., model=...)")

    def load(self) -> None:
        self._client().close()

    def _client(self) -> httpx.Client:
        self._check_model()
        return self.chat.client()

    def score_pictures(self, pixels: Tensor, prompts: Sequence[str]) -> Tensor:
        cases = [
            _Case(picture.size, picture.tobytes(), self.rubric.question(prompt), json.dumps(self.rubric.schema(prompt)))
            for picture, prompt in zip(as_pictures(pixels), prompts, strict=True)
        ]
        prompt_of = dict(zip(cases, prompts, strict=True))
        answers = self._answers(prompt_of)
        numbers = [self._number(answers[case], prompt) for case, prompt in zip(cases, prompts, strict=True)]
        return torch.tensor(numbers, dtype=torch.float64)

    def _number(self, answer: dict[str, Any] | None, prompt: str) -> float | None:
        return self.refused if answer is None else self.rubric.number(answer, prompt)

    def _answers(self, prompt_of: dict[_Case, str]) -> dict[_Case, dict[str, Any] | None]:
        """Answers by case; None for refused ones, if ``refused`` has a value."""
        stop = threading.Event()
        with self._client() as client, ThreadPoolExecutor(self.concurrency) as threads:
            try:
                answers = threads.map(partial(self._answer, client, stop), prompt_of, prompt_of.values())
                return dict(zip(prompt_of, answers, strict=True))
            finally:
                stop.set()
                threads.shutdown(wait=False, cancel_futures=True)

    def _answer(self, client: httpx.Client, stop: threading.Event, case: _Case, prompt: str) -> dict[str, Any] | None:
        body = self._body(case)
        key = hashlib.sha256(json.dumps([self.chat.url, body]).encode()).hexdigest()
        cached = self.cache.get(key)
        if cached is not None:
            try:
                return self.rubric.read(cached, prompt)
            except ValueError:
                pass  # damaged: requested again
        try:
            answer = self.chat.complete(client, body, partial(self._read, prompt), stop)
        except Refused as error:
            if self.refused is None:
                raise Refused(f"{error}; vlm-judge(refused=0) gives such pictures the reward 0") from error
            return None
        self.cache.put(key, json.dumps(answer))
        return answer

    def _read(self, prompt: str, text: str) -> dict[str, Any]:
        plain = text if self.strict else text.strip().removeprefix("```json").removeprefix("```").removesuffix("```")
        try:
            return self.rubric.read(plain, prompt)
        except ValueError as error:
            raise ValueError(f"invalid answer {text[:200]!r}: {error}") from error

    def _body(self, case: _Case) -> dict[str, Any]:
        file = io.BytesIO()
        Image.frombytes("RGB", case.size, case.pixels).save(file, "PNG")
        picture = f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
        question = case.question
        body: dict[str, Any] = {"model": self.model}
        if self.strict:
            form = {"name": "answer", "strict": True, "schema": json.loads(case.schema)}
            body["response_format"] = {"type": "json_schema", "json_schema": form}
        else:
            question += f"\n\nAnswer with JSON of this schema and nothing else: {case.schema}"
        if self.temperature is not None:
            body["temperature"] = self.temperature
        image = {"type": "image_url", "image_url": {"url": picture}}
        return {**body, "messages": [{"role": "user", "content": [{"type": "text", "text": question}, image]}]}
