"""The order of an epoch, and its cutting into batches and runs."""

from itertools import chain, cycle

import pytest
import torch
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from torchnn._engine.run import Form, Samples
from torchnn._training import batches
from torchnn._training.batches import ArrayFeed, LoaderFeed, permutation

FORM = Form(torch.device("cpu"), torch.float32)


def numbered(count, device="cpu"):
    numbers = torch.arange(count, dtype=torch.float32, device=device)
    return Samples(numbers.reshape(count, 1), 10 * numbers, 100 * numbers)


def ys(runs):
    return [y.tolist() for run in runs for _, y, _ in run]


def test_an_epoch_visits_every_sample_once(device):
    feed = ArrayFeed(numbered(10, device), batch_size=3, seed=5)
    seen = list(chain.from_iterable(ys(feed.runs(epoch=0))))
    assert sorted(seen) == [10.0 * i for i in range(10)]
    assert seen != sorted(seen)


def test_without_a_seed_rows_stay_in_order():
    assert ys(ArrayFeed(numbered(3), batch_size=2).runs()) == [[0, 10], [20]]


def test_runs_of_one_batch_are_the_same_batches():
    feed = ArrayFeed(numbered(100), batch_size=3, seed=5)
    one_by_one = list(feed.runs(4, one_by_one=True))
    assert [len(run) for run in one_by_one] == [1] * feed.steps
    assert ys(one_by_one) == ys(feed.runs(4))


def lengths(feed, seconds):
    """The batches of each run of an epoch, if every run takes so long."""
    found = []
    for run in feed.runs():
        feed.learn(run, seconds)
        found.append(len(run))
    return found


def test_runs_grow_when_batches_are_quick():
    feed = ArrayFeed(numbered(1000), batch_size=1)
    assert lengths(feed, 0.0) == [batches.FIRST_PACE, 1000 - batches.FIRST_PACE]
    assert lengths(feed, 0.0) == [1000]  # the pace is remembered


def test_runs_shrink_when_batches_are_slow():
    assert lengths(ArrayFeed(numbered(14), batch_size=1), 4.0) == [8, 1, 1, 1, 1, 1, 1]


def test_a_run_has_a_few_batches_unless_they_take_long():
    feed = ArrayFeed(numbered(30), batch_size=1)
    run = next(feed.runs())
    for pauses, expected in ((0.1, 9), (0.6, 4), (2, 2), (6, 1)):  # a batch takes so many
        feed.learn(run, len(run) * pauses * batches.PAUSE * 1.01)
        assert len(next(feed.runs())) == expected, pauses


def test_runs_take_as_long_as_a_pause(monkeypatch):
    for is_queued, expected in ((False, 100), (True, 50)):
        monkeypatch.setattr(batches, "is_queued", lambda device, queued=is_queued: queued)
        feed = ArrayFeed(numbered(1000), batch_size=1)
        run = next(feed.runs())
        feed.learn(run, batches.PAUSE * len(run) / 100)
        assert len(next(feed.runs())) == expected


def test_a_short_rest_is_taken_along():
    half = batches.FIRST_PACE // 2
    for rest, expected in ((half, [8 + half]), (half + 1, [8, half + 1])):
        assert lengths(ArrayFeed(numbered(8 + rest), batch_size=1), 0.0) == expected


@pytest.mark.parametrize("seed", [None, 5])
def test_several_epochs_in_a_run_are_the_epochs_one_by_one(device, seed):
    feed = ArrayFeed(numbered(7, device), batch_size=3, seed=seed)
    lengths(feed, 0.0)  # to know the pace
    run = feed.epochs(2, most=3)
    assert (run.epochs, run.epoch_size, len(run)) == (3, 7, 9)
    assert run.sizes == [3, 3, 1] * 3
    assert ys(run.split()) == ys([run])
    assert ys([run]) == [batch for epoch in (2, 3, 4) for batch in ys(feed.runs(epoch))]


def test_an_epoch_that_takes_long_is_not_put_together_with_others():
    feed = ArrayFeed(numbered(20), batch_size=1)
    lengths(feed, 1.0)
    assert feed.epochs(1, most=5) is None


