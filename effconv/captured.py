"""A step on a batch as a CUDA graph: recorded once for each shape of batch, then replayed with one launch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

LossFn = Callable[[Any, Tensor], Tensor]

_WARM_UP = 3  # steps of each shape that run eagerly first: they are steps like others, and libraries get ready in them
_GRAPHS = 2  # of whole batches and of a short last one; batches of further shapes run eagerly


class _Graph(NamedTuple):
    graph: torch.cuda.CUDAGraph
    images: Tensor  # where a replay reads its batch
    labels: Tensor
    loss_fn: LossFn  # kept alive, since its id is part of the key


class CapturedStep:
    """Calls `work(images, labels, loss_fn)`, which never waits for the device; on CUDA as a graph, on the CPU plainly.

    On CUDA all runs, eager ones too, happen on one side stream, which the caller's stream waits for: autograd remembers
    the stream that a parameter was first used on, and capture forbids work on any other.
    """

    def __init__(self, work: Callable[[Tensor, Tensor, LossFn], None], device: torch.device) -> None:
        self.work = work
        cuda = device.type == "cuda"
        self.stream = torch.cuda.Stream(device) if cuda else None  # type: ignore[no-untyped-call]
        self.graphs: dict[tuple[Any, ...], _Graph] = {}
        self.seen: Counter[tuple[Any, ...]] = Counter()

    def __call__(self, images: Tensor, labels: Tensor, loss_fn: LossFn) -> None:
        if self.stream is None:
            self.work(images, labels, loss_fn)
            return
        callers = torch.cuda.current_stream(self.stream.device)
        self.stream.wait_stream(callers)
        with torch.cuda.stream(self.stream):
            self._on_stream(images, labels, loss_fn)
        callers.wait_stream(self.stream)

    def _on_stream(self, images: Tensor, labels: Tensor, loss_fn: LossFn) -> None:
        key = (id(loss_fn), *((part.shape, part.stride(), part.dtype) for part in (images, labels)))
        if key not in self.graphs and self.seen[key] >= _WARM_UP and len(self.graphs) < _GRAPHS:
            self.graphs[key] = self._capture(images, labels, loss_fn)
        if key in self.graphs:
            self.graphs[key].images.copy_(images, non_blocking=True)
            self.graphs[key].labels.copy_(labels, non_blocking=True)
            self.graphs[key].graph.replay()
        else:
            self.seen[key] += 1
            self.work(images, labels, loss_fn)

    def _capture(self, images: Tensor, labels: Tensor, loss_fn: LossFn) -> _Graph:
        graph = _Graph(torch.cuda.CUDAGraph(), images.clone(), labels.clone(), loss_fn)
        try:
            # "thread_local": a data loader's thread may pin memory meanwhile
            with torch.cuda.graph(graph.graph, stream=self.stream, capture_error_mode="thread_local"):
                self.work(graph.images, graph.labels, loss_fn)
        except RuntimeError as error:
            raise RuntimeError(
                f"this network or loss cannot be captured as a CUDA graph ({error}); use engine='plain'"
            ) from error
        return graph
