"""The command: `python -m benchmarks`."""

import argparse
import datetime
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks import check, machine, record, singles, turns
from benchmarks.contender import ALL
from benchmarks.curves import CURVES
from benchmarks.plan import Plan
from benchmarks.pool import Clock, Setting
from benchmarks.report import render
from benchmarks.workloads import WORKLOADS

__all__ = ["main"]

HERE = Path(__file__).parent
QUICK = ("roofline", "tiny_mlp", "mlp", "once", "cnn", "encoder")
QUICK_SECONDS = 285
BUSY = 0.1  # share of the machine that others may use
QUICK_ENGINES = ("jax", "tensorflow", "torch")


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _parser() -> argparse.ArgumentParser:
    sections = ["roofline", *WORKLOADS, "once", *CURVES]
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Cornu beside Keras and code by hand.")
    parser.add_argument("--quick", action="store_true", help=f"under five minutes: {', '.join(QUICK)}, fewer rounds")
    parser.add_argument("--only", type=_names, metavar="NAMES", help=f"with commas, of: {', '.join(sections)}")
    parser.add_argument("--engines", type=_names, metavar="NAMES", help=f"with commas, of: {', '.join(ALL)}")
    parser.add_argument("--what", type=_names, metavar="NAMES", help=f"with commas, of: {', '.join(turns.WHATS)}")
    parser.add_argument("--rounds", type=int, help="turns of each contender (21; quick 7)")
    parser.add_argument("--starts", type=int, help="fresh processes for each contender (3; quick 1)")
    parser.add_argument("--threads", type=int, default=2, help="cores of each process (2)")
    parser.add_argument("--gpu", action="store_true", help="let engines use a GPU; the record is then gpu/results.json")
    parser.add_argument("--record", action="store_true", help="put what is measured into results.json and RESULTS.md")
    parser.add_argument("--check", action="store_true", help="fail if a ratio is worse than the recorded one")
    parser.add_argument("--tables", action="store_true", help="measure nothing: make RESULTS.md again")
    parser.add_argument("--results", type=Path, help="the record (results.json here)")
    for option, known in (("only", sections), ("engines", list(ALL)), ("what", list(turns.WHATS))):
        parser.set_defaults(**{f"known_{option}": known})
    return parser


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = _parser()
    options = parser.parse_args(arguments)
    options.results = options.results or HERE / ("gpu/results.json" if options.gpu else "results.json")
    for option in ("only", "engines", "what"):
        known = getattr(options, f"known_{option}")
        for name in getattr(options, option) or ():
            if name not in known:
                parser.error(f"--{option} got {name!r}, expected some of {', '.join(known)}")
    return options


def _plan(options: argparse.Namespace, folder: Path) -> Plan:
    engines = options.engines or (QUICK_ENGINES if options.quick else tuple(ALL))
    contenders = tuple(name for engine in engines for name in ALL[engine])
    if options.quick:
        contenders = tuple(name for name in contenders if not name.startswith("compiled/"))
    starts = options.starts or (1 if options.quick else 3)
    return Plan(
        contenders=contenders,
        whats=options.what or tuple(turns.WHATS),
        rounds=options.rounds or (7 if options.quick else 21),
        block=0.05 if options.quick else 0.25,
        patience=4.0 if options.quick else 60.0,
        starts=starts,
        shared=options.quick and starts == 1,
        full=not options.quick,
        clock=Clock(QUICK_SECONDS * starts if options.quick else None),
        setting=Setting(folder, options.threads, options.gpu),
    )


def _measure(plan: Plan, sections: tuple[str, ...], when: str) -> dict[str, Any]:
    """Measure sections; those for which no time is left are named and left out."""
    found = record.empty()
    for name in sections:
        if plan.clock.left() < 10:
            print(f"{name}: left out, the time is over")
            continue
        print(f"{name} ...", flush=True)
        if name in WORKLOADS:
            found["workloads"][name] = {**turns.measure(plan, WORKLOADS[name]), "run": when}
        elif name in CURVES:
            found["curves"][name] = {**singles.curve(plan, name), "run": when}
        else:
            found[name] = {**getattr(singles, name)(plan), "run": when}
    return found


def _again(plan: Plan, suspects: list[tuple[str, str, str]], when: str) -> dict[str, Any]:
    """Measure once more what looks worse, for longer and in several processes each."""
    plan.close()
    plan.rounds, plan.patience, plan.starts, plan.shared = 3 * plan.rounds, 6 * plan.patience, 3, False
    plan.clock = Clock(None)
    found = record.empty()
    everybody = plan.contenders
    for section in dict.fromkeys(suspect[0] for suspect in suspects):
        own = [suspect for suspect in suspects if suspect[0] == section]
        names = {name for _, _, pair in own for name in pair.split(" : ")}
        plan.contenders = tuple(name for name in everybody if name in names)
        plan.whats = tuple(what for what in turns.WHATS if any(what == suspect[1] for suspect in own))
        found = record.merge(found, _measure(plan, (section,), when))
    return found


def main(arguments: list[str] | None = None) -> int:
    """Run the command.

    Returns:
        0; 1 if `--check` found something worse.
    """
    options = _options(arguments)
    recorded = record.read(options.results)
    if options.tables:
        record.write(options.results.with_name("RESULTS.md"), render(recorded, options.results.with_name("notes.md")))
        return 0
    when = datetime.datetime.now().astimezone().isoformat(timespec="seconds")
    command = " ".join(["python -m benchmarks", *(sys.argv[1:] if arguments is None else arguments)])
    sections = options.only or (QUICK if options.quick else ("roofline", *WORKLOADS, "once", *CURVES))
    with tempfile.TemporaryDirectory() as folder:
        plan = _plan(options, Path(folder))
        try:
            found = _measure(plan, sections, when)
            threads = len(plan.setting.cores)
            described = machine.describe(threads, options.gpu)
            found["runs"] = {when: {"command": command, "machine": described, "versions": machine.versions()}}
            worse = check.worse(found, recorded) if options.check else {}
            if worse:
                print("Worse than recorded, so measured again:", *worse.values(), sep="\n  ")
                second = check.worse(_again(plan, list(worse), when), recorded)
                worse = {key: line for key, line in second.items() if key in worse}
        finally:
            plan.close()
    if options.record:
        merged = record.merge(recorded, found)
        options.results.parent.mkdir(exist_ok=True)
        record.write(options.results, json.dumps(merged, indent=1) + "\n")
        record.write(options.results.with_name("RESULTS.md"), render(merged, options.results.with_name("notes.md")))
    elif not options.check:
        print(render(found, Path(os.devnull)))
    busy = max(section.get("others", 0.0) for section in [*found["workloads"].values(), found.get("once", {})])
    if busy > BUSY:
        print(f"Others used up to {busy:.0%} of the machine: these figures are not to be trusted.")
    if options.check:
        print("Worse than recorded:\n  " + "\n  ".join(worse.values()) if worse else "No ratio is worse than recorded.")
        if others := check.elsewhere(found, recorded):
            print(f"Recorded in part on other machines ({', '.join(others)}), on which ratios may be others.")
    return 1 if worse else 0


if __name__ == "__main__":
    sys.exit(main())
