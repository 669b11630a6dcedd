"""What goes wrong in generators without a sound, found in the source.

- A ``with`` held across a ``yield`` is in force in whatever else runs meanwhile, as in every other search.
- A generator that is called but not run with ``yield from`` does nothing.
- A broad ``except`` around a ``yield`` swallows what the runner throws in.
- A draw from a global generator depends on what was drawn before.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

import rollflow

SOURCE = Path(rollflow.__file__).parent
FILES = sorted(SOURCE.rglob("*.py"))
NO_DRAWS = ["search", "engine", "dynamics", "sampler.py", "requests.py"]
Function = ast.FunctionDef | ast.AsyncFunctionDef
DRAWS = re.compile(
    r"(torch\.(rand|randn|randint|randperm|rand_like|randn_like|randint_like|normal|bernoulli|multinomial|poisson|"
    r"manual_seed|seed)|(np|numpy)\.random\.\w+|random\.\w+|.*\.(normal|uniform|random|bernoulli|exponential)_)"
)
GENERATOR = re.compile(r"(typing\.|requests\.)?(Asking|Generator)\[")


def own(node: ast.AST) -> Iterator[ast.AST]:
    """A node and everything under it that runs in the same function."""
    yield node
    if not isinstance(node, Function | ast.Lambda | ast.ClassDef):
        for child in ast.iter_child_nodes(node):
            yield from own(child)


def yields(*nodes: ast.AST) -> bool:
    return any(isinstance(inner, ast.Yield | ast.YieldFrom) for node in nodes for inner in own(node))


def annotated(function: Function) -> bool:
    return function.returns is not None and GENERATOR.match(ast.unparse(function.returns)) is not None


def is_context_manager(function: Function) -> bool:
    return any(ast.unparse(decorator).endswith("contextmanager") for decorator in function.decorator_list)


@dataclass
class Known:
    """What is called to get a generator, in the whole package: by annotation, never by hand."""

    functions: set[str] = field(default_factory=set)
    methods: set[str] = field(default_factory=set)
    callables: set[str] = field(default_factory=set)

    def read(self, module: str, tree: ast.Module) -> Known:
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                self.methods |= {one.name for one in node.body if isinstance(one, Function) and annotated(one)}
        for node in tree.body:
            if isinstance(node, Function) and annotated(node):
                self.functions.add(f"{module}.{node.name}")
            if isinstance(node, ast.AnnAssign) and node.value is not None and isinstance(node.target, ast.Name):
                value = ast.unparse(node.value)
                if value.startswith("Callable[") and re.search(r"\b(Asking|Generator)\[", value):
                    self.callables.add(node.target.id)
        return self


def module_name(path: Path) -> str:
    parts = path.relative_to(SOURCE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


KNOWN = Known()
for _path in FILES:
    KNOWN.read(module_name(_path), ast.parse(_path.read_text()))


class Rules(ast.NodeVisitor):
    """Collects what breaks a rule in one module, as 'line: what'."""

    def __init__(self, tree: ast.Module, module: str, known: Known) -> None:
        self.known, self.broken = known, list[str]()
        self.parent = {child: node for node in ast.walk(tree) for child in ast.iter_child_nodes(node)}
        self.names = {node.name: f"{module}.{node.name}" for node in tree.body if isinstance(node, Function)}
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom):
                self.names |= {name.asname or name.name: f"{node.module}.{name.name}" for name in node.names}
            if isinstance(node, ast.Import):
                self.names |= {name.asname or name.name: name.name for name in node.names}
        self.visit(tree)

    def _break(self, node: ast.stmt | ast.expr, what: str) -> None:
        self.broken.append(f"{node.lineno}: {what}")

    def _functions(self, node: ast.AST) -> Iterator[Function]:
        """The functions around a node, innermost first."""
        while node in self.parent:
            node = self.parent[node]
            if isinstance(node, Function):
                yield node

    def _asks(self, call: ast.Call) -> bool:
        """Whether a call makes a generator that must be run."""
        around = list(self._functions(call))
        if isinstance(call.func, ast.Name):
            arguments = {arg.arg: arg.annotation for one in around for arg in [*one.args.args, *one.args.kwonlyargs]}
            if (annotation := arguments.get(call.func.id)) is not None:
                return ast.unparse(annotation) in self.known.callables
            return self.names.get(call.func.id) in self.known.functions
        if isinstance(call.func, ast.Attribute):
            owner = ast.unparse(call.func.value)
            if f"{self.names.get(owner, owner)}.{call.func.attr}" in self.known.functions:
                return True
            inside = bool(around) and (yields(*around[0].body) or annotated(around[0]))
            return inside and call.func.attr in self.known.methods
        return False

    def _is_run(self, call: ast.Call) -> bool:
        """Whether what a call made is run here, or handed to whoever runs it."""
        match self.parent[call]:
            case ast.YieldFrom() | ast.List() | ast.ListComp() | ast.GeneratorExp():
                return True
            case ast.Call(func=func):
                return ast.unparse(func).split(".")[-1] == "drive"
            case ast.Return():
                function = next(self._functions(call))
                return annotated(function) and not yields(*function.body)
        return False

    def visit_Call(self, node: ast.Call) -> None:
        if self._asks(node) and not self._is_run(node):
            self._break(node, f"{ast.unparse(node.func)}(...) without yield from")
        self.generic_visit(node)

    def _with(self, node: ast.With | ast.AsyncWith) -> None:
        around = next(self._functions(node), None)
        if yields(*node.body) and not (around is not None and is_context_manager(around)):
            self._break(node, "with held across a yield")
        self.generic_visit(node)

    visit_With = visit_AsyncWith = _with

    def visit_Try(self, node: ast.Try) -> None:
        around = next(self._functions(node), None)
        caught = [ast.unparse(handler.type) if handler.type else "Exception" for handler in node.handlers]
        broad = any(re.search(r"\b(Base)?Exception\b", one) for one in caught)
        if yields(*node.body, *node.orelse) and broad and not (around is not None and is_context_manager(around)):
            self._break(node, "broad except around a yield")
        self.generic_visit(node)


def broken(source: str, module: str = "rollflow.snippet") -> list[str]:
    tree = ast.parse(source)
    return Rules(tree, module, Known(**vars(KNOWN)).read(module, tree)).broken


def draws(source: str) -> list[str]:
    """Uses of a random generator, as 'line: what'."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute) and DRAWS.fullmatch(ast.unparse(node)):
            found.append(f"{node.lineno}: {ast.unparse(node)}")
        if isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{name.name}" for name in node.names]
            found += [f"{node.lineno}: {name}" for name in names if DRAWS.fullmatch(name) or name == "numpy.random"]
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_generators_in_the_package(path: Path) -> None:
    assert broken(path.read_text(), module_name(path)) == []


