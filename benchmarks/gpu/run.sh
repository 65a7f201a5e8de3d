#!/usr/bin/env bash
# All that only a GPU can tell, without a network; what compiles, prepare.sh has compiled elsewhere:
#
#   benchmarks/gpu/run.sh
#
# Phases come in order of value: do the libraries load and compute the right numbers, how fast are
# they, where do the cycles go, how fast are others on this very card, the tests, single layers. Each
# has a limit, and none begins without a third of it left of BUDGET. Eight files at most, in $OUT:
#   summary.json        machine, verdict and seconds of each phase, errors against float64, many
#                       models by train_many_, probe
#   training-cuda.json  our own times        rivals-cuda.json  JAX, torch.func, CUDA graphs, eager
#   counters-cuda.json  digest of ncu.csv    dense-cuda.json   single layers
#   fit-cuda.json       fit, and calls       log.txt           what all of it said
#   BUDGET=480               seconds for everything; 110 give correctness and the key numbers
#   ONLY="smoke tests"       of the phases after load, these alone; "check many": many models at once
#   PYTHON=/path/to/python   the Python to use, instead of python3
#   OUT=/path/to/folder      instead of build/gpu/out
#   DRY=1                    without a GPU: what the CPU can run, on tiny networks, in seconds
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.." || exit
PYTHON=${PYTHON:-python3} OUT=${OUT:-build/gpu/out} BUDGET=${BUDGET:-480}
PARTS=$(mktemp -d)  # what goes into the summary, and what is only needed here
trap 'rm -rf "$PARTS"' EXIT
mkdir -p "$OUT"
COMMIT=${COMMIT:-$(cat build/gpu/commit 2> /dev/null)}
export PYTHON OUT PARTS COMMIT PYTHONUNBUFFERED=1 XLA_PYTHON_CLIENT_PREALLOCATE=false
export TF_CPP_MIN_LOG_LEVEL=3 PATH="$PATH:${CUDA_HOME:-/usr/local/cuda}/bin"
cpu=() log=$OUT/log.txt failed=0
if [[ ${DRY:-} ]]; then
  cpu=(--cpu)
  export JAX_PLATFORMS=cpu OMP_NUM_THREADS=1  # so little work that more threads only cost
fi
: > "$log"

# note NAME VERDICT SECONDS: keeps a verdict and brings the summary up to date.
note() {
  printf '{"phase": "%s", "verdict": "%s", "seconds": %d}\n' "$@" >> "$PARTS/phases"
  echo "== $1: $2, $3 s"
  [[ $2 == failed* || $2 == stopped* ]] && failed=1
  "$PYTHON" -m benchmarks.gpu.summary
}

wanted() { [[ -z ${ONLY:-} || $1 == @(load*|build) || " $ONLY " == *" $1 "* ]]; }

# phase NAME LIMIT COMMAND...: runs it, into the log, its end also in sight. @ in the command is
# three quarters of its limit: after these it is to begin nothing more.
phase() {
  local name=$1 limit=$2 start=$SECONDS left=$((BUDGET - SECONDS)) code verdict
  shift 2
  wanted "$name" || return 0
  if ((left < limit / 3)); then
    note "$name" "no time" 0
    return
  fi
  ((limit > left)) && limit=$left
  echo "== $name, at $start s, limit $limit s" >> "$log"
  timeout --signal=INT --kill-after=5 "$limit" "${@/#@/$((limit * 3 / 4))}" \
    > "$PARTS/said" 2>&1
  code=$?
  cat "$PARTS/said" >> "$log"
  tail -n "${TAIL:-6}" "$PARTS/said"
  case $code in
    0) verdict=passed ;;
    124 | 137) verdict="stopped after $limit s" ;;
    *) verdict="failed ($code)" ;;
  esac
  note "$name" "$verdict" $((SECONDS - start))
}

