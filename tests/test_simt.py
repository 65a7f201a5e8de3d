"""The CUDA kernels on CPU threads: right, within bounds and free of races, and shown to be."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
KERNELS = "csrc/cuda/dense.cu"
COMPILER = os.environ.get("CXX") or shutil.which("g++") or shutil.which("c++")
FLAGS = (
    "-std=gnu++20 -O0 -g1 -Wall -Wextra -Werror -Wno-unknown-pragmas -Wno-psabi "
    "-fno-sanitize-recover=all -pthread -Itests/simt"
)
BARRIERS = [
    line
    for line, text in enumerate((ROOT / KERNELS).read_text().splitlines(), 1)
    if "__syncthreads()" in text
]
# What an index must not outgrow, and the same without its bound.
BOUNDS = {
    "a tail": ("cuda/lane.cuh", "if (aligned && count >= pack<T>) return", "if (aligned) return"),
    "a row": ("cuda/dense.cu", "within(rows.begin + i, rows) * layer", "(rows.begin + i) * layer"),
}

pytestmark = pytest.mark.skipif(COMPILER is None, reason="no C++ compiler")


def build(folder, sanitizer, root=ROOT):
    program = folder / f"check_{sanitizer.partition(',')[0]}"
    command = [COMPILER, *FLAGS.split(), f"-fsanitize={sanitizer}", "-o", program]
    command.append("tests/simt/check_dense.cpp")
    result = subprocess.run(command, cwd=root, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-3000:]
    return program


def run(program, *arguments, **environment):
    done = subprocess.run(
        [program, *arguments], env=os.environ | environment, capture_output=True, text=True
    )
    output = done.stdout + done.stderr
    if "unexpected memory mapping" in output:
        pytest.skip("this ThreadSanitizer does not know this system's layout of memory")
    return done.returncode, output


@pytest.fixture(scope="module")
def under_thread_sanitizer(tmp_path_factory):
    return build(tmp_path_factory.mktemp("simt"), "thread")


def test_cuda_kernels_match_plain_loops_and_stay_within_bounds(tmp_path):
    code, output = run(build(tmp_path, "address,undefined"))
    assert (code, output) == (0, "0 failures\n"), output[-3000:]


def test_cuda_kernels_have_no_races(under_thread_sanitizer):
    code, output = run(under_thread_sanitizer, "few")
    assert (code, output) == (0, "0 failures\n"), output[-3000:]


@pytest.mark.parametrize("line", BARRIERS)
def test_without_any_one_barrier_there_is_a_race(line, under_thread_sanitizer):
    place = f"{Path(KERNELS).name}:{line}"
    options = {"SIMT_SKIP": place, "TSAN_OPTIONS": "halt_on_error=1"}
    code, output = run(under_thread_sanitizer, "few", **options)
    assert code != 0
    assert "WARNING: ThreadSanitizer: data race" in output


def test_the_kernels_have_barriers_to_take_away():
    assert len(BARRIERS) == len(re.findall(r"__syncthreads", (ROOT / KERNELS).read_text())) > 0


@pytest.mark.parametrize("bound", BOUNDS)
def test_without_a_bound_there_is_an_overflow(bound, tmp_path):
    name, bounded, boundless = BOUNDS[bound]
    for folder in ("csrc", "tests/simt"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    source = tmp_path / "csrc" / name
    assert source.read_text().count(bounded) == 1
    source.write_text(source.read_text().replace(bounded, boundless))
    code, output = run(build(tmp_path, "address", root=tmp_path), "few")
    assert code != 0
    assert "ERROR: AddressSanitizer: heap-buffer-overflow" in output
