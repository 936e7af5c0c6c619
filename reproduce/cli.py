"""The command line: parse, call, print. No logic; whatever is heavy is imported inside the command that needs it."""

from __future__ import annotations

import errno
import functools
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from reproduce import __version__, cli_judging, cli_overseeing
from reproduce.cli_options import CACHE_OPTION, FOLDER, JSON_OPTION, POSITIVE, RESULTS, RESULTS_OPTION, seconds
from reproduce.errors import Interrupted, UsageError, UserError
from reproduce.interrupting import stop_on_signals

if TYPE_CHECKING:
    from reproduce.commands import Request
    from reproduce.specs import Protocol

DATASETS = ("mnist", "cifar10", "stl10", "imagenet32")
TIMED = ("table1", "table2", "table3", "table4", "figure3")
PROTOCOLS = ("paper", "quick", "tiny")
PROTOCOL_OPTIONS = ("protocol", "recipe", "epochs", "size_epochs", "train_images")
TINY_RESULTS = Path("build/tiny")
# Faults of the surroundings, not of the code: each gets one line instead of a traceback.
FULL = (errno.ENOSPC, errno.EDQUOT)
UNUSABLE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG)


class Suite(click.Group):
    """A group whose commands end in one line and an exit code when something outside the code is wrong."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except UserError as fault:
            self._end(ctx, f"error: {fault}", fault.exit_code)
        except Interrupted as stopped:
            self._end(ctx, str(stopped), 1)
        except OSError as fault:
            if fault.errno in FULL:
                self._end(ctx, "error: no space left; free some and give the same command again: nothing is lost", 1)
            if fault.errno in UNUSABLE:
                self._end(ctx, f"error: cannot use {fault.filename}: {fault.strerror}; choose another place", 1)
            raise

    def _end(self, ctx: click.Context, line: str, code: int) -> None:
        click.echo(" ".join(line.splitlines()), err=True)
        ctx.exit(code)


@click.group(cls=Suite, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="reproduce")
def main() -> None:
    """Remeasure the tables and figures of the EffConv paper, one command for each.

    A command runs what has no record yet and prints the result beside the paper's numbers. It may be stopped at any
    moment; the same command goes on from there.
    """


ENGINE_OPTIONS = (
    click.option(
        "--engine",
        type=click.Choice(("plain", "graph")),
        default="plain",
        show_default=True,
        help="One step after the other, or whole steps as CUDA graphs.",
    ),
    click.option(
        "--precision",
        type=click.Choice(("float32", "tf32", "bf16")),
        default="float32",
        show_default=True,
        help="Of convolutions and products on a GPU.",
    ),
)
SHARED_OPTIONS = (
    click.option(
        "--gpus-per-run",
        type=POSITIVE,
        default=1,
        show_default=True,
        metavar="N",
        help="table4: N GPUs of one machine (N processes on the CPU) share the steps of each run.",
    ),
    click.option("--sync-bn", is_flag=True, help="Then batch norm sees the batch of all GPUs, not of each."),
)
TIME_BUDGET = click.option(
    "--time-budget",
    metavar="TIME",
    callback=seconds,
    help="Stop inside this time, with everything saved: 90s, 9m or 1.5h. The same command goes on.",
)
RUN_OPTIONS = (
    click.option("--rows", "globs", metavar="GLOBS", help="Rows by name: comma-separated globs. [default: *]"),
    click.option("--list", "listing", is_flag=True, help="Print the rows' names and do nothing."),
    click.option("--seeds", default="0..2", show_default=True, help="For example 0, 0,2 or 0..2."),
    click.option("--protocol", type=click.Choice(PROTOCOLS), default="paper", show_default=True, help="How long."),
    click.option(
        "--recipe",
        type=click.Choice(("flexconv", "sgd")),
        default="flexconv",
        show_default=True,
        help="Which reading of the training settings (R-15).",
    ),
    click.option("--epochs", type=POSITIVE, help="Training epochs, instead of the protocol's."),
    click.option("--size-epochs", type=POSITIVE, help="Size-learning epochs, instead of the protocol's."),
    click.option("--train-images", type=POSITIVE, help="Train on the first N images, class-balanced."),
    click.option("--data-root", type=FOLDER, help="Folder of the images. [default: data; tiny: bundled digits]"),
    click.option("--download", is_flag=True, help="Fetch missing images, where that is allowed."),
    CACHE_OPTION,
    click.option("--device", type=click.Choice(("auto", "cpu", "cuda")), default="auto", show_default=True),
    click.option("--results", type=FOLDER, help="Folder of the records. [default: results; tiny: build/tiny]"),
    click.option("--dry-run", is_flag=True, help="Print what would run and roughly how long, and do nothing."),
    click.option("--no-run", is_flag=True, help="Render what is recorded; run nothing."),
    click.option("--keep-weights", is_flag=True, help="Keep each network's state dict beside its record."),
    *cli_overseeing.BACKEND_OPTIONS,
    *ENGINE_OPTIONS,
    *SHARED_OPTIONS,
    TIME_BUDGET,
    JSON_OPTION,
)
PANEL_OPTIONS = (
    click.option("--depths", help="Of panel (a): 20..56 in steps of 6, or a list."),
    click.option("--budgets", help="Of panel (b), in millions: 0.1..0.5 in steps of 0.1, or a list."),
)


def with_options(*options: Callable[..., Any]) -> Callable[..., Any]:
    """Stack options on a command, in the order given."""
    return lambda command: functools.reduce(lambda found, option: option(found), reversed(options), command)


def run_experiment(experiment: str, *, listing: bool, time_budget: float | None, **options: Any) -> None:
    """The body of every experiment's command."""
    if options["backend"] == "inline" and (options["jobs"] or 1) > 1:
        raise UsageError("--backend inline is one process; leave out --jobs, or take --backend local")
    with stop_on_signals(time_budget) as stop:
        from reproduce import commands

        request = _request(experiment, **options)
        if listing:
            names = commands.names(request)
            click.echo(_json(names) if request.as_json else "\n".join(names))
            return
        code = commands.experiment(request, out=click.echo, err=functools.partial(click.echo, err=True), stop=stop)
    click.get_current_context().exit(code)


