"""`reproduce evaluate`: the numbers of a checkpoint in the published layout, by hand; one line for every bad file."""

from __future__ import annotations

import json
import pickle
import zipfile
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result
from torch import Tensor
from torch.nn import functional as F

from baselines.flexnet import load_published
from reproduce.cli import main
from reproduce.errors import UserError
from reproduce.run import published
from reproduce.specs import DATASETS
from tests.reproduce import data_files

torch.set_num_threads(1)
State = dict[str, Tensor]
HIDDEN, WIDTHS = 6, (4, 4, 6)  # of the stem and two blocks
WRITERS: dict[str, Callable[[Path], Any]] = {
    "mnist": data_files.write_mnist,
    "cifar10": data_files.write_cifar,
    "stl10": data_files.write_stl,
    "imagenet32": data_files.write_imagenet32,
}
MEAN, STD = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])


def layer(name: str, c_in: int, c_out: int, horizon: int) -> State:
    """A FlexConv layer with MAGNet kernels as the authors' checkpoints hold it; masks of a few positions."""
    found = {
        f"{name}.bias": torch.randn(c_out) / 5,
        f"{name}.mask_params": torch.tensor([[0.02, 0.08], [-0.01, 0.05]]),
        f"{name}.train_length": torch.tensor([horizon], dtype=torch.int32),
        f"{name}.temperature": torch.zeros(1),
        f"{name}.mask_threshold": torch.tensor([0.1]),
    }
    for i in range(4):
        found |= {f"{name}.Kernel.filters.{i}.mu": torch.rand(HIDDEN, 2) - 0.5}
        found |= {f"{name}.Kernel.filters.{i}.gamma": 1 + torch.rand(HIDDEN, 2)}
        found |= linear(f"{name}.Kernel.filters.{i}.linear", HIDDEN, 2)
    for i in range(3):
        found |= linear(f"{name}.Kernel.linear.{i}", HIDDEN, HIDDEN)
    return found | linear(f"{name}.Kernel.output_linear", c_in * c_out, HIDDEN)


def linear(name: str, c_out: int, c_in: int) -> State:
    return {f"{name}.weight": torch.randn(c_out, c_in, 1, 1), f"{name}.bias": torch.randn(c_out)}


def batch_norm(name: str, width: int) -> State:
    state = {f"{name}.{part}": torch.rand(width) + 0.5 for part in ("weight", "bias", "running_mean", "running_var")}
    return state | {f"{name}.num_batches_tracked": torch.tensor(3)}


