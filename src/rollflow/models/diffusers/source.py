"""Pipelines by the name of a repository or folder: facts known before their weights load, and loading."""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from rollflow import checks
from rollflow.dynamics.grids import Grid
from rollflow.dynamics.interpolants import Interpolant
from rollflow.errors import BadSetting, MissingPackage, RollflowError, described, unknown
from rollflow.extras import check_installed, requiring
from rollflow.files.documents import read_json, read_text
from rollflow.files.media import read_picture
from rollflow.models.base import Source
from rollflow.models.diffusers.arguments import check_arguments, check_kind, is_few_step
from rollflow.models.diffusers.denoisers import DENOISERS
from rollflow.models.diffusers.model import DiffusersModel
from rollflow.models.diffusers.schedule import interpolant_of
from rollflow.runtime.devices import check_device, device_named

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
OFFLOADS = ("none", "model", "sequential")
QUANTIZATIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "8bit": ("bitsandbytes_8bit", {"load_in_8bit": True}),
    "4bit": ("bitsandbytes_4bit", {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}),
}
_REPOSITORY = re.compile(r"\w[\w.-]{0,95}/\w[\w.-]{0,95}", re.ASCII)
PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")


class _Unread(Grid):
    """The pipeline's own grid before the pipeline is loaded, when its times are unknown."""

    whole = True

    def __call__(self, steps: int) -> Tensor:
        raise RollflowError("the time grid of a pipeline is known only once it is loaded")


@dataclass(frozen=True)
class PipelineSource(Source):
    """A diffusers pipeline that is not loaded yet, whose configuration of a few kilobytes is read when needed.

    Args:
        name: Hub repository (``owner/name``), or folder written by ``save_pretrained``.
        arguments: Arguments of the pipeline's call, as for ``DiffusersModel``.
        device: Torch device, or ``auto`` for CUDA, else Apple's MPS, else the CPU.
        dtype: One of ``DTYPES``, or ``auto`` for bfloat16 on CUDA, float16 on MPS and float32 on the CPU.
        offload: ``none``; or ``model`` or ``sequential`` to keep only the running network, or layer, on the device.
        quantize: Quantization of the denoiser and the text encoders by bitsandbytes, ``8bit`` or ``4bit``; None
            disables it.
        compiled: Whether to compile the denoiser with ``torch.compile``.
        distilled: Whether the model is step-distilled; None decides by its configuration, name and scheduler.
        revision: Branch, tag or commit of the repository; None means its main branch.

    Raises:
        RollflowError: If a device, dtype, offload or quantization is unknown. When its configuration is read, also if
            the repository is missing, gated, or not in the cache while offline, or has no supported pipeline.
    """

    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    device: str = "auto"
    dtype: str = "auto"
    offload: str = "none"
    quantize: str | None = None
    compiled: bool = False
    distilled: bool | None = None
    revision: str | None = None

    rows_per_nfe = None  # its guidance is known once it runs

    def __post_init__(self) -> None:
        checks.fields(self, owner="PipelineSource")
        checks.text("the name of a pipeline", self.name)
        checks.instance("arguments", self.arguments, Mapping, what="the arguments of the pipeline's call by name")
        _ = self._device
        for what, value, known in (
            ("dtype", self.dtype, ("auto", *DTYPES)),
            ("offload", self.offload, OFFLOADS),
            ("quantization", self.quantize or "8bit", QUANTIZATIONS),
        ):
            if value not in known:
                raise unknown(what, value, known)
        if self.offload != "none" and self._device.type == "cpu":
            raise BadSetting(
                f"--offload {self.offload} moves networks between the CPU and an accelerator, but the device is the CPU"
            )
        if self._dtype == torch.float16 and self._device.type == "cpu":
            raise BadSetting("float16 does not run on the CPU; use --dtype bfloat16 or --dtype float32")

    @property
    def _requiring(self) -> requiring:
        return requiring(f"model '{self.name}'", "diffusers")

    @cached_property
    def _device(self) -> torch.device:
        device = device_named(self.device)
        check_device(device)
        return device

    @cached_property
    def _dtype(self) -> torch.dtype:
        defaults = {"cuda": torch.bfloat16, "mps": torch.float16}
        return defaults.get(self._device.type, torch.float32) if self.dtype == "auto" else DTYPES[self.dtype]

    @cached_property
    def _index(self) -> dict[str, Any]:
        """Content of model_index.json: the class of the pipeline, and the library and class of its components."""
        index = self._read("model_index.json")
        if not isinstance(index.get("_class_name"), str):
            raise RollflowError(f"model_index.json of '{self.name}' does not name the pipeline's class (_class_name)")
        return index

    def _read(self, file: str) -> dict[str, Any]:
        path = _downloaded(self.name, file, self.revision)
        try:
            content = read_json(read_text(path))
        except (OSError, ValueError) as error:
            raise RollflowError(f"{file} of '{self.name}' cannot be read: {error}") from None
        if not isinstance(content, dict):
            raise RollflowError(f"{file} of '{self.name}' has a {type(content).__name__}, expected an object")
        return content

    @cached_property
    def kind(self) -> type:
        """The class of the pipeline, for which the arguments have been checked."""
        with self._requiring:
            import diffusers

            kind: Any = getattr(diffusers, self._index["_class_name"], None)
            usable = isinstance(kind, type) and hasattr(kind, "from_pretrained")  # raises without transformers
        if not usable:
            raise RollflowError(
                f"'{self.name}' is a {self._index['_class_name']}, which diffusers {diffusers.__version__} does not "
                "have; install a newer version, or load the pipeline in Python and pass it to rollflow.load_model"
            )
        check_kind(kind)
        if self.quantize is not None:
            check_installed(f"--quantize {self.quantize}", "bitsandbytes")
        if self.offload != "none":
            check_installed(f"--offload {self.offload}", "accelerate", extra="diffusers")
        check_arguments(kind, self.arguments)
        return cast(type, kind)

    @cached_property
    def _scheduler(self) -> Any:
        with self._requiring:
            import diffusers

        named = self._index.get("scheduler")
        name = named[1] if isinstance(named, list) and len(named) == 2 else None
        kind: Any = getattr(diffusers, name, None) if isinstance(name, str) else None
        if not (isinstance(kind, type) and hasattr(kind, "from_config") and hasattr(kind, "set_timesteps")):
            raise RollflowError(
                f"diffusers {diffusers.__version__} does not have the scheduler {name} of '{self.name}'"
            )
        config = self._read("scheduler/scheduler_config.json")
        try:
            return kind.from_config(config)
        except Exception as error:  # schedulers may fail in any way for settings of others
            raise RollflowError(
                f"scheduler/scheduler_config.json of '{self.name}' does not fit a {name}: {described(error)}"
            ) from error

    @property
    def few_step(self) -> bool:
        if self.distilled is not None:
            return self.distilled
        return is_few_step(self.name, type(self._scheduler), self._index)

    @cached_property
    def interpolant(self) -> Interpolant:
        _ = self.kind  # checks the arguments, also in a dry run
        return interpolant_of(self._scheduler)

    @property
    def grid(self) -> Grid:
        return _Unread()

    def load(self) -> DiffusersModel:
        """Load the pipeline, downloading weights that are not in the cache.

        Raises:
            RollflowError: If the pipeline cannot be loaded.
        """
        with self._requiring:
            from diffusers.quantizers import PipelineQuantizationConfig

        settings: dict[str, Any] = {"dtype": self._dtype, "revision": self.revision}
        if self.quantize is not None:
            backend, how = QUANTIZATIONS[self.quantize]
            parts = [name for name in self._index if name in DENOISERS or name.startswith("text_encoder")]
            settings["quantization_config"] = PipelineQuantizationConfig(backend, how, parts)
        kind: Any = self.kind
        try:
            with self._requiring:
                pipeline = kind.from_pretrained(self.name, **settings)
            if self.offload == "model":
                pipeline.enable_model_cpu_offload(device=self._device)
            elif self.offload == "sequential":
                pipeline.enable_sequential_cpu_offload(device=self._device)
            elif self.quantize is None or self._device.type != "cpu":
                pipeline.to(self._device)
        except MissingPackage:
            raise
        except Exception as error:  # the libraries that read its parts may fail in any way
            raise RollflowError(f"'{self.name}' cannot be loaded: {described(error)}") from error
        if self.compiled:
            for name in DENOISERS:
                if getattr(pipeline, name, None) is not None:
                    getattr(pipeline, name).compile()
        loaded = DiffusersModel(pipeline, self.arguments, name=self.name, few_step=self.few_step)
        loaded.source = self
        return loaded


