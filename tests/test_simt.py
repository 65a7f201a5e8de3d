"""The CUDA kernels on the CPU: right, within bounds and free of races, and shown to be."""

import os
import re
import shutil
import subprocess
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PROGRAMS = ("dense", "train", "many")  # tests/simt/check_NAME.cpp
# csrc/cuda/NAME.cu, and the program that runs it
KERNELS = {
    "dense": "dense",
    "layers": "train",
    "train": "train",
    "train_warp": "train",
    "train_many": "many",
}
COMPILER = os.environ.get("CXX") or shutil.which("g++") or shutil.which("c++")
# Compiling takes the time: the checks of AddressSanitizer are calls, and UndefinedBehaviorSanitizer
# leaves to it what it sees when a pointer is used. Alignment is a concern of GPUs.
ADDRESS = [
    "-fsanitize=address,undefined",
    "-fno-sanitize=null,object-size,pointer-overflow",
    *("--param", "asan-instrumentation-with-call-threshold=0"),
    # Nor is what is called compiled at each call. ThreadSanitizer does not see what a call stores.
    *("-DTORCHNN_FN=inline", "-Wno-subobject-linkage"),
]
FLAGS = (
    "-std=gnu++20 -O0 -g1 -Wall -Wextra -Werror -Wno-unknown-pragmas -Wno-psabi "
    "-fsanitize-undefined-trap-on-error -pthread -Itests/simt"
)
# Networks are also compared with the engine for the CPU, if it was built here.
BUILT = ROOT / "build" / "native" / "csrc" / "cpu"
CPU_ENGINE = [
    BUILT / f"{source.relative_to(ROOT / 'csrc' / 'cpu')}.o"
    for source in sorted((ROOT / "csrc" / "cpu").rglob("*.cpp"))
]
HAS_CPU_ENGINE = all(path.exists() for path in CPU_ENGINE)
LINKED = {name: [] for name in PROGRAMS}
if HAS_CPU_ENGINE:
    LINKED["train"] += ["-DTORCHNN_CPU_ENGINE", *CPU_ENGINE]
BARRIER = re.compile(r"__sync(?:threads|warp)\(\)|sync_cluster\(\)")
BARRIERS = [
    (name, line)
    for name in KERNELS
    for line, text in enumerate((ROOT / f"csrc/cuda/{name}.cu").read_text().splitlines(), 1)
    if BARRIER.search(text)
]
# What an index must not outgrow, and what results rest on: a place in csrc, and the same where a
# run can take it away. One build then serves all of them.
GUARDS = {
    "a tail": ("cuda/lane.cuh", "count >= pack<T>) return", "(count >= pack<T> || {})) return"),
    "a row": (
        *("cuda/dense.cu", "within(rows.begin + i, rows) * layer"),
        "({} ? rows.begin + i : within(rows.begin + i, rows)) * layer",
    ),
    "a row number": (
        *("cuda/train.cu", "from < net_.models.rows"),
        "({} || from < net_.models.rows)",
    ),
    "a row number of a warp": (
        *("cuda/train_warp.cu", "listed_ < net_.models.rows"),
        "({} || listed_ < net_.models.rows)",
    ),
    "a row number of a trial": (
        *("cuda/train_many.cu", "listed >= 0 && listed < rows"),
        "listed >= 0 && ({} || listed < rows)",
    ),
    "a place in shared memory of a trial": (
        *("cuda/trial_plan.h", "plan.squares = take(2 * layers * trial_warps)"),
        "plan.squares = take({} ? -4096 : 2 * layers * trial_warps)",
    ),
    "a place in shared memory": (
        *("cuda/plan.h", "plan.parts = take(parts)"),
        "plan.parts = take({} ? 1 : parts)",
    ),
    "arrivals": ("cuda/train.cu", "if (copies_rows()) wait", "if (copies_rows() && !{}) wait"),
}
BOUNDS = {
    "a tail": "dense",
    "a row": "dense",
    "a row number": "train",
    "a row number of a warp": "train",
    "a row number of a trial": "many",
    "a place in shared memory of a trial": "many",
    "a place in shared memory": "train",
}

