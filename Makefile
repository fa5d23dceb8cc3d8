# raysoft: everything happens in .venv next to this file; system packages are never touched.
#
#   make demo                                    the main job: about five minutes including installation
#   make demo PYTHON=/path/to/python3.12         with a Python of your choice
#   make demo TORCH_INDEX=https://download.pytorch.org/whl/cpu
#                                                the CPU build of PyTorch (Linux; saves about 2 GB where no GPU is)

SHELL := bash
.DEFAULT_GOAL := help
.PHONY: help demo setup setup-dev docs test test-cpus test-slow lint bench study study-fresh study-short clean

comma := ,
PYTHON ?=
TORCH_INDEX ?=

CANDIDATES := python3.13 python3.12 python3.11 python3.14 python3 python
CHECK := import sys; print(sys.version_info >= (3, 11))
PIP := PYTHONUNBUFFERED=1 PIP_DISABLE_PIP_VERSION_CHECK=1 .venv/bin/python -m pip install --progress-bar off \
	$(if $(TORCH_INDEX),--extra-index-url "$(TORCH_INDEX)") -c constraints.txt
# pip says a lot and its quiet mode looks like a hang: keep a log, show the milestones, and on failure the log's end.
MILESTONES := awk '/^Collecting|^Requirement already/ { n++; if (n % 40 == 0) print "  looked at " n " packages" } \
	/Downloading .*MB\)/ { s = $$NF == "MB)" ? $$(NF-1) : ""; sub(/\(/, "", s); if (s + 0 > 30) print "  downloading " $$2 " (" s " MB)" } \
	/^Installing collected/ { print "  unpacking " (NF - 3) " package(s)" (NF > 50 ? ", the longest part" : "") } { fflush() }'
install = set -o pipefail; echo "Installing $(2) into .venv (log: .venv/install.log) ..."; \
	$(PIP) -e '$(1)' 2>&1 | tee .venv/install.log | $(MILESTONES) \
	|| { echo; tail -n 20 .venv/install.log; echo; \
	echo "The installation failed; the lines above are pip's own (all of them: .venv/install.log)." >&2; exit 1; }

help:  ## show this list
	@echo "make TARGET, where TARGET is one of"
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-12s %s\n", $$1, $$2 }' Makefile
	@echo "Variables: PYTHON=python3.12 (which Python makes .venv),"
	@echo "  TORCH_INDEX=https://download.pytorch.org/whl/cpu (PyTorch without CUDA: a much smaller download on Linux)"

demo: .venv/.installed  ## fine-tune on handwritten digits over a simulated radio link, with a report at the end
	@.venv/bin/raysoft run soft --name demo --overwrite
	@echo; echo "Open the report: outputs/demo/report.html"

setup: .venv/.installed  ## make .venv and install raysoft into it
	@echo "Ready: .venv/bin/raysoft --help"

setup-dev: .venv/.installed-dev  ## the same with everything that tests and lint need

docs: .venv/.installed-dev  ## the documentation site into build/docs, without a network
	@NO_MKDOCS_2_WARNING=1 .venv/bin/python -m mkdocs build --strict --quiet
	@echo "Open build/docs/index.html"

# Tests in two processes, a file at a time, in the order given: long files first, so that both end at about the same time.
BESIDE := -n 2 --dist loadfile --no-loadscope-reorder

test: .venv/.installed-dev  ## the tests, about fourteen minutes on two cores
	@# What starts Ray or reads a clock is marked `alone`. Both groups run whatever becomes of the first.
	@failed=""; \
	.venv/bin/python -m pytest -m "not slow and not alone" $(BESIDE) tests/e2e tests/unit || failed="two at a time"; \
	.venv/bin/python -m pytest -m "not slow and alone" tests/e2e tests/ray || failed="$${failed:+$$failed, }alone"; \
	if [ -n "$$failed" ]; then echo "failed: $$failed" >&2; exit 1; fi

test-cpus: .venv/.installed-dev  ## the numerical tests under other instruction sets, three to four minutes each
	.venv/bin/python -m tests.cpus

