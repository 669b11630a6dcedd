PYTHON ?= python3
BIN := .venv/bin

.DEFAULT_GOAL := help
.PHONY: help demo fast test exhaustive coverage mutation lint docs examples tables catalogue wheel clean

help: ## Show this help
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-10s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

demo: .venv/.installed ## Make a first picture with the embedded model
	$(BIN)/rollflow generate "three cats to the left of two cars on grass background" --nfe 200 --seed 2 --compare

fast: .venv/.tested ## Run the tests that are neither slow nor need other processes
	$(BIN)/python -m pytest -n auto --dist worksteal -m "not slow and not subprocess and not exhaustive"

test: .venv/.tested ## Run all tests but the exhaustive ones, on all cores
	$(BIN)/python -m pytest -n auto --dist worksteal -m "not exhaustive"

exhaustive: .venv/.tested ## Run the long forms of tests that make test runs a smaller form of
	$(BIN)/python -m pytest -m exhaustive

coverage: .venv/.tested ## Run the tests and list the lines and branches that none of them reaches
	$(BIN)/python -m pytest -n auto --dist worksteal -m "not exhaustive" --cov

mutation: .venv/.tested ## Try the tests on mutants of the core (an hour; it resumes) and write their score
	$(BIN)/pip install --quiet -c constraints.txt -e ".[mutation]"
	OMP_NUM_THREADS=1 $(BIN)/python tools/mutation/mutate.py run
	$(BIN)/python tools/mutation/mutate.py report

lint: .venv/.tested ## Run ruff, mypy and the import contracts
	$(BIN)/ruff check src tests tools examples benchmarks
	$(BIN)/ruff format --check src tests tools examples benchmarks
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: .venv/.tested ## Build the documentation site into site/; a broken link is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build

examples: .venv/.tested ## Run every script and notebook in examples/
	@for script in examples/*.py; do echo "== $$script"; $(BIN)/python $$script || exit 1; done
	$(BIN)/python tools/run_notebooks.py

tables: .venv/.tested ## Write the tables of docs/results again from results/
	$(BIN)/python tools/tables.py

catalogue: .venv/.tested ## Write the list of choices that the package ships again, from its registries
	$(BIN)/python tools/catalogue.py

wheel: .venv/.installed ## Build the wheel, install it in an empty environment and run its demo
	$(BIN)/python tools/check_wheel.py

.venv/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet -c constraints.txt -e .
	touch $@

.venv/.tested: .venv/.installed
	$(BIN)/pip install --quiet -c constraints.txt -e ".[test,dev,docs]"
	touch $@

clean: ## Remove the environment and what was built
	rm -rf .venv site
