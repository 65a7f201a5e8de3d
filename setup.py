"""Builds torchnn's native libraries with ninja, without importing PyTorch.

PyTorch is found as files in the environment torchnn is installed into. Its headers are all that
a build needs, so `pip install .` keeps its isolation and never downloads PyTorch a second time.
The libraries use PyTorch's stable ABI and Python's limited API: one build serves every PyTorch
from TORCH_MINIMUM on and every Python from PYTHON_MINIMUM on.
"""

import importlib.machinery
import os
import platform
import re
import shlex
import shutil
import site
import subprocess
import sys
import sysconfig
from pathlib import Path

from setuptools import Extension, __version__, setup
from setuptools.command.build_ext import build_ext
from setuptools.command.dist_info import dist_info
from setuptools.errors import CompileError, SetupError

ROOT = Path(__file__).resolve().parent
BUILD = Path("build", "native")  # relative to ROOT, where ninja runs

TORCH_MINIMUM = (2, 11)
PYTHON_MINIMUM = (3, 10)

# Every native library of the package. One for another device is a second entry here, with its
# compiler's rule in write_ninja.
LIBRARIES = [
    Extension(
        "torchnn._C",
        sources=["csrc/ops.cpp", *(str(p.relative_to(ROOT)) for p in ROOT.glob("csrc/cpu/*.cpp"))],
        py_limited_api=True,
    ),
]

# No -march: the kernels choose their instruction set when they run.
COMPILE_FLAGS = [
    *("-std=gnu++20", "-O3", "-ffp-contract=fast", "-fno-math-errno"),
    *("-fPIC", "-fvisibility=hidden", "-Wall", "-Wextra", "-Wno-psabi"),
]

# Python imports torch before torchnn, so the libraries named here are loaded already and are
# found by name; the rpath is for ldd and whatever else opens ours by itself.
LINK_FLAGS = {
    "Linux": ["-shared", "-ltorch_cpu", "-Wl,-rpath,$ORIGIN/../torch/lib"],
    "Darwin": [
        *("-bundle", "-undefined", "dynamic_lookup"),
        *("-ltorch_cpu", "-Wl,-rpath,@loader_path/../torch/lib"),
    ],
}


def site_directories():
    """Where the target environment keeps its packages, which pip's isolation hides in sys.path."""
    directories = [*sys.path, sysconfig.get_path("platlib"), *site.getsitepackages()]
    if sys.prefix == sys.base_prefix:  # a virtual environment does not see the user's packages
        directories.append(site.getusersitepackages())
    return directories


def find_torch():
    """Returns the directory of an installed PyTorch that is new enough."""
    minimum = ".".join(map(str, TORCH_MINIMUM))
    advice = f"pip install 'torch>={minimum}' into this environment, then repeat"
    spec = importlib.machinery.PathFinder.find_spec("torch", site_directories())
    if spec is None or spec.origin is None:
        raise SetupError(
            f"torchnn is built against PyTorch, and {sys.prefix} has none: {advice} "
            "(a tool that builds in an environment of its own needs --no-build-isolation)"
        )
    torch = Path(spec.origin).parent
    version = re.search(r"__version__ = '([0-9]+)\.([0-9]+)", (torch / "version.py").read_text())
    if version is None or (int(version[1]), int(version[2])) < TORCH_MINIMUM:
        found = f"version {version[1]}.{version[2]}" if version else "an unknown version"
        raise SetupError(f"{torch} is {found}, torchnn needs PyTorch {minimum} or newer: {advice}")
    return torch


def find_python_headers():
    """Returns the directory of Python.h."""
    include = Path(sysconfig.get_path("include"))
    if not (include / "Python.h").exists():
        raise SetupError(
            f"{include} has no Python.h: install this Python's headers "
            "(Debian, Ubuntu: apt install python3-dev; Fedora: dnf install python3-devel)"
        )
    return include