def _request(experiment: str, *, seeds: str, results: Path | None, **options: Any) -> Request:
    from reproduce import commands, naming

    protocol = _protocol(**{key: options.pop(key) for key in PROTOCOL_OPTIONS})
    depths, budgets = options.pop("depths", None), options.pop("budgets", None)
    if (depths is None) != (budgets is None):  # one panel alone was asked for
        depths, budgets = depths or "", budgets or ""
    return commands.Request(
        experiment=experiment,
        protocol=protocol,
        seeds=naming.parse_seeds(seeds),
        depths=naming.parse_depths(depths) if depths else _none_or_empty(depths),
        budgets=naming.parse_budgets(budgets) if budgets else _none_or_empty(budgets),
        results=results or (TINY_RESULTS if protocol.base == "tiny" else RESULTS),
        terminal=sys.stdout.isatty(),
        **options,
    )


def _none_or_empty(text: str | None) -> list[int] | None:
    return None if text is None else []


def _protocol(*, protocol: str, **derived: Any) -> Protocol:
    from reproduce.specs import Protocol

    return Protocol(base=protocol, **derived)  # type: ignore[arg-type]  # click has checked it


def _json(value: Any) -> str:
    return json.dumps(value, indent=1)


def _experiment_command(name: str, text: str, *options: Callable[..., Any]) -> None:
    @main.command(name, help=text)
    @with_options(*options, *RUN_OPTIONS)
    def command(**values: Any) -> None:
        run_experiment("figure3" if name == "ablation" else name, **values)


_experiment_command("table1", "Table 1: MNIST.")
_experiment_command("table2", "Table 2: CIFAR-10.")
_experiment_command("table3", "Table 3: STL-10.")
_experiment_command("table4", "Table 4: ImageNet-32.")
_experiment_command("figure2", "Figure 2: learned sizes and weights of EffConv-20 at 0.66M.")
_experiment_command("figure3", "Figure 3: accuracy, time and sizes against depth and budget.")
_experiment_command("ablation", "Figure 3's runs for depths or budgets of your choice.", *PANEL_OPTIONS)


@main.command()
@JSON_OPTION
def models(as_json: bool) -> None:
    """Every model of the tables: parameters, multiply-adds, layers, and the size that the paper prints."""
    from reproduce import listings

    entries = listings.models()
    click.echo(_json(entries) if as_json else listings.models_text(entries))


ARCHIVE = click.Path(dir_okay=False, path_type=Path)


@main.command()
@click.argument("file", type=ARCHIVE)
@RESULTS_OPTION
def export(file: Path, results: Path) -> None:
    """Pack records, timings, machine files and unfinished runs into one archive, FILE."""
    from reproduce import archive

    click.echo(archive.export(file, results, err=functools.partial(click.echo, err=True)))


@main.command("import")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@RESULTS_OPTION
def import_(file: Path, results: Path) -> None:
    """Add what an archive of `export` holds to the records; one that conflicts is refused and named."""
    from reproduce import archive

    tally = archive.merge(file, results, err=functools.partial(click.echo, err=True))
    for line in tally.refused:
        click.echo(f"refused: {line}", err=True)
    click.echo(f"{file}: {tally}")
    click.get_current_context().exit(1 if tally.refused else 0)


