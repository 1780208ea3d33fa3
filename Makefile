# make quickstart   set up if needed, then the whole pipeline on embedded data
# make test         set up if needed, then all tests
# make test-fast    the same without those that train for more than a few seconds
#
# PYTHON=python3.12 chooses the Python that .venv is made from, VENV=DIR another place for it.

VENV ?= .venv
BIN := $(VENV)/bin
# One thread each, and a process for each core up to four: small operations gain nothing from more threads.
PYTEST := OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile

export VENV

.PHONY: quickstart test test-fast lint clean

quickstart:
	@sh .ci/setup
	$(BIN)/distill quickstart
	@echo 'next: ". $(BIN)/activate" brings distill onto the path of this shell; or call $(BIN)/distill'

test:
	@sh .ci/setup test
	$(PYTEST)

test-fast:
	@sh .ci/setup test
	$(PYTEST) -m "not slow"

lint:
	@sh .ci/setup test
	$(BIN)/python -m pip install --quiet ruff
	$(BIN)/ruff check . && $(BIN)/ruff format --check .

clean:
	rm -rf build dist *.egg-info