test-slow: .venv/.installed-dev  ## the long tests
	@# Most are whole runs in one process, so two at once; those marked `alone` have cores, clusters and clocks to themselves.
	@failed=""; \
	.venv/bin/python -m pytest -m "slow and not alone" -n 2 --dist worksteal || failed="two at a time"; \
	.venv/bin/python -m pytest -m "slow and alone" || failed="$${failed:+$$failed, }alone"; \
	if [ -n "$$failed" ]; then echo "failed: $$failed" >&2; exit 1; fi

lint: .venv/.installed-dev  ## style, formatting, types, import rules, examples in docstrings
	.venv/bin/python -m ruff check .
	.venv/bin/python -m ruff format --check .
	.venv/bin/python -m mypy
	.venv/bin/lint-imports
	.venv/bin/python -m pytest -q --doctest-modules raysoft

bench: .venv/.installed  ## measure speed: packed training against a plain loop, and the parts of a round
	@set -e; shopt -s nullglob; scripts=(benchmarks/[a-z]*.py); \
	[ $${#scripts[@]} -gt 0 ] || { echo "no scripts in benchmarks/" >&2; exit 1; }; \
	for script in "$${scripts[@]}"; do echo "== $$script"; .venv/bin/python "$$script"; done

study: .venv/.installed  ## the whole study into outputs/study, from the runs that are published with it: minutes
	.venv/bin/python studies/study.py --published

study-fresh: .venv/.installed  ## the whole study without the published runs: about twelve hours on two cores, resumable
	.venv/bin/python studies/study.py --out outputs/study-fresh

study-short: .venv/.installed  ## every experiment of the study with a few rounds of few clients: minutes
	.venv/bin/python studies/study.py --short --out outputs/study-short

clean:  ## remove .venv and caches; outputs/ stays
	rm -rf .venv build dist .pytest_cache .ruff_cache .mypy_cache .hypothesis .import_linter_cache raysoft.egg-info
	find . -name __pycache__ -type d -not -path './outputs/*' -prune -exec rm -rf {} +

.venv/bin/python:
	@good=""; new=""; \
	for name in "$(PYTHON)" $(if $(PYTHON),,$(CANDIDATES)); do \
		[ -n "$$name" ] && [ "$$("$$name" -c '$(CHECK)' 2>/dev/null)" = True ] || continue; \
		new="$${new:-$$name}"; \
		if "$$name" -c 'import venv, ensurepip' 2>/dev/null; then good="$$name"; break; fi; done; \
	if [ -z "$$new" ]; then \
		echo "raysoft needs Python 3.11 or newer, and $(if $(PYTHON),$(PYTHON) is not one,none was found)." >&2; \
		echo "Install one (python.org, your package manager, or uv python install 3.12) and run" >&2; \
		echo "  make $(or $(MAKECMDGOALS),setup) PYTHON=/path/to/python3.12" >&2; exit 1; fi; \
	if [ -z "$$good" ]; then \
		echo "$$new cannot make virtual environments: its venv or ensurepip module is missing." >&2; \
		echo "On Debian or Ubuntu: sudo apt install python3-venv. Or choose another Python: make PYTHON=..." >&2; \
		exit 1; fi; \
	echo "Making .venv with $$("$$good" --version)"; \
	"$$good" -m venv --clear .venv

.venv/.installed: pyproject.toml constraints.txt | .venv/bin/python
	@if [ -z "$(TORCH_INDEX)" ] && [ "$$(uname -s)" = Linux ] && ! command -v nvidia-smi >/dev/null 2>&1 \
		&& ! .venv/bin/python -c 'import torch' 2>/dev/null; then \
		echo "No NVIDIA GPU here? PyTorch without CUDA is a much smaller download:"; \
		echo "  make $(or $(MAKECMDGOALS),setup) TORCH_INDEX=https://download.pytorch.org/whl/cpu"; fi
	@$(call install,.,raysoft)
	@touch .venv/.installed

.venv/.installed-dev: pyproject.toml constraints.txt .venv/.installed | .venv/bin/python
	@$(call install,.[dev$(comma)docs],raysoft and its development tools)
	@touch .venv/.installed-dev
