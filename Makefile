# One command each. The first run makes .venv from constraints.txt, later ones start at once.
#
#   make demo                            build a small model end to end, into build/digits
#   make test                            the whole default suite; PYTEST_ARGS="-m slow" and so on
#   make test-lowest                     a part of it, with the lowest versions of packages
#   make test-pythons                    a part of it, on the oldest and the newest Python found here
#   make lint                            ruff, formatting, types
#   make clean                           forget .venv and build/
#
# Needs Python 3.11 or later; where python3 is older: make PYTHON=python3.12 test

PYTHON ?= python3
PYTEST_ARGS ?=

BIN := .venv/bin
READY := .venv/.ready

.PHONY: help venv demo test test-lowest test-pythons lint clean

help:
	@sed -n 's/^#   //p' Makefile

venv: $(READY)

demo: $(READY)
	$(BIN)/compressor build models/digits.py:digits_resnet --macs 0.5 \
		--data models/digits.py:calibration --evaluate models/digits.py:accuracy \
		-o build/digits --force

test: $(READY)
	$(BIN)/python -m pytest $(PYTEST_ARGS)

test-lowest:
	.ci/smoke build/smoke/lowest $(PYTHON) constraints-lowest.txt

test-pythons: $(READY)
	.ci/pythons

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf .venv build

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info; v >= (3, 11) or sys.exit( \
		"error: Python 3.11 or later is needed, $(PYTHON) is %d.%d\n" % v[:2] + \
		"  hint: name another one: make PYTHON=python3.12 ...")'
	@echo "making .venv from constraints.txt: a few minutes, once"
	@$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[test,bench,train]"
	@# the copy of passes/ that comes with it is never imported, but mypy would read it
	@rm -rf .venv/lib/python*/site-packages/compressor
	@touch $(READY)
