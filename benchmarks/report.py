"""The tables: `RESULTS.md` from `results.json` and `notes.md`."""

from pathlib import Path
from typing import Any

from benchmarks.contender import engine_of
from benchmarks.curves import CURVES
from benchmarks.once import TASKS
from benchmarks.targets import Judgement, best_peer, by_hand, judge, judge_curve, judge_once
from benchmarks.turns import WHATS
from benchmarks.workloads import WORKLOADS

__all__ = ["render"]

HEAD = """# How fast Cornu is

Written by `python -m benchmarks --record` (full: hours; `--quick`: under five minutes); the notes come from
`notes.md`.

Medians of short blocks, processes of its own for each contender, started in another order each time; each round has
them in another order as well, and a block begins with a call that is not counted, for the caches. A ratio is of
medians; behind it are the quartiles of the ratios of the single rounds. Under 1, Cornu is faster. *near*: over the
target by less than two standard errors, of the rounds and, where there were several, of the processes.
"By hand": the same model in plain JAX, a `tf.function`, PyTorch eager or compiled, with the same loop, shuffling and
metric; the ratio is to the fastest of them, for engine `auto` to the fastest of Keras on all engines, Flax NNX and
PyTorch. `nnx` is Flax NNX. All contenders of a workload start from the same weights and data, and their first losses
agree unless a line says otherwise.
"""
RATIO_HEAD = "| what | engine | Cornu | Keras | Cornu / Keras | by hand | Cornu / by hand | target | met |"


def seconds(value: float) -> str:
    """A time in a unit that fits."""
    for unit, factor in (("s", 1.0), ("ms", 1e3), ("us", 1e6)):
        if value * factor >= 1 or unit == "us":
            return f"{value * factor:.3g} {unit}"
    raise AssertionError


def _ratio(found: dict[str, Any] | None) -> str:
    if found is None:
        return ""
    if found["rounds"] < 3:
        return f"{found['ratio']:.2f}"
    return f"{found['ratio']:.2f} ({found['low']:.2f}-{found['high']:.2f})"


def _table(head: str, rows: list[list[str]]) -> list[str]:
    line = "|".join(["---"] * (head.count("|") - 1))
    return [head, f"|{line}|", *("| " + " | ".join(row) + " |" for row in rows), ""]


def _met(judgements: list[Judgement]) -> tuple[str, str]:
    return "; ".join(one.text for one in judgements), "; ".join(one.met for one in judgements)


def _row(label: str, engine: str, figures: Any, ratios: Any, judgements: list[Judgement]) -> list[str]:
    ours, keras = f"cornu/{engine}", f"keras/{engine}"
    hand = best_peer(figures, ratios) if engine == "auto" else by_hand(engine, figures)
    others = [
        f"{name.partition('/')[0]} {seconds(figures[name]['median'])}"
        for name in figures
        if engine_of(name) == engine and name not in (ours, keras)
    ]
    return [
        label,
        engine,
        seconds(figures[ours]["median"]),
        seconds(figures[keras]["median"]) if keras in figures else "",
        _ratio(ratios.get(f"{ours} : {keras}")),
        ", ".join(others),
        _ratio(ratios.get(f"{ours} : {hand}")),
        *_met(judgements),
    ]


def _workload(name: str, section: dict[str, Any], roofline: dict[str, Any] | None, misses: list[str]) -> list[str]:
    workload = WORKLOADS[name]
    lines = [f"## {name}: {workload.title}", ""]
    rows = []
    for what, label in WHATS.items():
        figures = section["figures"].get(what, {})
        for ours in (one for one in figures if one.startswith("cornu/")):
            engine = engine_of(ours)
            judgements = judge(name, what, engine, section)
            misses += [f"{name}, {label}, {engine}: {one.text}" for one in judgements if one.met == "no"]
            rows.append(_row(label, engine, figures, section["ratios"][what], judgements))
    for ours in (one for one in section["memory"] if one.startswith("cornu/")):
        judgements = _memory(ours, section["memory"])
        misses += [f"{name}, peak memory, {engine_of(ours)}: {one.text}" for one in judgements if one.met == "no"]
        rows.append(_memory_row(ours, section["memory"], judgements))
    lines += _table(RATIO_HEAD, rows) if rows else []
    for kind in ("failed", "disagree"):
        verb = "failed" if kind == "failed" else "disagrees"
        lines += [f"- **{one}** {verb}: {why}" for one, why in section[kind].items()]
    steps = section["figures"].get("step", {})
    if steps and roofline:
        best = min(steps, key=lambda one: steps[one]["median"])
        share = workload.step_flops / steps[best]["median"] / roofline["flops"]
        lines.append(f"- Fastest train step: {best}, {share:.0%} of the operations per second of a matrix product.")
    lines.append(f"- Run: {section['run']}; others used {section.get('others', 0):.0%} of the machine meanwhile.")
    return [*lines, ""]


