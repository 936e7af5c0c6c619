"""An epoch of training here against the loop that a user would write, on the CPU with two threads.

The user's loop: a `DataLoader` with two workers over PIL images with torchvision's random crop, flip, `ToTensor` and
`Normalize`. Same network (ResNet-20), batch 64, images (random, of CIFAR-10's shape) and number of steps. The workers
are started before the clock. "tuned" adds what a user may know: channels last and a fused Adam. Each loop has a process
of its own, as the suite also sets up the memory allocator and asks for huge pages. Seconds of wall time.

The floor (`reproduce.floors`) is an epoch at the rates of matrix products and copies that this machine reached just
before. Over a user's seconds it is the ratio of an engine that loses nothing: a target below that is out of reach here.

    python -m benchmarks.epoch
"""

from __future__ import annotations

import argparse
import itertools
import os
import tempfile
import time
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, multiprocessing
from torch.nn import functional as F
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset
from torchvision import transforms

from baselines.resnet import cifar_resnet
from benchmarks.side_by_side import Measure, side_by_side, spread, table, verdict, warn_if_busy
from reproduce import experiments
from reproduce.floors import floor
from reproduce.records import DataOrigin
from reproduce.run.datasets import Dataset, Split
from reproduce.run.machine import settings
from reproduce.run.progress import Silent
from reproduce.run.resume import Slot
from reproduce.run.timing.ceilings import measure_ceilings
from reproduce.run.training import train
from reproduce.specs import Protocol, RunSpec

BATCH = 64
TARGET = 0.8
THREADS = 2
HUGE_PAGES = "THP_MEM_ALLOC_ENABLE"
OURS, USER, TUNED = "ours", "user's loop", "user's loop, tuned"
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class PILImages(TorchDataset[tuple[Tensor, int]]):
    """As torchvision's CIFAR10: pixels in memory, an image made when it is asked for."""

    def __init__(self, split: Split) -> None:
        self.pixels = split.images.permute(0, 2, 3, 1).numpy()
        self.labels = split.labels.tolist()
        self.transform = transforms.Compose(
            [
                transforms.RandomCrop(32, padding=4),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize(MEAN, STD),
            ]
        )

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(Image.fromarray(self.pixels[index])), self.labels[index]


def spec_of(images: int) -> RunSpec:
    """ResNet-20 over so many images, for a first epoch and one that is warm, as the users' loops are."""
    rows = experiments.rows("table2", Protocol(base="quick", epochs=2), source="random")
    spec = next(row.spec for row in rows if row.name == "control: ResNet-20")
    assert spec.training.batch_size == BATCH
    return spec.model_copy(update={"data": spec.data.model_copy(update={"train_images": images})})


def ours(split: Split) -> Measure:
    """The second epoch of the suite's own training loop; the seconds are those that its record would hold."""
    recipe = spec_of(len(split)).training
    few = Split(images=split.images[:8], labels=split.labels[:8])
    origin = DataOrigin(
        name="cifar10",
        source="other-00000000",
        title="random images",
        canonical=False,
        train_images=len(split),
        test_images=len(few),
        files=[],
    )
    dataset = Dataset(name="cifar10", train=split, test=few, origin=origin)
    folder = tempfile.TemporaryDirectory()
    fresh = itertools.count()

    def epoch(folder: tempfile.TemporaryDirectory[str] = folder) -> float:
        with settings(THREADS):
            result = train(
                cifar_resnet(20),
                dataset,
                recipe,
                seed=0,
                device=torch.device("cpu"),
                resume=Slot(Path(folder.name) / str(next(fresh)), every=1e9),
                progress=Silent(),
                stop=lambda: False,
            )
        return result.clock.epoch_seconds[1]

    return epoch


def users_loop(split: Split, *, tuned: bool) -> Measure:
    images = PILImages(split)
    loader = DataLoader(images, batch_size=BATCH, shuffle=True, num_workers=2, persistent_workers=True)
    layout = torch.channels_last if tuned else torch.contiguous_format
    model = cifar_resnet(20).to(memory_format=layout)  # type: ignore[call-overload]
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01, fused=True if tuned else None)

    def epoch() -> float:
        started = time.perf_counter()
        running_loss, right = 0.0, 0
        for batch, labels in loader:
            optimizer.zero_grad()
            logits = model(batch.contiguous(memory_format=layout))
            loss = F.cross_entropy(logits, labels)
            loss.backward()
            optimizer.step()
            running_loss += loss.item()
            right += int((logits.argmax(1) == labels).sum())
        return time.perf_counter() - started

    return epoch


def loop(name: str, split: Split) -> Measure:
    return ours(split) if name == OURS else users_loop(split, tuned=name == TUNED)


def serve(name: str, split: Split, connection: Connection) -> None:
    """The life of a loop's process: an epoch for each message, until one says to end."""
    torch.set_num_threads(THREADS)
    torch.manual_seed(0)
    epoch = loop(name, split)
    while connection.recv():
        connection.send(epoch())


def ask(connection: Connection) -> float:
    connection.send(True)
    seconds: float = connection.recv()
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rounds", type=int, default=5, help="A B C C B A this often [5]")
    parser.add_argument("--images", type=int, default=3200, help="in an epoch [3200]")
    options = parser.parse_args()
    warn_if_busy()
    torch.manual_seed(0)
    pixels = torch.randint(256, (options.images, 3, 32, 32), dtype=torch.uint8)
    split = Split(images=pixels, labels=torch.randint(10, (options.images,)))
    spawn = multiprocessing.get_context("spawn")
    with settings(THREADS):
        least = floor(spec_of(options.images), "training").seconds(measure_ceilings(torch.device("cpu")))
    assert least is not None
    contenders: dict[str, Measure] = {}
    ends: list[Connection] = []
    for name in (OURS, USER, TUNED):
        os.environ[HUGE_PAGES] = "1" if name == OURS else "0"  # torch's default
        here, there = spawn.Pipe()
        spawn.Process(target=serve, args=(name, split, there)).start()
        contenders[name] = partial(ask, here)
        ends.append(here)
    found = side_by_side(contenders, rounds=options.rounds)
    for end in ends:
        end.send(False)
    rows: list[list[object]] = []
    for name in contenders:
        ratio = found.ratio(OURS, name)
        judged = "" if name == OURS else verdict(ratio, at_most=TARGET)
        seconds = found.median(name)
        rows.append([name, seconds, ratio, spread(found.ratios(OURS, name)), least / seconds, judged])
    title = f"An epoch of {options.images} images, ResNet-20, batch {BATCH}, two threads; its floor: {least:.2f} s"
    headers = ["loop", "s", "ratio", "range", "floor's ratio", "target"]
    table(f"{title} (seconds; ratio: ours / theirs)", headers, rows)


if __name__ == "__main__":
    main()