@main.command()
@click.argument("names", nargs=-1, type=click.Choice(DATASETS), metavar="[DATASET]...")
@click.option("--data-root", type=FOLDER, default=Path("data"), show_default=True, help="Folder of the images.")
@CACHE_OPTION
@click.option("--download", is_flag=True, help="Fetch what is missing, where that is allowed.")
@JSON_OPTION
def data(names: tuple[str, ...], data_root: Path, cache: Path | None, download: bool, as_json: bool) -> None:
    """Which images there are and whether they are the canonical files; fetch them with --download."""
    from reproduce import listings

    entries = listings.data(names, data_root, cache=cache, download=download)
    click.echo(_json(entries) if as_json else listings.data_text(entries))
    click.get_current_context().exit(1 if any(listings.is_damaged(entry) for entry in entries) else 0)


@main.command()
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.option("--dataset", type=click.Choice(DATASETS), required=True, help="Whose test images.")
@click.option("--data-root", type=FOLDER, default=Path("data"), show_default=True, help="Folder of the images.")
@CACHE_OPTION
@click.option("--device", type=click.Choice(("auto", "cpu", "cuda")), default="auto", show_default=True)
@JSON_OPTION
def evaluate(
    checkpoint: Path, dataset: str, data_root: Path, cache: Path | None, device: str, as_json: bool
) -> None:
    """A FlexNet or CKCNN that the FlexConv authors published: what it reaches on the test images."""
    from reproduce.run import published

    say = functools.partial(click.echo, err=True)
    found = published.evaluate_published(
        checkpoint, dataset, data_root=data_root, cache=cache, device=device, say=say
    )
    click.echo(_json(found) if as_json else published.text(found))


@main.command("time")
@click.argument("experiments", nargs=-1, type=click.Choice(TIMED), metavar="[EXPERIMENT]...")
@click.option("--rows", "globs", metavar="GLOBS", help="Rows by name; then no ladder unless asked for. [default: *]")
@click.option("--list", "listing", is_flag=True, help="Print the names of the rows and pairs and do nothing.")
@click.option("--device", type=click.Choice(("auto", "cpu", "cuda")), default="auto", show_default=True)
@with_options(*ENGINE_OPTIONS)
@click.option("--threads", type=POSITIVE, default=1, show_default=True, help="Of the CPU.")
@click.option(
    "--side-by-side",
    type=POSITIVE,
    default=1,
    show_default=True,
    metavar="N",
    help="Train networks of N seeds at once (--engine graph), and give the time of each as shared; no ladder.",
)
@click.option(
    "--ladder/--no-ladder",
    default=None,
    help="FlexNet-16 against EffConv-20 on three levels. On CUDA levels ii and iii are captured, in bf16 by default.",
)
@click.option("--ladder-only", is_flag=True, help="No rows; --rows then chooses pairs by name.")
@click.option(
    "--ceilings/--no-ceilings",
    default=None,
    help="Measure what the device can do at best, and nothing else; or do without. [default: before the timings]",
)
@click.option(
    "--extrapolate-above",
    type=click.FloatRange(min=0),
    metavar="S",
    help="From steps, where an epoch takes over S seconds. [default: 600 on the CPU, 60 on CUDA]",
)
@click.option(
    "--step-limit",
    type=click.FloatRange(min=0, min_open=True),
    default=20.0,
    show_default=True,
    metavar="S",
    help="Cut the batch of a pair or row on the CPU, so that a step takes under S seconds.",
)
@click.option("--again", is_flag=True, help="Time anew what has a record already.")
@RESULTS_OPTION
@click.option("--dry-run", is_flag=True, help="Print what would be timed, and do nothing.")
@TIME_BUDGET
@JSON_OPTION
def time_(listing: bool, globs: str | None, ladder: bool | None, ladder_only: bool, **options: Any) -> None:
    """Seconds per epoch of each row on random images, and how many times as long FlexNet takes as EffConv.

    What has a record on this machine is passed over, so the command may be stopped at any moment.
    """
    if ladder_only and ladder is False:
        raise UsageError("--ladder-only and --no-ladder leave nothing; drop one of them")
    with stop_on_signals(options.pop("time_budget")) as stop:
        from reproduce import clocking

        by_default = globs is None and options["side_by_side"] == 1
        with_ladder = ladder_only or (by_default if ladder is None else ladder)
        ceilings = options.pop("ceilings")
        request = clocking.TimeRequest(
            globs=globs,
            ladder=with_ladder,
            rows=not ladder_only,
            ceilings=ceilings is not False,
            only_ceilings=ceilings is True,
            **options,
        )
        if listing:
            names = clocking.names(request)
            click.echo(_json(names) if request.as_json else "\n".join(names))
            return
        code = clocking.time_command(request, out=click.echo, err=functools.partial(click.echo, err=True), stop=stop)
    click.get_current_context().exit(code)


