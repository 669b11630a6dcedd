"""Pipelines by the name of a folder or repository, from the command line as from Python."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import pytest

pytest.importorskip("diffusers")

import diffusers
import torch
from checks import Brightness
from families import FAMILIES
from huggingface_hub import errors as hub
from PIL import Image
from torch import Tensor

import rollflow
from rollflow import BadModel, BadSetting, PipelineSource, RollflowError, UnknownName, load_model
from rollflow.bench.run.description import read_config
from rollflow.bench.run.journal import JournalIndex
from rollflow.bench.run.presets import PRESETS
from rollflow.cli import main
from rollflow.dynamics.interpolants import Linear
from rollflow.errors import MissingPackage
from rollflow.models.diffusers import read_argument, source
from rollflow.models.diffusers.schedule import Discrete
from rollflow.search.profile import Profile

FLUX = "FluxPipeline, guidance embedded"
SMALL = ["--pipeline-arg", "height=16", "--pipeline-arg", "width=16", "--pipeline-arg", "max_sequence_length=16"]
SMALL += ["--reward", "checks:Brightness", "--nfe", "8", "--steps", "3", "--method", "rbf(initial=2, chains=1)"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pipeline as ``save_pretrained`` leaves it."""
    path = tmp_path_factory.mktemp("models") / "tiny-flux"
    FAMILIES[FLUX]().pipeline.save_pretrained(path)
    return path


