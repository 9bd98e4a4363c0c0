# Two commands do everything on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
WORKERS ?= 2
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints/cpu.txt

# What official packages return for tiny checkpoints (tests/oracles/README.md): one environment per package.
ORACLES := scgpt scprint transcriptformer geneformer cell_eval scperturb pertpy geomloss scanpy sklearn_scipy ro_crate cell_load
ORACLE_scgpt := torch numpy "pandas<3" scipy anndata==0.12.19 scanpy==1.11.5 matplotlib seaborn scikit-learn tqdm numba \
	ipython networkx statsmodels
ORACLE_scprint := torch numpy "pandas<3" scipy anndata scanpy scikit-learn lightning==2.6.6 torchmetrics einops \
	huggingface_hub ipython
ORACLE_transcriptformer := torch numpy "pandas<3" scipy anndata==0.12.19 scanpy h5py psutil pytorch_lightning==2.6.6 \
	omegaconf hydra-core
ORACLE_geneformer := torch numpy transformers==5.23.0 safetensors
# What the field's packages give for the metrics of three small real cases.
ORACLE_cell_eval := cell-eval==0.8.2 pdex==0.3.0 numba-mwu==0.2.0 polars==2.1.0 anndata==0.12.19 scanpy==1.11.5 \
	scikit-learn==1.9.1 scipy==1.17.1 numpy==2.4.6
ORACLE_scperturb := scperturb==0.1.0 anndata==0.12.19 scanpy==1.11.5 scikit-learn==1.9.1 numpy==2.4.6
ORACLE_pertpy := pertpy==1.0.3 filelock statsmodels==0.14.6 scikit-learn==1.9.1 scipy==1.17.1 numpy==2.4.6
ORACLE_geomloss := torch numpy==2.4.6 scipy==1.17.1 h5py geomloss==0.3.1
ORACLE_scanpy := scanpy==1.11.5 anndata==0.12.19 scipy==1.17.1 numpy==2.4.6
ORACLE_cell_load := cell-load==0.10.4 anndata==0.12.19
# What the field's validator says of a crate, and the workflow engine that runs an exported grid.
ORACLE_ro_crate := roc-validator==0.13.0 rocrate==0.16.0 snakemake==9.27.1
ORACLE_sklearn_scipy := scikit-learn==1.9.1 scipy==1.17.1 numpy==2.4.6 h5py
BARE_scgpt := scgpt==0.2.4
BARE_scprint := scprint==2.3.8 simpler-flash==1.0.7
BARE_transcriptformer := transcriptformer==0.6.1

.PHONY: demo test check-all lint clean oracles oracles/cell_eval_export $(ORACLES:%=oracles/%)

$(VENV)/.ready: pyproject.toml constraints/cpu.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) -e ".[cpu,test]"
	touch $@

demo: $(VENV)/.ready
	$(BIN)/embbench grid grids/demo.yaml --workers $(WORKERS) --out results/demo
	$(BIN)/embbench grid grids/demo_kang18.yaml --workers $(WORKERS) --out results/demo_kang18
	$(BIN)/embbench report results/demo --html results/demo/report.html >/dev/null

lint: $(VENV)/.ready
	$(BIN)/ruff check embbench tests bench
	$(BIN)/ruff format --check embbench tests bench
	$(BIN)/mypy -p embbench.core -p embbench.cache -p embbench.grid -m embbench.registry

test: lint
	$(BIN)/python -m pytest -n 2 -m "not slow"

check-all: lint
	$(BIN)/python -m pytest -n 2

oracles: $(ORACLES:%=oracles/%) oracles/cell_eval_export

.oracles/%/.ready: constraints/cpu.txt tests/oracles/%_official.py
	test -x .oracles/$*/bin/python || $(PYTHON) -m venv .oracles/$*
	.oracles/$*/bin/python -m pip install --quiet -c constraints/cpu.txt $(ORACLE_$*)
	$(if $(BARE_$*),.oracles/$*/bin/python -m pip install --quiet -c constraints/cpu.txt --no-deps $(BARE_$*))
	touch $@

$(ORACLES:%=oracles/%): oracles/%: .oracles/%/.ready
	OMP_NUM_THREADS=1 PYTHONPATH=tests .oracles/$*/bin/python -W ignore -m oracles.$*_official

oracles/cell_eval_export: $(VENV)/.ready .oracles/cell_eval/.ready
	OMP_NUM_THREADS=1 PYTHONPATH=tests $(BIN)/python -m oracles.cell_eval_export_official pairs .oracles/pairs
	OMP_NUM_THREADS=1 PYTHONPATH=tests .oracles/cell_eval/bin/python -W ignore -m oracles.cell_eval_export_official score .oracles/pairs

oracles/sklearn_scipy: oracles/cell_eval  # its loops read cell-eval's DE table

clean:
	rm -rf $(VENV) .oracles results .embbench dist build
