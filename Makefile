# make run – one heartbeat over this repository · make test – the tests · make check – format, lint, types, layers
# make neo4j – a real Neo4j for the tests (JDK 17 and Maven); without it they run against ArcadeDB
PYTHON ?= python3
UV := $(shell command -v uv 2>/dev/null)
BIN := .venv/bin

.PHONY: setup run test check format neo4j clean

setup: .venv/.dev

run: .venv/.run
	@$(BIN)/dionysus beat --watch .

test: .venv/.dev
	@$(BIN)/pytest -q $(if $(NEO4J_TEST_URI),,-n 2 --dist loadfile)  # a server of one's own has one graph

check: .venv/.dev
	$(BIN)/ruff format --check src tests examples scripts benchmarks ci
	$(BIN)/ruff check src tests examples scripts benchmarks ci
	$(BIN)/mypy
	$(BIN)/lint-imports

format: .venv/.dev
	$(BIN)/ruff format src tests examples scripts benchmarks ci
	$(BIN)/ruff check --fix src tests examples scripts benchmarks ci

neo4j: ci/neo4j/lib/.complete

ci/neo4j/lib/.complete: ci/neo4j/pom.xml
	@mvn -q -B -f ci/neo4j/pom.xml dependency:copy-dependencies -DoutputDirectory=lib
	@touch $@

.venv/bin/python:
ifdef UV
	@uv venv -q --seed --python $(PYTHON) .venv
else
	@$(PYTHON) -c 'import sys; sys.exit("Dionysus needs Python 3.11 or newer: make PYTHON=python3.12 …" if sys.version_info < (3, 11) else 0)'
	@$(PYTHON) -m venv .venv
endif

.venv/.run: .venv/bin/python pyproject.toml
	@echo "setting up .venv (once) …"
ifdef UV
	@uv pip install -q --python .venv/bin/python -e .
else
	@$(BIN)/python -m pip install -q --disable-pip-version-check -e .
endif
	@touch $@

.venv/.dev: .venv/bin/python pyproject.toml
	@echo "setting up .venv for development (once) …"
ifdef UV
	@uv pip install -q --python .venv/bin/python -e '.[api,local,mcp,minilm,neo4j,openai,tokens]' --group dev
else
	@$(BIN)/python -m pip install -q --disable-pip-version-check -U 'pip>=25.1'
	@$(BIN)/python -m pip install -q --disable-pip-version-check -e '.[api,local,mcp,minilm,neo4j,openai,tokens]' --group dev
endif
	@touch .venv/.run $@

clean:
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .import_linter_cache dist ci/neo4j/lib
