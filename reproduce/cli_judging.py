"""The commands that judge and look: claims, the report, single records, plans, methods of others. See `cli`."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import click

from reproduce.cli_options import CACHE_OPTION, FOLDER, JSON_OPTION, RESULTS_OPTION, seconds

COMMANDS: list[click.Command] = []


@click.command("check-method")
@click.argument("name")
@JSON_OPTION
def check_method(name: str, as_json: bool) -> None:
    """Does a method that learns kernel sizes keep what it declares? NAME: effconv, flexconv, njet or a plugged-in one.

    One line a check; exit code 1 if one fails. Under a minute on one core.
    """
    from reproduce.run import method_checks

    method = method_checks.find(name)
    findings = method_checks.told(method, echo=None if as_json else click.echo)
    if as_json:
        click.echo(method_checks.as_json(method, findings))
    click.get_current_context().exit(1 if any(one.status == "fail" for one in findings) else 0)


COMMANDS.append(check_method)


EXPERIMENT_NAMES = ("table1", "table2", "table3", "table4", "figure2", "figure3")


@click.command()
@click.argument("names", nargs=-1, required=True, metavar="CELL|RUN")
@click.option("--experiment", type=click.Choice(EXPERIMENT_NAMES), help="Whose row CELL is.")
@click.option("--plot", is_flag=True, help="Also draw the course into build/plots and print the picture's path.")
@RESULTS_OPTION
@JSON_OPTION
def show(names: tuple[str, ...], **options: Any) -> None:
    """All about one record, or about all records of one row.

    CELL is an experiment and a row, as in: table2 'EffConv-20 0.66M'; or a row with --experiment. RUN is the id of a
    run, a timing, a known answer or a machine, the beginning of one, or the path of a file.
    """
    from reproduce import looking

    looking.show(names, out=click.echo, **options)


@click.command()
@click.argument("a")
@click.argument("b")
@RESULTS_OPTION
@JSON_OPTION
def diff(a: str, b: str, **options: Any) -> None:
    """Two records or two machines: which fields differ, what each can do to a result, and what came out.

    A and B are ids, beginnings of ids, or paths.
    """
    from reproduce import looking

    looking.diff(a, b, out=click.echo, **options)


@click.command()
@click.argument("run")
@click.option("--data-root", type=FOLDER, help="Folder of the images. [default: data; digits need none]")
@CACHE_OPTION
@click.option(
    "--device", type=click.Choice(("auto", "cpu", "cuda")), default="auto", help="[default: as recorded, if it is here]"
)
@click.option("--time-budget", metavar="TIME", callback=seconds, help="Stop inside this time: 90s, 9m or 1.5h.")
@click.option(
    "--scratch", type=FOLDER, default=Path("build/replay"), show_default=True, help="Where the replay and its state go."
)
@click.option("--dry-run", is_flag=True, help="Say how long it would take, and do nothing.")
@RESULTS_OPTION
@JSON_OPTION
def replay(time_budget: float | None, **options: Any) -> None:
    """Run a recorded spec and seed again: bitwise equal, within seed noise, or different, and where the two part.

    Says first how long it will take. Exit code 1 if they are different. The records stay as they are.
    """
    from reproduce.interrupting import stop_on_signals

    with stop_on_signals(time_budget) as stop:
        from reproduce import looking

        err = functools.partial(click.echo, err=True)
        code = looking.replay(looking.ReplayRequest(**options), out=click.echo, err=err, stop=stop)
    click.get_current_context().exit(code)


@click.command()
@RESULTS_OPTION
@JSON_OPTION
def checklist(**options: Any) -> None:
    """Scope, deviations, data, settings, statistics, compute, artifacts: pass, fail or needs a person.

    Each line with its evidence, computed from the records and the repository.
    """
    from reproduce import looking

    looking.checklist(out=click.echo, **options)


@click.command()
@click.option("--data-root", type=FOLDER, default=Path("data"), show_default=True, help="Folder of the images.")
@CACHE_OPTION
@RESULTS_OPTION
@JSON_OPTION
def doctor(**options: Any) -> None:
    """What this machine and these records lack, each with its mend; exit code 1 if something is broken."""
    from reproduce import looking

    click.get_current_context().exit(looking.doctor(out=click.echo, **options))


COMMANDS += [show, diff, replay, checklist, doctor]


@click.command()
@click.option("--claim", metavar="ID", help="Whose plan; without it, the spreads and plans there are.")
@click.option("--protocol", default="paper", show_default=True, help="By its full name, such as quick-8e-10000.")
@click.option("--source", default="canonical", show_default=True, help="Of the images, as records name it.")
@click.option("--spread-from", metavar="PROTOCOL[@SOURCE]", help="Runs that the spread is of. [default: as the plan]")
@click.option("--spread", type=float, metavar="POINTS", help="The spread between seeds, in place of a measured one.")
@click.option("--smallest", type=float, metavar="POINTS", help="To try, without --claim. [default: the data set's]")
@click.option("--share", type=float, default=0.9, show_default=True, help="Of seeds, that a structure is to hold in.")
@click.option("--steps", type=click.IntRange(min=1), help="Of size learning alone, for a claim on structure.")
@click.option("--first-seed", type=click.IntRange(min=0), help="[default: the first after all that are taken]")
@click.option("--write", metavar="NAME", help="Write the plan to RESULTS/plans/NAME.json.")
@RESULTS_OPTION
@JSON_OPTION
def plan(**options: Any) -> None:
    """How many seeds a claim needs, and a file that fixes them before the first run.

    Runs nothing. The verdict is taken once, over the seeds of the plan; more seeds need another plan.
    """
    from reproduce import planning

    err = functools.partial(click.echo, err=True)
    click.get_current_context().exit(planning.command(planning.PlanRequest(**options), out=click.echo, err=err))


COMMANDS.append(plan)


@click.command()
@click.option("--only", multiple=True, metavar="ID", help="This claim alone, with all about it; may be given again.")
@click.option("--strict", is_flag=True, help="Exit code 3 if a verdict (never an indication) is 'contradicted'.")
@RESULTS_OPTION
@JSON_OPTION
def claims(only: tuple[str, ...], strict: bool, results: Path, as_json: bool) -> None:
    """Which sentences of the paper hold, by the records: verdicts, and indications where nothing can decide yet."""
    from reproduce import judging

    say = functools.partial(click.echo, err=True)
    code = judging.claims_command(results, only=only, as_json=as_json, strict=strict, out=click.echo, err=say)
    click.get_current_context().exit(code)


COMMANDS.append(claims)


@click.command()
@RESULTS_OPTION
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path),
              help="Write FILE.html or FILE.md alone, with links to RESULTS.", metavar="FILE")  # fmt: skip
def report(results: Path, output: Path | None) -> None:
    """All records as one page, HTML and markdown: verdicts, Tables 1-4 and Figures 2-3 beside the paper's, tests.

    Written to RESULTS/rendered, with every table and figure; the HTML needs no network.
    """
    from reproduce import reporting

    def err(line: str) -> None:
        click.echo(line, err=True)

    click.get_current_context().exit(reporting.command(results, output, out=click.echo, err=err))


COMMANDS.append(report)
