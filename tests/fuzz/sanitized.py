"""The library under AddressSanitizer and UBSan, beside the ordinary one; GCC's, on Linux."""

import os
import subprocess
import sys
from pathlib import Path

from setuptools.errors import CompileError

ROOT = Path(__file__).parent.parent.parent
FOLDER = ROOT / "build" / "sanitized"
SANITIZERS = "-fsanitize=address,undefined"
FLAGS = (
    f"-O1 -g1 -fno-omit-frame-pointer {SANITIZERS} -fno-sanitize=vptr "
    "-fno-sanitize-recover=undefined"
)


def build():
    """Builds what has changed, and copies the Python of the package; returns the folder."""
    environment = os.environ | {"TORCHNN_CUDA": "0", "CXXFLAGS": FLAGS, "LDFLAGS": SANITIZERS}
    command = [sys.executable, "setup.py", "--quiet", "build", f"--build-lib={FOLDER}"]
    command += ["build_ext", f"--build-temp={FOLDER / 'native'}"]
    if subprocess.run(command, cwd=ROOT, env=environment).returncode != 0:
        raise CompileError("the sanitized library does not build")
    return FOLDER


def environment():
    """What a Python needs that loads it."""
    compiler = os.environ.get("CXX") or "c++"
    libraries = [
        subprocess.check_output([compiler, f"-print-file-name={name}"], text=True).strip()
        for name in ("libasan.so", "libstdc++.so.6")  # the second for its exceptions
    ]
    # PyTorch leaks at exit. Fresh memory is NaN, and a request too large an error, not the end.
    # To note where each piece of memory comes from would take most of the time.
    options = (
        "detect_leaks=0:max_malloc_fill_size=65536:malloc_fill_byte=255:allocator_may_return_null=1"
        ":malloc_context_size=0:quarantine_size_mb=32"
    )
    return {"LD_PRELOAD": " ".join(libraries), "ASAN_OPTIONS": options}
