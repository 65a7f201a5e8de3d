"""The CUDA library: built, registered and within its budgets everywhere; on a GPU, what is CUDA's.

Values, gradients, strides and dtypes on a GPU are in tests/test_ops.py, by its fixture `device`;
the kernels without a GPU in tests/test_simt.py.
"""

import os
import re
import shutil
import subprocess
import sys
from importlib import util
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from test_ops import assert_as_exact_as_eager, gradients, layer, rounding

from torchnn import ops
from torchnn.ops import reference

ROOT = Path(__file__).parent.parent
LOGS = [
    ROOT / "build" / "native" / "csrc" / "cuda" / f"{name}.cu.o.log"
    for name in ("dense", "layers", "train", "train_many", "train_warp")
]
NVCC = shutil.which("nvcc")
GPUS = ("sm_80", "sm_90", "sm_100", "sm_120")  # the columns of the table in docs/kernels.md
DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
KINDS = ["f", "d", "13__nv_bfloat16", "6__half"]  # what the compiler makes of these in names
# A multiprocessor has 65,536: one block of 512 threads of the forward and of training, three of 128
# of a wide forward, three of 256 of the backward, four of activations and of sums, two of the parts
# of a step. Where a block is a warp, or trains one of many models, its launch bounds say how many
# there are.
MOST_REGISTERS = {
    "activate_kernel": 64,
    "activate_backward_kernel": 64,
    "dense_forward_kernel": 128,
    "dense_forward_wide_kernel": 168,
    "dense_backward_z_kernel": 80,
    "dense_backward_bias_kernel": 64,
    "dense_backward_kernel": 80,
    "train_kernel": 128,
    "train_cluster_kernel": 128,
    "train_warp_kernel": 255,
    "train_many_kernel": 128,
    "make_trial_steps_kernel": 128,
    "make_steps_kernel": 128,
    "finish_kernel": 128,
    "measure_kernel": 128,
    "add_losses_kernel": 128,
    "sum_up_kernel": 128,
    "use_sums_kernel": 128,
    "update_kernel": 128,
}
# Whole networks train in float32 and float64 alone, as few rows of a wide layer are fused.
KINDS_OF = {
    name: KINDS if name.startswith(("activate", "dense")) else KINDS[:2] for name in MOST_REGISTERS
} | {"dense_forward_wide_kernel": KINDS[:2]}

built = pytest.mark.skipif(
    util.find_spec("torchnn._cuda") is None, reason="built without CUDA kernels"
)
gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")


def test_the_cuda_library_is_built_where_nvcc_is():
    if os.environ.get("TORCHNN_CUDA") == "0" or NVCC is None:
        pytest.skip("no nvcc, or it is not wanted")
    assert util.find_spec("torchnn._cuda")


@built
@pytest.mark.parametrize(
    "name", ["dense_forward", "dense_backward", "train_", "train_many_", "shuffle_", "predict"]
)
def test_kernels_are_registered_for_cuda(name):
    assert ops.activations()
    assert torch._C._dispatch_has_kernel_for_dispatch_key(f"torchnn::{name}", "CUDA")


assembled_here = pytest.mark.skipif(
    not all(log.exists() for log in LOGS) or os.environ.get("TORCHNN_CUDA_QUICK") == "1",
    reason="the CUDA kernels were not built here, or not for use",
)


def assembled():
    """Bytes of stack and of spills, and registers, of each (kernel, type, GPU)."""
    pattern = (
        rf"Compiling entry function '\w+\d({'|'.join(MOST_REGISTERS)})I({'|'.join(KINDS)})\w+' "
        r"for '(sm_\w+)'\n.*\n"
        r" +(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads\n"
        r"ptxas info +: Used (\d+) registers"
    )
    found = re.findall(pattern, "".join(log.read_text() for log in LOGS))
    return {(kernel, kind, gpu): [*map(int, numbers)] for kernel, kind, gpu, *numbers in found}


@assembled_here
def test_kernels_keep_everything_in_registers_and_few_of_them():
    kernels = assembled()
    gpus = {gpu for _, _, gpu in kernels}
    assert len(kernels) == sum(map(len, KINDS_OF.values())) * len(gpus) > 0
    for (name, *rest), (*memory, registers) in kernels.items():
        assert memory == [0, 0, 0], (name, *rest)
        assert registers <= MOST_REGISTERS[name], (name, *rest)


