"""zoo-bench run | status | report | compare | sync: compare methods under one protocol."""

import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NoReturn

from jsonargparse import ArgumentParser
from rich.console import Console

from benchmarks.atomic import write_text
from benchmarks.auditing import refuse_leaks
from benchmarks.checking import check_in_child
from benchmarks.launchers import Launcher
from benchmarks.launchers.nursery import Nursery
from benchmarks.launchers.options import add_launcher_options, launcher_of, run_arguments
from benchmarks.loggers import LoggerOptions, add_logger_arguments, require_server
from benchmarks.loggers.syncing import sync_suite, sync_table
from benchmarks.record import load_records
from benchmarks.report import Report, collect, insert_into, leak_warning, marked_suites, write_extras, write_report
from benchmarks.report.comparing import TITLES, compare, comparison_tables, verdict
from benchmarks.report.comparison_figure import comparison_svg
from benchmarks.report.intervals import gains_table
from benchmarks.report.tables import failed_table, references_table, results_table, to_terminal
from benchmarks.report.uncertainty import uncertainty
from benchmarks.runner import Places, command, keyed_plan, portions_of, run_suite, state_of
from benchmarks.spec import PublishedSet
from benchmarks.status import status_of, status_table
from benchmarks.suite import Suite, load_suite, with_data
from datamodules.errors import UserError, exit_with

PIPED_WIDTH: Final = 200
"""Columns of a table that goes into a file or a pipe, where nothing says how wide the reader's window is."""
COMMITTED: Final = Path(__file__).parent / "results"
"""Records that are part of the repository, one folder a suite."""
READMES: Final = ("README.md", "zoo/*/README.md")
"""Files whose marked tables `report --all` writes anew, from the root of the repository."""


def numbers(text: str | list[int]) -> list[int]:
    """Whole numbers from 0: `0,1` or `[0,1]`.

    Raises:
        ValueError: It is something else.
    """
    parts = text if isinstance(text, list) else text.strip("[] ").split(",")
    found = [int(part) for part in parts]
    if any(number < 0 for number in found):
        raise ValueError(f"{text} holds a number below 0")
    return found


def _parser() -> ArgumentParser:
    parser = ArgumentParser(prog="zoo-bench", description="Compare methods on one data set under one protocol. --debug shows tracebacks.")
    commands = parser.add_subcommands(dest="command")
    for name, text in (
        ("run", "do the runs of a suite that are not finished, then report"),
        ("status", "what is finished, stale and why, failed, running, interrupted, waiting"),
        ("report", "tables from the records: REPORT.md, results.csv, terminal"),
        ("compare", "is row A better than row B, by how much, how sure"),
        ("sync", "send the finished runs that wandb kept offline, each once"),
    ):
        sub = ArgumentParser(description=text)
        if name == "report":
            sub.add_argument("suite", type=str | None, nargs="?", default=None, help="a shipped suite (demo, mars) or a YAML file")
            sub.add_argument("--readme", type=str | None, default=None, help="also replace the marked part of this file")
            sub.add_argument("--all", action="store_true", help="every committed suite, and the marked parts of all READMEs")
        else:
            sub.add_argument("suite", type=str, help="a shipped suite (demo, mars) or a YAML file")
        if name == "compare":
            sub.add_argument("a", type=str, help="name of a row, as the report shows it")
            sub.add_argument("b", type=str, help="of the row that it is compared with")
            sub.add_argument("--metric", type=str, default="iou_landslide", help=f"of the landslide class: {', '.join(TITLES)}")
            sub.add_argument("--out", type=str | None, default=None, help="also write the figure to this .svg file")
        sub.add_argument("--runs", type=str, default="runs", help="working folder of all suites: data, checkpoints, logs")
        sub.add_argument("--results", type=str | None, default=None, help="folder of records/ and REPORT.md; default RUNS/SUITE")
        sub.add_argument("--data.root", type=str | None, default=None, help="folder of the data, instead of the suite's own")
        sub.add_argument("--folds", type=int | None, default=None, help="every run once a fold, on so many; default the suite's own")
        sub.add_argument(
            "--published-set",
            type=PublishedSet | None,
            default=None,
            help="declare that the data are this test set of the papers, so that the report puts their numbers beside the measured ones",
        )
        if name == "sync":
            sub.add_argument("--timeout-minutes", type=float, default=10.0, help="give up on a run that takes longer to send")
        if name == "run":
            sub.add_argument("--fold", type=numbers, default=None, help="these folds only, as 0,1")
            sub.add_argument("--allow-leaks", action="store_true", help="run on splits that leak; every record and the report say so")
            add_launcher_options(sub)
            sub.add_argument("--num-workers", type=int | None, default=None, help="loader workers a run; default 0 on CPU, else by cores")
            sub.add_argument("--cache-dir", type=str | None, default=None, help="as data.cache_dir of zoo fit: folder for aligned layers")
            sub.add_argument("--seeds", type=numbers, default=None, help="instead of the suite's own, as 0,1")
            add_logger_arguments(sub)
            sub.add_argument("--rows", type=str, nargs="+", default=None, help='these rows only, by name or pattern: --rows ICSSN "no *"')
            sub.add_argument("--dry-run", action="store_true", help="print the runs and their commands, do nothing")
        commands.add_subcommand(name, sub, help=text)
    return parser


