# Everything runs in .venv, which `make` creates from constraints.txt at first use.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
TORCH := $(shell sed -n 's/^\(torch==.*\)/\1/p' constraints.txt)

.PHONY: demo test chaos fuzz lint types serve bench bench-peers bench-scale bench-load contract settings clean
.DEFAULT_GOAL := demo

demo: .venv/ready  ## start everything on this machine, sweep the digits network, show the decision
	$(BIN)/python examples/demo.py

# Two processes of torch with a thread for each core wait for each other: one test took 106 s so, and 12 s with one thread.
test: .venv/ready  ## all tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder --durations=10

FUZZ_EXAMPLES ?= 5000
fuzz: .venv/ready  ## every parser on damaged files, FUZZ_EXAMPLES of each
	OMP_NUM_THREADS=1 FUZZ_EXAMPLES=$(FUZZ_EXAMPLES) $(BIN)/python -m pytest -n 2 tests/hostile/test_fuzz.py

CHAOS_RUNS ?= 8
CHAOS_MINUTES ?= 25
chaos: .venv/ready  ## faults at random moments on both set-ups; prints what was lost. No run begins after CHAOS_MINUTES
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.chaos --runs $(CHAOS_RUNS) --minutes $(CHAOS_MINUTES)

lint: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: .venv/ready
	$(BIN)/mypy

serve: .venv/ready  ## the API, one worker and the broker, until Ctrl-C
	$(BIN)/quantsieve serve

bench: .venv/ready  ## the engines beside the naive loop, ratios measured in one run
	$(BIN)/python -m benchmarks.methods
	$(BIN)/python -m benchmarks.engine
	$(BIN)/python -m benchmarks.memory
	$(BIN)/python -m benchmarks.probe
	$(BIN)/python -m benchmarks.calibration

bench-peers: .venv/ready  ## other tools' sweeps beside ours on one network; makes an environment for each (7 GB in all)
	$(BIN)/python -m benchmarks.peers

contract: .venv/ready  ## thousands of requests made from the OpenAPI document
	CONTRACT_CASES=400 $(BIN)/python -m pytest tests/service/api/test_contract.py

bench-scale: .venv/ready  ## workers on PostgreSQL and valkey, what a shard costs them, and a model of many (5 minutes)
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.scaling

bench-load: .venv/ready  ## the API with 200 clients at once that submit, poll and listen (3 minutes)
	$(BIN)/python -m benchmarks.load

settings: .venv/ready  ## write docs/settings.md anew
	$(BIN)/python -m service.settings_reference > docs/settings.md

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis build dist quantsieve-out

# torch comes first: asked for by its exact version, pip takes the CPU build where the machine's index offers one.
.venv/ready: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11), "Python 3.11 or newer is needed"'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet $(TORCH)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@
.PHONY: .venv
.venv: .venv/ready
