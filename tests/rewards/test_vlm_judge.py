"""The judge against a server that plays an OpenAI-compatible API, well and badly."""

from __future__ import annotations

import base64
import io
import json
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image
from support.picture_suite import PictureRewardSuite
from support.tiny import TinyModel
from support.waiting import PATIENCE
from torch import Tensor

from rollflow.engine import Engine, Job, JobsFailed, Task
from rollflow.errors import BadReward, RewardUnavailable, RollflowError
from rollflow.prompts import Prompt
from rollflow.rewards import REWARDS
from rollflow.rewards.judges import chat
from rollflow.rewards.judges.answer_cache import user_cache
from rollflow.rewards.judges.rubric_files import rubric
from rollflow.rewards.judges.rubrics import Alignment, Counts, Erasure
from rollflow.rewards.judges.vlm_judge import VLMJudge
from rollflow.sampler import Sampler
from rollflow.search import BestOfN

PAGE = (Path(__file__).parents[2] / "docs/rewards/others.md").read_text()


class Reply(NamedTuple):
    """What the server sends; of status 200, ``text`` as the content of a completion."""

    text: str
    status: int = 200
    headers: dict[str, str] = {}  # noqa: RUF012 - a NamedTuple's default, never written to
    delay: float = 0.0
    raw: bool = False


class Asked(NamedTuple):
    """A request as it came."""

    path: str
    key: str | None
    body: dict[str, Any]
    at: float

    @property
    def question(self) -> str:
        text: str = self.body["messages"][0]["content"][0]["text"]
        return text

    @property
    def picture(self) -> np.ndarray[Any, Any]:
        url = self.body["messages"][0]["content"][1]["image_url"]["url"]
        data = base64.b64decode(url.removeprefix("data:image/png;base64,"))
        return np.asarray(Image.open(io.BytesIO(data)))


def redness(asked: Asked) -> Reply:
    """Scores by the red channel."""
    score = round(float(asked.picture[..., 0].mean()) / 25.5)
    return Reply(json.dumps({"reason": "none", "score": score}))


