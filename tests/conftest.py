"""What every test shares: a seed, and the devices to run on."""

import gc
import os
import signal

# PyTorch's threads spin for a while after their work: two files at a time would be in each other's
# way. It is read when PyTorch is loaded, here and in the programs that tests start.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import pytest
import torch


def pytest_collection_finish():
    """Tests and what they have imported stay: the collector need not look at them again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True, scope="session")
def interruptible():
    """A shell lets its background jobs ignore SIGINT, which some tests send."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.fixture(
    params=[
        "cpu",
        pytest.param(
            "cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
        ),
    ]
)
def device(request):
    return request.param
