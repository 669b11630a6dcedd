PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test lint clean

demo: .venv/.installed
	$(BIN)/rollflow generate "three cats to the left of two cars on grass background" --method rbf --nfe 200 --seed 2 --compare

test: .venv/.tested
	$(BIN)/python -m pytest -n auto --dist worksteal

lint: .venv/.tested
	$(BIN)/ruff check src tests tools
	$(BIN)/ruff format --check src tests tools
	$(BIN)/mypy
	$(BIN)/lint-imports

.venv/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet -c constraints.txt -e .
	touch $@

.venv/.tested: .venv/.installed
	$(BIN)/pip install --quiet -c constraints.txt -e ".[test,dev]"
	touch $@

clean:
	rm -rf .venv
