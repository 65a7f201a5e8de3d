"""The build: what setup.py does, what it says when something is missing, what comes out."""

import os
import re
import shutil
import subprocess
import sys
import zipfile
from importlib import util
from pathlib import Path

import pytest
import setuptools
import torch
from setuptools.errors import SetupError

import torchnn
from torchnn import ops

ROOT = Path(__file__).resolve().parent.parent
PROJECT = ("setup.py", "pyproject.toml", "README.md", "LICENSE")
NM = shutil.which("nm")
LIBRARIES = [path.name.partition(".")[0] for path in (ROOT / "torchnn").glob("_*.abi3.so")]
AUDIT = shutil.which("torch-abi-audit", path=Path(sys.executable).parent)


@pytest.fixture
def setup_script(monkeypatch):
    """The functions of setup.py, without running setup."""
    monkeypatch.setattr(setuptools, "setup", lambda **arguments: None)
    spec = util.spec_from_file_location("setup_script", ROOT / "setup.py")
    module = util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A copy of the checkout with everything built; what was built before is not built again."""
    copy = tmp_path_factory.mktemp("checkout")
    for name in ("csrc", "torchnn", "build/native"):
        if (ROOT / name).exists():
            shutil.copytree(ROOT / name, copy / name)
    for name in PROJECT:
        shutil.copy2(ROOT / name, copy)
    run_setup(copy, "build_ext", "--inplace")
    return copy


def run(directory, *command):
    """Runs Python in a directory and returns what it printed."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return run_tool(sys.executable, *command, cwd=directory, env=environment)


def run_tool(*command, **options):
    """Runs a command, which must end well, and returns what it printed."""
    result = subprocess.run(command, capture_output=True, text=True, **options)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def run_setup(directory, *arguments):
    """Runs setup.py, then prints whether it imported torch."""
    code = (
        f"import runpy, sys; sys.argv = {['setup.py', *arguments]}; "
        "runpy.run_path('setup.py', run_name='__main__'); "
        "print('imported torch' if 'torch' in sys.modules else 'left torch alone')"
    )
    return run(directory, "-c", code)


def import_error(directory):
    """Imports the package in a directory, without site-packages' copy, and returns the error."""
    code = "import torch\ntry: import torchnn\nexcept ImportError as error: print(error)"
    return run(directory, "-c", code)


def test_building_does_not_import_torch(checkout):
    assert "left torch alone" in run_setup(checkout, "build_ext", "--inplace")


def test_building_again_does_nothing(checkout):
    before = {path: path.stat().st_mtime_ns for path in checkout.rglob("*.o")}
    library = next((checkout / "torchnn").glob("_C.*"))
    before[library] = library.stat().st_mtime_ns
    assert "no work to do" in run_setup(checkout, "build_ext", "--inplace")
    assert len(before) > 1
    assert {path: path.stat().st_mtime_ns for path in before} == before


@pytest.mark.parametrize(
    ("changed", "rebuilt"),
    [
        ("csrc/dense.h", "csrc/cpu/dense.cpp"),
        ("csrc/torch/cpu.cpp", "csrc/torch/cpu.cpp"),
        ("csrc/torch/binding.h", "csrc/torch/cuda.cpp"),
        ("csrc/math/activation.h", "csrc/cuda/dense.cu"),
    ],
)
def test_changed_source_rebuilds_what_includes_it(checkout, changed, rebuilt):
    library = "_cuda" if "cuda" in rebuilt else "_C"
    if library not in LIBRARIES:
        pytest.skip("built without CUDA kernels")
    path = checkout / changed
    status = path.stat()
    path.touch()
    plan = run(checkout, "-m", "ninja", "-n", "-f", "build/native/build.ninja")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert f"compile {rebuilt}\n" in plan
    assert f"link build/native/torchnn.{library}\n" in plan


def test_wheel_serves_every_python_and_holds_the_package_alone(checkout):
    run_setup(checkout, "--quiet", "bdist_wheel")
    [wheel] = (checkout / "dist").glob("*.whl")
    assert re.fullmatch(r"torchnn_fused-[\d.]+-cp310-abi3-\w+\.whl", wheel.name)
    names = zipfile.ZipFile(wheel).namelist()
    folders = {name.split("/")[0] for name in names}
    libraries = {f"torchnn/{library}.abi3.so" for library in LIBRARIES}
    assert {"torchnn/__init__.py", "torchnn/py.typed", "torchnn/_C.abi3.so", *libraries} <= {*names}
    assert all(re.fullmatch(r"torchnn(_fused-[\d.]+\.dist-info)?", folder) for folder in folders)


def test_the_distribution_has_a_name_of_its_own_and_the_version_of_the_package(tmp_path):
    for name in PROJECT:
        shutil.copy2(ROOT / name, tmp_path)
    (tmp_path / "torchnn").mkdir()
    shutil.copy2(ROOT / "torchnn" / "__init__.py", tmp_path / "torchnn")
    run_setup(tmp_path, "--quiet", "dist_info")
    [metadata] = tmp_path.glob("*.dist-info/METADATA")
    told = metadata.read_text().splitlines()
    assert {"Name: torchnn-fused", f"Version: {torchnn.__version__}"} <= {*told}
    assert not any("torchnn[" in line for line in told)


