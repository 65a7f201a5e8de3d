"""Runs of batches, and the samples that they are made of."""

import torch

from torchnn._engine.run import Run, Samples


def numbered(count, device):
    numbers = torch.arange(count, dtype=torch.float32, device=device)
    return Samples(numbers.reshape(count, 1), 10 * numbers, 100 * numbers)


def test_a_run_yields_batches_and_a_short_last_one(device):
    run = Run(numbered(7, device), batch_size=3, start=0, stop=7)
    assert len(run) == 3
    assert run.sizes == [3, 3, 1]
    assert [x.flatten().tolist() for x, _, _ in run] == [[0, 1, 2], [3, 4, 5], [6]]
    assert [weight.tolist() for _, _, weight in run] == [[0, 100, 200], [300, 400, 500], [600]]


def test_a_run_follows_the_order(device):
    order = torch.tensor([4, 2, 0, 3, 1], device=device)
    run = Run(numbered(5, device), batch_size=2, start=2, stop=5, order=order)
    assert [y.tolist() for _, y, _ in run] == [[0, 30], [10]]
    assert run.gather(run.samples.x).flatten().tolist() == [0, 3, 1]


def test_a_run_without_targets_yields_none():
    (batch,) = Run(Samples(torch.ones(2, 1)), batch_size=2, start=0, stop=2)
    assert batch[1:] == (None, None)


def test_split_takes_the_last_rows():
    samples = Samples(torch.arange(10.0).reshape(10, 1), torch.arange(10.0), torch.ones(10))
    train, validation = samples.split(0.25)
    assert train.y.tolist() == [0, 1, 2, 3, 4, 5, 6]
    assert validation.y.tolist() == [7, 8, 9]
    assert (len(train.weight), len(validation.weight)) == (7, 3)