SEED_LIST = "For example 0, 0,2 or 0..2."
RECORD_OPTIONS = (
    click.option("--jobs", type=POSITIVE, default=1, show_default=True, help="Processes side by side."),
    RESULTS_OPTION,
    click.option("--dry-run", is_flag=True, help="Print what would run and roughly how long, and do nothing."),
    click.option("--no-run", is_flag=True, help="Show what is recorded; run nothing."),
    TIME_BUDGET,
    JSON_OPTION,
)


def _recorded(request: Callable[..., Any], command: Callable[..., int], options: dict[str, Any]) -> None:
    """The body of a command that has a module of its own: `request` takes the options, `command` the request."""
    seeds = options.pop("seeds")
    with stop_on_signals(options.pop("time_budget")) as stop:
        from reproduce import naming

        if seeds is not None:
            options["seeds"] = naming.parse_seeds(seeds)
        err = functools.partial(click.echo, err=True)
        code = command(request(**options), out=click.echo, err=err, stop=stop)
    click.get_current_context().exit(code)


@main.command("known-answer")
@click.option("--full", is_flag=True, help="5 scales, 5 seeds, every combination; what it costs is said first.")
@click.option("--methods", metavar="GLOBS", help="By name: comma-separated globs. [default: *]")
@click.option("--tasks", metavar="GLOBS", help="lag, texture. [default: *]")
@click.option("--list", "listing", is_flag=True, help="Print the names of the methods and do nothing.")
@click.option("--seeds", help=f"{SEED_LIST} [default: 0..2; --full: 0..4]")
@with_options(*RECORD_OPTIONS)
def known_answer(**options: Any) -> None:
    """Do methods that learn kernel sizes find the size that their data need? Tasks with proven answers.

    About 20 minutes on 2 cores with --jobs 2. It may be stopped at any moment; the same command goes on from there.
    """
    from reproduce import knowing

    _recorded(knowing.KnownRequest, knowing.command, options)


@main.command()
@click.option(
    "--dataset", type=click.Choice(("cifar10", "mnist")), default="cifar10", show_default=True, help="Whose images."
)
@click.option("--data-root", type=FOLDER, help="Folder of the images. [default: data]")
@CACHE_OPTION
@click.option("--steps", type=POSITIVE, default=1000, show_default=True, help="Of size learning.")
@click.option("--train-images", type=POSITIVE, help="Train on the first N images, class-balanced.")
@click.option("--seeds", help=f"{SEED_LIST} [default: 0..4]")
@click.option("--planted", type=float, metavar="X", help="Also plant a class gradient of X: would it be seen?")
@click.option("--row", default="EffConv-20 0.66M", show_default=True, help="Whose sizes, also of Figure 3.")
@click.option("--labels", default="true,shuffled,reshuffled", show_default=True, help="Which of these.")
@click.option("--device", type=click.Choice(("auto", "cpu", "cuda")), default="auto", show_default=True)
@click.option("--engine", type=click.Choice(("plain", "graph")), default="plain", show_default=True)
@with_options(*RECORD_OPTIONS)
def controls(**options: Any) -> None:
    """Do labels have a say in the sizes? Size learning from true and from shuffled labels, and an exact test."""
    from reproduce import controlling

    options["labels"] = [name.strip() for name in options["labels"].split(",")]
    _recorded(controlling.ControlsRequest, controlling.command, options)


@main.command()
@click.option(
    "--stage",
    type=click.Choice(("screen", "mnist", "fresh")),
    default="screen",
    show_default=True,
    help="All readings on tasks with known answers; the largest effects on MNIST; a proposal on fresh seeds.",
)
@click.option("--seeds", help=f"{SEED_LIST} [default: the stage's own]")
@click.option("--data-root", type=FOLDER, help="Folder of MNIST's images. [default: data]")
@with_options(*RECORD_OPTIONS)
def readings(**options: Any) -> None:
    """Which reading of the paper makes the sizes follow the data? 16 runs of two levels each of six readings."""
    from reproduce import reading

    _recorded(reading.ReadingsRequest, reading.command, options)


for _command in (*cli_judging.COMMANDS, *cli_overseeing.COMMANDS):
    main.add_command(_command)