INSTALLS_ANOTHER = re.compile(r"""\binstall(?:\s+-\S+)*\s+['"]?torchnn(?![-\w./])|\btorchnn\[\w""")
WRITTEN = ["*.md", "*.toml", "*.py", "Makefile", ".ci/*", "*/*.md", *[
    f"{folder}/**/*.{kind}"
    for folder in ("torchnn", "tests", "tools", "examples", "benchmarks")
    for kind in ("py", "sh")
]]  # fmt: skip


def test_nothing_installs_the_other_torchnn():
    assert INSTALLS_ANOTHER.search("pip install --no-deps torchnn`")
    assert INSTALLS_ANOTHER.search("pip install 'torchnn" + "[examples]'")
    assert not INSTALLS_ANOTHER.search("pip install torchnn-fused, pip install ./torchnn")
    for path in {path for pattern in WRITTEN for path in ROOT.glob(pattern)} - {Path(__file__)}:
        text = re.sub(r"""["']\s*\n\s*f?["']""", "", path.read_text())  # a string in several lines
        assert not INSTALLS_ANOTHER.search(text), path


@pytest.mark.skipif(AUDIT is None, reason="torch-abi-audit comes with the extra dev")
@pytest.mark.parametrize("library", LIBRARIES)
def test_library_uses_only_the_stable_abi_of_torch_and_python(library):
    command = [AUDIT, "--check", "both", ROOT / "torchnn" / f"{library}.abi3.so"]
    report = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert re.search(r"Torch ABI: +STABLE", report)
    assert re.search(r"Min torch: +2\.11\.0", report)
    assert re.search(r"CPython ABI: +abi3", report)


def test_library_is_named_for_every_python():
    from torchnn import _C

    assert Path(_C.__file__).name == "_C.abi3.so"


@pytest.mark.parametrize("name", ["dense_forward", "dense_backward"])
def test_kernels_are_registered_for_the_cpu(name):
    # PyTorch 2.11 does not report a registration that failed.
    assert ops.activations()
    assert torch._C._dispatch_has_kernel_for_dispatch_key(f"torchnn::{name}", "CPU")


def test_missing_library_is_an_error_with_the_command_that_builds_it(tmp_path):
    ignore = shutil.ignore_patterns("_C.*")
    shutil.copytree(ROOT / "torchnn", tmp_path / "torchnn", ignore=ignore)
    message = import_error(tmp_path)
    assert "No module named 'torchnn._C'" in message  # and not "circular import"
    assert "python setup.py build_ext --inplace" in message
    assert "pip install --force-reinstall --no-deps .`" in message


@pytest.mark.parametrize("library", ["_C", "_cuda"])
def test_broken_library_is_an_error_with_its_cause(tmp_path, library):
    ignore = shutil.ignore_patterns(f"{library}.*")
    shutil.copytree(ROOT / "torchnn", tmp_path / "torchnn", ignore=ignore)
    (tmp_path / "torchnn" / f"{library}.abi3.so").write_bytes(b"not a library")
    message = import_error(tmp_path)
    assert f"{library}.abi3.so" in message
    assert "python setup.py build_ext --inplace" in message


def test_without_the_cuda_library_the_package_works(tmp_path):
    ignore = shutil.ignore_patterns("_cuda.*")
    shutil.copytree(ROOT / "torchnn", tmp_path / "torchnn", ignore=ignore)
    code = (
        "import torch, torchnn.ops as o; print(o.dense(torch.ones(1, 2), torch.ones(1, 2)).item())"
    )
    assert run(tmp_path, "-c", code) == "2.0\n"


@pytest.mark.skipif(not (NM and "_cuda" in LIBRARIES), reason="no nm, or no CUDA kernels")
def test_the_cuda_runtime_within_stays_within():
    # PyTorch brings a CUDA runtime of its own: neither may find the functions of the other.
    symbols = run_tool(NM, "-D", ROOT / "torchnn" / "_cuda.abi3.so")
    assert not re.search(r" [A-Za-z] _{0,2}cuda\w+", symbols)
    assert re.search(r" w aoti_torch_get_current_cuda_stream$", symbols, re.MULTILINE)


def test_without_nvcc_the_build_leaves_cuda_out_and_says_so(checkout, monkeypatch, tmp_path):
    monkeypatch.setenv("TORCHNN_CUDA", "0")
    command = [sys.executable, "setup.py", "--quiet", "build_ext", "--build-lib", tmp_path]
    done = subprocess.run(command, cwd=checkout, capture_output=True, text=True, check=True)
    assert (done.stdout + done.stderr).count("building without CUDA kernels") == 1
    assert [path.name for path in (tmp_path / "torchnn").iterdir()] == ["_C.abi3.so"]


@pytest.mark.parametrize(
    ("wanted", "message"),
    [("1", r"TORCHNN_CUDA=1, but there is no nvcc in the PATH"), ("yes", "must be 0 .* got yes")],
)
def test_cuda_that_is_asked_for_in_vain_is_one_line(setup_script, monkeypatch, wanted, message):
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CUDA_HOME", raising=False)
    monkeypatch.setenv("TORCHNN_CUDA", wanted)
    with pytest.raises(SetupError, match=message):
        setup_script.find_cuda()


