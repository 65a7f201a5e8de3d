"""The kit for a GPU machine, benchmarks/gpu: it runs dry on the CPU, and is small enough to go."""

import json
import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from benchmarks.gpu import counters, kit, rivals
from torchnn import ops

ROOT = Path(__file__).parent.parent
KIT = ROOT / "benchmarks" / "gpu"
NEEDS_A_GPU = {"check", "probe", "counters", "tests"}
COMMIT = "abcdef0"  # of libraries that were built elsewhere
LIMIT = 64 << 20  # bytes that travel to a GPU machine, at most


@pytest.fixture(scope="module")
def dry(tmp_path_factory):
    """The folder of a dry run, and what that said."""
    folder = tmp_path_factory.mktemp("out")
    environment = os.environ | {"PYTHON": sys.executable, "OUT": str(folder), "DRY": "1"}
    environment["COMMIT"] = COMMIT
    command = ["bash", str(KIT / "run.sh")]
    return folder, subprocess.run(command, env=environment, capture_output=True, text=True)


def rows_of(folder, name):
    document = json.loads((folder / f"{name}.json").read_text())
    assert {"gpu", "commit", "date", "processor", "torch"} <= set(document["machine"])
    return document.get("rows", document)


def test_every_phase_runs_dry_or_says_that_it_needs_a_gpu(dry):
    folder, done = dry
    assert done.returncode == 0, done.stdout + done.stderr
    verdicts = {row["phase"]: row["verdict"] for row in rows_of(folder, "summary")["phases"]}
    assert set(verdicts) == NEEDS_A_GPU | {
        *("load", "smoke", "many", "training", "fit", "rivals", "dense")
    }
    for phase, verdict in verdicts.items():
        assert verdict == ("needs a GPU" if phase in NEEDS_A_GPU else "passed"), phase


def test_results_name_the_commit_that_the_libraries_were_built_from(dry):
    for path in dry[0].glob("*.json"):
        assert json.loads(path.read_text())["machine"]["commit"] == COMMIT, path.name


def test_eight_files_at_most_come_back(dry):
    # ncu.csv.gz and counters-cuda.json come only from a GPU
    files = {path.name for path in dry[0].iterdir()} | {"ncu.csv.gz", "counters-cuda.json"}
    assert len(files) == 8


def test_the_summary_has_the_errors_of_every_loss_rule_and_dtype(dry):
    found = rows_of(dry[0], "summary")
    cases = {(row["loss"], row["update"], row["dtype"]) for row in found["smoke"]}
    assert len(cases) == len(found["smoke"]) == len(ops.losses()) * len(ops.updates()) * 2
    assert all(row["fine"] and row["same_bits"] for row in found["smoke"])
    assert found["facts"][1]["registered"]


def test_many_models_are_compared_and_timed(dry):
    rows = rows_of(dry[0], "summary")["many"]
    assert {"poisson", "huber"} <= {row["loss"] for row in rows if "loss" in row}
    assert all(row["fine"] for row in rows if "loss" in row)
    (timed,) = (row for row in rows if "network" in row)
    assert timed["us_a_step"] > 0
    assert ("jax" in timed) == bool(find_spec("jax"))


def test_own_times_have_their_rows(dry):
    rows = rows_of(dry[0], "training-cuda")
    assert [row["update"] for row in rows if "update" in row] == ["gradient_descent", "adam"]
    assert all(row["us_a_step"]["median"] > 0 for row in rows if "update" in row)
    assert sum("us_a_call_beside_steps" in row for row in rows) == 1
    assert [row["fit_on"] for row in rows if "fit_on" in row] == ["cpu"]


