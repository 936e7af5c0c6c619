"""Several processes at one run: what they tell each other, so that all of them do the same on parts of each batch.

Tensors of the device go through NCCL on CUDA and gloo on a CPU; what only the hosts need, such as whether to stop, goes
through gloo always and never waits for a device.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from reproduce.errors import Interrupted, UserError
from reproduce.run.resume import Notes, Slot

# How long one waits for another in a step: the first one's evaluation lies within. The end of a process is noticed at
# once, by `reproduce.run.ranks`.
PATIENCE = timedelta(minutes=30)

T = TypeVar("T")


class OutOfStep(RuntimeError):
    """What must be the same in all processes is not."""


@dataclass(frozen=True, kw_only=True)
class Group:
    """All processes of a run, as one of them sees them. Its methods are called by all, in the same order.

    The first process, of rank 0, is the one that holds the run: it alone evaluates, writes, and speaks.
    """

    rank: int
    size: int
    sync_bn: bool = False
    hosts: Any = None  # the process group of what goes from host to host

    @property
    def first(self) -> bool:
        return self.rank == 0

    def part(self, images: int) -> slice:
        """Which images of a batch of so many are this process's; the earlier processes have one more where need be."""
        least, more = divmod(images, self.size)
        start = self.rank * least + min(self.rank, more)
        return slice(start, start + least + (self.rank < more))

    def agree(self, wish: bool) -> bool:
        """Whether any process wishes so."""
        asked = torch.tensor(int(wish))
        dist.all_reduce(asked, dist.ReduceOp.MAX, group=self.hosts)
        return bool(asked)

    def total(self, value: Tensor) -> Tensor:
        """The sum over the processes, in place."""
        dist.all_reduce(value)
        return value

    def average(self, tensors: Sequence[Tensor], images: int) -> None:
        """Each becomes its mean over the processes, weighted by the images of each one; in place, in one exchange."""
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors] + [tensors[0].new_ones(1)])
        self.total(flat.mul_(images))
        flat.div_(flat[-1].clone())
        for tensor, mean in zip(tensors, flat.split([tensor.numel() for tensor in tensors] + [1]), strict=False):
            tensor.copy_(mean.view(tensor.shape))

    def gathered(self, value: T) -> list[T]:
        """By process. For small values."""
        found: list[Any] = [None] * self.size
        dist.all_gather_object(found, value, group=self.hosts)
        return found

    def once(self, work: Callable[[], T]) -> T:
        """What `work` gives in the first process, in all; or its `Interrupted`."""
        answer: list[Any] = [None]
        if self.first:
            try:
                answer[0] = work()
            except Interrupted as stopped:
                answer[0] = stopped
        dist.broadcast_object_list(answer, src=0, group=self.hosts)
        if isinstance(answer[0], Interrupted):
            raise answer[0]
        found: T = answer[0]
        return found

    def check(self, tensors: Sequence[Tensor], what: str) -> None:
        """Raises `OutOfStep` in every process unless these are equal in all of them, as far as a sum of bits tells."""
        found = checksum(tensors)
        extremes = torch.stack((found, -found))
        dist.all_reduce(extremes, dist.ReduceOp.MAX, group=self.hosts)
        if extremes[0] != -extremes[1]:
            raise OutOfStep(f"the {what} of the {self.size} processes of this run are no longer the same")

    def prepared(self, model: nn.Module) -> nn.Module:
        """The network, its batch norm over all processes if that is asked for; parameters stay the same tensors."""
        return nn.SyncBatchNorm.convert_sync_batchnorm(model) if self.sync_bn else model


class SharedSlot(Slot):
    """Saved state that the first process reads and writes for all."""

    def __init__(self, slot: Slot, group: Group) -> None:
        super().__init__(slot.path, every=slot.every)
        self.group = group

    def due(self) -> bool:
        return self.group.first and super().due()

    def save(self, state: dict[str, Any]) -> None:
        if self.group.first:
            super().save(state)

    def load(self, device: torch.device) -> dict[str, Any] | None:
        state = self.group.once(lambda: super(SharedSlot, self).load(torch.device("cpu")))
        found: dict[str, Any] | None = moved(state, device)
        return found


class SharedNotes(Notes):
    """Notes that the first process reads and writes for all."""

    def __init__(self, path: Path, group: Group) -> None:
        super().__init__(path)
        self.group = group

    def load(self, **kinds: type) -> dict[str, Any]:
        return self.group.once(lambda: super(SharedNotes, self).load(**kinds))

    def save(self, values: dict[str, Any]) -> None:
        if self.group.first:
            super().save(values)


def moved(value: Any, device: torch.device) -> Any:
    """Every tensor in lists and dicts, at any depth, on a device."""
    if isinstance(value, dict):
        return {key: moved(part, device) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(moved(part, device) for part in value)
    return value.to(device) if isinstance(value, Tensor) else value


def checksum(tensors: Iterable[Tensor]) -> Tensor:
    """() int64 on the CPU: the sum of all bits, taken as integers of 32."""
    parts = [tensor.detach().reshape(-1).view(torch.int32).sum(dtype=torch.int64) for tensor in tensors]
    return torch.stack(parts).sum().cpu()


@contextmanager
def joined(
    rank: int, size: int, meeting: Path, *, device: torch.device, sync_bn: bool = False, backend: str | None = None
) -> Iterator[Group]:
    """Inside, this process is one of a group of `size` that met through the file `meeting`, which must be new.

    Waits for the others, also at a good end. backend: of the device's tensors; None for NCCL on CUDA, else gloo.
    """
    only_this_machine()
    backend = backend or ("nccl" if device.type == "cuda" else "gloo")
    store = dist.FileStore(str(meeting), size)
    own = torch.device("cuda", torch.cuda.current_device()) if backend == "nccl" else None
    dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=PATIENCE, device_id=own)
    try:
        hosts: Any = dist.group.WORLD if backend == "gloo" else dist.new_group(backend="gloo", timeout=PATIENCE)
        yield Group(rank=rank, size=size, sync_bn=sync_bn, hosts=hosts)
        dist.barrier(group=hosts)
    except BaseException:
        if backend == "nccl":  # what another left undone would be waited for
            abort()
        raise
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


def abort() -> None:
    """Let nothing of this process wait for another any longer; with NCCL it would for ever. From any thread."""
    with suppress(Exception):  # it may be over, or under way in another thread
        dist.distributed_c10d._abort_process_group()


def only_this_machine() -> None:
    """Let gloo listen where only this machine can reach it. It reads this when it is first used."""
    if "lo" in (name for _, name in socket.if_nameindex()):
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")


def check_parts(images: int, batch_size: int, size: int, *, drop_last: bool = False) -> None:
    """Raises `UserError` unless every process has an image of every batch."""
    last = images % batch_size
    if last and last < size and not drop_last:
        raise UserError(
            f"the last batch of an epoch has {last} of {images} images, too few for {size} processes; take fewer GPUs "
            "a run, or another --train-images"
        )
