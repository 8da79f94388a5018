# `make demo` and `make test` need Python 3.11 or newer and make, nothing else.
PYTHON ?= python3
BIN := .venv/bin
# One worker more than the cores of CI, because tests wait for processes and servers. A file's tests stay together. Files go in their
# order: by their number of tests, those with one long test would come last, and the other workers would wait for it.
WORKERS ?= 3
PYTEST = $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

.PHONY: demo stream-demo ui test test-all test-engines test-athena test-deploy lint weed soak bench conformance docs screenshots lock image-context clean .venv/deploy

demo: .venv/installed
	@$(BIN)/stock-lakehouse demo

# A day of live messages: minute bars, live indicators, the official bar. On Kafka if Java and its client are there, else on files.
stream-demo: .venv/installed
	@$(BIN)/stock-lakehouse stream demo

ui: .venv/installed
	@$(BIN)/stock-lakehouse ui

test: .venv/tests
	$(PYTEST) -m "not slow and not soak and not engines and not trino and not deploy"

# What CI runs, with `make test-deploy`: first what needs a JVM, then the rest.
test-all: .venv/tests
	$(PYTEST) -rs -m "(engines or trino) and not soak and not deploy"
	$(PYTEST) -m "not soak and not engines and not trino and not deploy"

# The same tables on embedded Sail and on JVM Spark: needs Java 17 or newer; its first run fetches Delta from Maven Central.
test-engines: .venv/tests
	$(PYTEST) -rs -m "engines and not soak"

# What is registered and what SQL gives, on a real Trino: needs a JDK of version 24 or newer; its first run fetches Trino from Maven.
# Without them its tests skip and say NOT RUN.
test-athena: .venv/tests
	$(BIN)/python -m pytest -rs -m "trino and not soak"

# What is in deploy/: its rights, template, bundle and image. Needs Node, the tools of .venv/deploy, and for the image root and
# buildah. What cannot be had is named, and its tests skip and say NOT RUN.
test-deploy: .venv/tests
	-@$(MAKE) --no-print-directory .venv/deploy
	$(PYTEST) -rs -m "deploy and not soak"

lint: .venv/tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# seaweedfs, for the tests of a lake on S3. `go install` refuses it: its go.mod replaces a module.
weed: .venv/installed
	mkdir -p build/weed && cd build/weed && (test -f go.mod || go mod init weed) \
	  && go get github.com/seaweedfs/seaweedfs/weed@v0.0.0-20261109003541-7506e5f91cd6 \
	  && CGO_ENABLED=0 go build -o ../../$(BIN)/weed github.com/seaweedfs/seaweedfs/weed

soak: .venv/tests
	$(BIN)/python -m pytest -n 2 --dist loadfile --timeout 3600

bench: .venv/tests
	$(BIN)/python -m benchmarks

# docs/conformance.md: every indicator against TA-Lib and an independent implementation. `make test` fails when it is stale.
conformance: .venv/tests
	$(BIN)/python -m stock_lakehouse_tests.conformance

# The tables of docs/settings.md, docs/tables.md, and the roles of docs/deployment*.md, from settings, schemas and rights.
# `make test` fails when they are stale.
docs: .venv/tests
	$(BIN)/python -m stock_lakehouse_tests.settings_tables
	$(BIN)/python -m stock_lakehouse_tests.table_documents
	$(BIN)/python -m stock_lakehouse_tests.deployment.role_tables

# docs/screenshots: the demo, Dagster's UI, the dashboard and a report, photographed in Chromium. Takes three minutes.
screenshots: .venv/tests
	$(BIN)/python -m stock_lakehouse_tests.dashboards.screenshots

lock: .venv/tests
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --upgrade --no-header --no-annotate \
	  --extra platform --output-file requirements.lock pyproject.toml
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --upgrade --no-header --no-annotate \
	  --extra platform --extra dev --constraints requirements.lock --output-file requirements-tests.lock pyproject.toml
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --upgrade --no-header --no-annotate \
	  --group deploy --output-file requirements-deploy.lock

# What deploy/Containerfile installs: the wheels that requirements.lock pins, the project's own, and the certificates of Amazon RDS
# (https://docs.aws.amazon.com/AmazonRDS/latest/UserGuide/UsingWithRDS.SSL.html). The machine and PYTHON are as the image's base: Linux
# of its architecture, Python 3.11 of the newest patch (the lock pins other wheels before 3.11.5). With Databricks, whose clusters
# run Python 3.12: `make image-context PYTHON=python3.12`, and a base of that version.
IMAGE ?= build/image
IMAGE_PYTHON = $(or $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])'),\
  $(error $(PYTHON) does not run: name the Python of the image's base, like PYTHON=python3.12))

image-context: $(IMAGE)/rds-ca.pem
	$(MAKE) --no-print-directory $(IMAGE)/wheels/made-$(IMAGE_PYTHON)
	rm -rf build/lib $(IMAGE)/wheels/stock_lakehouse-*
	$(IMAGE)/pip/bin/pip wheel --quiet --no-deps --wheel-dir $(IMAGE)/wheels .

$(IMAGE)/wheels/made-%: requirements.lock
	rm -rf $(IMAGE)/pip $(IMAGE)/wheels
	$(PYTHON) -m venv $(IMAGE)/pip
	$(IMAGE)/pip/bin/pip wheel --quiet --requirement requirements.lock --wheel-dir $(IMAGE)/wheels
	touch $@

$(IMAGE)/rds-ca.pem:
	mkdir -p $(IMAGE)
	curl --fail --silent --show-error --output $@.new https://truststore.pki.rds.amazonaws.com/global/global-bundle.pem
	mv $@.new $@

clean:
	rm -rf .venv build *.egg-info

# Everything pinned comes from the locks; the project itself is installed as it stands.
.venv/installed: requirements.lock pyproject.toml
	@$(PYTHON) install.py

.venv/tests: requirements-tests.lock pyproject.toml
	@$(PYTHON) install.py --tests

# An environment of its own: the tools' pins contradict the platform's.
.venv/deploy:
	@$(PYTHON) install.py --deploy
