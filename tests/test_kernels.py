"""The CPU kernels in every instruction set: those this machine has, and the tiles of the others."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from torchnn import ops

ROOT = Path(__file__).parent.parent
CAPABILITIES = ["baseline", "avx2", "avx512"]
COMPILER = os.environ.get("CXX") or shutil.which("c++") or shutil.which("g++")


def run_python(*arguments, **environment):
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize("capability", CAPABILITIES)
def test_every_instruction_set_of_this_machine_passes(capability):
    best = ops.cpu_capability()
    if CAPABILITIES.index(capability) > CAPABILITIES.index(best):
        pytest.skip(f"this machine has {best} at best")
    if capability == best:
        pytest.skip("the whole suite runs in this one")
    tests = ["tests/test_ops.py", "-k", "reference or shape or ulp or saturate or infinity"]
    result = run_python(
        "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests, TORCHNN_CPU_CAPABILITY=capability
    )
    assert result.returncode == 0, result.stdout[-3000:]
    asked = run_python(
        "-c",
        "from torchnn import ops; print(ops.cpu_capability())",
        TORCHNN_CPU_CAPABILITY=capability,
    )
    assert asked.stdout.strip() == capability


def test_autocast_does_not_reach_the_products_of_the_library():
    code = (
        "import torch, torchnn.ops; x = torch.rand(512, 1024); weight = torch.rand(64, 1024); "
        "out = torch.ops.torchnn.dense_forward(x, weight, None, 0); "
        "torch.set_autocast_enabled('cpu', True); "
        "again = torch.ops.torchnn.dense_forward(x, weight, None, 0); "
        "print(again.dtype, torch.equal(out, again))"
    )
    result = run_python("-c", code, TORCHNN_PRODUCTS="library")
    assert result.stdout.split() == ["torch.float32", "True"], result.stderr


def test_an_unknown_instruction_set_is_refused():
    result = run_python(
        "-c", "from torchnn import ops; ops.cpu_capability()", TORCHNN_CPU_CAPABILITY="mmx"
    )
    assert "TORCHNN_CPU_CAPABILITY must be baseline, avx2 or avx512, got mmx" in result.stderr


def build_and_run(program, flags, folder):
    """Builds tests/kernels/<program>.cpp, which must run without a failure."""
    built = folder / program
    command = [COMPILER, "-std=gnu++20", "-g1", "-ffp-contract=fast", "-Wno-psabi", *flags]
    command += [f"tests/kernels/{program}.cpp", "-o", built]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-3000:]
    environment = os.environ | {"ASAN_OPTIONS": "handle_sigill=1"}
    result = subprocess.run([built], env=environment, capture_output=True, text=True)
    assert result.returncode == 0, (result.stdout + result.stderr)[-3000:]
    assert result.stdout.endswith("0 failures\n")


# Where all code is for one instruction set, what is called need not be compiled at each call.
CALLS = ["-DTORCHNN_FN=inline", "-Wno-subobject-linkage"]

needs_compiler = pytest.mark.skipif(COMPILER is None, reason="no C++ compiler")


@needs_compiler
@pytest.mark.parametrize(
    ("program", "more"),
    [
        ("check_dense", ["csrc/cpu/simd/isa.cpp"]),
        ("check_train", ["-DTORCHNN_TARGET(features)=", *CALLS]),
        ("check_many", ["-DTORCHNN_TARGET(features)=", *CALLS]),
    ],
)
def test_the_register_tiles_of_every_instruction_set_under_sanitizers(program, more, tmp_path):
    # Compiling takes the time. So: traps, not messages, since AddressSanitizer names their line;
    # calls for its own checks; and no others of pointers, which it looks at when they are used.
    sanitizers = [
        *("-O0", "-fsanitize=address,undefined", "-fsanitize-undefined-trap-on-error"),
        *("--param", "asan-instrumentation-with-call-threshold=0"),
        "-fno-sanitize=null,alignment,object-size,pointer-overflow",
    ]
    build_and_run(program, [*sanitizers, *more], tmp_path)


@needs_compiler
def test_threads_change_no_bit_and_race_nowhere(tmp_path):
    of_training = "train elementwise layer_update matmul measure small_products simd/isa"
    sources = [f"csrc/cpu/{name}.cpp" for name in of_training.split()]
    flags = ["-O1", "-fsanitize=thread", "-pthread", "-DTORCHNN_BASELINE_ALONE", *CALLS]
    flags += ["-DTORCHNN_LARGE_PRODUCT=(1<<20)", "-DTORCHNN_LARGE_SIDE=100"]
    build_and_run("check_threads", [*flags, *sources], tmp_path)
