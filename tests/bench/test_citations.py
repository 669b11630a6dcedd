"""Citations of experiments."""

from __future__ import annotations

from typing import Any

import pytest

from rollflow.bench.suites.load import PUBLISHED
from rollflow.dynamics.grids import GRIDS
from rollflow.dynamics.guidance import GUIDANCE
from rollflow.dynamics.interpolants import INTERPOLANTS
from rollflow.dynamics.kernels import COEFFICIENTS, KERNELS
from rollflow.dynamics.lookahead import LOOKAHEADS
from rollflow.particles.resampling import Resampling
from rollflow.registry import Registry
from rollflow.report.citations import PAPER, bibliography, cited, documented, sources
from rollflow.rewards import REWARDS
from rollflow.search import SEARCHES, BestOfN
from rollflow.search.rbf.acceptance import ACCEPTANCES
from rollflow.search.rbf.quota import QUOTAS
from rollflow.search.smc.potentials import Potential
from rollflow.search.smc.tempering import Tempering

REGISTRIES = (SEARCHES, REWARDS, KERNELS, COEFFICIENTS, INTERPOLANTS, GRIDS, LOOKAHEADS, GUIDANCE, ACCEPTANCES, QUOTAS)
KINDS = [kind for registry in REGISTRIES for kind in registry.values()] + [
    kind for base in (Resampling, Potential, Tempering) for kind in Registry.of[base].values()
]


def config(*methods: str, **others: Any) -> dict[str, Any]:
    arms = [
        {"name": method, "method": method, "nfe": 200, "interpolant": "linear", "kernel": "sde"} for method in methods
    ]
    settings = {"model": "scenes-base", "reward": "count", "held_out": [], "suite": {"name": "own"}, "arms": arms}
    return settings | others


def keys(settings: dict[str, Any]) -> list[str]:
    """Return the keys of the entries in order."""
    names = {entry: key for key, entry in bibliography().items()}
    return [names[entry] for entry in cited(settings).bibtex]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_all_that_docstrings_name_is_in_the_bibliography(kind: type) -> None:
    assert sources(documented(kind)) <= set(bibliography())


def test_every_search_and_every_published_reward_has_its_sources() -> None:
    assert all(sources(documented(kind)) for kind in SEARCHES.values())
    published = [kind for kind in REWARDS.values() if kind.card and any(map(str.isdigit, kind.card.reference))]
    assert len(published) > 10
    assert [kind.name for kind in published if not sources(documented(kind))] == []
    assert all(sources(suite.source) <= set(bibliography()) for suite in PUBLISHED.values())


def test_entries_are_whole() -> None:
    for key, entry in bibliography().items():
        assert entry.count("{") == entry.count("}"), key
        assert all(f"\n  {field} = " in entry for field in ("title", "author", "year"))
        assert "cited" not in entry
    names = [entry.partition("{")[2].partition(",")[0] for entry in bibliography().values()]
    assert len(set(names)) == len(names)


def test_only_what_is_used_is_cited() -> None:
    assert keys(config())[0] == PAPER
    assert "2408.08252" in keys(config("svdd"))
    assert "2408.08252" not in keys(config("rbf", "bon"))
    assert {"2501.06848", "2501.05803"} <= set(keys(config("smc")))
    named = "Jasra, Stephens, Doucet & Tsagaris 2011"
    assert named in keys(config("smc(tempering=adaptive)"))
    assert named not in keys(config("smc"))
    judged = keys(config("rbf", reward="sum(parts=count;pickscore)", held_out=["aesthetic"]))
    assert {"2305.01569", "laion.ai/blog/laion-aesthetics"} <= set(judged)
    assert "2406.13743" in keys(config(suite={"name": "genai-bench"}))
    plain = {"name": "plain", "method": "svdd", "nfe": None}
    assert "2408.08252" not in keys(config(arms=[plain]))


def test_what_is_not_known_is_told() -> None:
    found = cited(config("rbf", "gone:Search"))
    assert len(found.unknown) == 1
    assert "gone:Search" in found.unknown[0]
    assert found.bibtex[0] == bibliography()[PAPER]


def test_a_source_of_a_plugin_is_cited_by_its_number_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    class Other(BestOfN):
        """As arXiv 9901.12345 has it."""

    monkeypatch.setitem(SEARCHES, "other", Other)
    [entry] = [entry for entry in cited(config("other")).bibtex if "9901.12345" in entry]
    assert "title" not in entry
