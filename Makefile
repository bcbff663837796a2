# make book   build the book in _build/html        make test    everything that can fail
# make serve  look at it                           make clean   remove what was built
# make test-lowest   the tests of the package with the lowest versions that pyproject.toml allows

PYTHON ?= python3
JOBS ?= $(shell nproc 2>/dev/null || echo 2)
BIN := .venv/bin

# Chapters and tests run side by side, one on each core; more threads in each would only get in each other's way.
export OMP_NUM_THREADS ?= 1

.PHONY: book test test-lowest lint notebooks serve clean

book: notebooks
	$(BIN)/jupyter-book build . --all -W --keep-going

# Executes the chapters that changed, or all if the package changed, and writes their notebooks.
notebooks: .venv/installed
	$(BIN)/python book/_tools/chapters.py
	$(BIN)/python book/_tools/notebooks.py

# A notebook stays with one worker (loadfile), because its cells share a kernel.
test: lint
	$(BIN)/python book/_tools/notebooks.py --check
	$(BIN)/pytest -n $(JOBS) --dist loadfile --nbval-lax --nbval-current-env --nbval-cell-timeout=1800 \
		tests kodm_lite book/notebooks

# Not what needs the book: its tools are pinned, so they have no lowest versions.
test-lowest: .venv-lowest/installed
	.venv-lowest/bin/python -m pytest -q -n $(JOBS) --dist loadfile tests \
		$(addprefix --ignore=tests/test_,book_sources.py built_book.py checks.py documents.py environment.py notebooks.py)

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/mypy

serve:
	$(PYTHON) -m http.server 8000 --bind 127.0.0.1 --directory _build/html

clean:
	rm -rf _build build *.egg-info .pytest_cache .mypy_cache .ruff_cache

.venv/installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[book,test]"
	touch $@

.venv-lowest/installed: pyproject.toml constraints-lowest.txt
	test -x .venv-lowest/bin/python || $(PYTHON) -m venv .venv-lowest
	.venv-lowest/bin/python -m pip install --quiet --constraint constraints-lowest.txt --editable ".[test]"
	touch $@
