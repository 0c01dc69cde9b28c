VENV ?= .venv
PYTHON ?= python3
RUN = $(VENV)/bin/
INSTALLED = $(VENV)/.installed
DEMO = data=sample model=kronos-tiny

.DEFAULT_GOAL := help
.PHONY: help demo test lint format bench tensorboard clean

help:  ## This list
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

demo: $(INSTALLED)  ## Fine-tune, forecast and backtest on synthetic candles, some minutes on two cores
	$(RUN)python train.py -m stage=tokenizer,predictor $(DEMO) trainer=cpu stage.learning_rate=3e-3 stage.max_epochs=3
	$(RUN)python evaluate.py $(DEMO) evaluation.max_cutoffs=240
	@echo "Open outputs/backtest_results/sample/report.html"

test: $(INSTALLED)  ## All tests
	$(RUN)python -m pytest

lint: $(INSTALLED)  ## Check style
	$(RUN)ruff check .
	$(RUN)ruff format --check .

format: $(INSTALLED)  ## Put the code into shape
	$(RUN)ruff check --fix .
	$(RUN)ruff format .

bench: $(INSTALLED)  ## Speed and memory of the data path and of forecasting, some minutes
	$(RUN)python -m pytest -n 0 -m "benchmark or minutes" -s

tensorboard: $(INSTALLED)  ## Watch runs, and compare evaluations
	$(RUN)tensorboard --logdir outputs

clean:  ## Remove caches and the environment; data/ and outputs/ stay
	rm -rf $(VENV) .pytest_cache .ruff_cache .hypothesis *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(INSTALLED): pyproject.toml constraints.txt
	test -x $(RUN)python || $(PYTHON) -m venv $(VENV)
	$(RUN)python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@
