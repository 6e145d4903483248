# Every target sets itself up: on a fresh machine `make demo` and `make test` are all there is to type.

PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

.PHONY: setup demo test test-slow test-gpu check bench tutorial faults

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("python3 is %d.%d; FedPhantom needs 3.11 or newer (make PYTHON=...)" % sys.version_info[:2] if sys.version_info < (3, 11) else 0)'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	# mypy cannot follow the import hook of an editable install; it finds the package through this link.
	mkdir -p .venv/types && ln -sfn ../.. .venv/types/fedphantom
	touch $(READY)

demo: $(READY)
	$(BIN)/fedphantom demo --out demo-out

test: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not slow and not long and not gpu" --numprocesses 2 --dist loadfile --no-loadscope-reorder

# The whole demo, the README's chain, Flower's real processes, killed and resumed.
test-slow: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "(slow or long) and not gpu" --numprocesses 2 --dist loadfile --no-loadscope-reorder

# What runs otherwise on a CUDA device, where there is one.
test-gpu: $(READY)
	$(BIN)/python -m pytest -m gpu

check: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	cd benchmarks && MYPYPATH=.:../tests/fakes ../$(BIN)/mypy --follow-imports silent --config-file ../pyproject.toml $(patsubst benchmarks/%.py,-m %,$(wildcard benchmarks/*.py))
	$(BIN)/lint-imports
	$(BIN)/python -m pytest tests/test_documentation.py tests/test_packaging.py

# docs/tutorial.md, typed in network namespaces of this machine; needs root, iproute2 and nginx.
tutorial: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python tests/fakes/tutorial.py

# The same, with twenty processes killed at random moments; half an hour.
faults: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python tests/fakes/faults.py

bench: $(READY)
	$(BIN)/python benchmarks/run.py
