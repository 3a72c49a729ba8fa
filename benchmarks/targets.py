"""What issue 4 asks for, as rules on the figures."""

from dataclasses import dataclass
from typing import Any

from benchmarks.contender import ALL
from benchmarks.curves import IN_TURNS
from benchmarks.plan import ratios_of
from benchmarks.ratios import noise

__all__ = ["Judgement", "best_peer", "by_hand", "curve_ratios", "judge", "judge_curve", "judge_once"]

# what -> most times the hand-written code of the same engine; `fit` of other workloads has no such limit.
HAND_LIMITS = {
    ("tiny_mlp", "fit"): 1.2,
    ("mlp", "fit"): 1.05,
    ("autoencoder", "fit"): 1.05,
    ("recommender", "fit"): 1.05,
    ("*", "eager"): 1.3,
}
ONE_ROW = (2.0, 50e-6)  # times the native call, and seconds on top
PEERS = ("keras/", "nnx/", "eager/", "compiled/")
ONCE_LIMITS = {"import": 0.1, "resnet50": 0.1}
KERAS_LIMIT = 1.0


@dataclass(frozen=True)
class Judgement:
    """A target and whether it is met.

    Attributes:
        text: the target.
        met: `"yes"`, `"no"`, or `"near"` where the noise allows both.
    """

    text: str
    met: str


def by_hand(engine: str, figures: dict[str, Any]) -> str | None:
    """The fastest hand-written contender of an engine (Flax NNX is a peer, not the engine's own code)."""
    names = [name for name in ALL.get(engine, ()) if not name.startswith(("cornu/", "keras/", "nnx/"))]
    names = [name for name in names if name in figures]
    return min(names, key=lambda name: figures[name]["median"], default=None)


def best_peer(figures: dict[str, Any], ratios: dict[str, Any]) -> str | None:
    """The fastest of those that `engine="auto"` is to beat, and was measured with: Keras, Flax NNX and PyTorch."""
    peers = [name for name in figures if name.startswith(PEERS) and f"cornu/auto : {name}" in ratios]
    return min(peers, key=lambda name: figures[name]["median"], default=None)


def _judgement(text: str, ratio: dict[str, Any], limit: float) -> Judgement:
    if ratio["ratio"] <= limit:
        return Judgement(text, "yes")
    return Judgement(text, "near" if ratio["ratio"] - 2 * noise(ratio) <= limit else "no")


def judge(workload: str, what: str, engine: str, section: dict[str, Any]) -> list[Judgement]:
    """The targets for one figure of Cornu's.

    Args:
        workload: its name.
        what: what was timed.
        engine: Cornu's engine.
        section: what `measure.workload` found.
    """
    figures, ratios = section["figures"][what], section["ratios"][what]
    ours = f"cornu/{engine}"
    found = []
    if engine == "auto":
        best = best_peer(figures, ratios)
        if best and what in ("step", "fit", "predict_one", "predict_many"):
            found.append(_judgement(f"<= best of all ({best})", ratios[f"{ours} : {best}"], 1.0))
        return found
    keras = ratios.get(f"{ours} : keras/{engine}")
    if keras:
        found.append(_judgement("<= Keras", keras, KERAS_LIMIT))
    hand = by_hand(engine, figures)
    if hand is None or f"{ours} : {hand}" not in ratios:
        return found
    ratio = ratios[f"{ours} : {hand}"]
    limit = HAND_LIMITS.get((workload, what), HAND_LIMITS.get(("*", what)))
    if limit:
        found.append(_judgement(f"<= {limit} x by hand", ratio, limit))
    if what == "predict_one":
        times, more = ONE_ROW
        found.append(_judgement("<= 2 x by hand + 50 us", ratio, times + more / figures[hand]["median"]))
    return found


def judge_once(task: str, engine: str, section: dict[str, Any]) -> list[Judgement]:
    """The target for something a process does once."""
    ratio = section["ratios"][task].get(f"cornu/{engine} : keras/{engine}")
    if ratio is None:
        return []
    limit = ONCE_LIMITS.get(task, KERAS_LIMIT)
    return [_judgement("<= Keras" if limit == 1 else f"<= {limit} x Keras", ratio, limit)]


def curve_ratios(section: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Cornu to Keras on the same engine, for each size of a curve: size -> `"ours : theirs"` -> ratio."""
    rounds = section["rounds"]
    sizes = dict.fromkeys(size for by in rounds.values() for size in by)
    return {size: ratios_of({name: by[size] for name, by in rounds.items() if size in by}) for size in sizes}


def judge_curve(curve: str, name: str, section: dict[str, Any]) -> list[Judgement]:
    """The targets for memory kept per model made and thrown away, and for convolutions.

    Args:
        curve: its name.
        name: a contender.
        section: what was recorded of the curve.
    """
    if not name.startswith("cornu/"):
        return []
    if curve == "growth":
        values = section["points"][name].values()
        return [Judgement("< 0.05 MB", "yes" if value < 0.05 else "no") for value in values]
    if curve not in IN_TURNS:
        return []
    ratios = [by[pair] for by in curve_ratios(section).values() for pair in by if pair.startswith(f"{name} : ")]
    found = [_judgement("<= Keras", one, KERAS_LIMIT) for one in ratios]
    return sorted(found, key=lambda one: ["no", "near", "yes"].index(one.met))[:1]  # of all sizes
