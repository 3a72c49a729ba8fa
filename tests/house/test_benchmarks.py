"""The benchmark harness runs, and makes tables and judgements from figures. Nothing here depends on a time."""

import copy
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# Figures of one workload, made up: Cornu 0.9 ms, Keras 1.8 ms, by hand 0.6 ms a step.
FIGURES = {
    name: {"median": seconds, "low": seconds, "high": seconds, "samples": 5}
    for name, seconds in (("cornu/jax", 0.0009), ("keras/jax", 0.0018), ("plain/jax", 0.0006), ("nnx/jax", 0.0007))
}
RATIOS = {
    "cornu/jax : keras/jax": {"ratio": 0.5, "low": 0.48, "high": 0.52, "error": 0.01, "rounds": 5},
    "cornu/jax : plain/jax": {"ratio": 1.5, "low": 1.4, "high": 1.6, "error": 0.05, "rounds": 5},
}
RUN = "2026-01-01T00:00:00+00:00"
RESULTS = {
    "runs": {RUN: {"command": "python -m benchmarks", "machine": {"cores": 2}, "versions": {"keras": "3.15.1"}}},
    "roofline": {"flops": 1e11, "bandwidth": 1e10, "by": {}, "run": RUN},
    "workloads": {
        "mlp": {
            "failed": {"nnx/jax": "ValueError: no"},
            "disagree": {"keras/jax": "loss 2 at step 0, others 1"},
            "memory": {"cornu/jax": 300.0, "keras/jax": 400.0},
            "figures": {"fit": FIGURES, "step": FIGURES, "predict_one": FIGURES},
            "ratios": {what: copy.deepcopy(RATIOS) for what in ("fit", "step", "predict_one")},
            "others": 0.25,
            "run": RUN,
        }
    },
    "once": {
        "failed": {},
        "figures": {"import": FIGURES},
        "ratios": {"import": {"cornu/jax : keras/jax": {**RATIOS["cornu/jax : keras/jax"], "error": 0.3}}},
        "others": 0.0,
        "run": RUN,
    },
    "curves": {
        "growth": {"points": {"cornu/jax": {"300": 0.01}, "keras/jax": {"300": 0.3}}, "failed": {}, "run": RUN},
        "layers_build": {"points": {"cornu/jax": {"10": 0.001, "100": 0.01}}, "failed": {}, "run": RUN},
    },
}


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    """`benchmarks` lies at the root of the repository, which is not on the path of an installed Cornu."""
    monkeypatch.syspath_prepend(str(ROOT))