pytestmark = pytest.mark.skipif(COMPILER is None, reason="no C++ compiler")


def build(name, folder, sanitizers, *more, root=ROOT):
    program = folder / f"check_{name}"
    command = [COMPILER, *FLAGS.split(), *sanitizers, "-o", program]
    command.append(f"tests/simt/check_{name}.cpp")
    command += more
    result = subprocess.run(command, cwd=root, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-3000:]
    return program


def run(program, *arguments, **environment):
    # UBSan sets traps, which compile sooner than messages; AddressSanitizer names their line.
    environment = os.environ | {"ASAN_OPTIONS": "handle_sigill=1"} | environment
    done = subprocess.run([program, *arguments], env=environment, capture_output=True, text=True)
    output = done.stdout + done.stderr
    if "unexpected memory mapping" in output:
        pytest.skip("this ThreadSanitizer does not know this system's layout of memory")
    return done.returncode, output


@pytest.fixture(scope="module")
def under_thread_sanitizer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("thread")
    return cache(lambda name: build(name, folder, ["-fsanitize=thread"], "-DTORCHNN_ONLY_FLOAT"))


@pytest.fixture(scope="module")
def under_address_sanitizer(tmp_path_factory):
    """Builds a program whose guards SIMT_SKIP takes away."""
    folder = tmp_path_factory.mktemp("address")
    for part in ("csrc", "tests/simt"):
        shutil.copytree(ROOT / part, folder / part)
    for guard, (file, text, changed) in GUARDS.items():
        source = folder / "csrc" / file
        assert source.read_text().count(text) == 1
        skipped = f'simt::is_skipped("{guard}")'
        source.write_text(source.read_text().replace(text, changed.format(skipped)))
    return cache(lambda name: build(name, folder, ADDRESS, *LINKED[name], root=folder))


@pytest.mark.parametrize("name", PROGRAMS)
def test_cuda_kernels_match_plain_loops_and_the_cpu_and_stay_within_bounds(
    name, under_address_sanitizer
):
    code, output = run(under_address_sanitizer(name))
    assert (code, output) == (0, "0 failures\n"), output[-3000:]


@pytest.mark.parametrize("name", PROGRAMS)
def test_cuda_kernels_have_no_races(name, under_thread_sanitizer):
    code, output = run(under_thread_sanitizer(name), "few")
    assert (code, output) == (0, "0 failures\n"), output[-3000:]


@pytest.mark.parametrize(("name", "line"), BARRIERS)
def test_without_any_one_barrier_there_is_a_race(name, line, under_thread_sanitizer):
    """In the cases that meet the barriers of its file."""
    options = {"SIMT_SKIP": f"{name}.cu:{line}", "TSAN_OPTIONS": "halt_on_error=1"}
    code, output = run(under_thread_sanitizer(KERNELS[name]), name, **options)
    assert code != 0
    assert "WARNING: ThreadSanitizer: data race" in output


@pytest.mark.parametrize("name", KERNELS)
def test_the_kernels_have_barriers_to_take_away(name):
    barriers = BARRIER.findall((ROOT / f"csrc/cuda/{name}.cu").read_text())
    assert len([line for kernels, line in BARRIERS if kernels == name]) == len(barriers) > 0


@pytest.mark.parametrize("bound", BOUNDS)
def test_without_a_bound_there_is_an_overflow(bound, under_address_sanitizer):
    code, output = run(under_address_sanitizer(BOUNDS[bound]), "few", SIMT_SKIP=bound)
    assert code != 0
    assert "ERROR: AddressSanitizer: heap-buffer-overflow" in output


def test_without_waiting_for_copies_the_results_are_wrong(under_address_sanitizer):
    code, output = run(under_address_sanitizer("train"), "few", SIMT_SKIP="arrivals")
    assert code == 1
    assert "losses" in output