@pytest.mark.parametrize("of_jax", [False, True], ids=["PyTorch", "JAX"])
def test_rivals_are_checked_and_timed_beside_ours(dry, of_jax):
    if of_jax and not find_spec("jax"):
        pytest.skip("jax comes with the extra bench")
    found = rows_of(dry[0], "rivals-cuda")
    assert [(r["rival"], r["network"], r["models"]) for r in found] == rivals.DRY_PLAN
    rows = [row for row in found if row["rival"].startswith("JAX") == of_jax]
    assert {("classes", 1), ("tiny", 3)} <= {(row["network"], row["models"]) for row in rows}
    for row in rows:
        assert "error" not in row, row
        has_own_adam = row["network"] == "classes" and not of_jax  # epsilon in another place
        assert row["loss_off_by"] < (5e-5 if has_own_adam else 1e-5)
        assert row["ratio"] == row["us_a_step"]["median"] / row["ours"]["median"]


@pytest.mark.skipif(find_spec("jax") is not None, reason="jax is here")
def test_without_jax_its_rows_say_so(dry):
    rows = [r for r in rows_of(dry[0], "rivals-cuda") if r["rival"].startswith("JAX")]
    assert {row["error"] for row in rows} == {"ModuleNotFoundError: No module named 'jax'"}


def test_single_layers_have_their_rows(dry):
    rows = rows_of(dry[0], "dense-cuda")
    assert [(row["backward"], row["graph"]) for row in rows] == [
        (False, False),
        (False, True),
        (True, False),
        (True, True),
    ]
    assert all(row["ratio"] > 0 for row in rows)


def test_fit_is_timed_beside_the_engine_and_the_host(dry):
    rows = rows_of(dry[0], "fit-cuda")
    assert [(row["epochs"], row["verbose"]) for row in rows if "epochs" in row] == [(3, 0), (3, 1)]
    assert [row["replayed"] for row in rows if "replayed" in row] == [False, True]
    assert all(row.get("us_a_step") or row["host_us_a_call"] > 0 for row in rows)


def test_a_phase_without_time_is_not_begun(tmp_path):
    environment = os.environ | {"PYTHON": sys.executable, "OUT": str(tmp_path), "DRY": "1"}
    command = ["bash", str(KIT / "run.sh")]
    subprocess.run(command, env=environment | {"BUDGET": "0"}, capture_output=True)
    phases = json.loads((tmp_path / "summary.json").read_text())["phases"]
    assert {row["verdict"] for row in phases} == {"no time", "needs a GPU"}