def test_runs_the_tiny_mlp(tmp_path):
    """One round on JAX: every contender answers, they compute the same, and the record and tables are written."""
    results = tmp_path / "results.json"
    options = ("--quick --only tiny_mlp --engines jax --what fit,predict_one --rounds 1 --threads 1 --record").split()
    command = [sys.executable, "-m", "benchmarks", *options, "--results", str(results)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    section = json.loads(results.read_text())["workloads"]["tiny_mlp"]
    assert section["failed"] == {} and section["disagree"] == {}
    for what in ("fit", "predict_one"):
        assert set(section["figures"][what]) == {"cornu/jax", "keras/jax", "plain/jax", "nnx/jax"}
        assert all(figure["median"] > 0 and figure["samples"] == 1 for figure in section["figures"][what].values())
        assert "cornu/jax : keras/jax" in section["ratios"][what]
    assert "| fit, per step | jax |" in (tmp_path / "RESULTS.md").read_text()


def test_tables(tmp_path):
    """The tables say the figures, the targets, what failed, the machine, and the notes."""
    from benchmarks.report import render

    notes = tmp_path / "notes.md"
    notes.write_text("## Where we lose, and why\n\nIt is cold.\n")
    text = render(RESULTS, notes)
    row = (
        "| fit, per step | jax | 900 us | 1.8 ms | 0.50 (0.48-0.52) | plain 600 us, nnx 700 us | 1.50 (1.40-1.60) "
        "| <= Keras; <= 1.05 x by hand | yes; no |"
    )
    assert row in text
    assert "| predict, one row | jax |" in text and "<= Keras; <= 2 x by hand + 50 us | yes; yes |" in text
    assert "- mlp, fit, per step, jax: <= 1.05 x by hand" in text
    assert "| peak memory | jax | 300 MB | 400 MB | 0.75 |" in text
    assert "| import | jax |" in text and "<= 0.1 x Keras | near |" in text
    assert "**nnx/jax** failed: ValueError: no" in text and "**keras/jax** disagrees: loss 2" in text
    assert "| cornu/jax | 0.01 MB | < 0.05 MB | yes |" in text
    assert "100 GFLOP/s" in text and "cores 2" in text and "It is cold." in text and "others used 25%" in text


def test_check_allows_noise_and_no_more():
    """A ratio fails when it is worse than the recorded one by more than three standard errors and 5%."""
    from benchmarks.check import worse

    def slower(by, pair="cornu/jax : keras/jax"):
        new = copy.deepcopy(RESULTS)
        new["workloads"]["mlp"]["ratios"]["fit"][pair]["ratio"] *= by
        return worse(new, RESULTS)

    assert slower(1.0) == {} and slower(1.06) == {} and slower(0.5) == {}  # its errors allow 8%
    assert set(slower(1.2)) == {("mlp", "fit", "cornu/jax : keras/jax")}
    assert slower(1.1, "cornu/jax : plain/jax") == {}  # this one has noise of 14%
    assert "noise allows 8%" in next(iter(slower(1.2).values()))


def test_check_looks_at_compared_curves_and_says_where_they_were_recorded():
    from benchmarks.check import elsewhere, worse

    old, new = copy.deepcopy(RESULTS), copy.deepcopy(RESULTS)
    rounds = {
        "cornu/jax": {"0": [2.0, 2.0, 2.1], "8": [2.0, 2.0]},
        "keras/jax": {"0": [2.0, 2.0, 2.0], "8": [2.0, 2.0]},
    }
    for results in (old, new):
        results["curves"]["waiting_fit"] = {"points": {}, "rounds": copy.deepcopy(rounds), "failed": {}, "run": RUN}
    assert worse(new, old) == {} == worse(new, RESULTS)
    new["curves"]["waiting_fit"]["rounds"]["cornu/jax"] = {"0": [2.5, 2.6, 2.5], "8": [3.0, 3.0]}
    assert set(worse(new, old)) == {("waiting_fit", "0", "cornu/jax : keras/jax")}  # two rounds say too little

    old["runs"][RUN]["machine"]["processor"] = new["runs"][RUN]["machine"]["processor"] = "one"
    assert elsewhere(new, old) == []
    new["runs"] = {"later": {"machine": {"processor": "another"}}}
    assert elsewhere(new, old) == ["one"]
    assert elsewhere({**new, "workloads": {}, "curves": {}}, {**old, "once": {"run": "earlier"}}) == []


def test_noise_of_a_ratio():
    """The error of a ratio comes from the spread of the rounds, not from what all rounds have in common."""
    from benchmarks.ratios import ratio

    steady = ratio([2.0, 4.0, 6.0, 8.0], [1.0, 2.0, 3.0, 4.0])
    assert steady["ratio"] == 2.0 and steady["error"] == 0.0
    noisy = ratio([2.0, 3.0, 2.0, 3.0], [1.0, 1.0, 1.0, 1.0])
    assert noisy["error"] > 0.3
    assert ratio([1.0], [2.0])["error"] is None


def test_noise_from_process_to_process():
    """What is the same within a process and differs between two is noise too, and more where fewer were measured."""
    from benchmarks.check import tolerance, worse
    from benchmarks.ratios import noise, ratio
    from benchmarks.targets import judge

    found = ratio([1.0, 1.0, 1.0, 2.0, 2.0, 2.0], [1.0] * 6, [3, 3])
    assert found["sets"] == 2 and abs(found["spread"] - 0.5**0.5 / 1.5) < 1e-9
    assert ratio([1.0, 2.0], [1.0, 1.0])["spread"] is None
    assert ratio([1.0, 2.0], [1.0, 1.0], [2, 0])["sets"] == 1  # time was over

    plain = RATIOS["cornu/jax : keras/jax"]
    known = {**plain, "sets": 4, "spread": 0.1}
    assert tolerance(plain, plain) < tolerance(plain, known) == tolerance({**plain, "sets": 1}, known)
    assert tolerance({**plain, "sets": 4}, known) < tolerance({**plain, "sets": 1}, known)
    assert abs(tolerance({**plain, "error": 0.0}, {**known, "error": 0.0}) - 3 * (0.1**2 * 1.25) ** 0.5) < 1e-9

    assert noise(plain) == plain["error"]
    assert abs(noise({**known, "error": None}) - 0.5 * 0.1 / 2) < 1e-9
    section = copy.deepcopy(RESULTS["workloads"]["mlp"])
    keras = section["ratios"]["fit"]["cornu/jax : keras/jax"]
    keras.update(ratio=1.1, error=0.01)
    assert judge("mlp", "fit", "jax", section)[0].met == "no"
    keras.update(sets=2, spread=0.1)
    assert judge("mlp", "fit", "jax", section)[0].met == "near"

    old, new = copy.deepcopy(RESULTS), copy.deepcopy(RESULTS)
    for name in RATIOS:
        old["workloads"]["mlp"]["ratios"]["step"][name].update(sets=3, spread=0.1)
    new["workloads"]["mlp"]["ratios"]["fit"]["cornu/jax : keras/jax"]["ratio"] *= 1.2
    assert worse(new, RESULTS) and not worse(new, old)  # as much as other ratios differ
    new["workloads"]["mlp"]["ratios"]["fit"]["cornu/jax : keras/jax"]["ratio"] *= 1.5
    assert worse(new, old)


def test_auto_is_judged_by_the_fastest_it_was_measured_with():
    from benchmarks.targets import judge

    figures = {name: {"median": seconds} for name, seconds in (("cornu/auto", 2.0), ("eager/torch", 2.5))}
    ratios = {"cornu/auto : eager/torch": {"ratio": 0.8, "error": 0.0}}
    section = {"figures": {"step": figures}, "ratios": {"step": ratios}}
    figures["compiled/torch"] = {"median": 1.0}  # of a run without auto
    (found,) = judge("mlp", "step", "auto", section)
    assert found.met == "yes" and "eager/torch" in found.text
    ratios["cornu/auto : compiled/torch"] = {"ratio": 2.0, "error": 0.0}
    (found,) = judge("mlp", "step", "auto", section)
    assert found.met == "no" and "compiled/torch" in found.text


def test_record_keeps_what_was_not_measured_again():
    """A run of one thing takes its place; the rest stays, with the run it came from."""
    from benchmarks.record import merge

    new = {"runs": {"later": {}}, "workloads": {}, "curves": {}}
    new["workloads"]["mlp"] = {
        "failed": {}, "disagree": {}, "memory": {}, "figures": {"fit": {"cornu/jax": FIGURES["nnx/jax"]}},
        "ratios": {"fit": {}}, "run": "later",
    }  # fmt: skip
    merged = merge(RESULTS, new)
    section = merged["workloads"]["mlp"]
    assert section["figures"]["fit"]["cornu/jax"]["median"] == 0.0007
    assert section["figures"]["fit"]["keras/jax"]["median"] == 0.0018
    assert section["figures"]["step"] == FIGURES
    assert "later" in section["run"] and RUN in section["run"]
    assert set(merged["runs"]) == {"later", RUN} and merged["once"] == RESULTS["once"]
    curve = {"points": {"cornu/torch": {"300": 0.02}}, "failed": {"cornu/jax": "late"}, "run": "later"}
    merged = merge(RESULTS, {"runs": {"later": {}}, "workloads": {}, "curves": {"growth": curve}})["curves"]
    assert merged["growth"]["points"] == {"cornu/torch": {"300": 0.02}, "keras/jax": {"300": 0.3}}
    assert merged["growth"]["failed"] == {"cornu/jax": "late"}
    assert "later" in merged["growth"]["run"] and RUN in merged["growth"]["run"]
    assert merged["layers_build"] == RESULTS["curves"]["layers_build"]


def test_disagreement_is_seen():
    """A contender whose losses differ from the others' is named."""
    from benchmarks.turns import differing

    assert differing({"a": [1.0, 0.9], "b": [1.0001, 0.9], "c": [1.0, 0.9]}) == {}
    found = differing({"a": [1.0, 0.9], "b": [1.0, float("nan")], "c": [1.0, 0.9]})
    assert list(found) == ["b"] and "step 1" in found["b"]


def test_a_failing_worker_is_an_answer(tmp_path):
    """An error in a worker, or its end, comes back as `Failed`."""
    from benchmarks.pool import Failed, Process, Setting

    process = Process("cornu/numpy", Setting(tmp_path, 1))
    try:
        with pytest.raises(Failed, match="KeyError"):
            process.ask("open", workload="no such workload", given="nowhere")
        os.kill(process._process.pid, signal.SIGSTOP)
        with pytest.raises(Failed, match="no answer to 'memory' within"):
            process.ask("memory", timeout=0.1)
        with pytest.raises(Failed, match="its process ended"):
            process.ask("memory")
    finally:
        process.end()


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="no /proc")
@pytest.mark.parametrize("ended", [True, False])
def test_processor_time_of_those_that_a_process_started_counts(ended):
    """`torch.compile` has compilers run in processes of their own."""
    from benchmarks.pool import _ticks

    burn = "import time\nwhile time.process_time() < 0.3: pass\nprint('done', flush=True)\n" + (
        "" if ended else "input()"
    )
    code = f"""if True:
        import subprocess, sys
        child = subprocess.Popen([sys.executable, "-c", {burn!r}], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        child.stdout.readline()
        {"child.wait()" if ended else "pass"}
        print("ready", flush=True)
        input()
        child.communicate(b"end")
    """
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", code], **pipes) as process:
        process.stdout.readline()
        assert _ticks(process.pid) >= 0.25 * os.sysconf("SC_CLK_TCK")
        process.communicate(b"end\n")