@assembled_here
@pytest.mark.skipif(NVCC is None, reason="no nvcc")
def test_the_registers_on_record_are_those_of_the_kernels():
    version = subprocess.run([NVCC, "--version"], capture_output=True, text=True).stdout
    if "release 13.0" not in version:
        pytest.skip("docs/kernels.md has the registers of nvcc 13.0")
    record = (ROOT / "docs" / "kernels.md").read_text()
    kernels = assembled()
    built_for = {gpu for _, _, gpu in kernels}
    for name in MOST_REGISTERS:
        cells = r" \| ([^|]*)" * len(GPUS)
        row = re.search(rf"^\| `{name.removesuffix('_kernel')}`{cells} \|$", record, re.MULTILINE)
        columns = dict(zip(GPUS, row.groups(), strict=True))
        for gpu in built_for:
            registers = [str(kernels[name, kind, gpu][-1]) for kind in KINDS_OF[name]]
            assert columns[gpu] == ", ".join(registers), (name, gpu)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize(
    "command",
    [
        ["bash", "benchmarks/gpu/run.sh"],
        [sys.executable, "-m", "benchmarks.dense", "--device", "cuda"],
        [sys.executable, "-m", "benchmarks.gpu.training"],
    ],
)
def test_without_a_gpu_its_benchmarks_end_with_one_line(command, tmp_path):
    environment = os.environ | {"PYTHON": sys.executable, "OUT": str(tmp_path)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode != 0
    assert re.fullmatch(r"there is no GPU here that PyTorch \S+ can use\n", done.stderr)


@gpu
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("activation", ops.activations())
@pytest.mark.parametrize(
    "shape",
    [
        (300, 290, 260),  # through the library
        (1500, 31, 70),  # too many rows for the fused backward
        (40_000, 3, 30),  # more tiles than blocks, forward
        (256, 32_800, 1),  # and backward
        (1000, 40, 25),  # rows that are joined in the pass for grad_z
        (4_300_000, 8, 5),  # and many of them
        (13, 261, 1025),  # a wide layer, a warp for each tile
    ],
)
def test_large_layers_are_as_exact_as_eager(shape, activation, dtype):
    arguments = layer(*shape, dtype, "cuda")
    grad_out = torch.randn(shape[0], shape[2], dtype=dtype, device="cuda")
    wide = [t.double() for t in arguments]

    def results(function, arguments, grad_out):
        out = function(*arguments, activation)
        return out, *gradients(function, arguments, activation, grad_out)

    assert_as_exact_as_eager(
        results(ops.dense, arguments, grad_out),
        results(reference.dense, arguments, grad_out),
        results(reference.dense, wide, grad_out.double()),
        torch.finfo(dtype).eps if dtype.itemsize == 2 else rounding(shape, dtype),
    )


@gpu
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("activation", reference.KEEP_Z)
@pytest.mark.parametrize("shape", [(32, 40, 25), (300, 290, 260)])  # fused, and by the library
def test_the_gradients_of_what_keeps_z_are_exact(shape, activation, dtype):
    x, weight, bias = layer(*shape, dtype, "cuda")
    z, grad_out = F.linear(x, weight, bias), torch.randn(shape[0], shape[2], device="cuda")
    given = grad_out.to(dtype), z, x, weight
    place = ops.activations().index(activation)
    found = torch.ops.torchnn.dense_backward(*given, place, True, True, True)
    exact = reference.dense_backward(*(t.double() for t in given), activation)
    for ours, expected in zip(found, exact, strict=True):
        off = (ours.double() - expected).abs().max() / expected.abs().max()
        assert off < 4 * torch.finfo(dtype).eps * shape[1] ** 0.5


@gpu
def test_large_layers_take_any_leading_shape():
    x = torch.randn(3, 2, 70, 300, device="cuda").transpose(0, 2).requires_grad_()
    _, weight, bias = layer(1, 300, 200, device="cuda")
    out = ops.dense(x, weight, bias, "tanh")
    expected = reference.dense(x, weight, bias, "tanh")
    assert out.shape == (70, 2, 3, 200)
    torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-4)
    grad = torch.randn_like(out)
    ours, theirs = (torch.autograd.grad(a, x, grad) for a in (out, expected))
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


@gpu
@pytest.mark.parametrize("shape", [(32, 400, 25), (1500, 300, 70)])
def test_the_same_input_gives_the_same_bits(shape):
    arguments = layer(*shape, device="cuda")
    grad_out = torch.randn(shape[0], shape[2], device="cuda")
    first, second = (gradients(ops.dense, arguments, "sigmoid", grad_out) for _ in range(2))
    assert all(map(torch.equal, first, second))


@gpu
def test_the_precision_of_pytorch_is_honoured():
    arguments = layer(304, 288, 272, device="cuda")
    exact = ops.dense(*arguments)
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("high")  # TensorFloat-32
        assert torch.equal(ops.dense(*arguments), F.linear(*arguments))
        assert not torch.equal(ops.dense(*arguments), exact)
    finally:
        torch.set_float32_matmul_precision(before)


@gpu
@pytest.mark.parametrize("shape", [(32, 400, 25), (300, 290, 260)])
def test_a_cuda_graph_replays_forward_and_backward(shape):
    inputs = [t.requires_grad_() for t in layer(*shape, device="cuda")]
    grad_out = torch.randn(shape[0], shape[2], device="cuda")

    def step():
        out = ops.dense(*inputs, "sigmoid")
        return out, *torch.autograd.grad(out, inputs, grad_out)

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):  # also shows that the current stream is the one that is used
        step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        results = step()
    with torch.no_grad():
        inputs[0].normal_()
    graph.replay()
    for value, expected in zip(results, step(), strict=True):
        assert torch.equal(value, expected)


@gpu
def test_kernels_wait_for_what_the_current_stream_does():
    arguments = layer(64, 400, 25, device="cuda")
    expected = ops.dense(*arguments, "sigmoid")
    torch.cuda.synchronize()
    with torch.cuda.stream(torch.cuda.Stream()):
        late = torch.zeros_like(arguments[0])
        torch.cuda._sleep(50_000_000)
        late.copy_(arguments[0])
        out = ops.dense(late, *arguments[1:], "sigmoid")
        torch.cuda.current_stream().synchronize()
    assert torch.equal(out, expected)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="fewer than two GPUs")
def test_kernels_run_on_the_device_of_their_tensors():
    arguments = layer(32, 400, 25, device="cuda:1")
    assert torch.cuda.current_device() == 0
    out = ops.dense(*arguments, "sigmoid")
    assert out.device == arguments[0].device
    torch.testing.assert_close(out, reference.dense(*arguments, "sigmoid"))
    assert torch.cuda.current_device() == 0


@gpu
def test_a_weight_on_another_device_is_named():
    with pytest.raises(ValueError, match="weight must be on the device of x, cuda:0, got cpu"):
        ops.dense(torch.ones(2, 3, device="cuda"), torch.ones(4, 3))
    with pytest.raises(RuntimeError):
        torch.ops.torchnn.dense_forward(torch.ones(2, 3), torch.ones(4, 3).cuda(), None, 0)