def test_only_the_noise_of_a_population_is_drawn() -> None:
    paths = [path for name in NO_DRAWS for path in (SOURCE / name, *(SOURCE / name).rglob("*.py")) if path.is_file()]
    assert len(paths) > len(NO_DRAWS)
    drawing = {path.name: draws(path.read_text()) for path in paths if draws(path.read_text())}
    assert drawing == {"halving_design.py": ["61: np.random.default_rng"]}  # which designs before a population begins
    assert draws((SOURCE / "particles" / "rng.py").read_text())


def test_what_asks_is_found_by_its_annotation() -> None:
    """The collection that the rules stand on has what it must have, and no plain function."""
    helpers = {f"rollflow.requests.{name}" for name in ("velocity", "reward", "grad", "decode", "save")}
    assert helpers | {"rollflow.dynamics.lookahead.integrate"} <= KNOWN.functions
    assert {"evaluate", "start", "advance", "finish", "clean", "step", "population", "_velocity"} <= KNOWN.methods
    assert {"VelocityFn"} <= KNOWN.callables
    assert "rollflow.requests.drive" not in KNOWN.functions
    assert not {"populations", "velocity", "normal", "bind", "cost"} & KNOWN.methods


HEAD = """
from contextlib import contextmanager
import torch
from rollflow import requests
from rollflow.dynamics.kernels import VelocityFn
from rollflow.dynamics.lookahead import integrate
from rollflow.requests import Asking, drive, save, velocity as ask
"""

