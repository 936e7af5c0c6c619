"""The options of the backends, and the commands that watch over runs under way. See `cli`."""

from __future__ import annotations

import functools
import json
import sys
from pathlib import Path

import click

from reproduce.cli_options import FOLDER, JSON_OPTION, POSITIVE, RESULTS_OPTION, seconds
from reproduce.errors import UsageError


def _sbatch(_ctx: click.Context, _option: click.Parameter, texts: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    pairs = tuple(text.removeprefix("--").partition("=") for text in texts)
    if not all(name for name, _, _ in pairs):
        raise UsageError("--sbatch: write NAME=VALUE, for example --sbatch account=lab; NAME alone where it has none")
    return tuple((name, value) for name, _, value in pairs)


BACKEND_OPTIONS = (
    click.option(
        "--backend",
        type=click.Choice(("inline", "local", "slurm")),
        default="local",
        show_default=True,
        envvar="REPRODUCE_BACKEND",
        help="Where runs go: this process, processes of this machine, jobs of a SLURM cluster.",
    ),
    click.option("--jobs", type=POSITIVE, help="Runs side by side. [default: one for each core or GPU]"),
    click.option(
        "--stall-limit",
        default="15m",
        show_default=True,
        metavar="TIME",
        callback=seconds,
        help="End a run without a finished step for so long, and record it as hung; not inline.",
    ),
    click.option("--partition", metavar="NAME", help="slurm: the partition."),
    click.option("--time", "job_time", metavar="TIME", callback=seconds, help="slurm: the limit of a job, as 4h."),
    click.option("--max-jobs", type=POSITIVE, help="slurm: jobs at a time."),
    click.option("--pack", type=POSITIVE, help="slurm: runs in a job. [default: by their estimated time]"),
    click.option("--sbatch", multiple=True, metavar="NAME=VALUE", callback=_sbatch, help="slurm: any other option."),
)


@click.command()
@RESULTS_OPTION
@click.option("--watch", is_flag=True, help="Show the runs under way every two seconds until Ctrl-C.")
@JSON_OPTION
def status(results: Path, watch: bool, as_json: bool) -> None:
    """What is recorded, by experiment and protocol; runs under way, failed or unfinished; files that cannot be read."""
    from reproduce import listings

    if watch:
        from reproduce import overseeing

        overseeing.watch(results, out=click.echo, terminal=sys.stdout.isatty())
        return
    entry = listings.status(results)
    click.echo(json.dumps(entry, indent=1) if as_json else listings.status_text(entry))


@click.command()
@click.argument("runs", nargs=-1, required=True, metavar="RUN...")
@RESULTS_OPTION
def cancel(runs: tuple[str, ...], results: Path) -> None:
    """End runs under way, with their state saved; RUN is an id that `status` shows, or its beginning.

    A cancelled run is no record. It goes on when the command that started it is given again.
    """
    from reproduce import overseeing

    overseeing.cancel(results, runs, out=click.echo)


@click.command()
@click.argument("run", metavar="RUN")
@click.option("--follow", is_flag=True, help="Go on until the run has ended.")
@RESULTS_OPTION
def logs(run: str, follow: bool, results: Path) -> None:
    """What the processes of a run that is unfinished or failed have said; RUN as for `cancel`."""
    from reproduce import overseeing

    overseeing.log(results, run, out=functools.partial(click.echo, nl=False), follow=follow)


@click.command()
@RESULTS_OPTION
@click.option("--cache", type=FOLDER, help="Also the decoded images in this folder.")
@click.option("--dry-run", is_flag=True, help="Say what would go, with its size, and remove nothing.")
def clean(results: Path, cache: Path | None, dry_run: bool) -> None:
    """Remove saved state of unfinished runs that nobody is at: they would begin anew. Never a record."""
    from reproduce import overseeing

    overseeing.clean(results, cache, dry_run=dry_run, out=click.echo)


COMMANDS: tuple[click.Command, ...] = (status, cancel, logs, clean)
