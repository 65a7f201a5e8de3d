"""Where the cycles go: a launch of a kernel for Nsight Compute to profile, and a digest of what it
says.

    ncu ... python -m benchmarks.gpu.counters launch train
    python -m benchmarks.gpu.counters digest train --pages FOLDER

The digest reads FOLDER/train.csv, the pages "raw" and "source" one after the other, and gives
counts per step of one model, since counts are what predictions are about. The kernel's instructions
are cut at its barriers: the parts of a step lie in the order of the machine code, each with its
share of the samples.
"""

import csv
import re
from collections import Counter
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from benchmarks.gpu import kit
from benchmarks.gpu.device import wait
from benchmarks.gpu.many import many
from benchmarks.gpu.training import arguments, network_of
from benchmarks.harness import show
from torchnn import ops

# Kernels, by the operators that launch them: what they train, and how many models, as many as all
# multiprocessors of an H100 or H200 have room for at once.
PROFILED = {"train": ("notes", 132), "train_many": ("digits", 4 * 132)}
EPOCHS = 4
COUNTS = {  # per step of one model: the sum of these, and by what to multiply it
    "instructions": (("smsp__inst_executed.sum",), 1),
    "shared_wavefronts": (("l1tex__data_pipe_lsu_wavefronts_mem_shared.sum",), 1),
    "load_conflicts": (("l1tex__data_bank_conflicts_pipe_lsu_mem_shared_op_ld.sum",), 1),
    "store_conflicts": (("l1tex__data_bank_conflicts_pipe_lsu_mem_shared_op_st.sum",), 1),
    "l2_bytes": (("lts__t_sectors.sum",), 32),  # bytes a sector
    "dram_bytes": (("dram__bytes_read.sum", "dram__bytes_write.sum"), 1),
}
TIMES = {"us": "gpu__time_duration.sum", "cycles": "sm__cycles_elapsed.max"}  # a step of all
SHARES = {  # percent of what the device could do at most
    "issue": "smsp__issue_active.avg.pct_of_peak_sustained_active",
    "fma": "sm__pipe_fma_cycles_active.avg.pct_of_peak_sustained_active",
    "shared_memory": "l1tex__data_pipe_lsu_wavefronts_mem_shared.sum.pct_of_peak_sustained_elapsed",
}
STALL = re.compile(r"smsp__average_warps_issue_stalled_(\w+)_per_issue_active\.ratio")
UNITS = {"ns": 1e-3, "us": 1, "ms": 1e3, "s": 1e6, "Kbyte": 1e3, "Mbyte": 1e6, "Gbyte": 1e9}
BARRIER = re.compile(r"\bBAR\.SYNC\b")
OPCODE = re.compile(r"^\s*(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9]*)")

Metrics = dict[str, float | None]


def launch(kernel: str, where: str) -> None:
    """One call of some hundred steps and nothing else: the profiler takes the first it sees."""
    network, models = ("tiny", 1) if where == "cpu" else PROFILED[kernel]
    if kernel == "train":
        ops.train_(**arguments(network_of(network, where), models, EPOCHS, where))
    else:
        ops.train_many_(many(network, models, EPOCHS, where))
    wait(where)


def read(lines: list[str]) -> tuple[Metrics, list[dict[str, str]]]:
    """The metrics of the launch, in bytes and microseconds, and its instructions in their order."""
    raw = next(i for i, line in enumerate(lines) if line.startswith('"ID"'))
    source = next(i for i, line in enumerate(lines) if line.startswith('"Address"'))
    names, units, values = csv.reader(lines[raw : raw + 3])
    scaled = zip(names, units, values, strict=True)
    metrics = {name: _number(value, UNITS.get(unit, 1)) for name, unit, value in scaled}
    return metrics, list(csv.DictReader(lines[source:]))


def _number(text: str, unit: float) -> float | None:
    """None for what is no number, such as a name or a metric without a value."""
    text = text.replace(",", "")
    return float(text) * unit if re.fullmatch(r"-?\d+(\.\d+)?(e[+-]?\d+)?", text) else None


