"""The shape of the project: who may include, import and name what."""

import ast
import graphlib
import importlib
import re
import sys
from inspect import ismodule
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
CSRC = ROOT / "csrc"
PACKAGE = ROOT / "torchnn"
KERNELS = [p for p in sorted(CSRC.rglob("*.*")) if p.suffix in (".h", ".cpp", ".cu", ".cuh")]
MATHS = ("activation", "loss", "update")

# Lower floors first; a module imports only from floors below its own, or from its own.
FLOORS = [
    "_C _cuda ops _array _checks _config _files _version _warnings",
    "activations callbacks constraints initializers layers losses metrics optimizers regularizers",
    "_engine",
    "_console",
    "_training",
    "_keras_weights",
    "_saving",
    "_keras_models _network backend datasets model _many models saving sequential sweeps "
    "tuning utils",
    "__init__",
    "sklearn tf",
]
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms.split()}
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}
PUBLIC = {
    "torchnn",
    "torchnn.activations",
    "torchnn.backend",
    "torchnn.callbacks",
    "torchnn.constraints",
    "torchnn.datasets",
    "torchnn.datasets.boston_housing",
    "torchnn.datasets.california_housing",
    "torchnn.datasets.digits",
    "torchnn.datasets.fashion_mnist",
    "torchnn.datasets.mnist",
    "torchnn.initializers",
    "torchnn.layers",
    "torchnn.losses",
    "torchnn.metrics",
    "torchnn.model",
    "torchnn.models",
    "torchnn.ops",
    "torchnn.ops.reference",
    "torchnn.optimizers",
    "torchnn.optimizers.legacy",
    "torchnn.optimizers.schedules",
    "torchnn.regularizers",
    "torchnn.saving",
    "torchnn.sequential",
    "torchnn.sklearn",
    "torchnn.sweeps",
    "torchnn.tf",
    "torchnn.tf.autograph",
    "torchnn.tf.config",
    "torchnn.tf.data",
    "torchnn.tf.linalg",
    "torchnn.tf.math",
    "torchnn.tf.nn",
    "torchnn.tf.random",
    "torchnn.tuning",
    "torchnn.utils",
}
ROOMS = ["torchnn._console", "torchnn._engine", "torchnn._files", "torchnn._training"]
# The tests of a module are those of its name, but for these.
TESTED_BY = {
    "torchnn": "sequential",
    "torchnn._array": "activations",
    "torchnn._engine.plan": "choice",
    "torchnn._files.tree": "saving",
    "torchnn._files.storage": "saving",
    "torchnn._keras_weights": "keras_models",
    "torchnn._training.going_on": "backup",
    "torchnn._version": "environment",
    "torchnn._training.fit": "interrupted",
    "torchnn._training.members": "many",
    "torchnn.callbacks._base": "hooks",
    "torchnn.callbacks._ema": "averages",
    "torchnn.callbacks._history": "callbacks",
    "torchnn.callbacks._loops": "callback_list",
    "torchnn.callbacks._monitor": "callbacks",
    "torchnn.callbacks._rates": "callbacks",
    "torchnn.datasets._files": "datasets",
    "torchnn.datasets.boston_housing": "datasets",
    "torchnn.datasets.california_housing": "datasets",
    "torchnn.datasets.digits": "datasets",
    "torchnn.datasets.fashion_mnist": "datasets",
    "torchnn.datasets.mnist": "datasets",
    "torchnn.layers._activations": "layers",
    "torchnn.layers._base": "layer",
    "torchnn.layers._lazy": "normalization",
    "torchnn.layers._symbols": "graph",
    "torchnn.layers._values": "call",
    "torchnn.layers._weightless": "layers",
    "torchnn.losses._base": "losses",
    "torchnn.losses._crossentropy": "losses",
    "torchnn.losses._functions": "losses",
    "torchnn.losses._means": "losses",
    "torchnn.metrics._base": "metrics",
    "torchnn.metrics._functions": "means",
    "torchnn.metrics._torch": "metrics",
    "torchnn.ops._dense": "ops",
    "torchnn.ops._many": "train_many",
    "torchnn.ops._native": "ops",
    "torchnn.ops._network": "train_op",
    "torchnn.ops.reference": "ops",  # the definition that these measure the operators by
    "torchnn.optimizers._base": "optimizer",
    "torchnn.optimizers._common": "optimizer",
    "torchnn.optimizers._rare": "optimizers",
    "torchnn.optimizers._torch": "optimizers",
    "torchnn.optimizers.legacy": "optimizers",
    "torchnn.sklearn._base": "sklearn",
    "torchnn.sweeps._chunks": "sweeps",
    "torchnn.sweeps._files": "sweeps",
    "torchnn.sweeps._folds": "sweeps",
    "torchnn.sweeps._halving": "sweeps",
    "torchnn.sweeps._making": "sweeps",
    "torchnn.sweeps._plot": "sweeps",
    "torchnn.sweeps._result": "sweeps",
    "torchnn.sweeps._rounds": "sweeps",
    "torchnn.sweeps._space": "sweeps",
    "torchnn.sweeps._sweep": "sweeps",
    "torchnn.sweeps._table": "sweeps",
    "torchnn.tf._arrays": "tf",
    "torchnn.tf._keras": "tf",
    "torchnn.tf._missing": "tf",
    "torchnn.tf._running": "tf",
    "torchnn.tf._tape": "tf",
    "torchnn.tf._tensor": "tf",
    "torchnn.tf.autograph": "tf",
    "torchnn.tf.config": "tf",
    "torchnn.tf.data": "tf",
    "torchnn.tf.linalg": "tf",
    "torchnn.tf.math": "tf",
    "torchnn.tf.nn": "tf",
    "torchnn.tf.random": "tf",
}