class Server:
    """Replies that are scripted come first, then those of ``answer``."""

    def __init__(self) -> None:
        self.script: list[Reply] = []
        self.answer: Callable[[Asked], Reply] = redness
        self.asked: list[Asked] = []
        self.busy = self.busiest = 0
        lock, server = threading.Lock(), self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                asked = Asked(self.path, self.headers["Authorization"], body, time.monotonic())
                with lock:
                    server.asked.append(asked)
                    reply = server.script.pop(0) if server.script else None
                    server.busy += 1
                    server.busiest = max(server.busiest, server.busy)
                reply = reply or server.answer(asked)
                time.sleep(reply.delay)
                with lock:
                    server.busy -= 1
                message = {"choices": [{"index": 0, "message": {"role": "assistant", "content": reply.text}}]}
                data = reply.text if reply.raw or reply.status != 200 else json.dumps(message)
                try:
                    self.send_response(reply.status)
                    for name, value in {**reply.headers, "Content-Length": str(len(data.encode()))}.items():
                        self.send_header(name, value)
                    self.end_headers()
                    self.wfile.write(data.encode())
                except ConnectionError:
                    pass  # whoever asked has given up

            def log_message(self, format: str, *arguments: Any) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}/v1"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(chat, "FIRST_WAIT", 0.01)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv("ROLLFLOW_API_KEY", raising=False)
    server = Server()
    thread = threading.Thread(target=server.http.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.http.shutdown()
    thread.join()
    server.http.server_close()


@pytest.fixture
def make(server: Server, tmp_path: Path) -> Callable[..., VLMJudge]:
    """A judge of that server with a cache of its own."""

    def judge(**settings: Any) -> VLMJudge:
        return VLMJudge(**{"url": server.url, "model": "seer", "cache": str(tmp_path / "cache"), **settings})

    return judge


def reds(*levels: int) -> Tensor:
    """Plain pictures of 6 x 4, as red as 25.5 times each level."""
    pixels = torch.zeros(len(levels), 3, 4, 6)
    pixels[:, 0] = torch.tensor(levels).reshape(-1, 1, 1) / 10
    return pixels


class TestSuite(PictureRewardSuite):
    @pytest.fixture(params=["kept", "none"])
    def reward(self, request: pytest.FixtureRequest, make: Callable[..., VLMJudge]) -> VLMJudge:
        return make() if request.param == "kept" else make(cache=None)

    @pytest.fixture
    def samples(self) -> Tensor:
        return reds(1, 9, 4)

    @pytest.fixture
    def prompts(self) -> Sequence[str]:
        return ["a", "b", "a"]


def test_what_is_sent(server: Server, make: Callable[..., VLMJudge], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROLLFLOW_API_KEY", " secret\n")
    pixels = torch.rand(1, 3, 5, 7, generator=torch.Generator().manual_seed(0))
    make().score(pixels, ['a "red" {prompt}'])
    [asked] = server.asked
    assert (asked.path, asked.key) == ("/v1/chat/completions", "Bearer secret")
    assert np.array_equal(asked.picture, (pixels[0] * 255).round().byte().permute(1, 2, 0).numpy())
    assert '"a "red" {prompt}"' in asked.question
    assert (asked.body["model"], asked.body["temperature"]) == ("seer", 0)
    form = asked.body["response_format"]
    assert (form["type"], form["json_schema"]["strict"]) == ("json_schema", True)
    assert form["json_schema"]["schema"] == {
        "type": "object",
        "properties": {
            "reason": {"type": "string", "description": "What is missing or wrong."},
            "score": {
                "type": "integer",
                "description": "How well the picture follows the prompt.",
                "enum": list(range(11)),
            },
        },
        "required": ["reason", "score"],
        "additionalProperties": False,
    }


def test_no_key_and_no_temperature_are_not_sent(server: Server, make: Callable[..., VLMJudge]) -> None:
    make(temperature=None).score(reds(3), ["x"])
    assert server.asked[0].key is None
    assert "temperature" not in server.asked[0].body


def test_order_is_kept_in_parallel_and_equal_pictures_are_asked_about_once(
    server: Server, make: Callable[..., VLMJudge]
) -> None:
    levels = [9, 2, 7, 0, 10, 2, 5]
    server.answer = lambda asked: redness(asked)._replace(delay=0.02 * (asked.picture[0, 0, 0] > 100) + 0.05)
    scores = make(concurrency=3).score(reds(*levels), ["x"] * len(levels))
    assert scores.tolist() == levels
    assert len(server.asked) == len(set(levels))
    assert server.busiest == 3


INVALID = {
    "malformed": "{'score': 5",
    "no object": "5",
    "a field less": '{"score": 5}',
    "a field more": '{"reason": "", "score": 5, "mood": 1}',
    "out of range": '{"reason": "", "score": 11}',
    "a float": '{"reason": "", "score": 5.5}',
    "a boolean": '{"reason": "", "score": true}',
    "not a number": '{"reason": "", "score": NaN}',
    "number as text": '{"reason": "", "score": "5"}',
    "in a fence": '```json\n{"reason": "", "score": 5}\n```',
    "very deep": "[" * 100_000,
}


@pytest.mark.parametrize("text", INVALID.values(), ids=INVALID)
def test_an_invalid_answer_is_asked_for_again(text: str, server: Server, make: Callable[..., VLMJudge]) -> None:
    server.script = [Reply(text)]
    assert make().score(reds(4), ["x"]).tolist() == [4]
    assert len(server.asked) == 2


@pytest.mark.slow
@pytest.mark.parametrize(
    "trouble",
    [
        Reply("busy", 500),
        Reply("busy", 429),
        Reply("busy", 503, {"Retry-After": "soon"}),
        Reply("too late", delay=3.0),
        Reply("<html>", raw=True),
        Reply('{"choices": []}', raw=True),
        Reply('{"choices": [{"message": {"content": null}}]}', raw=True),
    ],
    ids=["500", "429", "503", "timeout", "html", "no choice", "no text"],
)
def test_trouble_passes(trouble: Reply, server: Server, make: Callable[..., VLMJudge]) -> None:
    server.script = [trouble] * 2
    assert make(retries=2, timeout=1.5 if trouble.delay else 30.0).score(reds(6), ["x"]).tolist() == [6]
    assert len(server.asked) == 3


def test_trouble_that_does_not_pass_is_told(server: Server, make: Callable[..., VLMJudge]) -> None:
    server.script = [Reply('{"reason": "", "score": 12}')] * 3
    with pytest.raises(RewardUnavailable, match=r"tries: 3\); the last: invalid answer .*\"score\": 12.*: score is 12"):
        make(retries=2).score(reds(6), ["x"])
    server.script = [Reply("all the\nmachines burn", 502)] * 2
    with pytest.raises(RewardUnavailable, match=r"tries: 2\); the last: 502 all the machines burn"):
        make(retries=1).score(reds(6), ["x"])
    assert len(server.asked) == 5


def test_a_server_that_is_not_there() -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as closed:
        port = closed.server_address[1]
    with pytest.raises(RewardUnavailable, match=r"tries: 1\); the last: ConnectError"):
        VLMJudge(f"http://127.0.0.1:{port}", "seer", retries=0, cache=None).score(reds(1), ["x"])


@pytest.mark.slow
def test_retry_after_is_kept_to(server: Server, make: Callable[..., VLMJudge]) -> None:
    server.script = [Reply("", 429, {"Retry-After": "0.4"})]
    make().score(reds(1), ["x"])
    assert 0.4 <= server.asked[1].at - server.asked[0].at < PATIENCE / 2
    until = int(time.time()) + 2  # a date has no fractions of a second
    server.script = [Reply("", 429, {"Retry-After": formatdate(until, usegmt=True)})]
    make().score(reds(2), ["x"])
    assert until <= time.time() < until + PATIENCE / 2
    server.script = [Reply("quota", 429, {"Retry-After": "3600"})]
    with pytest.raises(RewardUnavailable, match="asks to wait 3600 s: 429 quota"):
        make().score(reds(3), ["x"])


@pytest.mark.parametrize(
    ("reply", "kind", "advice"),
    [
        (
            Reply("bad key", 401),
            RewardUnavailable,
            "401 bad key; put a key that is valid for this server into ROLLFLOW_KEY",
        ),
        (Reply("unknown field response_format", 400), BadReward, "response_format; .* strict=false to ask"),
        (Reply("picture too large", 413), BadReward, "413 picture too large$"),
        (Reply('{"input": "flagged"}', 422), BadReward, "422 .*flagged"),
        (Reply("no such model", 404), RewardUnavailable, "404 no such model$"),
        (Reply("", 302, {"Location": "http://elsewhere.invalid/"}), RewardUnavailable, "refused: 302"),
    ],
    ids=["key", "schemas", "size", "echo", "model", "redirect"],
)
def test_a_refusal_is_final_and_says_what_helps(
    reply: Reply, kind: type[RollflowError], advice: str, server: Server, make: Callable[..., VLMJudge]
) -> None:
    """What no request would get through goes away with time; of one request, no other is to blame."""
    server.script = [reply]
    with pytest.raises(kind, match=advice):
        make(key="ROLLFLOW_KEY", refused=0).score(reds(1), ["x"])
    assert len(server.asked) == 1


@pytest.mark.parametrize(
    ("reply", "why"),
    [
        (Reply('{"error": {"code": "content_policy_violation"}}', 400), '400 .*"content_policy_violation"'),
        (Reply("Your input was flagged", 403), "403 Your input was flagged"),
        (Reply('{"choices": [{"message": {"content": null, "refusal": "I cannot"}}]}', raw=True), "I cannot"),
        (
            Reply('{"choices": [{"message": {"content": "{"}, "finish_reason": "content_filter"}]}', raw=True),
            "content_filter",
        ),
    ],
    ids=["moderation", "flagged", "refusal", "filter"],
)
def test_a_picture_that_is_refused_fails_alone_or_has_a_stated_reward(
    reply: Reply, why: str, server: Server, make: Callable[..., VLMJudge]
) -> None:
    server.answer = lambda asked: reply if asked.picture[0, 0, 0] > 240 else redness(asked)
    with pytest.raises(BadReward, match=rf"refused to judge: .*{why}.*; vlm-judge\(refused=0\)"):
        make().score(reds(10), ["x"])
    assert len(server.asked) == 1
    assert make(refused=-1).score(reds(1, 10, 4), ["x"] * 3).tolist() == [1, -1, 4]
    assert make(refused=-1).identity != make().identity


def test_a_refused_picture_ends_no_other_job_of_its_call(server: Server, make: Callable[..., VLMJudge]) -> None:
    server.answer = lambda asked: Reply("unsafe: flagged", 400) if '"red"' in asked.question else redness(asked)
    judge = make()
    jobs = [Job(Task(TinyModel(), prompt, judge), BestOfN(), 8, 5, Sampler(steps=4)) for prompt in ("red", "blue")]
    with pytest.raises(JobsFailed) as failed:
        Engine().run(jobs)
    assert isinstance(failed.value.failures[0], BadReward)
    red, blue = failed.value.results
    assert red is None
    assert blue is not None
    assert not blue.interrupted


def test_without_schemas_the_answer_is_asked_for_in_words(server: Server, make: Callable[..., VLMJudge]) -> None:
    server.script = [Reply('```json\n{"reason": "", "score": 8}\n```'), Reply('{"reason": "", "score": 80}')]
    assert make(strict=False).score(reds(1), ["x"]).tolist() == [8]
    assert "response_format" not in server.asked[0].body
    assert json.dumps(Alignment().schema("x")) in server.asked[0].question
    assert make(strict=False, cache=None).score(reds(1), ["x"]).tolist() == [1]
    assert len(server.asked) == 3


@pytest.mark.slow
def test_what_was_answered_is_not_asked_again(
    server: Server, make: Callable[..., VLMJudge], monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = make().score(reds(3, 5), ["x", "y"])
    monkeypatch.setenv("ROLLFLOW_API_KEY", "another")
    assert torch.equal(make(retries=0, concurrency=1).score(reds(3, 5), ["x", "y"]), scores)
    assert len(server.asked) == 2
    others: list[tuple[dict[str, Any], int, str]] = [
        ({}, 3, "y"),
        ({}, 4, "x"),
        ({"model": "other"}, 3, "x"),
        ({"url": server.url + "/"}, 3, "x"),
        ({"temperature": None}, 3, "x"),
        ({"rubric": "vlm.txt"}, 3, "x"),
    ]
    for asked, (settings, level, prompt) in enumerate(others, 3):
        if "rubric" in settings:
            path = Path(make().cache.folder or "", "..", "vlm.txt")
            path.write_text("How red?")
            settings["rubric"] = str(path)
            server.answer = lambda asked: Reply('{"score": 1}')
        make(**settings).score(reds(level), [prompt])
        assert len(server.asked) == asked


def test_the_same_question_of_other_counts_is_another_reward(server: Server, make: Callable[..., VLMJudge]) -> None:
    """One answer serves both."""
    server.answer = lambda asked: Reply('{"thing_1": 3}')
    prompts = [Prompt("cats", {"cat": 3}), Prompt("cats", {"cat": 5}), Prompt("cats", {"dog": 4})]
    assert make(rubric="counts").score(reds(1, 1, 1), prompts).tolist() == [0, -4, -1]
    assert len(server.asked) == 2


def test_a_damaged_answer_on_disk_is_asked_for_again(server: Server, make: Callable[..., VLMJudge]) -> None:
    make().score(reds(3), ["x"])
    [path] = (make().cache.folder or Path()).rglob("*.json")
    assert re.fullmatch("[0-9a-f]{64}", path.stem)
    for damage in ("", '{"reason": "", "score": 99}', "\xff"):
        path.write_text(damage, encoding="latin-1")
        assert make().score(reds(3), ["x"]).tolist() == [3]
        assert make().score(reds(3), ["x"]).tolist() == [3]
    assert len(server.asked) == 4


def test_what_could_be_had_is_kept_when_something_could_not(server: Server, make: Callable[..., VLMJudge]) -> None:
    server.answer = lambda asked: Reply("no", 400) if asked.picture[0, 0, 0] > 240 else redness(asked)
    with pytest.raises(BadReward):
        make(concurrency=1).score(reds(1, 2, 10, 4), ["x"] * 4)
    asked = len(server.asked)
    server.answer = redness
    assert make().score(reds(1, 2, 10), ["x"] * 3).tolist() == [1, 2, 10]
    assert len(server.asked) == asked + 1


def test_a_failure_does_not_wait_for_the_others_retries(
    server: Server, make: Callable[..., VLMJudge], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chat, "FIRST_WAIT", PATIENCE)
    server.answer = lambda asked: Reply("no", 400) if asked.picture[0, 0, 0] < 30 else Reply("later", 500)
    started = time.monotonic()
    with pytest.raises(BadReward, match="400 no"):
        make(concurrency=2).score(reds(1, 9), ["x"] * 2)
    assert time.monotonic() - started < PATIENCE / 2


def test_erasure_counts_the_concepts_that_are_gone(server: Server, make: Callable[..., VLMJudge]) -> None:
    server.answer = lambda asked: Reply('{"thing_1": false, "thing_2": true, "thing_3": false}')
    prompt = Prompt("a beach", {"nudity": 0, "blood": 0, "palm": 2, "gun": 0})
    assert make(rubric="erasure").score(reds(1), [prompt]).tolist() == [2]
    [asked] = server.asked
    assert "thing_1: nudity; thing_2: blood; thing_3: gun." in asked.question
    schema = asked.body["response_format"]["json_schema"]["schema"]
    assert schema["required"] == ["thing_1", "thing_2", "thing_3"]
    assert schema["properties"]["thing_2"] == {"type": "boolean", "description": "Visible: blood"}
    assert make(rubric="erasure").score(reds(2), ["a beach with no people, no dogs and no cars"]).tolist() == [2]
    with pytest.raises(RollflowError, match=r"'a beach' excludes nothing; .*--ask nudity=0"):
        make(rubric="erasure").score(reds(1), ["a beach"])
    with pytest.raises(ValueError, match="thing_1 is 0, expected"):
        Erasure().read('{"thing_1": 0}', Prompt("x", {"gun": 0}))


def test_counts_by_hand() -> None:
    prompt = Prompt("x", {"cat": 2, "red dog": 0})
    assert Counts().number(Counts().read('{"thing_1": 5, "thing_2": 1}', prompt), prompt) == -10
    with pytest.raises(RollflowError, match="has no counts"):
        Counts().question("peace")


@pytest.mark.parametrize(("name", "structured"), [("alignment", False), ("erasure", True), ("counts", True)])
def test_rubrics_that_read_what_is_asked_for_say_so(name: str, structured: bool) -> None:
    assert VLMJudge(rubric=name).structured == structured


def test_the_rubric_of_the_page(server: Server, make: Callable[..., VLMJudge], tmp_path: Path) -> None:
    [(name, text)] = re.findall(r"```yaml\n# (\S+)\n(.*?)```", PAGE, re.S)
    (tmp_path / name).write_text(text)
    answer = {"reason": "burr marks", "carved_lines": True, "flat_colour": 7}
    server.answer = lambda asked: Reply(json.dumps(answer))
    assert make(rubric=str(tmp_path / name)).score(reds(1), ["a lighthouse"]).tolist() == [12]
    assert server.asked[0].question == 'Is this picture, made for "a lighthouse", a linocut?'
    assert server.asked[0].body["response_format"]["json_schema"]["schema"]["required"] == list(answer)
    answer["carved_lines"] = False
    assert make(rubric=str(tmp_path / name), cache=None).score(reds(1), ["a lighthouse"]).tolist() == [7]


def test_a_rubric_of_text_is_a_question_with_a_score(tmp_path: Path) -> None:
    path = tmp_path / "calm.txt"
    path.write_text('How calm is "{prompt}"?\n')
    calm = rubric(str(path))
    assert calm.question("a lake") == 'How calm is "a lake"?'
    assert calm.number(calm.read('{"score": 4}', "a lake"), "a lake") == 4


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("question: [", "while parsing"),
        ("just words", "expected the keys question, answers and weights, not 'just words'"),
        ("question: q\nanswer: {}", "expected the keys question, answers and weights"),
        ("answers: {score: 0-10}", "it has no question"),
        ("question: q\nanswers: [score]", "by name"),
        ("question: q\nanswers: {score: 10-0}", "a range such as 0-10, not '10-0'"),
        ("question: q\nanswers: {a b: 0-10}", "'a b' cannot be the name"),
        ("question: q\nanswers: {why: text}", "no answer has a number"),
        ("question: q\nanswers: {a: 0-1}\nweights: {b: 2}", "weight b"),
        ("question: q\nanswers: {a: 0-1}\nweights: {a: much}", "weight a: 'much'"),
    ],
)
def test_a_rubric_file_that_makes_no_sense(text: str, why: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(RollflowError, match=rf"cannot read rubric '.*mine.yaml': .*{why}"):
        rubric(str(path))


def test_settings_that_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(RollflowError, match=r"unknown rubric 'alignmet'; did you mean 'alignment'.*\.yaml"):
        VLMJudge(rubric="alignmet")
    with pytest.raises(RollflowError, match=r"cannot read rubric '.*none.txt'"):
        VLMJudge(rubric=str(tmp_path / "none.txt"))
    with pytest.raises(RollflowError, match=r"such as http://localhost:8000/v1, not 'localhost:8000'"):
        VLMJudge("localhost:8000")
    with pytest.raises(RollflowError, match="needs the name of a model"):
        VLMJudge().load()
    with pytest.raises(RollflowError, match="retries of vlm-judge must be a whole number >= 0, not -1"):
        VLMJudge(retries=-1)
    with pytest.raises(RollflowError, match="refused of vlm-judge must be a finite number, not nan"):
        VLMJudge(refused=float("nan"))


def test_settings_as_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(REWARDS, VLMJudge.name, VLMJudge)
    judge = REWARDS.make("vlm-judge(url=http://localhost:8000/v1, model=Qwen/Qwen2.5-VL, rubric=erasure, cache=none)")
    assert isinstance(judge, VLMJudge)
    assert judge.refused is None
    assert REWARDS.make("vlm-judge(refused=-2)").refused == -2  # type: ignore[attr-defined]
    assert isinstance(judge.rubric, Erasure)
    assert judge.cache.folder is None
    assert judge.identity != VLMJudge("http://localhost:8000/v1", "Qwen/Qwen2.5-VL").identity


@pytest.mark.parametrize(
    ("platform", "variables", "folder"),
    [
        ("linux", {"XDG_CACHE_HOME": "/caches", "HOME": "/home/me"}, "/caches/rollflow"),
        ("linux", {"XDG_CACHE_HOME": "", "HOME": "/home/me"}, "/home/me/.cache/rollflow"),
        ("darwin", {"HOME": "/Users/me"}, "/Users/me/Library/Caches/rollflow"),
        ("win32", {"LOCALAPPDATA": "/Users/me/Local"}, "/Users/me/Local/rollflow"),
    ],
)
def test_the_cache_is_where_the_system_keeps_such(
    platform: str, variables: dict[str, str], folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.platform", platform)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert user_cache() == Path(folder)