# on_gpu ...: a phase that the CPU cannot run.
on_gpu() {
  wanted "$1" || return 0
  if ((${#cpu[@]})); then note "$1" "needs a GPU" 0; else phase "$@"; fi
}

# module NAME ARGUMENT...: a module of the kit, after the name of its phase and its limit.
module() {
  local name=$1 limit=$2 what=$3
  shift 3
  phase "$name" "$limit" "$PYTHON" -m "benchmarks.gpu.$what" "$@" --seconds @ "${cpu[@]}"
}

profile() {
  local kernel kernels=(train train_many)
  for kernel in "${kernels[@]}"; do
    ncu --clock-control none --set full --import-source no -k "regex:${kernel}_kernel" -c 1 -f \
      -o "$PARTS/$kernel" "$PYTHON" -m benchmarks.gpu.counters launch "$kernel" || return
    {
      ncu -i "$PARTS/$kernel.ncu-rep" --page raw --csv
      echo
      ncu -i "$PARTS/$kernel.ncu-rep" --page source --csv
    } > "$PARTS/$kernel.csv" || return
  done
  "$PYTHON" -m benchmarks.gpu.counters digest "${kernels[@]}" --pages "$PARTS" || return
  for kernel in "${kernels[@]}"; do cat "$PARTS/$kernel.csv"; done | gzip -9 > "$OUT/ncu.csv.gz"
}

suite() {
  local workers=()
  "$PYTHON" -c "import xdist" 2> /dev/null && workers=(-n 6)
  "$PYTHON" -m pytest -q -p no:cacheprovider -W default --maxfail=200 "${workers[@]}" -k cuda \
    tests/test_cuda.py tests/test_train_cuda.py tests/test_train_many_cuda.py tests/test_train_op.py \
    tests/test_graphs.py tests/test_ops.py tests/test_transfer.py tests/test_loops.py tests/test_pieces.py
}

sanitized() {
  local code=0 tool
  sanitize() { compute-sanitizer --report-api-errors no --error-exitcode 9 --tool "$@" || code=1; }
  for tool in memcheck racecheck synccheck; do
    echo "-- $tool"
    sanitize "$tool" build/gpu/check_train few
    sanitize "$tool" build/gpu/check_many few
  done
  sanitize memcheck build/gpu/check_dense
  return "$code"
}

# Both at once, since nothing is timed meanwhile; none of it may go on after its time.
suite_and_sanitized() {
  trap 'cat "$PARTS/sanitized"; kill -KILL 0' INT
  sanitized > "$PARTS/sanitized" 2>&1 &
  local code=0 beside=$!
  suite || code=1
  wait "$beside" || code=1
  cat "$PARTS/sanitized"
  return "$code"
}
export -f profile suite sanitized suite_and_sanitized

TAIL=0 module load 40 facts --folder "$PARTS"
if grep -h "there is no GPU here" "$PARTS/said" >&2; then exit 1; fi
if ((failed)); then  # other system libraries, perhaps, than where it was built
  tail -n 6 "$PARTS/said"
  failed=0
  on_gpu build 120 env TORCHNN_CUDA=1 "$PYTHON" setup.py --quiet build_ext --inplace
  module load-again 30 facts --folder "$PARTS"
fi
on_gpu check 25 bash -c \
  'build/gpu/check_train few && build/gpu/check_dense && build/gpu/check_many few'
module smoke 40 smoke --folder "$PARTS"
TAIL=24 module many 150 many --folder "$PARTS"
TAIL=24 module training 80 training
TAIL=20 module fit 40 fit
on_gpu probe 12 bash -c 'set -o pipefail; build/gpu/probe | tee "$PARTS/probe"'
TAIL=28 on_gpu counters 80 bash -c profile
TAIL=28 module rivals 130 rivals
on_gpu tests 100 bash -c suite_and_sanitized
TAIL=12 module dense 85 dense

"$PYTHON" -m benchmarks.gpu.summary --show
exit "$failed"