def includes(path):
    return re.findall(r'^\s*#include\s+[<"]([^>"]+)[>"]', path.read_text(), re.MULTILINE)


@pytest.mark.parametrize("path", KERNELS, ids=lambda p: str(p.relative_to(CSRC)))
def test_only_the_bindings_include_pytorch_and_python(path):
    foreign = [i for i in includes(path) if re.match(r"torch/csrc|ATen|c10/|Python\.h", i)]
    assert not foreign or path.parent == CSRC / "torch"


# What the files of each folder of csrc may include.
MAY_INCLUDE = {
    "math": {"math"},
    "": {"", "math"},
    "cpu/simd": {"cpu/simd", "math"},
    "cpu": {"cpu", "cpu/simd", "", "math"},
    "cuda": {"cuda", "", "math"},
    "torch": {"torch", "cpu/simd", "cuda", "", "math"},
}


@pytest.mark.parametrize("path", KERNELS, ids=lambda p: str(p.relative_to(CSRC)))
def test_includes_go_down_only(path):
    def folder(file):
        return file.parent.relative_to(CSRC).as_posix().removeprefix(".")

    for include in re.findall(r'^\s*#include "([^"]+)"', path.read_text(), re.MULTILINE):
        file = (path.parent / include).resolve()
        assert file.exists(), include
        assert folder(file) in MAY_INCLUDE[folder(path)], include


def test_the_lists_of_maths_depend_on_the_lane_alone():
    for name in MATHS:
        own = [i for i in includes(CSRC / "math" / f"{name}.h") if i.endswith(".h")]
        assert set(own) <= {"lane.h", "list.h"}, name
    assert [i for i in includes(CSRC / "math" / "lane.h") if i.endswith(".h")] == []


def test_where_a_batch_ends_is_said_once_in_each_language():
    files = [*KERNELS, *PACKAGE.rglob("*.py")]
    division = re.compile(r"[^/]/ batch_size|-.* // .*batch_size\b|divmod\(.*batch_size")
    found = [path.name for path in files if division.search(path.read_text())]
    assert sorted(found) == ["run.py", "train.h"]


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
    for name in ("train.cu", "train_warp.cu", "train_many.cu"):
        cuda = heads(CSRC / "cuda" / name)
        assert len(cuda) == len(cpu) == 5
        assert cuda[1:] == cpu[1:]


