"""Everything in rollflow that reads what somebody else may have written, each with files that it takes."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import itertools
import json
import random
import zlib
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from mutations import mutate_bytes, mutate_document, mutate_json, mutate_lines
from PIL import Image
from safetensors.torch import save
from torch import nn

from rollflow import JobsFailed
from rollflow.bench.run.packed import SUFFIX
from rollflow.bench.run.runner import Runner
from rollflow.bench.run.stored import pack
from rollflow.bench.suites.load import Item, Suite
from rollflow.cli import main

Mutate = Callable[[bytes, random.Random], bytes]


@dataclass(frozen=True)
class Loader:
    """Something that reads a file.

    Args:
        name: What is read.
        valid: Contents that it takes.
        load: Reads a file of such content; raises a RollflowError on what it does not take.
        mutate: How such a content is changed.
        suffix: Of the file's name.
        slow: Whether a file takes it long, so that it is given fewer.
    """

    name: str
    valid: tuple[bytes, ...]
    load: Callable[[Path], object]
    mutate: Mutate = mutate_bytes
    suffix: str = ""
    slow: bool = False


class Refused(Exception):
    """A command that ended in one line and an exit code that says so."""


def command(*words: str) -> None:
    """Run the command line here; raises ``Refused`` where it refuses, and AssertionError where it does so wrongly."""
    told = io.StringIO()
    with redirect_stdout(io.StringIO()), redirect_stderr(told):
        code = main([*words])
    lines = [line for line in told.getvalue().splitlines() if line.startswith("error:")]
    assert code == 0 or (code in (1, 2) and len(lines) == 1), (code, told.getvalue())
    assert told.getvalue().replace("\n", "").isprintable(), told.getvalue()
    if code:
        raise Refused(lines[0])


def loaders(folder: Path) -> Iterator[Loader]:
    """All of them; ``folder`` is theirs."""
    yield from _checkpoints(folder)
    yield from _experiments(folder)
    yield from _texts(folder)
    yield from _pictures()
    yield from _network()
    yield from _kept(folder)


def _checkpoints(folder: Path) -> Iterator[Loader]:
    from support.tiny import Redness, TinyModel

    from rollflow.api import Plan
    from rollflow.engine import Checkpoint, Engine, Job, Observer, load_checkpoint, save_checkpoint

    class Keep(Observer):
        def checkpointed(self, job: Job, checkpoint: Checkpoint) -> None:
            save_checkpoint(job, checkpoint, folder / f"{next(number)}.pt")

    for method in ("rbf(initial=2)", "smc(tempering=adaptive)"):
        plan = Plan("a cat", model=TinyModel(), reward=Redness(), held_out=[], method=method, nfe=20, steps=3)
        job, number = plan.job(), itertools.count()
        Engine(64, [Keep()]).run([job])
        paths = [folder / f"{n}.pt" for n in range(next(number))]

        def load(path: Path, job: Job = job) -> object:
            return load_checkpoint(job, path)

        def resume(path: Path, job: Job = job) -> object:
            try:
                return Engine(64).run([replace(job, resume=load_checkpoint(job, path))])
            except JobsFailed as failed:  # whatever failed it, nothing but its one job is lost
                return failed

        whole = tuple(path.read_bytes() for path in paths)
        yield Loader(f"checkpoint of {method}", whole, load, suffix=".pt")
        yield Loader(f"checkpoint of {method}, its checksum right", whole, resume, _resealed, ".pt")


def _resealed(content: bytes, rng: random.Random) -> bytes:
    """A checkpoint that somebody has changed who knows its format."""
    title, _, body = content.split(b"\n", 2)
    size = int.from_bytes(body[:8], "little")
    text, tensors = body[8 : 8 + size], body[8 + size :]
    if rng.random() < 0.8:
        told = json.loads(text)
        mutate_document(told["checkpoint"], rng)
        text = json.dumps(told).encode()
    else:
        tensors = mutate_bytes(tensors, rng)
    body = len(text).to_bytes(8, "little") + text + tensors
    return b"\n".join((title, hashlib.sha256(body).hexdigest().encode(), body))


def _checksummed(change: Mutate) -> Mutate:
    """Lines of a journal, whose checksum is right in spite of the change, but for one in ten."""

    def mutate(line: bytes, rng: random.Random) -> bytes:
        if rng.random() < 0.1:
            return mutate_bytes(line, rng)
        content = change(line.partition(b" ")[2], rng).replace(b"\n", b" ")
        return b"%08x %s" % (zlib.crc32(content), content)

    return mutate


def _repacked(content: bytes, rng: random.Random) -> bytes:
    """A packed experiment whose lines somebody has changed who knows its format; one in five has its bytes changed."""
    if rng.random() < 0.2:
        return mutate_bytes(content, rng)
    return gzip.compress(mutate_lines(mutate_json)(gzip.decompress(content), rng), 1)


def _experiments(folder: Path) -> Iterator[Loader]:
    from tiny_experiment import ARMS, experiment

    whole, prompts = folder / "experiment", Suite("one", "1", (Item("two cats on grass background"),))
    few = experiment(arms=ARMS[:2], seeds=1, suite=prompts)
    Runner(few, whole).run()
    [journal] = (path.name for path in whole.glob("journal-*"))
    kept = {name: (whole / name).read_bytes() for name in (journal, "experiment.json", "identities.json")}

    def in_place(name: str, read: Callable[[], object]) -> Callable[[Path], object]:
        def load(path: Path) -> object:
            for other, content in kept.items():
                (whole / other).write_bytes(path.read_bytes() if other == name else content)
            return read()

        return load

    def compared() -> None:
        command("compare", str(whole), str(whole))

    lines = mutate_lines(_checksummed(mutate_json))
    yield Loader("journal", (kept[journal],), in_place(journal, compared), lines)
    yield Loader("experiment.json", (kept["experiment.json"],), in_place("experiment.json", compared), mutate_json)

    def unpacked(path: Path) -> None:
        command("compare", str(path), str(path))

    yield Loader("packed experiment", (pack(whole)[0],), unpacked, _repacked, SUFFIX)

    def reported() -> None:
        command("report", str(whole))

    yield Loader("journal in a report", (kept[journal],), in_place(journal, reported), lines, slow=True)
    image = next((whole / "images").glob("*.png"))
    kept_image = image.read_bytes()

    def pictured(path: Path) -> object:
        image.write_bytes(path.read_bytes())
        try:
            return in_place("", reported)(path)
        finally:
            image.write_bytes(kept_image)

    yield Loader("picture in a report", (kept_image,), pictured, slow=True)

    def replayed() -> None:
        command("replay", str(whole), image.stem)

    yield Loader("journal in a replay", (kept[journal],), in_place(journal, replayed), lines, slow=True)
    name = "experiment.json"
    yield Loader(f"{name} in a replay", (kept[name],), in_place(name, replayed), mutate_json, slow=True)
    again = in_place("identities.json", lambda: Runner(few, whole, minutes=0.0).run())
    yield Loader("identities.json", (kept["identities.json"],), again, mutate_json, slow=True)


def _texts(folder: Path) -> Iterator[Loader]:
    from rollflow.bench.suites import load
    from rollflow.models.loading import load_weights
    from rollflow.rewards import REWARDS
    from rollflow.rewards.judges.rubric_files import read_rubric
    from rollflow.search import SEARCHES
    from rollflow.search.profile import Profile

    def suite(path: Path) -> object:
        return load.load(str(path))

    entries = [{"prompt": "two cats", "category": "counts", "ask": {"cat": 2}}, "a dog"]
    document = json.dumps({"suite": "own", "version": "1", "prompts": entries}).encode()
    yaml = b"suite: own\nprompts:\n- prompt: two cats\n  category: counts\n  ask: {cat: 2}\n- a dog\n"
    jsonl = b"\n".join(json.dumps(entry).encode() for entry in entries) + b"\n"
    yield Loader("suite in JSON", (document,), suite, mutate_json, ".json")
    yield Loader("suite in YAML", (yaml, document), suite, suffix=".yaml")
    yield Loader("suite in JSON Lines", (jsonl,), suite, mutate_lines(mutate_json), ".jsonl")
    yield Loader("suite in text", (b"two cats\na dog\n",), suite, suffix=".txt")
    rows = b"Prompts,Category\ntwo cats,Counting\na dog,Colors\n"
    yield Loader("copy of DrawBench", (rows,), lambda path: load.load(f"drawbench={path}"), suffix=".csv")
    rubric = b"question: Is {prompt} there?\nanswers:\n  there: yes/no\n  score: 0-10\nweights:\n  there: 2.5\n"
    yield Loader("rubric", (rubric,), read_rubric, suffix=".yaml")

    yield Loader("profile", (_profile(),), Profile.load, suffix=".npz")
    searches = (b"rbf(initial=2, acceptance=quantile(q=0.9))", b"svdd(streams=4)")
    yield Loader("text of a search", searches, lambda path: SEARCHES.make(path.read_text(errors="replace")))
    rewards = (b"sum(parts=jpeg-compressibility;colorfulness, weights=1;2)", b"colorfulness")
    yield Loader("text of a reward", rewards, lambda path: REWARDS.resolve(path.read_text(errors="replace")))
    network = nn.Linear(3, 2)
    tensors = save({name: tensor.contiguous() for name, tensor in network.state_dict().items()})
    yield Loader("packaged weights", (tensors,), lambda path: load_weights(network, path), suffix=".safetensors")
    place = folder / "pipeline"
    (place / "scheduler").mkdir(parents=True)
    index = {"_class_name": "FluxPipeline", "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"]}
    scheduler = {"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0}
    files = {place / "model_index.json": index, place / "scheduler/scheduler_config.json": scheduler}
    texts = {file: json.dumps(content).encode() for file, content in files.items()}

    def part(file: Path) -> Callable[[Path], object]:
        def load(path: Path) -> None:
            for other, text in texts.items():
                other.write_bytes(path.read_bytes() if other == file else text)
            words = ("generate", "a cat", "--model", str(place), "--reward", "jpeg-compressibility", "--dry-run")
            command(*words)

        return load

    for file, text in texts.items():
        yield Loader(file.name, (text,), part(file), mutate_json)


def _profile() -> bytes:
    """A small profile."""
    import numpy as np

    from rollflow.search.profile import Profile

    rewards = np.full((1, 2, 2, 2, 3), np.nan, np.float32)
    for k in range(2):
        rewards[:, k, :, :, k:] = np.arange(4.0).reshape(2, 2, 1)
    return Profile("model", "reward", "linear", "ddim", 0, ("a",), (1.0, 0.5), rewards).to_bytes()


def _picture(form: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    frames = [Image.new("RGB", (12, 8), (40 * i, 200, 90)) for i in range(3)]
    film = {"save_all": True, "append_images": frames[1:], "duration": [40, 80, 40]} if options.pop("film", 0) else {}
    frames[0].save(buffer, form, **film, **options)
    return buffer.getvalue()


def _pictures() -> Iterator[Loader]:
    from rollflow.cli.score import read

    still = tuple(_picture(form) for form in ("PNG", "JPEG", "WEBP", "TIFF", "BMP"))
    films = tuple(_picture(form, film=True) for form in ("WEBP", "GIF", "PNG"))
    yield Loader("picture", still, read)
    yield Loader("film", films, read)


def _network() -> Iterator[Loader]:
    import httpx

    from rollflow.rewards.remote.client import RemoteReward
    from rollflow.rewards.remote.server.bodies import read
    from rollflow.rewards.remote.server.limits import Limits
    from rollflow.rewards.remote.wire import PICTURES, TENSORS, Info, SampleBatch, Scores, encode

    limits = Limits(megabytes=1, pixels=2**16)
    body = encode(SampleBatch(torch.rand(2, 3, 8, 8), ["two cats", "a dog"]))
    yield Loader("request with tensors", (body,), lambda path: read(TENSORS, path.read_bytes(), limits))
    image = base64.b64encode(_picture("PNG")).decode()
    pictures = json.dumps({"images": [image], "prompts": [{"text": "two cats", "ask": {"cat": 2}}]}).encode()
    yield Loader(
        "request with pictures", (pictures,), lambda path: read(PICTURES, path.read_bytes(), limits), mutate_json
    )

    def png(path: Path) -> object:
        data = base64.b64encode(path.read_bytes()).decode()
        return read(PICTURES, json.dumps({"images": [data], "prompts": ["a cat"]}).encode(), limits)

    yield Loader("PNG in a request", (_picture("PNG"),), png)
    remote = RemoteReward()
    scores = Scores(reward="count", scores=[0.5, float("nan")]).model_dump_json().encode()
    told = {
        "name": "count",
        "identity": "count(1)",
        "description": "counts",
        "range": None,
        "differentiable": False,
        "structured": False,
        "held_out": ["judge"],
        "batch_size": 8,
        "max_rows": 8,
        "max_bytes": 10_000,
        "versions": {"rollflow": "0"},
    }
    info = json.dumps(told).encode()

    def answer(kind: type) -> Callable[[Path], object]:
        return lambda path: remote._parsed(kind, httpx.Response(200, content=path.read_bytes()))

    yield Loader("scores of a server", (scores,), answer(Scores), mutate_json)
    yield Loader("what a server says of itself", (info,), answer(Info), mutate_json)


def _kept(folder: Path) -> Iterator[Loader]:
    """What a run finds in its own folders, in which anyone may have written, and what a VLM says."""
    import httpx

    from rollflow.bench.run.description import read_command
    from rollflow.bench.run.leases import Leases
    from rollflow.files.media import read_picture
    from rollflow.files.run_folder import RESULT, RunFolder
    from rollflow.files.shared import mark
    from rollflow.rewards.judges.answer_cache import AnswerCache
    from rollflow.rewards.judges.chat import Chat

    place = folder / "run"
    with RunFolder(place) as out:
        out.keep({"prompt": "a cat", "seconds": 1.5, "image": "image.png"}, {"image.png": b"a picture"})

    def result(path: Path) -> object:
        (place / RESULT).write_bytes(path.read_bytes())
        (folder / "image.png").write_bytes(b"a picture")
        with RunFolder(place) as out:
            out.foreign(["image.png", RESULT])
            out.remove_earlier()
        assert (folder / "image.png").exists(), "a file outside of the folder was removed"
        return out.earlier

    yield Loader(RESULT, ((place / RESULT).read_bytes(),), result, mutate_json)

    def lock(path: Path) -> object:
        (place / ".rollflow-lock").write_bytes(path.read_bytes())
        with RunFolder(place) as out:
            out.remove_earlier()
        return out

    yield Loader("lock of a run", (b'[["image.png", "00"]]',), lock, mutate_json)
    leases = Leases(folder)

    def claim(path: Path) -> object:
        (folder / "claim").write_bytes(path.read_bytes())
        taken = leases.take("claim")
        (folder / "claim").unlink(missing_ok=True)
        return taken

    yield Loader("claim", (mark().encode(),), claim)

    def begun(path: Path) -> object:
        (place / "command.txt").write_bytes(path.read_bytes())
        return read_command(place)

    yield Loader("command.txt", (b"rollflow bench run --preset init",), begun)
    chat = Chat("http://localhost/v1", "ROLLFLOW_API_KEY", 1, 0)
    said = {"choices": [{"message": {"content": "yes", "refusal": None}, "finish_reason": "stop"}]}

    def heard(path: Path) -> object:
        try:
            return chat._content(httpx.Response(200, content=path.read_bytes()))
        except ValueError as error:  # which is asked again
            raise Refused(str(error)) from None

    yield Loader("answer of a VLM", (json.dumps(said).encode(),), heard, mutate_json)

    def cached(path: Path) -> object:
        (folder / "ab").mkdir(exist_ok=True)
        (folder / "ab" / "abc.json").write_bytes(path.read_bytes())
        return AnswerCache(folder).get("abc")

    yield Loader("kept answer", (b'{"score": 7}',), cached)
    yield Loader("reference picture", (_picture("PNG"), _picture("JPEG")), read_picture)
