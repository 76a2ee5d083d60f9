# make demo    the main job on what ships        make test    the tests
# make check   ruff, types, generated docs       make bench   timings against rivals
# make test-arrays  those that ask the engine, as where there is no C compiler
# make bench-gpu  the engine on a CUDA GPU    make bench BENCH=--quick  a minute of it
# make reproduce PAPER=iclr2023 TABLE=rows.csv  a paper's numbers beside ours (REPRODUCE="--data CIFAR-FOLDER" for SNIP, GraSP)
# make fuzz    random cases, new ones each time, for FUZZ_SECONDS (600); make fuzz FUZZ="KIND SEED" repeats one
# make sanitize  the C part under ASan and UBSan: its tests, then random cases for FUZZ_SECONDS
# make planted  faults put into a copy of the package one by one, and which test finds each
# make docs    the pages' outputs and pictures anew     make site     docs/ as a site, in build/site
# Each makes .venv and installs what it needs first, once.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

# On every core, which memory allows for eight: a worker takes up to a gigabyte.
PYTEST := PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest --numprocesses logical --maxprocesses 8 --dist worksteal
# Not those that compare with processes of their own, which have the compiled part all the same.
ASK_THE_ENGINE := analysis analyze_between between bipartite construct metrics power ranking \
	report sampling singular store streaming study

FUZZ_SECONDS ?= 600

.PHONY: demo test test-arrays fuzz sanitize planted check bench bench-gpu reproduce docs site samples clean

demo: $(VENV)/.demo
	PAI="$(CURDIR)/$(BIN)/pai" scripts/demo.sh

test: $(VENV)/.test
	$(PYTEST)

test-arrays: $(VENV)/.test
	$(PYTEST) --engine arrays $(addprefix tests/test_,$(addsuffix .py,$(ASK_THE_ENGINE)))

fuzz: $(VENV)/.test
	FUZZ_SECONDS=$(FUZZ_SECONDS) $(BIN)/python tests/fuzz $(FUZZ)

sanitize: $(VENV)/.test
	PYTHON="$(CURDIR)/$(BIN)/python" FUZZ_SECONDS=$(FUZZ_SECONDS) scripts/sanitize.sh

planted: $(VENV)/.test
	$(BIN)/python tests/planted.py

check: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python docs/generate.py --check
	$(BIN)/python docs/session.py --check README.md docs/tour.md

bench: $(VENV)/.test
	$(BIN)/python benchmarks/spectral.py $(BENCH)
	$(BIN)/python benchmarks/instructions.py $(BENCH)
	$(BIN)/python benchmarks/large.py $(BENCH)
	$(BIN)/python benchmarks/costs.py $(BENCH)
	$(BIN)/python benchmarks/streaming.py $(BENCH)
	$(BIN)/python benchmarks/errors.py $(BENCH)
	$(BIN)/python benchmarks/methods.py $(BENCH)
	$(BIN)/python benchmarks/study.py $(BENCH)
	$(BIN)/python benchmarks/profile_engine.py
	$(BIN)/python benchmarks/lapack.py
	$(BIN)/python benchmarks/training.py $(BENCH)
	$(BIN)/python benchmarks/sampling.py $(BENCH)
	$(BIN)/python benchmarks/mining.py $(BENCH)

bench-gpu: $(VENV)/.test
	$(BIN)/python benchmarks/gpu.py $(BENCH)

reproduce: $(VENV)/.test
	$(BIN)/python benchmarks/reproduce.py $(or $(PAPER),iclr2023) "$(TABLE)" $(REPRODUCE)

docs: $(VENV)/.test
	$(BIN)/python docs/generate.py
	$(BIN)/python docs/session.py
	$(BIN)/python docs/snippets.py
	$(BIN)/python docs/notebook.py

site: $(VENV)/.docs
	$(BIN)/zensical build --clean --strict
	@echo "build/site/index.html is the first page; with its search: $(BIN)/python -m http.server -b 127.0.0.1 -d build/site"

samples: $(VENV)/.demo
	PAI="$(CURDIR)/$(BIN)/pai" sample_masks/remake.sh

clean:
	rm -rf $(VENV) demo build .cache *.egg-info

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "pai needs Python 3.11 or newer; make PYTHON=/path/to/python3.11 ...")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: $(BIN)/python pyproject.toml constraints.txt
	$(INSTALL) -e .
	touch $@

$(VENV)/.test: $(BIN)/python pyproject.toml constraints.txt
	$(INSTALL) -e '.[test]'
	touch $@ $(VENV)/.demo

$(VENV)/.dev: $(BIN)/python pyproject.toml constraints.txt
	$(INSTALL) -e '.[dev]'
	touch $@ $(VENV)/.test $(VENV)/.demo

$(VENV)/.docs: $(BIN)/python pyproject.toml constraints.txt
	$(INSTALL) -e '.[docs]'
	touch $@ $(VENV)/.demo
