"""Functions whose work on a GPU is recorded once for each shape and then started by one call."""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

_LOG = logging.getLogger(__name__)


class RecordedCalls:
    r"""Calls a function of a shape, on a GPU by replaying a CUDA graph of that shape.

    The function reads and writes memory that stays where it is: parameters, buffers and inputs that
    the caller fills before a call. On the CPU, and where the function turns out to wait for the
    GPU, it is simply called.

    Args:
        function (callable): Called with a shape; may return a tensor, which the next call
            overwrites.
        device (torch.device): Where it computes.
        state (callable, optional): Returns the tensors that a call changes for later calls. They,
            and the generator of the device, are as before when recording ends.
            (default: :obj:`None`, no such tensors)
    """

    def __init__(
        self,
        function: Callable[[Any], Any],
        device: torch.device,
        state: Callable[[], list[Tensor]] | None = None,
    ) -> None:
        self._function = function
        self._device = device
        self._state = state or list
        self._graphs: dict[Hashable, tuple[Any, Any]] = {}
        self._pool: Any = None
        self._records = device.type == "cuda"

    def __call__(self, shape: Hashable) -> Any:
        """Calls the function; without waiting for the GPU, if its graph is recorded."""
        if not self._records:
            return self._function(shape)
        if shape not in self._graphs:
            reason = self._record(shape)
            if reason is not None:
                self._records = False
                _LOG.warning("Steps are not recorded as CUDA graphs: %s", reason)
                return self._function(shape)
        graph, out = self._graphs[shape]
        graph.replay()
        return out

    def _record(self, shape: Hashable) -> str | None:
        """Records a graph, or returns the reason against it. Leaves all state as it was."""
        _LOG.info("Recording a CUDA graph of %s", shape)
        stream = torch.cuda.Stream(self._device)
        with torch.cuda.device(self._device), self._unchanged():
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                with self._unchanged():
                    self._function(shape)  # compiles, and allocates what is allocated once
                try:
                    # The state is as before the first call, so that no counter runs past its end.
                    with self._unchanged(), _no_waiting():
                        self._function(shape)
                except RuntimeError as error:
                    if "synchroniz" not in str(error):
                        raise
                    return f"the model waits for the GPU ({str(error).splitlines()[0]})"
            torch.cuda.current_stream().wait_stream(stream)
            graph = torch.cuda.CUDAGraph()
            if self._pool is None:
                self._pool = torch.cuda.graph_pool_handle()
            outside = torch.cuda.current_stream()
            try:
                with torch.cuda.graph(graph, self._pool, stream, capture_error_mode="thread_local"):
                    out = self._function(shape)
            except torch.OutOfMemoryError:
                raise
            except RuntimeError as error:
                _free_generator()
                return f"recording failed ({str(error).splitlines()[0]})"
            finally:
                torch.cuda.set_stream(outside)  # a recording that fails leaves its own behind
            self._graphs[shape] = (graph, out)
        return None

    @contextmanager
    def _unchanged(self) -> Iterator[None]:
        """Restores the state and the random numbers that are changed inside."""
        tensors = self._state()
        with torch.no_grad():
            copies = [tensor.clone() for tensor in tensors]
        random_state = torch.cuda.get_rng_state(self._device)
        try:
            yield
        finally:
            torch.cuda.synchronize(self._device)
            with torch.no_grad():
                for tensor, copy in zip(tensors, copies, strict=True):
                    tensor.copy_(copy)
            torch.cuda.set_rng_state(random_state, self._device)


def _free_generator() -> None:
    """Lets the generator go on after a recording that failed, of which it still takes part."""
    generator = torch.cuda.default_generators[torch.cuda.current_device()]
    generator.graphsafe_set_state(generator.clone_state())


@contextmanager
def _no_waiting() -> Iterator[None]:
    """Lets operations that wait for the GPU raise."""
    mode = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(mode)
