"""Several tensors in the place of one."""

import pytest
import torch
from torch.testing import assert_close

from torchnn._engine.parts import Parts, cat, returned, taken

A, B = torch.arange(6.0).reshape(3, 2), torch.arange(3.0)


@pytest.mark.parametrize("names", [None, ["a", "b"]])
def test_parts_are_cut_and_gathered_like_a_tensor(names):
    parts = Parts([A, B], names)
    rows = torch.tensor([2, 0])
    assert len(parts) == 3
    assert parts.shape == (3, (2,), ())
    assert (parts.device, parts.dtype) == (A.device, A.dtype)
    assert_close(parts[1:].tensors, [A[1:], B[1:]])
    assert_close(parts.index_select(0, rows).tensors, [A[rows], B[rows]])
    assert_close(cat([parts[:1], parts[1:]]).given, parts.given)
    assert not Parts([A.clone().requires_grad_()]).detach().tensors[0].requires_grad


@pytest.mark.parametrize("value", [[A, B], (A, B), {"a": A, "b": B}])
def test_what_a_model_returns_becomes_parts(value):
    parts = returned(value)
    assert_close(parts.tensors, [A, B])
    assert_close(taken(parts), value if isinstance(value, dict) else [A, B])
    assert parts.part(1, "b") is B


@pytest.mark.parametrize("value", [A, [], 3, [A, 3], [A, [B]], None])
def test_anything_else_stays_as_it_is(value):
    assert returned(value) is value
    assert taken(value) is value


def test_outputs_are_found_by_their_names_before_their_places():
    assert Parts([A, B], ["p", "q"]).part(0, "q") is B
    assert Parts([A, B], ["p", "q"]).part(0, "other") is A
    assert cat([A[:1], A[1:]]).equal(A)