def checkpoint(dataset: str = "cifar10", **changes: Any) -> State:
    """A network with random weights for a data set. `changes`: in_channels, num_classes, horizon."""
    torch.manual_seed(1)
    facts = DATASETS[dataset]
    horizon = changes.get("horizon", facts.image_size // 2 * 2 + 1)
    state = layer("cconv1", changes.get("in_channels", facts.in_channels), WIDTHS[0], horizon)
    state |= batch_norm("norm1", WIDTHS[0])
    for i, (c_in, c_out) in enumerate(pairwise(WIDTHS)):
        state |= layer(f"blocks.{i}.cconv1", c_in, c_out, horizon) | layer(f"blocks.{i}.cconv2", c_out, c_out, horizon)
        state |= batch_norm(f"blocks.{i}.norm1", c_out) | batch_norm(f"blocks.{i}.norm2", c_out)
        if c_in != c_out:
            state |= linear(f"blocks.{i}.shortcut.0", c_out, c_in)
    return state | linear("out_layer", changes.get("num_classes", facts.num_classes), WIDTHS[-1])


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with CIFAR-10 files in `data`: ten test images."""
    data_files.write_cifar(tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def saved(content: Any, name: str = "net.pt") -> str:
    torch.save(content, name)
    return name


def evaluate(file: str, *arguments: str, dataset: str = "cifar10") -> Result:
    line = ["evaluate", file, "--dataset", dataset, "--cache", "cache", "--device", "cpu", *arguments]
    return CliRunner().invoke(main, line)


def problem(file: str, *arguments: str, dataset: str = "cifar10") -> str:
    """The one line of a file that cannot be evaluated."""
    result = evaluate(file, *arguments, dataset=dataset)
    assert result.exit_code == 1 and result.stdout == "" and isinstance(result.exception, SystemExit)
    (line,) = result.stderr.strip().splitlines()
    assert line.startswith("error: ")
    return line


def by_hand(state: State, images: Tensor, labels: Tensor) -> tuple[float, float, float]:
    """top-1, top-5 in percent and the mean loss; images (N, 3, H, W) uint8."""
    net = load_published(state).eval()
    logits = net((images / 255 - MEAN[:, None, None]) / STD[:, None, None]).detach()
    places = (logits > logits.gather(1, labels[:, None])).sum(1)  # how many classes stand before the true one
    top1, top5 = (100 * (places < k).double().mean().item() for k in (1, 5))
    return top1, top5, F.cross_entropy(logits, labels).item()


def test_the_numbers_are_those_by_hand(here: Path) -> None:
    found = json.loads(evaluate(saved(checkpoint()), "--json").stdout)
    images = torch.from_numpy(data_files.pixels("cifar10", 60)[50:])  # what write_cifar puts into the test batch
    top1, top5, loss = by_hand(checkpoint(), images, torch.arange(10))
    assert (found["top1"], found["top5"]) == (top1, top5)
    assert found["loss"] == pytest.approx(loss, rel=1e-4)
    assert 0 < found["top5"] < 100 and found["images"] == 10


def test_what_is_printed(here: Path) -> None:
    result = evaluate(saved(checkpoint()))
    lines = dict(line.split(maxsplit=1) for line in result.stdout.strip().splitlines())
    found = json.loads(evaluate("net.pt", "--json").stdout)
    parameters = sum(
        value.numel()
        for name, value in checkpoint().items()
        if value.is_floating_point() and not name.endswith(("temperature", "mask_threshold", "_mean", "_var"))
    )
    assert found["parameters"] == parameters
    assert found["architecture"] == {
        "layer": "FlexConv",
        "kernel_net": "magnet",
        "blocks": 2,
        "stem": 4,
        "widths": [4, 6],
        "horizon": 33,
        "in_channels": 3,
        "classes": 10,
        "kernel_sizes": [[7, 3]] * 5,
    }
    assert (found["device"], found["gpu"], found["canonical"], found["dataset"]) == ("cpu", None, False, "cifar10")
    assert lines["top-1"] == f"{found['top1']:.2f} %" and lines["top-5"] == f"{found['top5']:.2f} %"
    assert lines["loss"] == f"{found['loss']:.4f}" and lines["parameters"] == f"{parameters:,}"
    assert lines["images"] == "10" and lines["device"] == "cpu" and lines["checkpoint"] == "net.pt"
    assert "not canonical" in lines["data"] and lines["data"].startswith("CIFAR-10")
    assert "magnet" in lines["network"] and "33" in lines["horizon"] and "7x3" in lines["horizon"]
    assert "10 test images" in result.stderr


@pytest.mark.parametrize("dataset", ["mnist", "stl10", "imagenet32"])
def test_the_other_data_sets(here: Path, dataset: str) -> None:
    WRITERS[dataset](here / "images")
    result = evaluate(saved(checkpoint(dataset)), "--data-root", "images", "--json", dataset=dataset)
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    assert found["architecture"]["classes"] == DATASETS[dataset].num_classes
    assert found["images"] == {"mnist": 20, "stl10": 10, "imagenet32": 4}[dataset]


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: {"model": state, "epoch": 3, "optimizer": {"state": {}, "param_groups": [{"lr": 0.1}]}},
        lambda state: {"state_dict": {f"module.{name}": value for name, value in state.items()}},
        lambda state: {name: value.double() if value.is_floating_point() else value for name, value in state.items()},
    ],
    ids=["the authors' trainer", "DataParallel", "float64"],
)
def test_wrapped_state_dicts(here: Path, wrap: Callable[[State], Any]) -> None:
    plain, wrapped = saved(checkpoint()), saved(wrap(checkpoint()), "wrapped.pt")
    first, second = (json.loads(evaluate(file, "--json").stdout) for file in (plain, wrapped))
    assert first | {"checkpoint": ""} == second | {"checkpoint": ""}


def test_a_network_that_never_ran_has_the_horizon_of_the_images(here: Path) -> None:
    found = json.loads(evaluate(saved(checkpoint(horizon=0)), "--json").stdout)
    assert found["architecture"]["horizon"] == 33
    assert found["top5"] == json.loads(evaluate(saved(checkpoint()), "--json").stdout)["top5"]


def test_another_horizon_is_said(here: Path) -> None:
    result = evaluate(saved(checkpoint(horizon=17)))
    assert result.exit_code == 0 and "horizon     17, not that of CIFAR-10's images" in result.stdout


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("ran"),))


def test_code_in_a_file_is_refused_and_not_run(here: Path) -> None:
    torch.save(checkpoint() | {"extra": Evil()}, "net.pt")
    torch.save({"model": checkpoint(), "extra": Evil()}, "old.pt", _use_new_zipfile_serialization=False)
    torch.save(torch.nn.Linear(2, 2), "module.pt")
    for file in ("net.pt", "old.pt", "module.pt"):
        line = problem(file)
        assert "more than tensors" in line and "torch.save(model.state_dict(), file)" in line
    assert "torch.nn.modules.linear.Linear" in problem("module.pt")
    Path("bare.pt").write_bytes(pickle.dumps(Evil()))
    assert "no checkpoint that torch.save wrote" in problem("bare.pt")
    assert not Path("ran").exists()


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ({"epoch": 3}, "'epoch' holds int"),
        (torch.zeros(3), "got Tensor"),
        ([torch.zeros(3)], "got list"),
        ({"weight": torch.zeros(3)}, "cconv1.bias is missing"),
        ({"weight": torch.zeros(3).to_sparse()}, "weight is no ordinary tensor"),
        ({"weight": torch.zeros(1).expand(2**40)}, "weight is no ordinary tensor"),
    ],
)
def test_tensors_that_are_no_network(here: Path, content: Any, line: str) -> None:
    assert line in problem(saved(content))


def test_keys_that_do_not_fit(here: Path) -> None:
    state = checkpoint()
    state.pop("blocks.1.norm2.weight")
    assert "blocks.1.norm2.weight is missing: a tensor of shape (6,) is expected" in problem(saved(state))
    assert "surplus" in problem(saved(checkpoint() | {"surplus": torch.zeros(1)}))
    assert "cconv1.bias has shape (5,): (4,) is expected" in problem(
        saved(checkpoint() | {"cconv1.bias": torch.zeros(5)})
    )


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"in_channels": 1}, "takes 1 channels, CIFAR-10 has 3"),
        ({"num_classes": 100}, "tells 100 classes, CIFAR-10 has 10"),
        ({"horizon": 2**30 + 1}, "1073741825 wide"),
    ],
)
def test_a_network_of_other_images(here: Path, changes: dict[str, Any], line: str) -> None:
    assert line in problem(saved(checkpoint(**changes)))


def test_damaged_and_foreign_files(here: Path) -> None:
    whole = Path(saved(checkpoint())).read_bytes()
    for cut in (0, 1, 10, len(whole) // 2, len(whole) - 10):
        Path("cut.pt").write_bytes(whole[:cut])
        assert "or is damaged" in problem("cut.pt")
    for name, content in {"a.txt": b"no checkpoint", "b.pt": bytes(range(256)) * 9, "c.json": b'{"a": 1}'}.items():
        Path(name).write_bytes(content)
        assert "or is damaged" in problem(name)
    with zipfile.ZipFile("d.zip", "w") as archive:
        archive.writestr("a", "b")
    assert "or is damaged" in problem("d.zip")


def test_a_flipped_byte_is_harmless_or_one_line(tmp_path: Path) -> None:
    torch.save(checkpoint(), tmp_path / "net.pt")
    whole = (tmp_path / "net.pt").read_bytes()
    refused = 0
    for place in range(7, len(whole), len(whole) // 30):
        content = bytearray(whole)
        content[place] ^= 0xFF
        (tmp_path / "net.pt").write_bytes(content)
        try:
            published.load(tmp_path / "net.pt", "cifar10")
        except UserError as fault:
            refused += 1
            assert "\n" not in str(fault)
    assert refused > 5


def test_missing_things(here: Path) -> None:
    assert "there is no file nowhere.pt" in problem("nowhere.pt")
    assert "there is no file data" in problem("data")
    file = saved(checkpoint())
    line = problem(file, "--data-root", "elsewhere")
    assert "no CIFAR-10 images in elsewhere; give their folder with --data-root" in line
    assert "reproduce data cifar10 --download" in line
    assert "no MNIST images in data" in problem(saved(checkpoint("mnist")), dataset="mnist")
    (here / "data/cifar-10-batches-py/test_batch").unlink()
    assert "test_batch" in problem(saved(checkpoint()))
    usage = CliRunner().invoke(main, ["evaluate", "net.pt"])
    assert usage.exit_code == 2 and "--dataset" in usage.stderr


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_device_that_is_not_there(here: Path) -> None:
    assert "--device cpu" in problem(saved(checkpoint()), "--device", "cuda")


def test_outputs_that_are_not_finite(here: Path) -> None:
    state = checkpoint()
    state["out_layer.bias"][0] = torch.nan
    result = evaluate(saved(state))
    assert result.exit_code == 1 and "not finite" in result.stderr.splitlines()[-1]
    assert result.stdout == ""


def test_progress_is_told_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 5.0, 12.0, 13.0, 40.0])
    lines: list[str] = []
    monkeypatch.setattr(published.time, "monotonic", lambda: next(clock))
    hook = published.counter(8, lines.append)
    for _ in range(4):
        hook(torch.nn.Identity(), (torch.zeros(2, 3),), None)
    assert lines == ["4 of 8 images, 0:12 left"]
