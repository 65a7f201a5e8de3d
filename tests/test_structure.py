"""The shape of the project: who may include, import and name what."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
CSRC = ROOT / "csrc"
PACKAGE = ROOT / "torchnn"
KERNELS = [p for p in sorted(CSRC.rglob("*.*")) if p.suffix in (".h", ".cpp", ".cu", ".cuh")]
BINDINGS = {"binding.h", "ops.cpp", "ops_cuda.cpp"}

# Lower layers first; a module imports only from lines above its own, or from its own.
LAYERS = [
    "_C reference transfer",
    "ops",
    "checks registry initializers activations layer schedules",
    "graphs interrupts hooks lines screen weights names data callbacks optimizer",
    "dense losses metrics optimizers",
    "layers batches recipe",
    "autograd tally building",
    "fused",
    "engine",
    "progress summary",
    "training",
    "model",
    "sequential utils",
    "__init__",
]
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names.split()}


def includes(path):
    return re.findall(r'^\s*#include\s+[<"]([^>"]+)[>"]', path.read_text(), re.MULTILINE)


@pytest.mark.parametrize("path", KERNELS, ids=lambda p: str(p.relative_to(CSRC)))
def test_only_the_bindings_include_pytorch_and_python(path):
    foreign = [i for i in includes(path) if re.match(r"torch/|ATen|c10/|Python\.h", i)]
    assert bool(foreign) == (path.name in BINDINGS)


def test_the_lists_of_maths_depend_on_the_lane_alone():
    for name in ("activation.h", "loss.h", "update.h"):
        path = CSRC / name
        if path.exists():
            own = [i for i in includes(path) if i.endswith(".h")]
            assert set(own) <= {"lane.h", "list.h"}, name
    assert [i for i in includes(CSRC / "lane.h") if i.endswith(".h")] == []


def declared_functions(name):
    """The functions of namespace cpu in a header, in their order."""
    header = (CSRC / f"{name}.h").read_text()
    contract = header[header.index("namespace cpu {") : header.index("}  // namespace cpu")]
    return re.findall(r"^(?:void|bool) (\w+)\(", contract, re.MULTILINE)


def defined_functions(path):
    """Those of them that a file defines, in its order: on the GPU, what a block of threads runs."""
    qualifier = "__device__ " if path.suffix == ".cu" else ""
    found = re.findall(rf"^{qualifier}(?:void|bool) (\w+)\(", path.read_text(), re.MULTILINE)
    return [name for name in found if name in declared_functions(path.stem)]


def steps(path):
    return re.findall(r"^\s*// (\d+\. .*)$", path.read_text(), re.MULTILINE)


def test_the_cpu_defines_the_contract_in_its_order():
    declared = declared_functions("dense")
    assert defined_functions(CSRC / "cpu" / "dense.cpp") == declared
    assert declared


def test_the_dense_layer_on_cuda_is_the_twin_of_that_on_the_cpu():
    cpu, cuda = CSRC / "cpu" / "dense.cpp", CSRC / "cuda" / "dense.cu"
    assert defined_functions(cuda) == defined_functions(cpu)
    assert steps(cuda) == steps(cpu)
    assert steps(cuda)


def test_the_training_engines_take_the_same_steps():
    # Who does what differs: slices for threads of the CPU, everything for a block or warp on CUDA.
    def heads(path):
        return [re.match(r"\d+\. \w+", step)[0] for step in steps(path)]

    cpu = heads(CSRC / "cpu" / "train.cpp")
    for name in ("train.cu", "train_warp.cu"):
        cuda = heads(CSRC / "cuda" / name)
        assert len(cuda) == len(cpu) == 5
        assert cuda[1:] == cpu[1:]


def test_cuda_defines_the_contract_of_training_in_its_order():
    header = (CSRC / "train.h").read_text()
    function = re.compile(r"^(?:void|int64_t) (\w+)\(", re.MULTILINE)
    declared = function.findall(header[header.index("namespace cuda {") :])
    defined = []
    for name in ("train", "train_warp", "layers"):
        kernels = (CSRC / "cuda" / f"{name}.cu").read_text()
        found = function.findall(kernels[kernels.index("}  // namespace\n") :])
        assert found
        defined += found
    assert defined == declared


def imports(path):
    """The modules of torchnn that a file imports at its top level."""
    found = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.ImportFrom) and node.module == "torchnn":
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("torchnn."):
            found.add(node.module.split(".")[1])
        elif isinstance(node, ast.Import):
            found |= {a.name.split(".")[1] for a in node.names if a.name.startswith("torchnn.")}
    return found


def test_every_module_has_its_layer():
    assert {p.stem for p in PACKAGE.glob("*.py")} <= set(LEVEL)


@pytest.mark.parametrize("path", sorted(PACKAGE.glob("*.py")), ids=lambda p: p.stem)
def test_imports_go_down_only(path):
    too_high = {name for name in imports(path) if LEVEL[name] > LEVEL[path.stem]}
    assert not too_high


def test_reference_and_training_keep_to_themselves():
    assert imports(PACKAGE / "reference.py") == set()
    assert "layers" not in imports(PACKAGE / "training.py")


def test_every_module_has_its_tests():
    # the definition of the operators is what tests/test_ops.py measures them by
    tested = {p.stem.removeprefix("test_") for p in (ROOT / "tests").glob("test_*.py")}
    assert {p.stem for p in PACKAGE.glob("[a-z]*.py")} <= tested | {"reference"}
