VENV ?= .venv
PYTHON ?= python3
RUN = $(VENV)/bin/
TO_RUN = $(VENV)/.installed
TO_DEVELOP = $(VENV)/.installed-dev
FREQTRADE = .venv-freqtrade
INSTALL = $(RUN)python -m pip install --quiet --disable-pip-version-check -c constraints.txt
DEMO = data=synthetic data.synthetic.planted=momentum data.representation=returns model=kronos-tiny
SERVED = outputs/models/finetune_predictor_synthetic

.DEFAULT_GOAL := help
.PHONY: help demo serve live fuzz wheels parity test lint format docs bench bench-growth bench-gpu tensorboard clean hooks

help:  ## This list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

demo: $(TO_RUN)  ## Fine-tune, forecast and backtest on synthetic candles, a few minutes on two cores
	$(RUN)python train.py -m stage=tokenizer,predictor $(DEMO) trainer=cpu stage.learning_rate=3e-3 stage.max_epochs=2
	$(RUN)python evaluate.py $(DEMO) evaluation.max_cutoffs=240
	@echo "Open outputs/backtest_results/synthetic/report.html"

serve: $(TO_RUN)  ## Serve the demo's model with its dashboard on http://127.0.0.1:8000
	$(INSTALL) -e '.[serve]'
	$(RUN)python -m kronos_lightning.serve checkpoint=$(SERVED) report=outputs/backtest_results/synthetic

live: $(TO_RUN)  ## Replay the demo's candles as if they closed now, with the dashboard on http://127.0.0.1:8000
	$(INSTALL) -e '.[serve]'
	$(RUN)python -m kronos_lightning.serve checkpoint=$(SERVED) report=outputs/backtest_results/synthetic live=replay

wheels: $(TO_RUN)  ## Wheels of the service for deploy/Dockerfile
	$(RUN)python -m pip wheel --quiet -c constraints.txt --wheel-dir deploy/wheels '.[serve]'
	@$(RUN)python -c "import sys; print('For Python %d.%d: set PYTHON=%d.%d for docker compose' % (sys.version_info[:2] * 2))"

fuzz: $(TO_DEVELOP)  ## Send the service some thousand unusual requests, some minutes
	FUZZ_CASES=150 FUZZ_BODIES=2000 $(RUN)python -m pytest -n 0 tests/serve/test_fuzz.py

parity: $(TO_DEVELOP) $(FREQTRADE)/.installed  ## Our backtest beside the real freqtrade; candles=CSV, report=DIR
	$(RUN)python -m tests.helpers.freqtrade $(if $(candles),candles=$(candles)) $(if $(report),report=$(report))

test: $(TO_DEVELOP)  ## All tests
	$(RUN)python -m pytest

lint: $(TO_DEVELOP)  ## Check style, spelling and types
	$(RUN)ruff check .
	$(RUN)ruff format --check .
	$(RUN)codespell
	$(RUN)mypy
	$(RUN)nbstripout --verify notebooks/*.ipynb

format: $(TO_DEVELOP)  ## Format the code
	$(RUN)ruff check --fix .
	$(RUN)ruff format .

hooks: $(TO_DEVELOP)  ## Run the checks of make lint before each commit
	$(RUN)pre-commit install

docs: $(TO_DEVELOP)  ## Build the documentation into site/
	$(RUN)python docs/generate_configuration.py
	NO_MKDOCS_2_WARNING=1 $(RUN)mkdocs build --strict

bench: $(TO_DEVELOP)  ## Measure speed and memory, some minutes on an idle machine
	$(RUN)python -m pytest -n 0 -m "benchmark or minutes" -s

bench-growth: $(TO_DEVELOP)  ## Measure time and memory as candles, cutoffs, context and processes grow
	$(RUN)python -m tests.helpers.growth --output outputs/growth

bench-gpu: $(TO_DEVELOP)  ## Measure a GPU in 8 minutes; CANDLES=FILE for your own candles, SMOKE=1 to try it on a CPU
	$(RUN)python -m tests.benchmarks.gpu --output outputs/gpu $(if $(CANDLES),--candles '$(CANDLES)') $(if $(SMOKE),--smoke)

tensorboard: $(TO_RUN)  ## Watch runs and compare evaluations
	$(RUN)tensorboard --logdir outputs

clean:  ## Remove caches and the environment; keep csv/, data/ and outputs/
	rm -rf $(VENV) $(FREQTRADE) .pytest_cache .ruff_cache .mypy_cache .hypothesis *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(TO_RUN): pyproject.toml constraints.txt
	test -x $(RUN)python || $(PYTHON) -m venv $(VENV)
	$(INSTALL) -e .
	touch $@

$(TO_DEVELOP): $(TO_RUN)
	$(INSTALL) -e '.[dev]'
	touch $@

$(FREQTRADE)/.installed: integrations/freqtrade/requirements.txt
	test -x $(FREQTRADE)/bin/python || $(PYTHON) -m venv $(FREQTRADE)
	$(FREQTRADE)/bin/python -m pip install --quiet --disable-pip-version-check -r integrations/freqtrade/requirements.txt
	touch $@