MISTAKES = {
    "helper as a statement": "def f() -> Asking[None]:\n    yield from ()\n    save(None)",
    "helper assigned": "def f(x, t) -> Asking[None]:\n    v = ask(x, t)\n    yield from save(v)",
    "helper of a module": "def f(x, t) -> Asking[None]:\n    v = requests.velocity(x, t)\n    yield from save(v)",
    "helper in an expression": "def f(x, t) -> Asking[None]:\n    yield from save(x + ask(x, t))",
    "helper in a plain function": "def f(x):\n    save(x)",
    "helper yielded": "def f(x, t) -> Asking[None]:\n    v = yield ask(x, t)",
    "helper in a tuple": "def f(x, t) -> Asking[None]:\n    a, b = x, ask(x, t)\n    yield from save(a)",
    "returned from a generator": "def f(x, t) -> Asking[None]:\n    yield from ()\n    return ask(x, t)",
    "returned from who knows what": "def f(x, t):\n    return ask(x, t)",
    "never a generator": "def f(walk) -> Asking[None]:\n    walk.advance(1)",
    "function assigned": "def f(i, x, t) -> Asking[None]:\n    x = integrate(i, x, x, t, 2)\n    yield from save(x)",
    "own function": "def g() -> Asking[None]:\n    yield from ()\n\n"
    "def f() -> Asking[None]:\n    yield from ()\n    g()",
    "method assigned": "def f(walk) -> Asking[None]:\n    p = walk.start([0], [0])\n    yield from save(p)",
    "method in a loop": "def f(walk) -> Asking[None]:\n    yield from ()\n    for i in range(3):\n"
    "        walk.advance(i)",
    "own method": "class A:\n    def m(self) -> Asking[None]:\n        yield from ()\n\n"
    "    def n(self) -> Asking[None]:\n        yield from ()\n        x = self.m()",
    "argument": "def f(x, s, velocity: VelocityFn) -> Asking[None]:\n    v = velocity(x, s)\n    yield from save(v)",
    "with": "def f(x) -> Asking[None]:\n    with torch.no_grad():\n        yield from save(x)",
    "with, deeper": "def f(x):\n    with torch.no_grad():\n        for i in x:\n            yield i",
    "with, in an expression": "def f(x):\n    with open(x) as file:\n        y = 1 + (yield file)",
    "async with": "async def f(x):\n    async with x:\n        yield 1",
    "except Exception": "def f(x) -> Asking[None]:\n    try:\n        yield from save(x)\n"
    "    except Exception:\n        pass",
    "bare except": "def f(x):\n    try:\n        yield x\n    except:\n        pass",
    "except among others": "def f(x):\n    try:\n        y = 1\n    except (KeyError, BaseException):\n        pass\n"
    "    else:\n        yield x",
}

CORRECT = {
    "yield from": "def f(x, t) -> Asking[None]:\n    v = yield from ask(x, t)\n    yield from requests.save(v)",
    "in an expression": "def f(x, t) -> Asking[None]:\n    return 2 * (yield from ask(x, (yield from ask(x, t))))",
    "handed on": "def f(x, t) -> Asking[None]:\n    return ask(x, t)",
    "list": "def f(jobs):\n    return [job.population() for job in jobs] + [save(1)]",
    "driven": "def f(x):\n    return drive(save(x), print), requests.drive(save(x), print)",
    "another's method": "def f(model, x) -> Asking[None]:\n    v = model.velocity(x)\n    yield from save(v)",
    "optimiser": "def f(optimiser):\n    optimiser.step()",
    "argument": "def f(x, s, velocity: VelocityFn) -> Asking[None]:\n    v = yield from velocity(x, s)\n"
    "    yield from save(v)",
    "same name, other argument": "def f(x, ask: float) -> Asking[None]:\n    yield from save(ask(x))",
    "with beside": "def f(x) -> Asking[None]:\n    with torch.no_grad():\n        y = x + 1\n    yield from save(y)",
    "with around a definition": "def f(x):\n    with open(x):\n        def g():\n            yield 1\n    return g",
    "context manager": "@contextmanager\ndef f(x):\n    with open(x) as file:\n        yield file",
    "except of a context manager": "@contextmanager\ndef f(x):\n    try:\n        yield x\n"
    "    except Exception:\n        raise ValueError from None",
    "narrow except": "def f(x):\n    try:\n        yield x\n    except ValueError:\n        pass",
    "finally": "def f(x):\n    try:\n        yield x\n    finally:\n        x.close()",
    "broad except beside": "def f(x):\n    try:\n        y = x()\n    except Exception:\n        y = 0\n    yield y",
}


@pytest.mark.parametrize("source", MISTAKES.values(), ids=MISTAKES)
def test_each_mistake_is_found(source: str) -> None:
    assert len(broken(HEAD + source)) == 1


@pytest.mark.parametrize("source", CORRECT.values(), ids=CORRECT)
def test_what_is_right_is_left_alone(source: str) -> None:
    assert broken(HEAD + source) == []


@pytest.mark.parametrize(
    "source",
    [
        "torch.randn(3)",
        "torch.randn_like(x)",
        "torch.multinomial(w, 3)",
        "torch.manual_seed(0)",
        "x.normal_()",
        "np.random.default_rng(0)",
        "numpy.random.rand()",
        "random.random()",
        "from torch import randn",
        "from numpy import random",
        "from numpy.random import default_rng",
        "from random import shuffle",
    ],
)
def test_each_draw_is_found(source: str) -> None:
    assert len(draws(source)) == 1


@pytest.mark.parametrize("source", ["noise.normals(0, [0], [0])", "torch.zeros(3)", "self.noise.normal(0, 0, 0)"])
def test_the_populations_own_noise_is_no_draw(source: str) -> None:
    assert draws(source) == []