def test_curves_are_judged():
    from benchmarks.targets import judge_curve

    met = lambda curve, name, section: [one.met for one in judge_curve(curve, name, section)]
    kept = {"points": {"cornu/jax": {"40": 0.01, "300": 0.06}, "keras/jax": {"40": 0.3}}}
    assert met("growth", "cornu/jax", kept) == ["yes", "no"]
    assert met("growth", "keras/jax", kept) == [] == met("layers_step", "cornu/jax", kept)
    rows = {"cornu/jax": {"7": [0.02], "14": [0.03]}, "keras/jax": {"7": [0.02]}, "cornu/torch": {"7": [0.02]}}
    assert met("rows_step", "cornu/jax", {"rounds": rows}) == ["yes"]
    assert met("rows_step", "cornu/torch", {"rounds": rows}) == [] == met("rows_step", "keras/jax", {"rounds": rows})
    rows["keras/jax"]["14"] = [0.02]
    assert met("rows_step", "cornu/jax", {"rounds": rows}) == ["no"]
    rows["cornu/jax"]["14"], rows["keras/jax"]["14"] = [2.0, 2.1, 2.2, 2.4], [2.1, 1.9, 2.3, 2.1]
    assert met("rows_step", "cornu/jax", {"rounds": rows}) == ["near"]  # within the noise of its rounds
    rows["cornu/jax"]["14"] = [2.3, 2.3, 2.3, 2.3]
    assert met("rows_step", "cornu/jax", {"rounds": rows}) == ["no"]