def summarize(metrics: Metrics, models: int, steps: int) -> dict[str, object]:
    """Times a step, counts a step of one model, percents of the peak, stalls an instruction.

    A metric that this version of the profiler does not have is None.
    """

    def total(names: tuple[str, ...], scale: float) -> float | None:
        values = [metrics.get(name) for name in names]
        return None if None in values else sum(values) * scale

    times = {key: total((name,), 1 / steps) for key, name in TIMES.items()}
    counts = {k: total(names, scale / (models * steps)) for k, (names, scale) in COUNTS.items()}
    stalls = {m[1]: value for name, value in metrics.items() if (m := STALL.fullmatch(name))}
    return {
        "models": models,
        "steps": steps,
        "a_step": times,
        "a_step_of_one_model": counts,
        "percent_of_peak": {key: metrics.get(name) for key, name in SHARES.items()},
        "warps_stalled_an_instruction": {k: v for k, v in stalls.items() if v},
    }


def parts(
    instructions: list[dict[str, str]], models: int, steps: int
) -> Iterator[dict[str, object]]:
    """The kernel between its barriers: share of samples, and counts a step of one model."""
    samples = sum(int(row["# Samples"]) for row in instructions)
    for number, part in enumerate(_cut(instructions)):
        opcodes: Counter[str] = Counter()
        for row in part:
            opcode = OPCODE.match(row["Source"])
            opcodes[opcode[1] if opcode else "?"] += int(row["Instructions Executed"])
        most = {name: count / (models * steps) for name, count in opcodes.most_common(4)}
        wavefronts = sum(int(row["L1 Wavefronts Shared"]) for row in part)
        yield {
            "part": number,
            "share_of_samples": sum(int(row["# Samples"]) for row in part) / max(samples, 1),
            "instructions": opcodes.total() / (models * steps),
            "shared_wavefronts": wavefronts / (models * steps),
            "opcodes": most,
        }


def _cut(instructions: list[dict[str, str]]) -> list[list[dict[str, str]]]:
    """Cuts after each barrier."""
    found: list[list[dict[str, str]]] = [[]]
    for row in instructions:
        found[-1].append(row)
        if BARRIER.search(row["Source"]):
            found.append([])
    return [part for part in found if part]


def print_table(kernel: str, rows: list[dict[str, object]]) -> None:
    lines = [
        [
            str(row["part"]),
            f"{row['share_of_samples']:.1%}",
            *(f"{row[name]:,.0f}" for name in ("instructions", "shared_wavefronts")),
            ", ".join(f"{name} {count:,.0f}" for name, count in row["opcodes"].items()),
        ]
        for row in rows
    ]
    columns = ["part", "samples", "instructions", "shared wavefronts", "most of them"]
    show(f"{kernel} between barriers, a step of one model", columns, lines)


def digest(kernel: str, pages: Path, rows: kit.Rows) -> None:
    """Adds what the pages of a kernel say to the rows, and prints its parts."""
    metrics, instructions = read((pages / f"{kernel}.csv").read_text().splitlines())
    network, models = PROFILED[kernel]
    steps = EPOCHS * network_of(network, "cuda").steps
    found = list(parts(instructions, models, steps))
    for row in chain([summarize(metrics, models, steps)], found):
        rows.add(kernel=kernel, **row)
    print_table(kernel, found)


def main() -> None:
    made = kit.parser(__doc__)
    made.add_argument("what", choices=["launch", "digest"])
    made.add_argument("kernels", nargs="+", choices=list(PROFILED))
    made.add_argument("--pages", type=Path, help="where those of a digest are")
    options = kit.parse(made)
    if options.what == "launch":
        for kernel in options.kernels:
            launch(kernel, options.device)
        return
    rows = kit.Rows("counters-cuda", options)
    for kernel in options.kernels:
        digest(kernel, options.pages, rows)


if __name__ == "__main__":
    main()
