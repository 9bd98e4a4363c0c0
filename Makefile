# Two commands do everything on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
WORKERS ?= 2
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints/cpu.txt

# What official packages return for tiny checkpoints (tests/oracles/README.md): one environment per package.
ORACLES := scgpt scprint transcriptformer geneformer
ORACLE_scgpt := torch numpy "pandas<3" scipy anndata==0.12.19 scanpy==1.11.5 matplotlib seaborn scikit-learn tqdm numba \
	ipython networkx statsmodels
ORACLE_scprint := torch numpy "pandas<3" scipy anndata scanpy scikit-learn lightning==2.6.6 torchmetrics einops \
	huggingface_hub ipython
ORACLE_transcriptformer := torch numpy "pandas<3" scipy anndata==0.12.19 scanpy h5py psutil pytorch_lightning==2.6.6 \
	omegaconf hydra-core
ORACLE_geneformer := torch numpy transformers==5.23.0 safetensors
BARE_scgpt := scgpt==0.2.4
BARE_scprint := scprint==2.3.8 simpler-flash==1.0.7
BARE_transcriptformer := transcriptformer==0.6.1

.PHONY: demo test check-all lint clean oracles $(ORACLES:%=oracles/%)

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

oracles: $(ORACLES:%=oracles/%)

.oracles/%/.ready: constraints/cpu.txt tests/oracles/%_official.py
	test -x .oracles/$*/bin/python || $(PYTHON) -m venv .oracles/$*
	.oracles/$*/bin/python -m pip install --quiet -c constraints/cpu.txt $(ORACLE_$*)
	$(if $(BARE_$*),.oracles/$*/bin/python -m pip install --quiet -c constraints/cpu.txt --no-deps $(BARE_$*))
	touch $@

$(ORACLES:%=oracles/%): oracles/%: .oracles/%/.ready
	OMP_NUM_THREADS=1 PYTHONPATH=tests .oracles/$*/bin/python -W ignore -m oracles.$*_official

clean:
	rm -rf $(VENV) .oracles results .embbench dist build