def test_compared_curves_take_turns(monkeypatch):
    """In blocks, the other way round each second time, of which the first does not count; who failed is left out."""
    from types import SimpleNamespace

    from benchmarks import singles
    from benchmarks.pool import Clock, Failed

    asked = []

    class Process:
        def __init__(self, name, setting):
            self.name = name

        def ask(self, kind, seconds=0, curve=None, size=0):
            if kind == "memory":
                if self.name == "keras/tensorflow":
                    raise Failed("does not start")
                return {}
            asked.append((self.name, size))
            if self.name == "keras/torch":
                raise Failed("broken")
            return {"value": float(len(asked))}

        def end(self):
            asked.append("end")

    monkeypatch.setattr(singles, "Process", Process)
    names = ["cornu/jax", "keras/jax", "keras/torch"]
    plan = SimpleNamespace(
        starts=2,
        full=False,
        libraries=lambda: names,
        clock=Clock(60),
        setting=None,
        say=lambda text: None,
        prepare=lambda: asked.append("used up"),
    )
    found = singles.curve(plan, "waiting_fit")
    one, other, broken = ((name, 8) for name in names)
    first = ["used up", broken, other, one, one, other, other, one, one, other, "end", "end", "end"]
    assert asked == [*first, "used up", one, other, other, one, one, other, other, one, "end", "end"]
    assert found["rounds"] == {"cornu/jax": {"8": [8.0, 19.0]}, "keras/jax": {"8": [7.0, 20.0]}}
    assert found["points"]["cornu/jax"] == {"8": 13.5}
    assert found["failed"] == {"keras/torch": "broken"}
    asked.clear()
    singles.curve(plan, "growth")
    assert asked == [("cornu/jax", 40), "end", ("keras/jax", 40), "end", ("keras/torch", 40), "end"]
    said = []
    plan.libraries, plan.say = lambda: ["cornu/jax", "keras/tensorflow"], said.append
    found = singles.curve(plan, "waiting_fit")
    assert found["failed"] == {"keras/tensorflow": "does not start"} and [*found["points"]] == ["cornu/jax"]
    assert "does not start" in said[-1]
