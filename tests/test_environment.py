"""tools/environment.py: which Python a Make target runs in."""

import shutil
import subprocess
import sys
from importlib import metadata, util
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parent.parent / "tools" / "environment.py"


@pytest.fixture
def environment(monkeypatch):
    monkeypatch.delenv("PYTHON", raising=False)
    spec = util.spec_from_file_location("environment", SCRIPT)
    module = util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_requirements_follow_one_extra_into_another(environment):
    found = environment.requirements("dev")
    assert {"torch>=2.11", "numpy", "setuptools>=77", "ninja", "scikit-learn", "hypothesis"} <= {
        *found
    }
    assert any(requirement.startswith("ruff==") for requirement in found)
    assert not any(requirement.startswith("torchnn") for requirement in found)
    assert len(found) == len(set(found))


def test_unknown_extra_is_an_error(environment):
    with pytest.raises(SystemExit, match="has no list named nonsense"):
        environment.requirements("nonsense")


@pytest.mark.parametrize(
    ("requirement", "met"),
    [
        ("torch", True),
        ("torch>=2.11", True),
        ("torch>=2.9", True),
        ("torch>=2.13.1", False),
        ("torch==2.13.0", False),
        ("torch==2.13.0+cpu", True),
        ("absent", False),
    ],
)
def test_requirement_is_met_by_a_new_enough_version(environment, monkeypatch, requirement, met):
    def version(name):
        if name == "torch":
            return "2.13.0+cpu"
        raise metadata.PackageNotFoundError

    monkeypatch.setattr(metadata, "version", version)
    assert environment.is_met(requirement) is met


def test_first_python_that_has_everything_is_used(environment, monkeypatch):
    answers = {environment.VENV_PYTHON: 1, "python3": 0}

    def ask(python, extra):
        return subprocess.CompletedProcess([], answers[python], "/usr/bin/python3.12\n", "")

    monkeypatch.setattr(environment, "ask", ask)
    assert environment.find("test") == "/usr/bin/python3.12"


def test_python_that_the_user_names_is_the_only_one(environment, monkeypatch):
    monkeypatch.setenv("PYTHON", "/no/such/python")
    with pytest.raises(SystemExit, match=r"PYTHON=/no/such/python will not do: .*No such file"):
        environment.find("test")


def test_python_that_lacks_something_says_what(environment, monkeypatch):
    monkeypatch.setattr(environment, "is_met", lambda requirement: requirement != "numpy")
    with pytest.raises(SystemExit, match=r"^it lacks numpy$"):
        environment.check("test")


def test_python_that_runs_the_tests_has_what_they_need():
    command = [sys.executable, str(SCRIPT), "--check", "test"]
    answer = subprocess.run(command, capture_output=True, text=True)
    assert answer.stdout.strip() == sys.executable, answer.stderr


def test_torch_is_never_installed_without_a_version(environment, monkeypatch):
    commands = []
    monkeypatch.setattr(environment, "succeeds", lambda *command: False)
    monkeypatch.setattr(environment, "run", lambda *command: commands.append(command[4:]))
    environment.install("test")
    assert commands[0] == ("torch==2.13.0",)
    assert "torch>=2.11" in commands[1]


@pytest.mark.skipif(shutil.which("make") is None, reason="no make")
@pytest.mark.parametrize(
    ("gpu", "built", "wanted"),
    [("", False, "0"), ("/dev/nvidia0", False, ""), ("", True, "")],
)
def test_the_demo_builds_cuda_for_a_gpu_or_where_it_was_built(gpu, built, wanted, tmp_path):
    shutil.copy(SCRIPT.parent.parent / "Makefile", tmp_path)
    (tmp_path / "torchnn").mkdir()
    if built:
        (tmp_path / "torchnn" / "_cuda.abi3.so").touch()
    command = ["make", "--dry-run", "demo", f"gpu={gpu}"]
    plan = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert f"TORCHNN_CUDA=${{TORCHNN_CUDA-{wanted}}} " in plan
