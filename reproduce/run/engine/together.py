"""Several networks side by side, of one recipe and different seeds: on CUDA their steps are branches of one graph.

One network of this size leaves most of a large GPU idle. In the graph each branch has a stream of its own, which forks
off at the start of a step and joins at its end, so kernels of different branches run at the same time. Elsewhere the
steps are taken in turn. Each network is trained as it would be alone, but for dropout on CUDA, whose numbers come from
one generator for all, and so are others than alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from reproduce.run.engine.base import Lap, no_lap
from reproduce.run.engine.graph import GraphStepper
from reproduce.run.streams import generator


class Together:
    """Steps of all networks at once. The steppers have one split and one recipe; `lap` as in `make_stepper`."""

    def __init__(self, steppers: Sequence[GraphStepper], *, lap: Lap = no_lap) -> None:
        self.steppers, self.lap = list(steppers), lap
        self.steps, self.device = steppers[0].steps, steppers[0].device
        self.graphs: dict[int, torch.cuda.CUDAGraph] = {}
        self.noise: list[Tensor] = []  # by network, on the CPU: where the generator is from which dropout draws

    def start_epoch(self, epoch: int) -> None:
        """Epoch from 0."""
        for stepper in self.steppers:
            stepper.enter(epoch)
        self.noise = [generator(stepper.seed, "noise", epoch + 1).get_state() for stepper in self.steppers]
        self.lap("tables")
        if self.device.type == "cuda" and not self.graphs:
            self.capture()
            self.lap("capture")

    def step(self) -> None:
        """The next batch of every network. Raises `RuntimeError` after the last one of the epoch."""
        sizes = {stepper.next_batch() for stepper in self.steppers}
        (n,) = sizes
        if n in self.graphs:
            self.graphs[n].replay()
        else:
            self.in_turn(n)
        for stepper in self.steppers:
            stepper.done += 1
        self.lap("steps")

    def in_turn(self, n: int) -> None:
        """One step of each network with a batch of n, one after the other."""
        with torch.random.fork_rng(devices=[]):
            for index, stepper in enumerate(self.steppers):
                torch.set_rng_state(self.noise[index])
                stepper.body(n)
                self.noise[index] = torch.get_rng_state()

    def capture(self) -> None:
        """A graph for each size of batch, with a branch for each network."""
        here = torch.cuda.current_stream(self.device)
        streams = [torch.cuda.Stream(self.device) for _ in self.steppers]
        for stepper, stream in zip(self.steppers, streams, strict=True):
            stream.wait_stream(here)
            with torch.cuda.stream(stream):  # autograd remembers the stream that a parameter was first used on
                stepper.rehearse()
            here.wait_stream(stream)
        pool = torch.cuda.graph_pool_handle()
        for n in self.steppers[0].weights:
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, pool=pool):
                self.branches(n, streams)
            self.graphs[n] = graph

    def branches(self, n: int, streams: Sequence[torch.cuda.Stream]) -> None:
        """One step of each network with a batch of n, on a stream each: what a capture holds."""
        trunk = torch.cuda.current_stream(self.device)
        for stepper, stream in zip(self.steppers, streams, strict=True):
            stream.wait_stream(trunk)  # an event: here the branch forks off
            with torch.cuda.stream(stream):
                stepper.body(n)
        for stream in streams:
            trunk.wait_stream(stream)
