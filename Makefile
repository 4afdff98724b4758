# Every target first makes .venv (vLLM's CPU build, pinned): that takes minutes once, and no time after.
# `make PYTHON=python3.12 test` chooses the Python. On a GPU machine, run `pip install '.[gpu]'` instead.

PYTHON ?= python3
BIN := .venv/bin
PACKAGES := run_batch.jobs run_batch.model run_batch.io

.PHONY: help setup demo test models slurm-test faults bench ray-setup ray-test docs-setup docs browser-setup browser-test lint

help:
	@echo 'make demo    run a small job from start to end and show what came out'
	@echo 'make test    lint, then all tests'
	@echo 'make models  eleven families of vision models that vLLM ships, against vLLM itself; some minutes'
	@echo 'make slurm-test  arrays, requeues and dead nodes on a Slurm of its own; as root, it installs that'
	@echo 'make ray-test  Ray and Kubernetes: a cluster of several nodes, one of which dies'
	@echo 'make browser-test  the page of run-batch report in a headless Chromium'
	@echo 'make docs    the site of docs/, in site/; links, Dockerfile and workflows are checked'
	@echo 'make faults  kills, dying engines, bad rows and full disks by the hundred; about an hour'
	@echo 'make bench   run-batch and its peers side by side; an hour, on a machine that does nothing else'
	@echo 'make lint    ruff and mypy'
	@echo 'make setup   only make .venv'

setup:
	@$(PYTHON) scripts/setup.py

demo: setup
	@rm -rf results/demo
	@$(BIN)/run-batch --config configs/demo.toml
	@$(BIN)/python scripts/show_demo.py

test: setup lint
	@$(BIN)/python -m pytest

# `make test` generates with three of these families.
models: setup
	@$(BIN)/python -m pytest tests/engine/test_built_in_models.py -m 'long or not long'

# Debian's slurm-wlm and munge, several nodes on this machine, all in a temporary folder; `-m 'long or not long'` for more.
slurm-test: setup
	@$(BIN)/python -m pytest tests/slurm

# `make test` has the short form of these.
faults: setup
	@$(BIN)/python -m pytest tests/faults -s -m 'long or not long'

# Of single workloads or systems: .venv/bin/python scripts/bench/run.py --help
bench: setup
	@$(BIN)/python scripts/bench/run.py --plot
	@$(BIN)/python scripts/bench/mapping.py
	@$(BIN)/python scripts/bench/equal_images.py
	@$(BIN)/python scripts/bench/videos.py
	@$(BIN)/python scripts/bench/overlap.py
	@$(BIN)/python scripts/bench/limits.py
	@$(BIN)/python scripts/bench/reading.py
	@$(BIN)/python scripts/bench/journal.py
	@$(BIN)/python scripts/bench/scaling.py
	@$(BIN)/python scripts/bench/engines.py

# Ray and the schemas of Kubernetes, in an environment of its own beside .venv: nothing else needs them.
ray-setup: setup
	@$(BIN)/python -m venv .bench/ray
	@echo "import site; site.addsitedir('$(CURDIR)/$$(ls -d .venv/lib/python3*/site-packages)')" \
		> $$(ls -d .bench/ray/lib/python3*/site-packages)/venv.pth
	@.bench/ray/bin/pip install --quiet 'ray[data,serve]==2.60.*' 'kubernetes-validate==1.37.*'

# Several nodes of Ray on this machine, one of which dies, and the pods of configs/kubernetes.
ray-test: ray-setup
	@$(BIN)/python -m pytest tests/schedulers

# The packages of an extra of pyproject.toml, in an environment beside .venv that sees .venv, too: nothing else needs them.
define beside
	@$(BIN)/python -m venv .bench/$(1)
	@echo "import site; site.addsitedir('$(CURDIR)/$$(ls -d .venv/lib/python3*/site-packages)')" \
		> $$(ls -d .bench/$(1)/lib/python3*/site-packages)/venv.pth
	@$(BIN)/python -c "import tomllib; print(*tomllib.load(open('pyproject.toml', 'rb'))['project']['optional-dependencies']['$(1)'])" \
		| xargs .bench/$(1)/bin/python -m pip install --quiet --disable-pip-version-check
endef

docs-setup: setup
	$(call beside,docs)

docs: docs-setup
	@NO_MKDOCS_2_WARNING=1 .bench/docs/bin/python -m mkdocs build --quiet
	@$(BIN)/python -m pytest -q tests/unit/test_docs.py tests/unit/test_workflows.py

# Debian's chromium and chromium-driver; as root, it installs them.
browser-setup: setup
	$(call beside,browser)
	@command -v chromedriver > /dev/null || { apt-get update -q && apt-get install -qy chromium chromium-driver; } > /dev/null

browser-test: browser-setup
	@.bench/browser/bin/python -m pytest tests/browser

# mypy cannot follow the editable install, and started here it would take io/ for the standard library's: so it is started
# next to a link that shows it the packages under their names.
lint: setup
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@mkdir -p .typecheck && ln -sfn .. .typecheck/run_batch
	@cd .typecheck && ../$(BIN)/python -m mypy --config-file ../pyproject.toml \
		--namespace-packages --explicit-package-bases $(PACKAGES:%=-p %)