def find_compiler():
    """Returns the C++ compiler's command, as a list: $CXX, or else the first usual one."""
    candidates = [os.environ["CXX"]] if os.environ.get("CXX") else ["c++", "g++", "clang++"]
    for command in map(shlex.split, candidates):
        if shutil.which(command[0]):
            return command
    raise SetupError(
        f"no C++ compiler (looked for {', '.join(candidates)}): install one (Debian, Ubuntu: "
        "apt install g++; Fedora: dnf install gcc-c++; macOS: xcode-select --install) "
        "or name yours in the environment variable CXX"
    )


def link_flags():
    """Returns this system's flags for a library that Python can load."""
    system = platform.system()
    if system not in LINK_FLAGS:
        raise SetupError(f"torchnn builds on {' and '.join(LINK_FLAGS)}, not on {system}")
    return LINK_FLAGS[system]


def quote(*arguments):
    """Quotes arguments for the shell and for ninja, where $ starts an escape."""
    return shlex.join(map(str, arguments)).replace("$", "$$")


def write_ninja(file, libraries):
    """Writes how to build the libraries; ninja rebuilds what has a new command or a new header."""
    try:
        from ninja import ninja_syntax
    except ImportError:
        raise SetupError("the build needs ninja: pip install ninja, then repeat") from None
    torch = find_torch()
    ninja = ninja_syntax.Writer(file)
    ninja.variable("builddir", str(BUILD))  # ninja's own log
    ninja.variable("cxx", quote(*find_compiler()))
    ninja.variable("flags", quote(*COMPILE_FLAGS, *shlex.split(os.environ.get("CXXFLAGS", ""))))
    ninja.variable("link", quote(f"-L{torch}/lib", *link_flags()))
    ninja.variable("ldflags", quote(*shlex.split(os.environ.get("LDFLAGS", ""))))
    ninja.variable(
        "binding",
        quote(
            "-DTORCH_TARGET_VERSION=0x{:02x}{:02x}000000000000".format(*TORCH_MINIMUM),
            "-DPy_LIMITED_API=0x{:02X}{:02X}0000".format(*PYTHON_MINIMUM),
            *("-isystem", torch / "include", "-isystem", find_python_headers()),
        ),
    )
    ninja.rule(
        "compile",
        "$cxx $flags $extra -MD -MF $out.d -c $in -o $out",
        description="compile $in",
        depfile="$out.d",
        deps="gcc",
    )
    ninja.rule("link", "$cxx -o $out $in $link $ldflags", description="link $out")
    for library in libraries:
        objects = []
        for source in library.sources:
            # The kernels are plain C++: only the bindings see PyTorch and Python.
            extra = "$binding" if Path(source).parent == Path("csrc") else ""
            objects += ninja.build(
                str(BUILD / f"{source}.o"), "compile", source, variables={"extra": extra}
            )
        ninja.build(str(BUILD / library.name), "link", objects)


class NinjaBuild(build_ext):
    """Builds all the libraries in one run of ninja and puts them where setuptools wants them."""

    def build_extensions(self):
        build_file = ROOT / BUILD / "build.ninja"
        build_file.parent.mkdir(parents=True, exist_ok=True)
        with build_file.open("w") as file:
            write_ninja(file, self.extensions)
        command = [sys.executable, "-m", "ninja", "-f", str(BUILD / "build.ninja")]
        if subprocess.run(command, cwd=ROOT).returncode != 0:
            raise CompileError("the native libraries do not build: see the messages above")
        for library in self.extensions:
            target = Path(self.get_ext_fullpath(library.name))
            target.parent.mkdir(parents=True, exist_ok=True)
            self.copy_file(str(ROOT / BUILD / library.name), str(target))


class CheckedMetadata(dist_info):
    """Asks for PyTorch before anything else: pip fetches gigabytes between this and the build."""

    def run(self):
        find_torch()
        super().run()


if int(__version__.split(".")[0]) < 77:  # older ones stumble over pyproject.toml at length
    sys.exit(f"error: setuptools {__version__} is too old: pip install 'setuptools>=77'")
setup(
    ext_modules=LIBRARIES,
    cmdclass={"build_ext": NinjaBuild, "dist_info": CheckedMetadata},
    options={"bdist_wheel": {"py_limited_api": "cp{}{}".format(*PYTHON_MINIMUM)}},
)