def test_cuda_defines_the_contract_of_training_in_its_order():
    header = (CSRC / "train.h").read_text()
    function = re.compile(r"^(?:void|int64_t) (\w+)\(", re.MULTILINE)
    declared = function.findall(header[header.index("namespace cuda {") :])
    defined = []
    for name in ("train", "train_warp", "train_many", "shuffle", "layers"):
        kernels = (CSRC / "cuda" / f"{name}.cu").read_text()
        found = function.findall(kernels[kernels.index("}  // namespace\n") :])
        assert found
        defined += found
    assert defined == declared


def imported(path):
    """The modules that a file imports anywhere; a package only where it takes a name from it."""
    package = path.parent.relative_to(ROOT).parts
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            inside = package[: len(package) + 1 - node.level] if node.level else ()
            source = ".".join([*inside, *filter(None, [node.module])])
            for alias in node.names:
                inner = f"{source}.{alias.name}"
                yield inner if inner in MODULES or alias.name in ("_C", "_cuda") else source


def imports(path):
    """The modules of torchnn that a file imports, and the other packages that these lie in."""
    found = {name for name in imported(path) if name.partition(".")[0] == "torchnn"}
    rooms = {".".join(name.split(".")[:2]) for name in found - {"torchnn"}}
    return found | {room for room in rooms if PACKAGE / room.partition(".")[2] != path.parent}


def floor(module):
    return FLOOR[[*module.split("."), "__init__"][1]]


def test_every_module_has_its_floor():
    assert {name.split(".")[1] for name in MODULES if "." in name} <= set(FLOOR)


@pytest.mark.parametrize("name", MODULES)
def test_imports_go_down_only(name):
    assert not {each for each in imports(MODULES[name]) if floor(each) > floor(name)}


def test_no_module_imports_itself_by_way_of_others():
    graphlib.TopologicalSorter({name: imports(MODULES[name]) for name in MODULES}).prepare()


def test_reference_loops_and_sequential_keep_to_themselves():
    reference = {name.partition(".")[0] for name in imported(MODULES["torchnn.ops.reference"])}
    assert reference - sys.stdlib_module_names == {"torch"}
    assert "torchnn.layers" not in imports(MODULES["torchnn._training.loops"])
    users = [name for name, path in MODULES.items() if "torchnn.sequential" in imports(path)]
    assert users == ["torchnn", "torchnn._keras_models", "torchnn.models"]


def test_warnings_go_through_the_module_that_finds_the_users_line():
    direct = re.compile(r"(?<!_)warnings\.warn\(")
    assert [name for name, path in MODULES.items() if direct.search(path.read_text())] == [
        "torchnn._warnings"
    ]


def test_what_is_private_begins_with_an_underscore():
    assert {name for name in MODULES if "._" not in name} == PUBLIC


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_public_modules_list_their_names_and_show_no_private_module(name):
    module = importlib.import_module(name)
    assert [public for public in module.__all__ if not hasattr(module, public)] == []
    shown = [value for key, value in vars(module).items() if key[0] != "_" and ismodule(value)]
    assert {m.__name__ for m in shown if m.__name__.partition(".")[0] == "torchnn"} <= PUBLIC


@pytest.mark.parametrize("name", ROOMS)
def test_a_room_of_machinery_says_what_it_is_for_and_imports_nothing(name):
    (docstring,) = ast.parse(MODULES[name].read_text()).body
    assert isinstance(docstring.value.value, str)


def test_every_module_has_its_tests():
    tests = {path.stem.removeprefix("test_") for path in (ROOT / "tests").glob("test_*.py")}
    own = {name: name.rpartition(".")[2].lstrip("_") for name in MODULES if name not in ROOMS}
    assert {name for name, test in (own | TESTED_BY).items() if test not in tests} == set()
    assert set(TESTED_BY) <= set(MODULES)
