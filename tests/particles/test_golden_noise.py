"""The numbers themselves: every result that was ever published hangs on these draws, so that they must never change.

They are the same on every CPU. NumPy's ziggurat gives a product of two exact doubles for every |z| below 3.654, which
IEEE arithmetic rounds in one way only; ``exp`` is called to compare with, in one draw of a hundred. Only beyond 3.654
(one draw of 4000) is a value made of ``log1p``, whose last bit belongs to the C library: such values are told apart
here. What NumPy does not promise is that a later release draws in the same way (NEP 19): then these tests fail.
"""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
import torch
from torch import Tensor

from rollflow.particles.rng import Noise

TAIL = 3.6541528853610088
"""Where the tail of the ziggurat begins, with 256 layers (Marsaglia & Tsang 2000)."""
TOP = 2**64 - 1

HALF_PRECISION = "0x1.12p-1 -0x1.9dp-7 0x1.9a4p-1 0x1.a9p+0 -0x1.06p-1 -0x1.cacp-3"
VALUES = {
    torch.float64: "0x1.11e0e13df3c54p-1 -0x1.9d125f1edf2c1p-7 0x1.9a31bc94257f0p-1 "
    "0x1.a90a03880597cp+0 -0x1.06069ade96d8bp-1 -0x1.caa928b1002d6p-3",
    torch.float32: "0x1.11e0e2p-1 -0x1.9d126p-7 0x1.9a31bcp-1 0x1.a90a04p+0 -0x1.06069ap-1 -0x1.caa928p-3",
    torch.float16: HALF_PRECISION,
    torch.bfloat16: "0x1.12p-1 -0x1.9ep-7 0x1.9ap-1 0x1.aap+0 -0x1.06p-1 -0x1.cap-3",
}
"""Of seed 7, population 1, step 4, row 2, draw 5."""


def numbers(text: str) -> list[float]:
    return [float.fromhex(one) for one in text.split()]


def sha256(values: Tensor) -> str:
    return hashlib.sha256(values.contiguous().view(torch.uint8).numpy().tobytes()).hexdigest()


