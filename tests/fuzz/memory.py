"""Tensors whose surroundings are watched, and whether two of them overlap."""

import torch

MARGIN = 16  # numbers on either side


class Watch:
    """Remembers every byte of the tensors it makes and of what surrounds them."""

    def __init__(self, rng):
        self._rng, self._buffers = rng, []

    def place(self, tensor):
        """Returns a copy: at an odd place between two margins, or in memory of its own."""
        if self._rng.random() < 0.3:  # AddressSanitizer then knows where it ends
            return self._keep(tensor.clone(), slice(0, 0))
        begin = MARGIN + self._rng.randrange(4)
        size = tensor.numel()
        buffer = tensor.new_zeros(size + begin + MARGIN)
        if tensor.is_floating_point():
            buffer.fill_(torch.nan)  # whoever reads a margin will show it
        buffer[begin : begin + size] = tensor.reshape(-1)
        self._keep(buffer, slice(begin, begin + size))
        return buffer[begin : begin + size].view(tensor.shape)

    def _keep(self, buffer, inside):
        self._buffers.append((buffer, buffer.clone(), inside))
        return buffer

    def assert_unchanged(self, margins_only):
        """Raises if a byte has changed that must not have: a margin, or, of a refused call, any."""
        for buffer, before, inside in self._buffers:
            if buffer.untyped_storage().nbytes() == 0:
                continue  # a case took it away
            now, then = (
                t.view(torch.uint8).reshape(-1, t.element_size()) for t in (buffer, before)
            )
            changed = (now != then).any(1)
            if margins_only:
                changed[inside] = False
                if inside == slice(0, 0):
                    continue
            assert not changed.any(), f"numbers {changed.nonzero()[:5].tolist()} have changed"


def extent(tensor):
    """The addresses from the first to behind the last byte; None if there are none."""
    if tensor.numel() == 0 or tensor.device.type != "cpu" or tensor.layout != torch.strided:
        return None
    reach = sum((n - 1) * s for n, s in zip(tensor.shape, tensor.stride(), strict=True)) + 1
    return tensor.data_ptr(), tensor.data_ptr() + reach * tensor.element_size()


def overlaps(written, others):
    """Whether one of the written tensors shares memory with another written one, or with others."""
    extents = [e for e in map(extent, written) if e]
    read = [e for e in map(extent, others) if e]
    pairs = [(a, b) for i, a in enumerate(extents) for b in [*extents[i + 1 :], *read]]
    return any(a[0] < b[1] and b[0] < a[1] for a, b in pairs)