@pytest.mark.slow
def test_a_folder_from_the_command_line(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    code = main(["generate", "a cat", "--model", str(folder), *SMALL, "--compare", "--out", str(out), "--json"])
    printed = capsys.readouterr()
    assert code == 0, printed.err
    content = json.loads(printed.out)
    assert (content["nfe_used"], content["network_rows"], content["model"]) == (8, 8, str(folder))
    with Image.open(out / "image.png") as image, Image.open(out / "baseline.png") as baseline:
        assert image.size == baseline.size


def test_the_same_from_python(folder: Path) -> None:
    given = {"height": 16, "width": 16, "max_sequence_length": 16}
    tiny = FAMILIES[FLUX]()
    results = [
        rollflow.generate("a cat", model=model, reward=Brightness(), method="rbf(initial=2, chains=1)", nfe=8, steps=3)
        for model in (PipelineSource(str(folder), given), load_model(tiny.pipeline, tiny.arguments))
    ]
    # Not to the last bit, which where the weights lie in memory decides.
    torch.testing.assert_close(results[0].sample, results[1].sample, rtol=0, atol=1e-5)


@pytest.mark.slow
def test_a_pipeline_that_was_loaded_by_its_source_is_repeated_from_its_record(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The record tells how it was loaded and called, though the plan was given the loaded object."""
    given = {"height": 16, "width": 16, "max_sequence_length": 16}
    model = load_model(PipelineSource(str(folder), given, device="cpu"))
    options: Any = {"method": "bon", "nfe": 4, "steps": 2, "held_out": []}
    result = rollflow.Plan("a cat", model=model, reward="colorfulness", **options).run(out=tmp_path / "first")
    plan = json.loads((tmp_path / "first/result.json").read_text())["plan"]
    assert plan["model"] == {
        "name": str(folder),
        "device": "cpu",
        "arguments": {name: str(value) for name, value in given.items()},
    }
    command = ["generate", "--from", str(tmp_path / "first"), "--out", str(tmp_path / "again"), "-q"]
    assert main(command) == 2
    assert "add --trust" in capsys.readouterr().err
    assert main([*command, "--trust"]) == 0
    again = json.loads((tmp_path / "again/result.json").read_text())
    assert again["plan"] == plan
    assert again["reward"] == pytest.approx(result.reward, abs=1e-4)


def test_a_dry_run_loads_no_weights(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PipelineSource, "load", lambda self: pytest.fail("loaded"))
    assert main(["generate", "a cat", "--model", str(folder), *SMALL, "--dry-run", "--json"]) == 0
    cost = json.loads(capsys.readouterr().out)["search"]
    assert (cost["nfe"], cost["network_rows"]) == (8, None)


def test_what_a_folder_tells_before_it_is_loaded(folder: Path, tmp_path: Path) -> None:
    assert PipelineSource(str(folder)).interpolant == Linear()
    assert not PipelineSource(str(folder)).few_step
    assert PipelineSource(str(folder), distilled=True).few_step
    turbo = tmp_path / "model-turbo"
    turbo.symlink_to(folder)
    assert PipelineSource(str(turbo)).few_step
    diffusion = tmp_path / "diffusion"
    FAMILIES["StableDiffusionPipeline, epsilon"]().pipeline.save_pretrained(diffusion)
    assert isinstance(PipelineSource(str(diffusion)).interpolant, Discrete)


def test_the_pipeline_itself_is_left_as_it_was() -> None:
    tiny = FAMILIES[FLUX]()
    before = dict(vars(tiny.pipeline))
    load_model(tiny.pipeline, tiny.arguments).encode("a cat")
    assert vars(tiny.pipeline) == before


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"dtype": "float61"}, "did you mean 'float16'"),
        ({"dtype": "float16", "device": "cpu"}, "use --dtype bfloat16 or --dtype float32"),
        ({"device": "cuda:77"}, "device 'cuda:77' is not available"),
        ({"offload": "all"}, "none, sequential"),
        ({"offload": "model", "device": "cpu"}, "but the device is the CPU"),
        ({"quantize": "2bit"}, "8bit"),
    ],
)
def test_bad_settings(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(RollflowError, match=said):
        PipelineSource("owner/name", **settings)


def test_a_misspelt_argument_of_the_pipeline(folder: Path) -> None:
    with pytest.raises(UnknownName, match="did you mean 'guidance_scale'"):
        PipelineSource(str(folder), {"guidance_scal": 3}).load()


@pytest.mark.parametrize(
    ("argument", "decides"),
    [
        ("latents", "seed"),
        ("generator", "seed"),
        ("prompt", "prompt of the search"),
        ("num_inference_steps", "--steps"),
        ("num_images_per_prompt", "--nfe"),
        ("sigmas", "--grid"),
        ("output_type", "decoded"),
    ],
)
def test_an_argument_that_the_search_decides(folder: Path, argument: str, decides: str) -> None:
    with pytest.raises(UnknownName, match=f"^{argument} of FluxPipeline cannot be set: .*{decides}"):
        PipelineSource(str(folder), {argument: 1}).load()


@pytest.mark.parametrize(
    ("argument", "value", "said"),
    [
        ("height", "abc", "height of FluxPipeline must be int, not 'abc'"),
        ("guidance_scale", [3.5], "must be float"),
        ("callback_on_step_end", "f", "must be a function, not 'f'"),
    ],
)
def test_a_value_of_another_type_is_refused_before_anything_loads(
    folder: Path, capsys: pytest.CaptureFixture[str], argument: str, value: Any, said: str
) -> None:
    with pytest.raises(BadSetting, match=said):
        _ = PipelineSource(str(folder), {argument: value}).kind
    if isinstance(value, str):
        options = ["--model", str(folder), *SMALL[2:], "--pipeline-arg", f"{argument}={value}", "--dry-run"]
        assert main(["generate", "a cat", *options]) == 2
        [line] = capsys.readouterr().err.splitlines()
        assert said in line


def raises(error: Exception) -> Callable[..., NoReturn]:
    def call(*args: object, **kwargs: object) -> NoReturn:
        raise error

    return call


@pytest.mark.parametrize("error", [TypeError("no such thing"), AttributeError("none"), AssertionError(), KeyError("k")])
def test_what_a_pipeline_raises_is_told_in_one_line_that_names_it(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny = FAMILIES[FLUX]()
    told = type(error).__name__
    with monkeypatch.context() as patch:
        patch.setattr(type(tiny.pipeline), "check_inputs", raises(error))
        with pytest.raises(
            BadSetting, match=f"^FluxPipeline of .* failed: {told}.*height=16.*check its arguments"
        ) as got:
            load_model(tiny.pipeline, tiny.arguments)
        assert got.value.__cause__ is error
    model = load_model(tiny.pipeline, tiny.arguments)
    x, t = torch.zeros(1, *model.shape), torch.tensor([0.5]).double()
    condition = model.encode("a cat")
    monkeypatch.setattr(tiny.pipeline.transformer, "forward", raises(error))
    monkeypatch.setattr(tiny.pipeline.vae, "decode", raises(error))
    for call in (lambda: model.velocity(x, t, [condition]), lambda: model.decode(x), lambda: model.screened(x)):
        with pytest.raises(BadModel, match=f"FluxPipeline of .* failed: {told}"):
            call()


def test_a_scheduler_that_does_not_fit_is_named() -> None:
    tiny = FAMILIES[FLUX]()
    settings = {"prediction_type": "flow_prediction", "use_flow_sigmas": True}
    tiny.pipeline.scheduler = diffusers.DPMSolverMultistepScheduler(**settings)
    with pytest.raises(
        RollflowError, match=r"AssertionError at 'assert .*whether it can .* with DPMSolverMultistepScheduler"
    ):
        load_model(tiny.pipeline, tiny.arguments)


def test_memory_that_runs_out_is_told_from_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    tiny = FAMILIES[FLUX]()
    model, rows = load_model(tiny.pipeline, tiny.arguments), list[int]()
    decode = tiny.pipeline.vae.decode

    def small(latents: Tensor, *args: Any, **kwargs: Any) -> Any:
        rows.append(len(latents))
        if len(latents) > 1:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 2 bytes")
        return decode(latents, *args, **kwargs)

    monkeypatch.setattr(tiny.pipeline.vae, "decode", small)
    assert len(model.decode(torch.zeros(2, *model.shape))) == 2
    assert rows == [2, 1, 1]


def test_folders_that_hold_no_pipeline(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(RollflowError, match=r"has no model_index\.json"):
        PipelineSource(str(tmp_path)).load()
    index = tmp_path / "model_index.json"
    for content, said in (
        ("{", "cannot be read"),
        ("{}", "does not name the pipeline's class"),
        ('{"_class_name": "NewestPipeline"}', "diffusers .* does not have"),
        ('{"_class_name": "DDPMPipeline"}', "a search cannot drive DDPMPipeline"),
        ("null", "has a NoneType, expected an object"),
        ("[1, 2]", "has a list, expected an object"),
        ('{"_class_name": null}', "does not name the pipeline's class"),
        ('{"_class_name": ["FluxPipeline"]}', "does not name the pipeline's class"),
        ('{"_class_name": "utils"}', "diffusers .* does not have"),
        ('{"_class_name": "__doc__"}', "diffusers .* does not have"),
        ("[" * 100_000, "cannot be read"),
        ("\\udc00", "cannot be read"),
    ):
        index.write_text(content)
        with pytest.raises(RollflowError, match=said):
            PipelineSource(str(tmp_path)).load()


@pytest.mark.parametrize(
    ("scheduler", "config", "said"),
    [
        ("null", "{}", "scheduler None"),
        ('["diffusers"]', "{}", "scheduler None"),
        ("7", "{}", "scheduler None"),
        ('["diffusers", "FluxPipeline"]', "{}", "scheduler FluxPipeline"),
        ('["diffusers", "Nothing"]', "{}", "scheduler Nothing"),
        ('["diffusers", "DDIMScheduler"]', "null", "has a NoneType, expected an object"),
        ('["diffusers", "DDIMScheduler"]', '{"beta_schedule": "no"}', "does not fit a DDIMScheduler"),
        ('["diffusers", "DDIMScheduler"]', '{"num_train_timesteps": "x"}', "does not fit a DDIMScheduler"),
    ],
)
def test_schedulers_that_cannot_be_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], scheduler: str, config: str, said: str
) -> None:
    (tmp_path / "model_index.json").write_text(f'{{"_class_name": "FluxPipeline", "scheduler": {scheduler}}}')
    (tmp_path / "scheduler").mkdir()
    (tmp_path / "scheduler/scheduler_config.json").write_text(config)
    assert main(["generate", "a cat", "--model", str(tmp_path), *SMALL, "--dry-run"]) in (1, 2)
    [line] = capsys.readouterr().err.splitlines()
    assert said in line


def test_weights_that_are_cut_short(folder: Path, tmp_path: Path) -> None:
    import shutil

    broken = shutil.copytree(folder, tmp_path / "broken")
    [weights] = (broken / "transformer").glob("*.safetensors")
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(RollflowError, match="cannot be loaded"):
        PipelineSource(str(broken)).load()


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (hub.GatedRepoError, "hf auth login"),
        (hub.RepositoryNotFoundError, "not on the hub"),
        (hub.RevisionNotFoundError, "no revision 'v9'"),
        (hub.LocalEntryNotFoundError, "load it once while online"),
        (hub.EntryNotFoundError, "so it is not a diffusers pipeline"),
    ],
)
def test_a_repository_that_cannot_be_read(
    error: type[Exception], said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(*_: object, **__: object) -> NoReturn:
        raise error.__new__(error)

    monkeypatch.setattr("huggingface_hub.hf_hub_download", refused)
    options = ["--model", "owner/name", "--revision", "v9", "--reward", "checks:Brightness"]
    assert main(["generate", "a cat", *options]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert said in line
    assert "owner/name" in line


@pytest.mark.parametrize(
    "name", ["http://a/b", "a/b/c", "../b", "a /b", "three cats", "count", "/nowhere/at/all", "a/"]
)
def test_malformed_names_are_refused_before_the_hub_is_asked(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def asked(*_: object, **__: object) -> NoReturn:
        raise AssertionError("the hub was asked")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", asked)
    with pytest.raises(RollflowError, match=r"is neither a folder with a pipeline nor .* \(owner/name\)"):
        _ = PipelineSource(name).kind


def test_options_of_pipelines_on_another_model(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generate", "a cat", "--model", "scenes-base", "--quantize", "8bit"]) == 2
    assert "--quantize is only for diffusers pipelines" in capsys.readouterr().err


@pytest.mark.slow
def test_bfloat16_networks_under_float32_states(folder: Path) -> None:
    given = {"height": 16, "width": 16, "max_sequence_length": 16}
    model = PipelineSource(str(folder), given, dtype="bfloat16").load()
    assert model.calls.pipeline.transformer.dtype == torch.bfloat16
    result = rollflow.generate(
        "a cat", model=model, reward=Brightness(), method="rbf(initial=2, chains=1)", nfe=8, steps=3
    )
    assert result.x0.dtype == torch.float32
    assert result.spent.nfe == 8


def assert_compiled_gives_the_same(folder: Path) -> None:
    given = {"height": 16, "width": 16, "max_sequence_length": 16}
    x, t = torch.randn(2, 16, 16, generator=torch.Generator().manual_seed(0)), torch.tensor([0.8, 0.3]).double()
    velocities = []
    for compiled in (False, True):
        model = PipelineSource(str(folder), given, compiled=compiled).load()
        with torch.no_grad():
            velocities.append(model.velocity(x, t, [model.encode("a cat")] * 2))
    torch.testing.assert_close(*velocities, rtol=1e-4, atol=1e-5)


@pytest.mark.exhaustive
@pytest.mark.filterwarnings("ignore")
def test_a_compiled_denoiser_gives_the_same(folder: Path) -> None:
    assert_compiled_gives_the_same(folder)


def test_the_compiled_denoiser_is_what_is_called(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And gives the same, by a compiler that returns what it is given."""
    calls = list[str]()

    def compile_nothing(function: Any) -> Callable[..., Any]:
        def compiled(*args: Any, **kwargs: Any) -> Any:
            calls.append(type(function.__self__).__name__)
            return function(*args, **kwargs)

        return compiled

    monkeypatch.setattr(torch, "compile", compile_nothing)
    assert_compiled_gives_the_same(folder)
    assert set(calls) == {"FluxTransformer2DModel"}


@pytest.mark.parametrize(
    ("how", "offload", "moved"), [("8bit", "model", None), ("4bit", "none", "cuda"), (None, "sequential", None)]
)
def test_quantisation_and_offload_are_diffusers_own(
    folder: Path, monkeypatch: pytest.MonkeyPatch, how: str | None, offload: str, moved: str | None
) -> None:
    """As it is told them where there is a GPU; nothing here can run it."""
    said = dict[str, Any]()

    class Told:
        def __getattr__(self, name: str) -> Callable[..., Any]:
            return lambda *args, **kwargs: said.setdefault(name, (args, kwargs))

    def from_pretrained(name: str, **settings: Any) -> Told:
        said["quantization"] = settings.get("quantization_config")
        return Told()

    monkeypatch.setattr(PipelineSource, "_device", torch.device("cuda"))
    monkeypatch.setattr(PipelineSource, "_dtype", torch.bfloat16)
    monkeypatch.setattr("diffusers.FluxPipeline.from_pretrained", from_pretrained)
    monkeypatch.setattr(source, "DiffusersModel", lambda *_, **__: SimpleNamespace())
    if how is not None:
        monkeypatch.setitem(sys.modules, "bitsandbytes", None)
        with pytest.raises(MissingPackage, match=f"--quantize {how} needs .*: pip install bitsandbytes$"):
            _ = PipelineSource(str(folder), quantize=how, offload=offload).kind
    monkeypatch.setitem(sys.modules, "bitsandbytes", SimpleNamespace())
    PipelineSource(str(folder), quantize=how, offload=offload).load()
    if how is None:
        assert said["quantization"] is None
    else:
        assert said["quantization"].quant_backend == f"bitsandbytes_{how}"
        assert set(said["quantization"].components_to_quantize) == {"transformer", "text_encoder", "text_encoder_2"}
    assert ("to" in said) == (moved is not None)
    assert ("enable_model_cpu_offload" in said) == (offload == "model")
    assert ("enable_sequential_cpu_offload" in said) == (offload == "sequential")


def test_values_from_the_command_line(tmp_path: Path) -> None:
    Image.new("RGB", (2, 3)).save(tmp_path / "a.png")
    assert read_argument(str(tmp_path / "a.png")).size == (2, 3)
    assert [read_argument(text) for text in ("3", "0.5", "None", "fog, rain")] == [3, 0.5, None, "fog, rain"]
    with pytest.raises(RollflowError, match="cannot read"):
        read_argument(str(tmp_path / "b.png"))


def test_auto_device_and_dtype(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    here = PipelineSource("owner/name")
    assert (here._device.type, here._dtype) == ("cpu", torch.float32)


class Apart(torch.nn.Module):
    """In place of LPIPS."""

    def __init__(self, **settings: object) -> None:
        super().__init__()

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return (x - y).abs().mean((1, 2, 3), keepdim=True)


@pytest.mark.slow
def test_a_preset_of_the_bench_on_a_pipeline(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By --model, with a real reward and the shipped prompts; a picture of it is made again, bit for bit."""
    given = [
        *SMALL[:6],
        "--reward",
        "jpeg-compressibility",
        "--held-out",
        "jpeg-incompressibility",
        "--suite",
        "prompts",
    ]
    arguments = [
        "bench",
        "run",
        "--preset",
        "ablation-vp",
        "--model",
        str(folder),
        *given,
        "--nfe",
        "100",
        "--prompts",
        "1",
    ]
    arguments += ["--many-step", "--seeds", "1", "--max-rows", "4", "--out", str(tmp_path)]
    monkeypatch.setitem(sys.modules, "lpips", None)
    assert main(arguments) == 2
    assert "pip install lpips" in capsys.readouterr().err
    assert not JournalIndex(tmp_path).done
    monkeypatch.setitem(sys.modules, "lpips", SimpleNamespace(LPIPS=Apart))
    assert main(arguments) == 0
    assert len(JournalIndex(tmp_path).diversity) == len(PRESETS["ablation-vp"].arms(100)) - 1
    assert read_config(tmp_path)["pipeline"]["distilled"] is False
    done = JournalIndex(tmp_path).done
    assert {entry["arm"] for entry in done.values()} == {arm.name for arm in PRESETS["ablation-vp"].arms(100)}
    assert all(entry["held_out"]["jpeg-incompressibility"] == -entry["reward"] for entry in done.values())
    assert main(["replay", str(tmp_path), next(iter(done))]) == 2
    assert "would load the model" in capsys.readouterr().err
    for name in done:
        assert main(["replay", str(tmp_path), name, "--trust"]) == 0
    assert capsys.readouterr().out.count("the same to the last bit") == len(done)


@pytest.mark.slow
def test_a_profile_of_a_folder(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With the options of a pipeline, a reward of one's own and one's own prompts; a search takes the file."""
    (tmp_path / "own.txt").write_text("a cat\na dog\n")
    words = ["bench", "profile", "--model", str(folder), *SMALL[:6], "--device", "cpu", "--reward", "checks:Brightness"]
    words += ["--suite", str(tmp_path / "own.txt"), "--parents", "2", "--siblings", "2", "--levels", "1;0.5"]
    words += ["--out", str(tmp_path)]
    assert main([*words, "--dry-run"]) == 0
    assert capsys.readouterr().out == "2 prompts: 24 NFE, 24 reward calls, 26 decodes\n"
    assert main(words) == 0, capsys.readouterr().err
    path = tmp_path / "profile-tiny-flux-checks-Brightness.npz"
    profile = Profile.load(path)
    assert (profile.model, profile.reward) == (str(folder), "brightness")
    assert (profile.prompts, profile.levels) == (("a cat", "a dog"), (1.0, 0.5))
    generate = ["generate", "a cat", "--model", str(folder), *SMALL[:8], "--method", "beam", "--nfe", "8"]
    assert main([*generate, "--set", f"profile={path}", "--out", str(tmp_path / "out")]) == 0
    method = json.loads((tmp_path / "out" / "result.json").read_text())["plan"]["method"]
    assert method.startswith("beam(levels=1.0;0.5, children=")