@pytest.mark.parametrize("dtype", VALUES, ids=str)
@pytest.mark.parametrize("shape", [(6,), (2, 3), (1, 3, 2), (3,), (1,), ()], ids=str)
def test_normal_in_every_dtype_and_shape(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    """A shape takes the first numbers of one sequence, row-major."""
    drawn = Noise(7, 1, shape, dtype).normal(4, 2, 5)
    assert (drawn.shape, drawn.dtype) == (shape, dtype)
    assert drawn.double().flatten().tolist() == numbers(VALUES[dtype])[: drawn.numel()]


@pytest.mark.parametrize(
    ("seed", "population", "label", "values"),
    [
        (0, 0, (0, 0, 0), "0x1.463cb3872ecbdp-3"),
        (123, 2, (1, 2, 3), "-0x1.01611efec4cb0p+0 0x1.b3ef083951311p-1 0x1.9dd55f741c9a4p-4"),
        (123, 2, (1, 3, 2), "-0x1.79b499c9f27d2p+0 -0x1.a56d0e7d95548p+0 -0x1.31299d2379e4ap+0"),
        (123, 2, (2, 1, 3), "-0x1.d6ebf20ff9c59p-2 0x1.492ddc35fb616p-1 0x1.03c5841b4b6c1p-1"),
        (2, 123, (1, 2, 3), "0x1.aee059c4206fap-1 -0x1.488d9b59dcc2ep-6 0x1.55851eaccd279p+0"),
        (TOP, TOP, (9, 0, 0), "-0x1.75904436eedc3p-2 0x1.dc7c9683b7e4ap+0 -0x1.031541acb030bp-1"),
    ],
)
def test_seed_population_step_row_and_draw_have_their_places(
    seed: int, population: int, label: tuple[int, int, int], values: str
) -> None:
    """No two of them are exchanged: row 2, draw 3 is not row 3, draw 2."""
    expected = numbers(values)
    noise = Noise(seed, population, (len(expected),), torch.float64)
    assert noise.normal(*label).tolist() == expected
    assert noise.normals(label[0], [label[1]], [label[2]])[0].tolist() == expected


DIGESTS = {
    torch.float64: "2dbf8deac031f8518843cae48baa8d489e34869b87737d5e29feaa5c80182fbd",
    torch.float32: "87cf67f61dfa44393f3d306476e1f03afd77b1c214e49818abf617e9c015d66c",
    torch.float16: "cc6d7c1904a48fb119986aabd3f566959e77c92e5004dfb5b7df98987d70847d",
    torch.bfloat16: "9fc54937599fb0655dd0b62a7166dcc5636105a704c0c68f3573ee670cd914ac",
}


@pytest.mark.parametrize("dtype", DIGESTS, ids=str)
def test_normals_of_whole_latents(dtype: torch.dtype) -> None:
    """12288 numbers by their digest, but for the six of the tail, which are compared to 2 units in the last place."""
    label: tuple[Any, ...] = (11, [0, 5, 2], [1, 0, 7])
    exact = Noise(2026, 3, (4, 32, 32), torch.float64).normals(*label)
    in_tail = exact.abs() >= TAIL
    drawn = Noise(2026, 3, (4, 32, 32), dtype).normals(*label)
    assert (drawn.shape, drawn.dtype) == ((3, 4, 32, 32), dtype)
    assert sha256(drawn[~in_tail]) == DIGESTS[dtype]
    assert in_tail.nonzero().tolist() == [
        [0, 1, 7, 13], [0, 1, 20, 10], [2, 1, 15, 29], [2, 1, 18, 17], [2, 1, 28, 3], [2, 2, 18, 18]
    ]  # fmt: skip
    expected = [
        -3.7847176773530657, -3.920743510800267, 3.719933744998597,
        3.731684333831405, 3.785629304186373, -3.985076926096764,
    ]  # fmt: skip
    assert exact[in_tail].tolist() == pytest.approx(expected, rel=5e-16, abs=0)
    assert torch.equal(drawn[in_tail], exact[in_tail].to(dtype))


def philox(key: tuple[int, int], counter: tuple[int, int, int, int]) -> tuple[int, ...]:
    """A block of Philox-4x64-10, as in table 2 of Salmon et al. (2011)."""
    (k0, k1), (c0, c1, c2, c3) = key, counter
    for _ in range(10):
        high0, low0 = divmod(0xD2E7470EE14C6C93 * c0, 2**64)
        high1, low1 = divmod(0xCA5A826395121157 * c2, 2**64)
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0, k1 = (k0 + 0x9E3779B97F4A7C15) & TOP, (k1 + 0xBB67AE8584CAA73B) & TOP
    return c0, c1, c2, c3


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize(
    ("seed", "population", "step", "values"),
    [
        (7, 1, 4, "0x1.3cb82f528a126p-2 0x1.c46646cb3411dp-1 0x1.7a9a96ff17f98p-3 0x1.7e4f97fcba45ep-2 "
         "0x1.87ee5395ec750p-4"),
        (TOP, 3, 0, "0x1.291c8e321eab0p-3 0x1.ca85532b2f344p-1"),
    ],
)  # fmt: skip
def test_uniform(seed: int, population: int, step: int, values: str, dtype: torch.dtype) -> None:
    """Always float64: the upper 53 bits of the blocks with counters (1, 0, 2^64 - 1, step), (2, ...), and so on."""
    expected = numbers(values)
    drawn = Noise(seed, population, (3,), dtype).uniform(step, len(expected))
    assert drawn.dtype == torch.float64
    assert drawn.tolist() == expected
    blocks = [word for i in (1, 2) for word in philox((seed, population), (i, 0, TOP, step))]
    assert drawn.tolist() == [(word >> 11) * 2.0**-53 for word in blocks][: len(expected)]