def main(arguments: Sequence[str]) -> int:
    """The command line; returns the exit code: 0 done, 1 a run failed, 2 usage."""
    parsed = _parser().parse_args(list(arguments))
    options = parsed[parsed.command]
    if parsed.command == "report" and options.all:
        return _report_all(Path(options.runs))
    if options.suite is None:
        raise UserError("no suite", "name one, or give --all", field="suite", exit_code=2)
    suite = with_data(load_suite(options.suite), root=options.data.root, folds=options.folds, published_set=options.published_set)
    places = Places(Path(options.runs), suite.name, Path(options.results) if options.results else None)
    if parsed.command == "run":
        return _dry_run(suite, places, options) if options.dry_run else _run(suite, places, options)
    if parsed.command == "status":
        return _status(suite, places)
    if parsed.command == "compare":
        return _compare(suite, places, options)
    if parsed.command == "sync":
        return _sync(suite, places, options)
    return _report(suite, places, readmes=[] if options.readme is None else [Path(options.readme)])


def _run(suite: Suite, places: Places, options: Any) -> int:  # noqa: ANN401 - jsonargparse's namespace
    records = load_records(places.records)  # first: a corrupt one should be told before any data are made
    specs, root = keyed_plan(suite, places, **_chosen(options), make_data=True)
    assert root is not None
    waiting = [spec for spec in specs if state_of(spec, records, places) != "finished"]
    if not waiting:
        print(f"all {len(specs)} runs of {suite.name} are finished; nothing to do")
    else:
        portions = portions_of(waiting, root, places)
        with Nursery() as nursery:
            check_in_child(nursery, specs, portions)
            for leak in refuse_leaks(portions, allow=options.allow_leaks):
                print(f"LEAK, allowed by --allow-leaks: {leak}")
            if _logging(options).wandb == "online":
                require_server()
            launcher = launcher_of(options, places.work, nursery)
            run_suite(specs, root, places, launcher, options=_run_arguments(suite, options, launcher))
    return _report(suite, places)


def _chosen(options: Any) -> dict[str, Any]:  # noqa: ANN401 - jsonargparse's namespace
    return {"seeds": options.seeds, "only_folds": options.fold, "only_rows": options.rows}


def _run_arguments(suite: Suite, options: Any, launcher: Launcher) -> list[str]:  # noqa: ANN401 - jsonargparse's namespace
    arguments = run_arguments(launcher.share, num_workers=options.num_workers, cache_dir=options.cache_dir, pictures=suite.data.pictures)
    return arguments + _logging(options).arguments()


def _logging(options: Any) -> LoggerOptions:  # noqa: ANN401 - as above
    return LoggerOptions.parse(options.loggers, options.wandb, artifacts=options.wandb_artifacts)


def _dry_run(suite: Suite, places: Places, options: Any) -> int:  # noqa: ANN401 - jsonargparse's namespace
    records = load_records(places.records)
    specs, root = keyed_plan(suite, places, **_chosen(options))
    with Nursery() as nursery:
        check_in_child(nursery, specs)
        launcher = launcher_of(options, places.work, nursery)
    if root is None:
        print("# the synthetic data do not exist yet, so the keys below are provisional")
    for spec in specs:
        print(f"# {spec.title}: {state_of(spec, records, places)}")
        arguments = command(spec, root or Path("DATA"), places, options=_run_arguments(suite, options, launcher))
        print(shlex.join(launcher.share.granted(arguments)))
    return 0


