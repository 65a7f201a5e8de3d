"""Random cases of tests/fuzz, each from a seed: a fixed few here, any number by `make fuzz`.

They run on the ordinary library: one under sanitizers takes four minutes of a core to build, and a
case in it twice as long; `make fuzz` has it. The kernels' own tests run under sanitizers as it is.
"""

import random

import numpy as np
import pytest
import torch

from tests.fuzz import memory, operators, programs, runner


@pytest.mark.parametrize(
    ("module", "cases"),
    [
        ("operators", 1000),
        ("programs", 40),
        ("many", 25),
        ("watched", 75),
        ("interrupts", 30),
        ("faults", 30),
        ("files", 750),
    ],
)
def test_random_cases_go_well(module, cases):
    assert runner.campaign(module, seed=0, seconds=600, cases=cases) == []


def test_a_case_follows_from_its_seed():
    assert operators.describe("0/7") == operators.describe("0/7") != operators.describe("0/8")
    assert vars(programs.Program("0/7"))["seed"] == vars(programs.Program("0/7"))["seed"]


def test_a_child_that_dies_is_named_and_the_next_goes_on_behind_it(monkeypatch, capsys):
    children = iter([({0: "done", 1: runner.DIED}, "Segmentation fault"), ({2: "done"}, "")])
    monkeypatch.setattr(runner, "run", lambda *_: next(children))
    assert runner.campaign("operators", seed=5, seconds=60, cases=3) == [1]
    said = capsys.readouterr().out
    assert "python -m tests.fuzz operators --seed 5 --first 1 --cases 1" in said
    assert "Segmentation fault" in said
    assert "operators: 3 cases" in said


def test_other_numbers_are_seen():
    expected = torch.ones(3, dtype=torch.float64)
    assert operators.compare([expected + 1e-9], lambda _: [expected], {}) == "compared"
    with pytest.raises(AssertionError, match="off by"):
        operators.compare([expected + 1e-3], lambda _: [expected], {})
    with pytest.raises(AssertionError, match="weight 0, against"):
        programs.compare({"weight 0": np.ones(3)}, {"weight 0": np.zeros(3)}, "itself", 0, 0)


def test_what_is_written_beside_a_tensor_is_seen():
    watch = memory.Watch(random.Random(2))
    tensor = watch.place(torch.zeros(2, 3))
    tensor += 1
    watch.assert_unchanged(margins_only=True)
    with pytest.raises(AssertionError, match="have changed"):
        watch.assert_unchanged(margins_only=False)
    tensor.as_strided((7,), (1,))[6] = 0
    with pytest.raises(AssertionError, match="have changed"):
        watch.assert_unchanged(margins_only=True)


def test_shared_memory_is_seen():
    x = torch.zeros(6)
    assert memory.overlaps([x[:4]], [x[3:]])
    assert memory.overlaps([x[:4], x[2:]], [])
    assert not memory.overlaps([x[:3]], [x[3:], x[:0]])