def test_what_travels_to_a_gpu_machine_fits():
    git = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(git, cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("no git checkout")
    prepared = subprocess.run(
        ["bash", str(KIT / "prepare.sh"), "--list"], capture_output=True, text=True, check=True
    ).stdout.split()
    assert prepared == ["torchnn/_C.abi3.so", "torchnn/_cuda.abi3.so", "build/gpu"]
    paths = [ROOT / name for name in [*listed.stdout.split("\0")[:-1], *prepared]]
    paths += [path for folder in paths if folder.is_dir() for path in folder.rglob("*")]
    assert sum(path.stat().st_size for path in set(paths) if path.is_file()) < LIMIT


def test_an_error_is_a_row_and_costs_no_other(tmp_path, capsys):
    class Options:
        folder, seconds, device = tmp_path, 60, "cpu"

    def work(number):
        return {"inverse": 1 / number}

    rows = kit.Rows("numbers", Options)
    rows.fill([{"number": 0}, {"number": 2}], work)
    Options.seconds = -1
    late = kit.Rows(None, Options)
    late.fill([{"number": 4}], work)
    assert rows_of(tmp_path, "numbers") == [
        {"number": 0, "error": "ZeroDivisionError: division by zero"},
        {"number": 2, "inverse": 0.5},
    ]
    assert late == [{"number": 4, "skipped": "no time"}]
    assert rows.failed
    assert not late.failed


# Two models and five steps of each, so that a count of 10 is 1 a step of one model.
CSV = """==PROF== Disconnected
"ID","Kernel Name","gpu__time_duration.sum","smsp__inst_executed.sum",\
"lts__t_sectors.sum","dram__bytes_read.sum","dram__bytes_write.sum",\
"sm__pipe_fma_cycles_active.avg.pct_of_peak_sustained_active",\
"smsp__average_warps_issue_stalled_barrier_per_issue_active.ratio",\
"smsp__average_warps_issue_stalled_drain_per_issue_active.ratio"
"","","ms","inst","sector","Kbyte","byte","%","inst","inst"
"0","train_kernel","0.030","2,000","50","1.5","500","29.5","1.25","0"

"Kernel Name","train_kernel"
"Address","Source","# Samples","Instructions Executed","L1 Wavefronts Shared"
"0x0","      LDS.128 R4, [R2]","10","100","400"
"0x1","@!P0  FFMA R1, R2, R3, R4","20","300","0"
"0x2","@P1   FFMA R1, R2, R3, R4","0","200","0"
"0x3","      BAR.SYNC.DEFER_BLOCKING 0x0","30","50","0"
"0x4","@!UP2 STS [R2], R4","40","10","20"
"0x5","      EXIT","0","10","0"
"""


def test_the_digest_counts_a_step_of_one_model():
    metrics, _ = counters.read(CSV.splitlines())
    found = counters.summarize(metrics, models=2, steps=5)
    assert found["a_step"] == {"us": pytest.approx(6), "cycles": None}  # the latter is not there
    counts = found["a_step_of_one_model"]
    assert (counts["instructions"], counts["l2_bytes"], counts["dram_bytes"]) == (200, 160, 200)
    assert counts["shared_wavefronts"] is None
    assert found["percent_of_peak"]["fma"] == 29.5
    assert found["warps_stalled_an_instruction"] == {"barrier": 1.25}


def test_the_digest_cuts_the_kernel_at_its_barriers():
    _, instructions = counters.read(CSV.splitlines())
    assert list(counters.parts(instructions, models=2, steps=5)) == [
        {
            "part": 0,
            "share_of_samples": 0.6,
            "instructions": 65,
            "shared_wavefronts": 40,
            "opcodes": {"FFMA": 50, "LDS": 10, "BAR": 5},
        },
        {
            "part": 1,
            "share_of_samples": 0.4,
            "instructions": 2,
            "shared_wavefronts": 2,
            "opcodes": {"STS": 1, "EXIT": 1},
        },
    ]


@pytest.mark.parametrize("kernel", counters.PROFILED)
def test_what_the_profiler_sees_runs(kernel):
    counters.launch(kernel, "cpu")


def test_a_digest_is_of_each_kernel(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(counters, "network_of", lambda *_: SimpleNamespace(steps=20))
    options = SimpleNamespace(folder=tmp_path, seconds=60, device="cpu")
    rows = kit.Rows("counters-cuda", options)
    for kernel in counters.PROFILED:
        (tmp_path / f"{kernel}.csv").write_text(CSV)
        counters.digest(kernel, tmp_path, rows)
    saved = rows_of(tmp_path, "counters-cuda")
    assert [row["kernel"] for row in saved] == ["train"] * 3 + ["train_many"] * 3
    assert saved[0]["models"] * 4 == saved[3]["models"] == 528
    assert "train_many between barriers" in capsys.readouterr().out


def test_no_benchmark_hides_a_package_that_pytorch_imports():
    # A script that is run by its path finds the modules of its own folder first.
    package = Path(torch.__file__).parent
    statement = re.compile(r"^\s*(?:from (\w+)[\w.]* import\b|import (\w+))", re.MULTILINE)
    imported = set(sys.stdlib_module_names)
    for path in package.rglob("*.py"):
        imported |= {a or b for a, b in statement.findall(path.read_text(errors="replace"))}
    assert {"cuda", "numpy"} <= imported
    own = {path.stem for path in (ROOT / "benchmarks").rglob("*") if path.suffix in ("", ".py")}
    assert own & imported == {"__init__"} & imported
