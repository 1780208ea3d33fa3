# make quickstart   set up if needed, then the whole pipeline on embedded data
# make test         set up if needed, then all tests
# make test-fast    the same without those that train for more than a few seconds
# make lint         set up if needed, then style and types
# make docs         set up if needed, then the documentation site: build/site/html/index.html
#
# PYTHON=python3.12 chooses the Python that .venv is made from, VENV=DIR another place for it.

VENV ?= .venv
BIN := $(VENV)/bin

export VENV

.PHONY: quickstart test test-fast lint docs clean

quickstart:
	@sh .ci/setup
	$(BIN)/distill quickstart
	@echo 'next: ". $(BIN)/activate" brings distill onto the path of this shell; or call $(BIN)/distill'

test:
	@sh .ci/setup test
	sh .ci/test

test-fast:
	@sh .ci/setup test
	sh .ci/test -m "not slow"

lint:
	@sh .ci/setup test
	sh .ci/lint

docs:
	@sh .ci/setup docs
	$(BIN)/python -m docs.site build/site

clean:
	rm -rf build dist *.egg-info
