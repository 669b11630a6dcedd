"""The modules of the core, and the tests that must kill the mutants of each."""

from __future__ import annotations

_KERNELS = "tests/dynamics/kernels"
_DEFAULTS = "tests/dynamics/test_defaults_of_dynamics.py"
_SEARCHES = "tests/search/test_defaults_of_searches.py"
_RESUMING = "tests/search/test_resuming.py"
_GUIDED = "tests/search/test_guided_requests.py"
_ODD = "tests/search/test_odd_searches.py"
_ACCOUNT = "tests/search/test_account.py"
_EDGES = "tests/dynamics/test_edges_of_paths.py"
_PACKAGE = "src/rollflow"

CORE: dict[str, list[str]] = {
    f"{_PACKAGE}/{module}.py": tests
    for module, tests in {
        "dynamics/interpolants": ["tests/dynamics/test_interpolants.py", "tests/dynamics/test_conversions.py", _EDGES],
        "dynamics/conversions": ["tests/dynamics/test_conversions.py", _EDGES],
        "dynamics/grids": ["tests/dynamics/test_grids.py", _DEFAULTS],
        "dynamics/lookahead": ["tests/test_sampler.py", _DEFAULTS],
        "dynamics/guidance": ["tests/dynamics/test_guidance.py"],
        "dynamics/kernels/__init__": [_DEFAULTS],
        "dynamics/kernels/base": [f"{_KERNELS}/test_every_kernel.py"],
        "dynamics/kernels/ode": [f"{_KERNELS}/test_ode_kernels.py", _DEFAULTS],
        "dynamics/kernels/sde": [f"{_KERNELS}/test_sde_kernels.py", _DEFAULTS],
        "dynamics/kernels/rising": [f"{_KERNELS}/test_sde_kernels.py", _DEFAULTS],
        "dynamics/kernels/preserving": [f"{_KERNELS}/test_preserving_kernels.py", _DEFAULTS],
        "dynamics/kernels/glass": [f"{_KERNELS}/test_glass.py", _DEFAULTS],
        "particles/rng": ["tests/particles"],
        "particles/weights": ["tests/particles/test_weights.py"],
        "particles/resampling": ["tests/particles/test_resampling.py", "tests/particles/test_edges.py"],
        "sampler": ["tests/test_sampler.py", "tests/test_sampler_bounds.py", _ODD],
        "requests": ["tests/test_requests.py", "tests/test_requests_of_rows.py", _ODD],
        "engine/final_choice": ["tests/engine/test_final_choice.py"],
        "engine/pool": ["tests/engine/test_pool.py"],
        "engine/meter": ["tests/engine/test_meter.py", "tests/engine/test_caps.py"],
        "engine/scheduler": ["tests/engine/test_scheduler.py"],
        "search/__init__": [_SEARCHES, _RESUMING, _ODD],
        "search/base": [_ACCOUNT, "tests/search/test_cost.py", _RESUMING, _SEARCHES, _ODD],
        "search/propagator": ["tests/search/test_propagator.py", _RESUMING, _ODD],
        "search/streams": ["tests/search/test_streams.py", "tests/search/test_dead_streams.py"],
        "search/cost": ["tests/search/test_cost.py", _ACCOUNT, _ODD],
        "search/rehearsal": ["tests/search/test_cost.py", _ACCOUNT, _ODD],
        "search/best_of_n": ["tests/search/test_best_of_n.py", _RESUMING, _GUIDED],
        "search/code": ["tests/search/test_code.py", _RESUMING, _GUIDED, _SEARCHES],
        "search/paths": ["tests/search/test_paths.py", _RESUMING, _GUIDED, _SEARCHES],
        "search/bfs": ["tests/search/test_bfs.py"],
        "search/demon/demon": ["tests/search/test_demon.py", _SEARCHES],
        "search/demon/weights": ["tests/search/test_demon.py"],
        "search/dfs": ["tests/search/test_dfs.py", _SEARCHES],
        "search/epsilon_greedy": ["tests/search/test_epsilon_greedy.py", _SEARCHES],
        "search/halving": ["tests/search/test_halving.py", "tests/search/test_halving_design.py", _SEARCHES],
        "search/halving_design": ["tests/search/test_halving_design.py"],
        "search/neighbours": ["tests/search/test_neighbours.py"],
        "search/rungs": ["tests/search/test_halving.py", "tests/search/test_halving_design.py"],
        "search/threshold": ["tests/search/test_threshold.py", _SEARCHES],
        "search/thresholds": ["tests/search/test_threshold.py", "tests/search/test_dfs.py", _SEARCHES],
        "search/zero_order": ["tests/search/test_zero_order.py", _SEARCHES],
        "rewards/pessimism": ["tests/rewards/test_augmented.py"],
        "rewards/poisson_binomial": ["tests/rewards/test_poisson_binomial.py"],
        "search/profile": ["tests/search/test_profile.py"],
        "search/design": ["tests/search/test_design.py"],
        "search/keeping": ["tests/search/test_paths.py"],
        "search/published": ["tests/search/test_published.py"],
        "search/svdd": ["tests/search/test_svdd.py", _RESUMING, _GUIDED, _SEARCHES],
        "search/rbf/acceptance": ["tests/search/test_acceptance.py", "tests/search/test_rollover_budget.py", _SEARCHES],
        "search/rbf/quota": ["tests/search/test_quota.py", "tests/search/test_rollover_budget.py", _SEARCHES],
        "search/rbf/rollover_budget": ["tests/search/test_rollover_budget.py", _RESUMING, _GUIDED, _SEARCHES],
        "search/smc/potentials": ["tests/search/test_potentials.py", _SEARCHES],
        "search/smc/smc": ["tests/search/test_smc_edges.py", "tests/search/test_smc.py", _RESUMING, _GUIDED, _SEARCHES],
        "search/smc/tempering": ["tests/search/test_potentials.py", "tests/search/test_smc.py", _SEARCHES],
        "search/smc/weighing": [
            "tests/search/test_weighing.py",
            "tests/search/test_smc.py",
            "tests/search/test_potentials.py",
            _SEARCHES,
        ],
    }.items()
}
"""Tests by module, in the order in which the modules are run."""
