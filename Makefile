# Two commands do everything on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
WORKERS ?= 2
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints/cpu.txt

.PHONY: demo test check-all lint clean

$(VENV)/.ready: pyproject.toml constraints/cpu.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) -e ".[cpu,test]"
	touch $@

demo: $(VENV)/.ready
	$(BIN)/embbench grid grids/demo.yaml --workers $(WORKERS) --out results/demo
	$(BIN)/embbench grid grids/demo_kang18.yaml --workers $(WORKERS) --out results/demo_kang18

lint: $(VENV)/.ready
	$(BIN)/ruff check embbench tests bench
	$(BIN)/ruff format --check embbench tests bench
	$(BIN)/mypy -p embbench.core -p embbench.cache -p embbench.grid -m embbench.registry

test: lint
	$(BIN)/python -m pytest -n 2 -m "not slow"

check-all: lint
	$(BIN)/python -m pytest -n 2

clean:
	rm -rf $(VENV) results .embbench dist build