def _memory(ours: str, memory: dict[str, float]) -> list[Judgement]:
    keras = memory.get(f"keras/{engine_of(ours)}")
    return [] if keras is None else [Judgement("<= Keras", "yes" if memory[ours] <= keras else "no")]


def _memory_row(ours: str, memory: dict[str, float], judgements: list[Judgement]) -> list[str]:
    engine = engine_of(ours)
    keras = memory.get(f"keras/{engine}")
    same = [one for one in memory if engine_of(one) == engine and not one.startswith(("cornu/", "keras/"))]
    return [
        "peak memory",
        engine,
        f"{memory[ours]:.0f} MB",
        "" if keras is None else f"{keras:.0f} MB",
        "" if keras is None else f"{memory[ours] / keras:.2f}",
        ", ".join(f"{one.partition('/')[0]} {memory[one]:.0f} MB" for one in same),
        "",
        *_met(judgements),
    ]


def _once(section: dict[str, Any], misses: list[str]) -> list[str]:
    rows = []
    for task, label in TASKS.items():
        figures = section["figures"].get(task, {})
        for ours in (one for one in figures if one.startswith("cornu/")):
            judgements = judge_once(task, engine_of(ours), section)
            misses += [f"{label}, {engine_of(ours)}: {one.text}" for one in judgements if one.met == "no"]
            rows.append(_row(label, engine_of(ours), figures, section["ratios"][task], judgements))
    failed = [f"- **{one}** failed: {why}" for one, why in section["failed"].items()]
    return ["## Once in a process", "", *_table(RATIO_HEAD, rows), *failed, f"- Run: {section['run']}", ""]


def _curves(curves: dict[str, Any], misses: list[str]) -> list[str]:
    lines = ["## How cost grows", ""]
    for curve, (title, unit, *_) in CURVES.items():
        if curve not in curves:
            continue
        points = curves[curve]["points"]
        sizes = sorted({size for by in points.values() for size in by}, key=int)
        rows = []
        for name, by in points.items():
            judgements = judge_curve(curve, name, curves[curve])
            misses += [f"{title}, {name}: {one.text}" for one in judgements if one.met == "no"]
            show = seconds if unit == "s" else lambda value: f"{value:.3g} {unit}"  # noqa: B023
            rows.append([name, *(show(by[size]) if size in by else "" for size in sizes), *_met(judgements)])
        lines += [f"**{title[0].upper()}{title[1:]}** (run: {curves[curve]['run']})", ""]
        lines += _table("| contender | " + " | ".join(sizes) + " | target | met |", rows)
        lines += [f"- **{one}** failed: {why}" for one, why in curves[curve]["failed"].items()]
        lines += [""] if curves[curve]["failed"] else []
    return lines


def render(results: dict[str, Any], notes: Path) -> str:
    """The text of `RESULTS.md`.

    Args:
        results: what `results.json` holds.
        notes: a file of Markdown that goes into it as it is.
    """
    misses: list[str] = []
    roofline = results.get("roofline")
    body = []
    for name in (one for one in WORKLOADS if one in results["workloads"]):
        body += _workload(name, results["workloads"][name], roofline, misses)
    if "once" in results:
        body += _once(results["once"], misses)
    if results["curves"]:
        body += _curves(results["curves"], misses)
    lines = [HEAD, "## Machine and runs", ""]
    for when, run in results["runs"].items():
        machine = ", ".join(f"{key} {value}" for key, value in run["machine"].items())
        versions = ", ".join(f"{key} {value}" for key, value in run["versions"].items())
        lines.append(f"- {when}: `{run['command']}`; {machine}; {versions}")
    if roofline:
        flops, bandwidth = roofline["flops"] / 1e9, roofline["bandwidth"] / 1e9
        lines.append(f"- Roofline: {flops:.0f} GFLOP/s in a float32 matrix product, {bandwidth:.1f} GB/s of memory.")
    text = notes.read_text().strip() if notes.exists() else ""
    missed = [f"- {one}" for one in misses] or ["None."]
    lines += ["", "## Targets that are not met", "", *missed, "", text, "", *body]
    return "\n".join(lines).rstrip() + "\n"