def _status(suite: Suite, places: Places) -> int:
    records = load_records(places.records)
    specs, root = keyed_plan(suite, places)
    title, header, lines = status_table(suite.name, status_of(specs, records, places, keyed=root is not None))
    _console().print(to_terminal(title, header, lines, left=len(header)))
    _tell_left_out(collect(suite, records))
    return 0


def _sync(suite: Suite, places: Places, options: Any) -> int:  # noqa: ANN401 - jsonargparse's namespace
    specs, _ = keyed_plan(suite, places)
    outcomes = sync_suite(specs, load_records(places.records), places, timeout_seconds=options.timeout_minutes * 60)
    title, header, lines = sync_table(suite.name, outcomes)
    _console().print(to_terminal(title, header, lines, left=len(header)))
    return 1 if any(outcome.failed for outcome in outcomes) else 0


def _compare(suite: Suite, places: Places, options: Any) -> int:  # noqa: ANN401 - jsonargparse's namespace
    out = None if options.out is None else Path(options.out)
    if out is not None and out.suffix != ".svg":
        raise UserError("is not an SVG file", "end it in .svg", field="--out", value=options.out, exit_code=2)
    report = _collected(suite, places)
    found = compare(report, options.a, options.b, options.metric)
    console = _console()
    print(verdict(found) + "\n")
    for title, header, lines in comparison_tables(found):
        console.print(to_terminal(title, header, lines, left=1))
        console.print()
    print(f"Units: {suite.blocks.describe()}.")
    if out is not None:
        write_text(out, comparison_svg(found))
        print(f"written: {out}")
    _tell_left_out(report)
    return 0


def _collected(suite: Suite, places: Places) -> Report:
    """The report of a suite with all that it needs; refuses where there is no record."""
    report = collect(suite, load_records(places.records), places.records)
    if not report.records and not report.failed:
        raise UserError("holds no record of this suite", f"`zoo-bench run {suite.name}` first, or give --results", file=places.records)
    return report


def _report(suite: Suite, places: Places, readmes: Sequence[Path] = ()) -> int:
    report = _collected(suite, places)
    console = _console()
    console.print(leak_warning(report), style="bold red", markup=False, end="")
    for title, (header, lines), left in (
        (suite.title or suite.name, results_table(report), 3),
        ("References", references_table(report), 2),
        ("Gains over the baseline", gains_table(report, uncertainty(report))[:2], 2),
        ("Failed runs", failed_table(report), 4),
    ):
        if lines:
            console.print(to_terminal(title, header, lines, left=left))
            console.print()
    paths = [*write_report(report, places.report), *write_extras(report, places.report, places.records)]
    for readme in readmes:
        if not readme.is_file():
            raise UserError("no such file", "give the file that holds the markers", file=readme, field="--readme", exit_code=2)
        try:
            write_text(readme, insert_into(readme.read_text(encoding="utf-8"), report))
        except UserError as error:
            raise UserError(str(error), file=readme) from None
        paths.append(readme)
    print(f"written: {', '.join(map(str, paths))}")
    _tell_left_out(report)
    return 1 if report.failed else 0


def _report_all(runs: Path) -> int:
    repository = COMMITTED.parents[1]
    readmes = sorted(path for pattern in READMES for path in repository.glob(pattern))
    wanted = {path: marked_suites(path.read_text(encoding="utf-8")) for path in readmes}
    code, folders = 0, sorted(path for path in COMMITTED.glob("*") if (path / "records").is_dir())
    if not folders:
        print(
            f"no records in {COMMITTED.relative_to(repository)}; `zoo-bench run SUITE --results benchmarks/results/SUITE` puts them there"
        )
    for folder in folders:
        suite = load_suite(folder.name)
        code = max(code, _report(suite, Places(runs, suite.name, folder), [path for path in readmes if suite.name in wanted[path]]))
    return code


def _tell_left_out(report: Report) -> None:
    if report.left_out:
        print(f"left out: {len(report.left_out)} record(s) of other settings or data than the suite's: {', '.join(report.left_out)}")


def _console() -> Console:
    console = Console()
    return console if console.is_terminal or "COLUMNS" in os.environ else Console(width=PIPED_WIDTH)


def run() -> NoReturn:
    """Entry point of `zoo-bench`."""
    exit_with(main)
