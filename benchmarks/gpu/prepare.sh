#!/usr/bin/env bash
# Builds all that run.sh runs, on a machine with nvcc, so that a machine with a GPU need not compile:
#
#   benchmarks/gpu/prepare.sh            builds, then prints the ignored files to bring along
#   benchmarks/gpu/prepare.sh --list     only prints them
#
#   PYTHON=/path/to/python   the Python to build for, instead of python3
#   ARCH=90                  the GPU, by its compute capability: an H100 or H200
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
PYTHON=${PYTHON:-python3} ARCH=${ARCH:-90}

list() { printf '%s\n' torchnn/_C.abi3.so torchnn/_cuda.abi3.so build/gpu; }
if [[ ${1:-} == --list ]]; then
  list
  exit
fi

TORCHNN_CUDA=1 "$PYTHON" setup.py --quiet build_ext --inplace
mkdir -p build/gpu
# The commit, for results from where there is no history.
"$PYTHON" -c 'from benchmarks import harness; print(harness.machine()["commit"])' > build/gpu/commit
# The standard library goes in: the other machine's may be older.
compile=(nvcc -std=c++20 "-gencode=arch=compute_$ARCH,code=sm_$ARCH"
  -Xcompiler "-static-libstdc++,-static-libgcc")
jobs=()
for name in dense train many; do  # as setup.py compiles the kernels, but quickly
  "${compile[@]}" -O1 --expt-relaxed-constexpr -prec-div=false -prec-sqrt=false -lineinfo \
    -DTORCHNN_TRAIN_THREADS=512 -x cu "tests/simt/check_$name.cpp" -o "build/gpu/check_$name" &
  jobs+=($!)
done
"${compile[@]}" -O3 benchmarks/gpu/probe.cu -o build/gpu/probe &
jobs+=($!)
for job in "${jobs[@]}"; do wait "$job"; done
list
