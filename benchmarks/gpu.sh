#!/usr/bin/env bash
# Everything that only a GPU can tell, in one command and without a network:
#
#   benchmarks/gpu.sh
#
# builds, runs the whole test suite, runs the kernels under compute-sanitizer, and benchmarks; a
# table of the steps comes last. Needs nvcc, and a Python with PyTorch for CUDA and what the tests
# need. Ends within ten minutes: a step that takes too long is stopped and has failed.
#   PYTHON=/path/to/python   the Python to use
#   OUT=/path/to/folder      where logs and results go, instead of benchmarks/results
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

PYTHON=${PYTHON:-python3}
OUT=${OUT:-benchmarks/results}
mkdir -p "$OUT" build
export PYTHON TORCHNN_CUDA=1 PATH="$PATH:${CUDA_HOME:-/usr/local/cuda}/bin"

"$PYTHON" - <<'END' || exit 1
import sys
try:
    import torch
except ImportError as error:
    sys.exit(f"gpu.sh: {sys.executable} has no PyTorch: {error}")
if not torch.cuda.is_available():
    sys.exit(f"gpu.sh: there is no GPU here that PyTorch {torch.__version__} can use")
print(torch.cuda.get_device_name(), "PyTorch", torch.__version__)
END

summary=() failed=0 log=$OUT/gpu.log
: > "$log"

# note NAME START CODE LIMIT: adds a step that began at START and ended with CODE to the summary.
note() {
  local verdict=passed
  if (($3 == 124 || $3 == 137)); then verdict="stopped after $4 s"
  elif (($3 != 0)); then verdict="failed ($3)"; fi
  [[ $verdict == passed ]] || failed=1
  summary+=("$(printf '%-14s %5d s  %s' "$1" $((SECONDS - $2)) "$verdict")")
}

# step NAME LIMIT COMMAND...: runs it in sight, and into $OUT/gpu.log.
step() {
  local name=$1 limit=$2 start=$SECONDS
  shift 2
  echo "== $name" | tee -a "$log"
  timeout --signal=INT --kill-after=5 "$limit" "$@" 2>&1 | tee -a "$log"
  note "$name" "$start" "${PIPESTATUS[0]}" "$limit"
}

sanitize() {
  step "$1" 25 compute-sanitizer --tool "$1" --report-api-errors no --error-exitcode 9 \
    build/check_dense
  step "$1-train" 15 compute-sanitizer --tool "$1" --report-api-errors no --error-exitcode 9 \
    build/check_train few
}

step build 70 "$PYTHON" setup.py --quiet build_ext --inplace
# The tests that run kernels on CPU threads take minutes, and none of the GPU: they go on beside the
# rest until there is something to time.
pytest=("$PYTHON" -m pytest -q -p no:cacheprovider -W default)
cpu_tests=(tests/test_simt.py tests/test_kernels.py) cpu_start=$SECONDS
timeout --kill-after=5 300 "${pytest[@]}" "${cpu_tests[@]}" > build/suite-cpu.log 2>&1 &
cpu_suite=$!
step kernels 50 bash -c 'for name in dense train; do
  nvcc -std=c++20 -O1 --expt-relaxed-constexpr -prec-div=false -prec-sqrt=false -lineinfo -arch=native \
    -DTORCHNN_TRAIN_THREADS=512 -x cu "tests/simt/check_$name.cpp" -o "build/check_$name" \
    && "build/check_$name" || exit 1; done'
sanitize memcheck
sanitize racecheck
sanitize initcheck
# In processes of their own, since a fault fails all that is left of its process.
layer_tests=(tests/test_cuda.py tests/test_ops.py)
training_tests=(tests/test_train_cuda.py tests/test_graphs.py)
step suite-layer 50 "${pytest[@]}" "${layer_tests[@]}"
step suite-training 30 "${pytest[@]}" "${training_tests[@]}"
others=("${cpu_tests[@]}" "${layer_tests[@]}" "${training_tests[@]}")
step suite-rest 60 "${pytest[@]}" "${others[@]/#/--ignore=}"
wait "$cpu_suite"
note suite-cpu "$cpu_start" $? 300
tail -20 build/suite-cpu.log | tee -a "$log"
step training 75 "$PYTHON" -m benchmarks.training_cuda --seconds 40 \
  --save training-cuda --folder "$OUT"
step dense 85 "$PYTHON" -m benchmarks.dense --device cuda --seconds 60 \
  --save dense-cuda --folder "$OUT"

printf '%s\n' "== summary" "${summary[@]}" | tee -a "$log"
exit "$failed"
