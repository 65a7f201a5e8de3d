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
BUILD = Path("build", "native")  # unless --build-temp says another; relative to ROOT, as in ninja

TORCH_MINIMUM = (2, 11)
PYTHON_MINIMUM = (3, 10)


def library(name, *patterns):
    """A native library of the package: its bindings, and all kernels of one kind."""
    paths = [path for pattern in patterns for path in sorted(ROOT.glob(pattern))]
    return Extension(name, [str(path.relative_to(ROOT)) for path in paths], py_limited_api=True)


CPU_LIBRARY = library("torchnn._C", "csrc/torch/cpu*.cpp", "csrc/cpu/**/*.cpp")
CUDA_LIBRARY = library("torchnn._cuda", "csrc/torch/cuda*.cpp", "csrc/cuda/*.cu")  # where nvcc is

# No -march: the kernels choose their instruction set when they run.
COMPILE_FLAGS = [
    *("-std=gnu++20", "-O3", "-ffp-contract=fast", "-fno-math-errno"),
    *("-fPIC", "-fvisibility=hidden", "-Wall", "-Wextra", "-Wno-psabi"),
]

# Machine code for each generation of GPUs that nvcc knows, which also runs on later members of it,
# and PTX, which a driver can compile for what came before and for what comes next.
CUDA_ARCHITECTURES = ["80", "90", "100", "120"]
CUDA_PTX = ["75", "80"]
# Division and square root may be off by two units in the last place and one, which spares the exact
# ones' slow paths.
CUDA_FLAGS = [
    *("-std=c++20", "-O3", "--expt-relaxed-constexpr", "-prec-div=false", "-prec-sqrt=false"),
    *("-Xcompiler", "-fPIC,-fvisibility=hidden", "-Xptxas", "--verbose"),
    *("--threads", "0"),  # a GPU each
]