def _downloaded(name: str, file: str, revision: str | None) -> Path:
    """Path of a small file of a repository or folder, downloaded if necessary."""
    folder = Path(name)
    if folder.is_dir():
        if not (folder / file).is_file():
            raise RollflowError(f"folder '{name}' has no {file}; expected a pipeline written by save_pretrained")
        return folder / file
    if _REPOSITORY.fullmatch(name) is None:
        raise RollflowError(
            f"'{name:.100}' is neither a folder with a pipeline nor the name of a repository of the hub (owner/name)"
        )
    with requiring(f"model '{name}'", "diffusers"):
        from huggingface_hub import errors as hub
        from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(name, file, revision=revision))
    except hub.GatedRepoError:
        why = "is gated; accept its terms on its page, then log in with 'hf auth login'"
    except hub.RevisionNotFoundError:
        why = f"has no revision '{revision}'"
    except hub.RepositoryNotFoundError:
        why = "is not on the hub, or is private; check the name, or log in with 'hf auth login'"
    except hub.LocalEntryNotFoundError:
        why = f"is not in the cache ({file}), and the hub cannot be reached; load it once while online"
    except hub.EntryNotFoundError:
        why = f"has no {file}, so it is not a diffusers pipeline"
    except hub.HFValidationError as error:
        why = f"is not a valid name of a repository ({error})"
    except (hub.HfHubHTTPError, OSError) as error:
        why = f"cannot be read: {error}"
    raise RollflowError(f"repository '{name}' {why}") from None


def read_argument(text: str) -> Any:
    """Parse an argument of a pipeline's call from the command line: a picture's path, a Python literal, or a text."""
    if text.lower().endswith(PICTURES):
        return read_picture(os.path.expanduser(text))
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
