"""Which GPUs a process may use and how it holds one, on made-up GPUs: shared fairly, all or none, waits and says so."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from reproduce.errors import Interrupted, UserError
from reproduce.run import gpus
from reproduce.run.gpus import Gpu, held, parse, visible
from tests.reproduce.run_samples import never

FOUR = [Gpu(name=f"GPU-{letter}{letter}", index=str(index)) for index, letter in enumerate("abcd")]


def test_what_nvidia_smi_says() -> None:
    text = "0, GPU-aa, 1000, 2000\n1, GPU-bb, [N/A], [N/A]\nNo devices were found\n"
    assert parse(text) == [
        Gpu(name="GPU-aa", index="0", free=1000 * 2**20, total=2000 * 2**20),
        Gpu(name="GPU-bb", index="1"),
    ]


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        (None, "abcd"), ("", ""), ("-1", ""), ("2,0", "ca"), ("GPU-b", "b"), ("1,9,0", "b"), ("GPU-", ""),
    ],
)  # fmt: skip
def test_cuda_visible_devices_is_respected(names: str | None, chosen: str) -> None:
    assert [gpu.name[-1] for gpu in visible(FOUR, names)] == list(chosen)


def test_a_part_of_a_gpu_is_taken_as_named() -> None:
    assert [gpu.name for gpu in visible(FOUR, "MIG-1/2")] == ["MIG-1/2"]


def test_each_holder_has_one_of_its_own_and_sees_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(gpus.VISIBLE, "0,1")
    with held(FOUR[:2], say=pytest.fail, stop=never, place=tmp_path) as first:
        assert os.environ[gpus.VISIBLE] == first[0].name == "GPU-aa"
        with held(FOUR[:2], say=pytest.fail, stop=never, place=tmp_path) as second:
            assert os.environ[gpus.VISIBLE] == second[0].name == "GPU-bb"
            assert gpus.free(FOUR, tmp_path) == FOUR[2:]
        assert os.environ[gpus.VISIBLE] == "GPU-aa"
    assert os.environ[gpus.VISIBLE] == "0,1" and gpus.free(FOUR, tmp_path) == FOUR


def test_where_all_are_taken_one_waits_says_so_once_and_hears_of_a_stop(tmp_path: Path) -> None:
    said: list[str] = []
    asked: list[int] = []

    def stop() -> bool:
        asked.append(1)
        return len(asked) == 4

    with (
        held(FOUR[:1], say=pytest.fail, stop=never, place=tmp_path),
        pytest.raises(Interrupted),
        held(FOUR[:1], say=said.append, stop=stop, place=tmp_path, pause=0.0),
    ):
        pass
    assert said == ["waits for a GPU: other runs hold all"] and len(asked) == 4


def test_several_are_taken_all_or_none(tmp_path: Path) -> None:
    def stop() -> bool:
        assert gpus.free(FOUR, tmp_path) == FOUR[1:3]  # what did not suffice was given back
        return True

    with (
        held(FOUR[:1], say=pytest.fail, stop=never, place=tmp_path),
        held(FOUR[3:], say=pytest.fail, stop=never, place=tmp_path),
        pytest.raises(Interrupted),
        held(FOUR, count=3, say=lambda _: None, stop=stop, place=tmp_path, pause=0.0),
    ):
        pass
    with held(FOUR, count=2, say=pytest.fail, stop=never, place=tmp_path) as mine:
        assert os.environ[gpus.VISIBLE] == "GPU-aa,GPU-bb" and mine == FOUR[:2]


def test_more_than_there_are_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="takes 3 GPUs and this machine has 2"):
        held(FOUR[:2], count=3, say=pytest.fail, stop=never, place=tmp_path).__enter__()


def test_without_gpus_nothing_is_held(tmp_path: Path) -> None:
    with held([], say=pytest.fail, stop=never, place=tmp_path) as mine:
        assert mine == [] and not list(tmp_path.iterdir())