# -ltorch, though nothing is needed of it, pulls PyTorch's CUDA half into scope for the weak symbol
# in csrc/torch/cuda_dense.h. The CUDA runtime inside our library is hidden, since PyTorch brings
# its own.
CUDA_LINK_FLAGS = [
    *("-Wl,--no-as-needed", "-ltorch", "-Wl,--as-needed"),
    *("-lcudart_static", "-ldl", "-lrt", "-lpthread", "-Wl,--exclude-libs,ALL"),
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


class Cuda:
    """The CUDA toolkit that an nvcc belongs to.

    Attributes:
        nvcc: The compiler's path.
        include, link: Flags for the host's compiler: where headers and libraries are.
        targets: Flags for nvcc: what to compile for.
    """

    def __init__(self, nvcc):
        self.nvcc = nvcc
        # nvcc may be a script that calls another; only a dry run tells where its files are.
        plan = self._run("-dryrun", "none.cu")
        self.include = self._variable("INCLUDES", plan)
        self.link = self._variable("LIBRARIES", plan)
        known = self._run("--list-gpu-code").split()
        own = os.environ.get("TORCHNN_CUDA_ARCHITECTURES", "").split()
        wanted = own or CUDA_ARCHITECTURES
        codes = [code for code in wanted if f"sm_{code}" in known]
        if not codes:
            raise SetupError(f"{nvcc} knows none of sm_{', sm_'.join(wanted)}")
        targets = [f"arch=compute_{code},code=sm_{code}" for code in codes]
        ptx = [code for code in CUDA_PTX if f"sm_{code}" in known and not own]
        targets += [f"arch=compute_{code},code=compute_{code}" for code in ptx]
        self.targets = [f"-gencode={target}" for target in targets]

    def _run(self, *arguments):
        done = subprocess.run([self.nvcc, *arguments], capture_output=True, text=True)
        if done.returncode != 0:
            raise SetupError(f"{self.nvcc} does not run: {done.stderr.strip()}")
        return done.stdout + done.stderr

    def _variable(self, name, plan):
        found = re.search(rf"^#\$ {name}=(.*)$", plan, re.MULTILINE)
        if found is None:
            raise SetupError(f"{self.nvcc} -dryrun does not tell its {name}")
        return shlex.split(found[1])


def find_cuda():
    """Returns the Cuda of $CUDA_HOME, or else of the PATH; None without one, or if not wanted."""
    wanted = os.environ.get("TORCHNN_CUDA", "")
    if wanted not in ("", "0", "1"):
        raise SetupError(f"TORCHNN_CUDA must be 0 (leave CUDA out) or 1 (insist), got {wanted}")
    if wanted == "0" or platform.system() != "Linux":
        return None
    home = os.environ.get("CUDA_HOME")
    nvcc = shutil.which("nvcc", path=Path(home, "bin") if home else None)
    if nvcc is None and wanted == "1":
        raise SetupError(f"TORCHNN_CUDA=1, but there is no nvcc in {home or 'the PATH'}")
    return None if nvcc is None else Cuda(nvcc)


def link_flags():
    """Returns this system's flags for a library that Python can load."""
    system = platform.system()
    if system not in LINK_FLAGS:
        raise SetupError(f"torchnn builds on {' and '.join(LINK_FLAGS)}, not on {system}")
    return LINK_FLAGS[system]


def quote(*arguments):
    """Quotes arguments for the shell and for ninja, where $ starts an escape."""
    return shlex.join(map(str, arguments)).replace("$", "$$")


def write_ninja(file, libraries, cuda=None, folder=BUILD):
    """Writes how to build the libraries; ninja rebuilds what has a new command or a new header."""
    try:
        from ninja import ninja_syntax
    except ImportError:
        raise SetupError("the build needs ninja: pip install ninja, then repeat") from None
    torch = find_torch()
    ninja = ninja_syntax.Writer(file)
    ninja.variable("builddir", str(folder))  # ninja's own log
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
    ninja.rule("link", "$cxx -o $out $in $link $extra $ldflags", description="link $out")
    if cuda:
        quick = ["-Ofc=max"] if os.environ.get("TORCHNN_CUDA_QUICK") == "1" else []
        ninja.variable("nvcc", quote(cuda.nvcc, *CUDA_FLAGS, *quick, *cuda.targets))
        ninja.variable("cuda_binding", quote(*cuda.include))
        ninja.variable("cuda_link", quote(*cuda.link, *CUDA_LINK_FLAGS))
        ninja.rule(
            "compile_cuda",
            # What the assembler says of registers and spills is kept for tests/test_cuda.py.
            "$nvcc -MD -MF $out.d -c $in -o $out > $out.log 2>&1 || { cat $out.log; false; }",
            description="compile $in",
            depfile="$out.d",
            deps="gcc",
        )
    for library in libraries:
        is_cuda = library.name == CUDA_LIBRARY.name
        objects = []
        for source in library.sources:
            # The kernels are plain C++: only the bindings see PyTorch and Python.
            extra = "$binding" if Path(source).parent == Path("csrc/torch") else ""
            rule = "compile_cuda" if source.endswith(".cu") else "compile"
            variables = {"extra": extra + (" $cuda_binding" if is_cuda else "")}
            objects += ninja.build(str(folder / f"{source}.o"), rule, source, variables=variables)
        extra = "$cuda_link" if is_cuda else ""
        ninja.build(str(folder / library.name), "link", objects, variables={"extra": extra})


class NinjaBuild(build_ext):
    """Builds all the libraries in one run of ninja and puts them where setuptools wants them."""

    def finalize_options(self):
        self.folder = Path(self.build_temp) if self.build_temp else BUILD
        self.cuda = find_cuda()
        if self.cuda:
            self.distribution.ext_modules = [CPU_LIBRARY, CUDA_LIBRARY]
        super().finalize_options()

    def build_extensions(self):
        if not self.cuda:
            self.warn("building without CUDA kernels: TORCHNN_CUDA is 0, or there is no nvcc")
        build_file = ROOT / self.folder / "build.ninja"
        build_file.parent.mkdir(parents=True, exist_ok=True)
        with build_file.open("w") as file:
            write_ninja(file, self.extensions, self.cuda, self.folder)
        command = [sys.executable, "-m", "ninja", "-f", str(self.folder / "build.ninja")]
        if subprocess.run(command, cwd=ROOT).returncode != 0:
            hint = " (TORCHNN_CUDA=0 leaves the CUDA kernels out)" if self.cuda else ""
            raise CompileError(f"the native libraries do not build: see the messages above{hint}")
        for library in self.extensions:
            target = Path(self.get_ext_fullpath(library.name))
            target.parent.mkdir(parents=True, exist_ok=True)
            self.copy_file(str(ROOT / self.folder / library.name), str(target))


class CheckedMetadata(dist_info):
    """Asks for PyTorch before anything else: pip fetches gigabytes between this and the build."""

    def run(self):
        find_torch()
        super().run()


if int(__version__.split(".")[0]) < 77:  # older ones stumble over pyproject.toml at length
    sys.exit(f"error: setuptools {__version__} is too old: pip install 'setuptools>=77'")
setup(
    ext_modules=[CPU_LIBRARY],
    cmdclass={"build_ext": NinjaBuild, "dist_info": CheckedMetadata},
    options={"bdist_wheel": {"py_limited_api": "cp{}{}".format(*PYTHON_MINIMUM)}},
)
