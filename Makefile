# Each target finds a Python that has what it needs, makes one in .venv if there is none (see
# tools/environment.py), builds the native library in place, and runs.
#   PYTHON=/path/to/python   the Python to use
#   ARGS="-k dense"          more arguments for pytest (-n 0: one after the other), or for the fuzzer
#   TORCHNN_CUDA=1           build the CUDA kernels, 0: leave them out (see CONTRIBUTING.md)

.PHONY: help demo test fuzz lint check format ulp build venv clean
.DEFAULT_GOAL := help

# $(call with,EXTRA): sets $$python to one that has this list of pyproject.toml.
with = python=$$(python3 tools/environment.py $(1))
build = "$$python" setup.py --quiet build_ext --inplace
clang_format = "$$(dirname "$$python")"/clang-format
two_files_at_a_time = -n 2 --dist loadfile --no-loadscope-reorder
gpu = $(wildcard /dev/nvidia0 /dev/dxg)
cxx_files = $$(find csrc tests benchmarks -name '*.cpp' -o -name '*.h' -o -name '*.cu' -o -name '*.cuh')

help:
	@echo "make demo    train on handwritten digits, zeros against ones, and draw digits.png"
	@echo "make test    build and run all the tests"
	@echo "make fuzz    random cases under sanitizers, an hour a module; ARGS=\"--seconds 60\""
	@echo "make lint    ruff, clang-format and mypy"
	@echo "make check   what CI runs: lint and test"
	@echo "make format  let ruff and clang-format rewrite the files"
	@echo "make ulp     the fused sigmoid against the exact one, over all 2^32 floats"
	@echo "make build   build the native libraries in place"
	@echo "make venv    make .venv, with everything a developer needs"
	@echo "make clean   remove what was built; .venv stays"

# nvcc takes minutes: the demo builds the CUDA kernels for a GPU that is here, and renews those that
# were built before.
demo: wanted = $(if $(gpu)$(wildcard torchnn/_cuda.*),,0)
demo:
	@$(call with,examples) && TORCHNN_CUDA=$${TORCHNN_CUDA-$(wanted)} $(build) && "$$python" -m examples.digits

test:
	@$(call with,test) && $(build) && "$$python" -m pytest $(two_files_at_a_time) $(ARGS)

fuzz:
	@$(call with,test) && $(build) && "$$python" -m tests.fuzz --sanitized $(ARGS)

lint:
	@$(call with,lint) && set -x \
	&& "$$python" -m ruff check . \
	&& "$$python" -m ruff format --check . \
	&& $(clang_format) --dry-run -Werror $(cxx_files) \
	&& "$$python" -m mypy

check: lint test

format:
	@$(call with,lint) && set -x \
	&& "$$python" -m ruff check --fix . \
	&& "$$python" -m ruff format . \
	&& $(clang_format) -i $(cxx_files)

ulp:
	@$(call with,test) && $(build) && "$$python" -m benchmarks.ulp

build:
	@$(call with,test) && $(build)

venv:
	@python3 tools/environment.py --new dev

clean:
	rm -rf build dist *.egg-info torchnn/*.so .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find . -name .venv -prune -o -name __pycache__ -type d -print | xargs rm -rf