NVCC = """#!/bin/sh
case $1 in
-dryrun) cat >&2 <<END
#\\$ TOP=/opt/cuda/bin/..
#\\$ INCLUDES="-I/opt/cuda/bin/../include"
#\\$ LIBRARIES=  "-L/opt/cuda/bin/../lib/stubs" "-L/opt/cuda/bin/../lib"
END
;;
--list-gpu-code) echo sm_75 sm_80 sm_90;;
esac
"""


def test_cuda_is_found_through_its_compiler(setup_script, monkeypatch, tmp_path):
    (tmp_path / "bin").mkdir()
    nvcc = tmp_path / "bin" / "nvcc"
    nvcc.write_text(NVCC)
    nvcc.chmod(0o755)
    for variable in ("TORCHNN_CUDA", "TORCHNN_CUDA_ARCHITECTURES"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("CUDA_HOME", str(tmp_path))
    cuda = setup_script.find_cuda()
    assert cuda.nvcc == str(nvcc)
    assert cuda.include == ["-I/opt/cuda/bin/../include"]
    assert cuda.link == ["-L/opt/cuda/bin/../lib/stubs", "-L/opt/cuda/bin/../lib"]
    assert cuda.targets == [  # of those we name, what this nvcc knows, and PTX of the first
        "-gencode=arch=compute_80,code=sm_80",
        "-gencode=arch=compute_90,code=sm_90",
        "-gencode=arch=compute_75,code=compute_75",
        "-gencode=arch=compute_80,code=compute_80",
    ]
    monkeypatch.setenv("TORCHNN_CUDA_ARCHITECTURES", "90 120")
    assert setup_script.find_cuda().targets == ["-gencode=arch=compute_90,code=sm_90"]
    monkeypatch.setenv("TORCHNN_CUDA_ARCHITECTURES", "10")
    with pytest.raises(SetupError, match=r"knows none of sm_10$"):
        setup_script.find_cuda()


def test_missing_torch_is_one_line_that_says_what_to_do(setup_script, monkeypatch, tmp_path):
    monkeypatch.setattr(setup_script, "site_directories", lambda: [str(tmp_path)])
    with pytest.raises(SetupError, match=r"has none: pip install 'torch>=2\.11'") as caught:
        setup_script.find_torch()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("version", ["2.9.1+cpu", "1.13.1"])
def test_old_torch_is_one_line_that_says_what_to_do(setup_script, monkeypatch, tmp_path, version):
    make_torch(tmp_path, version)
    monkeypatch.setattr(setup_script, "site_directories", lambda: [str(tmp_path)])
    release = ".".join(version.split(".")[:2])
    with pytest.raises(SetupError, match=rf"is version {release}, .* 2\.11 or newer: pip install"):
        setup_script.find_torch()


@pytest.mark.parametrize("version", ["2.11.0+cu130", "2.13.0", "3.0.0a0+git1234567"])
def test_new_torch_is_found_as_files(setup_script, monkeypatch, tmp_path, version):
    make_torch(tmp_path, version)
    monkeypatch.setattr(setup_script, "site_directories", lambda: [str(tmp_path)])
    assert setup_script.find_torch() == tmp_path / "torch"


def make_torch(directory, version):
    (directory / "torch").mkdir()
    (directory / "torch" / "__init__.py").touch()
    (directory / "torch" / "version.py").write_text(f"__version__ = '{version}'\n")


def test_missing_compiler_is_one_line_that_says_what_to_do(setup_script, monkeypatch, tmp_path):
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    message = r"no C\+\+ compiler \(looked for c\+\+, g\+\+, clang\+\+\): install one"
    with pytest.raises(SetupError, match=message):
        setup_script.find_compiler()


def test_compiler_is_the_one_that_cxx_names(setup_script, monkeypatch):
    monkeypatch.setenv("CXX", f"{sys.executable} -m ziglang")
    assert setup_script.find_compiler() == [sys.executable, "-m", "ziglang"]


def test_missing_python_headers_are_one_line_that_says_what_to_do(
    setup_script, monkeypatch, tmp_path
):
    monkeypatch.setattr(setup_script.sysconfig, "get_path", lambda name: str(tmp_path))
    with pytest.raises(SetupError, match=r"has no Python\.h: install .* python3-dev"):
        setup_script.find_python_headers()


def test_missing_ninja_is_one_line_that_says_what_to_do(setup_script, monkeypatch):
    monkeypatch.setitem(sys.modules, "ninja", None)
    with pytest.raises(SetupError, match="the build needs ninja: pip install ninja"):
        setup_script.write_ninja(None, [])


def test_minimum_versions_agree(setup_script):
    project = (ROOT / "pyproject.toml").read_text()
    assert '"torch>={}.{}"'.format(*setup_script.TORCH_MINIMUM) in project
    assert 'requires-python = ">={}.{}"'.format(*setup_script.PYTHON_MINIMUM) in project
