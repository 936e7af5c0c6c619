"""What a GPU at hand for a few minutes is used for, in one command: correctness, ceilings, seconds per epoch.

The points, in this order: the tests marked `cuda`; the tests that hold the fast engines against the plain ones; the
device's ceilings; the seconds of every row with graphs in bf16; the fairness ladder; EffConv-20 with three seeds side
by side; the seconds of every row with the plain engine; then everything measured is packed. A point that fails, or
whose time is up, does not keep the next from running; how each ended stands at the end, where exit 1 of a timed point
may just mean that there is more to do. What `--results` holds already is not measured again, so the same command goes
on another day.

    python -m benchmarks.gpu_plan --out DIR           # 9 minutes on one GPU
    python -m benchmarks.gpu_plan --out DIR --tiny    # the rehearsal: under 2 minutes on a CPU

Into DIR go `results.zip`, for `reproduce import`, and `ceilings.json`. It runs from a checkout without installation or
network, on Python 3.11 or newer with torch, torchvision, numpy, scipy, scikit-learn, pandas, matplotlib, pillow,
tabulate, click, rich, torchdiffeq, pydantic, pytest and hypothesis. Where the last four are missing, bring their wheels
and those of what they need (pydantic_core, annotated_types, typing_inspection; pluggy, iniconfig, sortedcontainers) for
that Python, and

    python -m pip install --no-index --no-deps --target site WHEELS... && export PYTHONPATH=site
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
RESERVE = 10.0  # seconds kept for packing
LEAST = 10.0  # seconds that a point is started for
GRACE = 10.0  # between asking a command to stop and ending it
ENGINE_TESTS = (
    "tests/reproduce/test_engine*.py",
    "tests/effconv/test_embedded*.py",
    "tests/baselines/test_kernel_batch.py",
)
CLAIMS = ("table2", "table1", "table3")  # as time may run out
SHARED = ("table2", "--rows", "EffConv-20 0.66M", "--precision", "bf16", "--side-by-side", "3")


@dataclass(frozen=True, kw_only=True)
class Point:
    """One command. It may take this share of the time that is left, and at most so many seconds."""

    name: str
    arguments: Sequence[str]  # after `python -m`
    share: float = 1.0
    most: float = float("inf")
    budgeted: bool = False  # takes --time-budget itself


def points(out: Path, results: Path, device: str, *, tiny: bool) -> list[Point]:
    """All but the packing, which comes last whatever happens."""
    fast_tests = [str(path.relative_to(ROOT)) for pattern in ENGINE_TESTS for path in sorted(ROOT.glob(pattern))]
    pytest = ("pytest", "-q", "-p", "no:cacheprovider", "--continue-on-collection-errors", "-m")
    clock = ("reproduce", "time", "--device", device, "--results", str(results))
    fast = (*clock, "--no-ladder", "--engine", "graph")
    measure = ("benchmarks.gpu_plan", "--out", str(out), "--device", device, "--ceilings")
    if tiny:  # few tests, one short row from a few steps, pairs whose batch is cut
        short = ("table2", "--no-ceilings", "--rows", "control: ResNet-20", "--extrapolate-above", "0.001")
        cut = ("table2", "--no-ceilings", "--ladder-only", "--step-limit", "0.1")
        one = fast_tests[:1]
        return [
            Point(name="tests on CUDA", arguments=(*pytest, "cuda", *one), most=20),
            Point(name="fast against plain", arguments=(*pytest, "not cuda", "-k", "twenty_steps", *one), most=20),
            Point(name="ceilings", arguments=measure, most=20),
            Point(name="rows, graphs", arguments=(*fast, *short), share=0.6, budgeted=True),
            Point(name="fairness ladder", arguments=(*clock, *cut), budgeted=True),
        ]
    return [
        Point(name="tests on CUDA", arguments=(*pytest, "cuda", "tests"), most=150),
        Point(name="fast against plain", arguments=(*pytest, "not cuda and not slow", *fast_tests), most=90),
        Point(name="ceilings", arguments=measure, most=60),
        Point(name="rows, graphs, bf16", arguments=(*fast, "--precision", "bf16"), share=0.45, budgeted=True),
        Point(name="fairness ladder", arguments=(*clock, *CLAIMS, "--ladder-only"), share=0.6, budgeted=True),
        Point(name="3 seeds side by side", arguments=(*fast, *SHARED), most=60, budgeted=True),
        Point(name="rows, plain", arguments=(*clock, "--no-ladder"), budgeted=True),
    ]


def run(point: Point, seconds: float) -> tuple[str, float]:
    """Its exit code, or what else ended it; and the seconds it took."""
    command, limit = [sys.executable, "-m", *point.arguments], seconds
    if point.budgeted:
        command += ["--time-budget", f"{seconds:.0f}s"]
        limit += GRACE  # it ends by itself
    print(f"\n== {point.name}: at most {seconds:.0f} s\n{' '.join(command[1:])}", flush=True)
    began = time.monotonic()
    process = subprocess.Popen(command, cwd=ROOT)
    try:
        code = f"exit {process.wait(limit)}"
    except subprocess.TimeoutExpired:
        process.terminate()
        try:
            code = f"stopped, exit {process.wait(GRACE)}"
        except subprocess.TimeoutExpired:
            process.kill()
            code = f"killed, exit {process.wait()}"
    return code, time.monotonic() - began


def ceilings(out: Path, device: str) -> None:
    """What the device can do at best, printed and written down."""
    import torch

    from reproduce.run.machine import choose_device, settings
    from reproduce.run.timing.ceilings import measure_ceilings

    chosen = choose_device(device)
    with settings(1):
        found = measure_ceilings(chosen)
    name = torch.cuda.get_device_name(chosen) if chosen.type == "cuda" else "CPU, one thread"
    text = json.dumps({"device": name, "torch": torch.__version__, **found}, indent=1)
    print(text)
    (out / "ceilings.json").write_text(text + "\n", encoding="utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of what comes back")
    parser.add_argument("--results", type=Path, help="folder of the records [results; --tiny: OUT/results]")
    parser.add_argument("--minutes", type=float, help="in all [9; --tiny: 1.9]")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--tiny", action="store_true", help="rehearse on the CPU with small counts")
    parser.add_argument("--ceilings", action="store_true", help="that point alone")
    options = parser.parse_args()
    began = time.monotonic()
    out = options.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    if options.ceilings:
        ceilings(out, options.device)
        return 0
    device = "cpu" if options.tiny else options.device
    results = (options.results or (out / "results" if options.tiny else ROOT / "results")).resolve()
    end = began + 60 * (options.minutes or (1.9 if options.tiny else 9)) - RESERVE
    done = []
    for point in points(out, results, device, tiny=options.tiny):
        seconds = min(point.share * (end - time.monotonic() - GRACE), point.most)
        done.append((point.name, *(run(point, seconds) if seconds >= LEAST else ("no time left", 0.0))))
    pack = ("reproduce", "export", str(out / "results.zip"), "--results", str(results))
    done.append(("export", *run(Point(name="export", arguments=pack), RESERVE)))
    print()
    for name, code, seconds in done:
        print(f"{name:22}  {code:16}  {seconds:6.1f} s")
    return 0 if all(code == "exit 0" for _, code, _ in done) else 1


if __name__ == "__main__":
    sys.exit(main())