def test_the_order_is_a_function_of_seed_and_epoch():
    orders = {
        (seed, epoch): permutation(50, seed, epoch).tolist()
        for seed in (0, 1, 2**32)
        for epoch in (0, 1, 2)
    }
    assert orders[1, 2] == permutation(50, 1, 2).tolist()
    different = {tuple(orders[seed, epoch]) for seed in (0, 1) for epoch in (0, 1, 2)}
    assert len(different) == 6


def test_the_global_generator_is_left_alone():
    before = torch.get_rng_state()
    list(ArrayFeed(numbered(10), batch_size=3, seed=5).runs())
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        (2, [[[0, 10], [20, 30]], [[40], [0, 10]], [[20, 30], [40]]]),
        (4, [[[0, 10], [20, 30], [40], [0, 10]], [[20, 30], [40], [0, 10], [20, 30]]]),
    ],
)
def test_an_epoch_of_so_many_batches_begins_where_the_last_one_ended(steps, expected):
    feed = ArrayFeed(numbered(5), batch_size=2)
    feed.limit(steps, repeats=True)
    assert feed.steps == steps
    assert [ys(feed.runs(epoch)) for epoch in range(len(expected))] == expected
    assert feed.epochs(0, most=3) is None
    assert ys(feed.runs(1, first=1)) == expected[1][1:]


def test_batches_that_follow_in_another_pass_have_its_order():
    feed, whole = (ArrayFeed(numbered(5), batch_size=2, seed=5) for _ in range(2))
    feed.limit(4, repeats=True)
    batches = ys(feed.runs(0)) + ys(feed.runs(1))
    assert batches == [batch for epoch in range(3) for batch in ys(whole.runs(epoch))][:8]


def test_what_is_measured_is_not_measured_twice():
    feed = ArrayFeed(numbered(5), batch_size=2)
    feed.limit(7)
    assert (feed.steps, ys(feed.runs())) == (3, [[0, 10], [20, 30], [40]])
    feed.limit(2)
    assert ys(feed.runs()) == ys(feed.runs()) == [[0, 10], [20, 30]]


class Stream(IterableDataset):
    """Three samples, of unknown number."""

    def __init__(self):
        self.reads = 0

    def __iter__(self):
        for i in range(3):
            self.reads += 1
            yield torch.tensor([float(i)]), torch.tensor(10.0 * i)


def loader_feed(loader, check=lambda y: None):
    return LoaderFeed(loader, FORM, 32, check)


def test_a_loader_gives_its_own_batches():
    loader = DataLoader(TensorDataset(numbered(5).x.double(), numbered(5).y), batch_size=2)
    feed = loader_feed(loader)
    assert feed.steps == 3
    assert ys(feed.runs(0)) == ys(feed.runs(1)) == [[0, 10], [20, 30], [40]]
    assert feed.first.x.dtype == torch.float32


def test_a_loader_may_give_weights_and_lists():
    feed = loader_feed([([[1.0]], [0.0], [2.0])])
    ((_, _, weight),) = next(feed.runs())
    assert weight.tolist() == [2.0]


def test_the_batch_that_showed_the_shapes_is_not_read_twice():
    stream = Stream()
    feed = loader_feed(DataLoader(stream, batch_size=2))
    assert feed.steps is None
    assert ys(feed.runs()) == [[0, 10], [20]]
    assert stream.reads == 3
    assert ys(feed.runs()) == [[0, 10], [20]]


def test_every_batch_of_a_loader_is_checked():
    loader = [([[1.0]], [0.5]), ([[float("nan")]], [0.5])]
    feed = loader_feed(loader)
    with pytest.raises(ValueError, match="x from the list must be finite"):
        ys(feed.runs())


def test_predicting_from_a_loader_ignores_its_targets():
    feed = LoaderFeed([([[1.0]], ["a", "b", "c"])], FORM, 32)
    assert [batch[1] for run in feed.runs() for batch in run] == [None]


def batches_of(count):
    """As many batches of one sample, one by one."""
    for i in range(count):
        yield [[float(i)]], [10.0 * i]


def test_a_generator_goes_on_with_each_epoch_and_comes_to_its_end():
    feed = loader_feed(batches_of(5))
    feed.limit(2, repeats=True)
    assert (feed.steps, feed.identity) == (2, None)
    seen = []
    while not feed.is_over():
        seen.append(ys(feed.runs()))
    assert seen == [[[0], [10]], [[20], [30]], [[40]]]


def test_a_generator_is_read_no_further_than_need_be():
    batches = batches_of(9)
    feed = loader_feed(batches)
    feed.limit(3)
    assert not feed.is_over()
    assert ys(feed.runs()) == [[0], [10], [20]]
    assert next(batches)[1] == [30]


def test_a_loader_of_so_many_batches_an_epoch_begins_anew_after_all():
    feed = loader_feed(DataLoader(TensorDataset(numbered(5).x, numbered(5).y), batch_size=2))
    feed.limit(2, repeats=True)
    assert [ys(feed.runs()) for _ in range(3)] == [
        [[0, 10], [20, 30]],
        [[40], [0, 10]],
        [[20, 30], [40]],
    ]


class Anew:
    """Three batches, as often as they are asked for."""

    def __iter__(self):
        return batches_of(3)


def test_an_epoch_of_so_many_batches_leaves_the_others_to_the_next():
    feed = loader_feed(Anew())
    feed.limit(2, repeats=True)
    assert [ys(feed.runs()) for _ in range(3)] == [[[0], [10]], [[20], [0]], [[10], [20]]]


def test_what_is_measured_of_a_loader_is_the_same_each_time():
    feed = loader_feed(Anew())
    feed.limit(2)
    assert ys(feed.runs()) == ys(feed.runs()) == [[0], [10]]


class ByNumber:
    """Three batches, and how often all have been read."""

    ends = 0

    def __len__(self):
        return 3

    def __getitem__(self, index):
        return [[float(index)]], [10.0 * index]

    def on_epoch_end(self):
        self.ends += 1


def test_batches_by_number_come_in_their_order_or_in_one_of_each_epoch():
    given = ByNumber()
    feed = batches.feed(FORM, 32, given, check_targets=lambda y: None)
    assert feed.steps == 3
    assert ys(feed.runs()) == ys(feed.runs()) == [[0], [10], [20]]
    assert given.ends == 2
    feed.shuffle(seed=5)
    orders = [ys(feed.runs()) for _ in range(6)]
    assert all(sorted(order) == [[0], [10], [20]] for order in orders)
    assert len({str(order) for order in orders}) > 1


@pytest.mark.parametrize(
    ("value", "gives"),
    [
        (batches_of(1), True),
        (iter([]), True),
        (ByNumber(), True),
        (DataLoader([1]), True),
        ([[1.0]], False),
        (((1.0,),), False),
        (torch.zeros(1), False),
        (torch.zeros(1).numpy(), False),
        ({"a": [1.0]}, False),
        ("text", False),
        (range(3), False),
        (ByNumber, False),
        (None, False),
        (TensorDataset(torch.zeros(1)), False),
    ],
)
def test_arrays_are_told_from_what_gives_batches(value, gives):
    assert batches.gives_batches(value) == gives


@pytest.mark.parametrize(
    ("loader", "epochs", "message"),
    [
        (cycle([([[1.0]], [1.0])]), 1, "x never ends: pass steps_per_epoch"),
        (batches_of(3), 2, "x is a generator, which can be read only once, not in each of 2"),
    ],
)
def test_what_cannot_be_read_to_its_end_is_refused(loader, epochs, message):
    feed = loader_feed(loader)
    with pytest.raises(ValueError, match=f"^{message}"):
        batches.check_end(feed, epochs, "x", "steps_per_epoch", None)
    batches.check_end(feed, epochs, "x", "steps_per_epoch", 3)
    batches.check_end(loader_feed(batches_of(3)), 1, "x", "steps_per_epoch", None)
