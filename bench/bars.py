"""The figures Firn promises to stay within, and whether a set of results meets them."""

import math
from collections import namedtuple

import programs
import report

# value of the Firn build at `level`, against `base` (a peer, or None: an absolute figure).
# kind: "at most" and "at least" compare the ratio with `limit`; "plus" compares the difference.
Bar = namedtuple("Bar", "group metric level base kind limit")

KIB_PER_MIB = 1024

# What stands in for a wall-clock metric on a machine that was never quiet.
# Not for `prodcons`: prodcons_cpu put glibc level with mimalloc where their rates differ threefold.
# Not for `fork_blocked`: fork_cpu includes the child, so it is another quantity.
CPU_COMPANIONS = {"churn2": "churn2_cpu", "churn8": "churn8_cpu", "fork": "fork_cpu"}


def core_bars():
    """The core's bars: level 1, and level 2."""
    both_levels = [
        ("pair", "mimalloc", "at most", 1.2, 1.6),
        ("churn1", "mimalloc", "at most", 1.5, 2.0),
        ("churn2", "mimalloc", "at most", 1.5, 2.0),
        ("churn8", "mimalloc", "at most", 1.5, 2.0),
        ("prodcons", "mimalloc", "at least", 0.9, 0.8),
        ("live200k", "mimalloc", "at most", 1.3, 1.6),
        ("startup_true", "glibc", "plus", KIB_PER_MIB, KIB_PER_MIB),
        ("startup_python", "glibc", "plus", KIB_PER_MIB, KIB_PER_MIB),
        ("fill", None, "at most", 1.15, 1.2),
        ("fork_blocked", "glibc", "at most", 1.5, 1.5),
        ("fork", "glibc", "at most", 1.5, 1.5),
    ]
    return [Bar("core", metric, level, base, kind, limit)
            for metric, base, kind, *limits in both_levels
            for level, limit in zip((1, 2), limits)]


def hardening_bars():
    """The bars of level 2 with every feature on."""
    bars = [Bar("hardening", metric, 2, "scudo", "at most", 1 / 3)
            for metric in ("pair", "churn1", "churn2", "churn8")]
    bars += [Bar("hardening", metric, 2, "mimalloc", "at most", 3.0)
             for metric in ("churn1", "churn2", "churn8")]
    bars += [Bar("hardening", f"run_{name}", 2, "glibc", "at most", 1.25)
             for name in programs.BAR_PROGRAMS]
    bars.append(Bar("hardening", "programs", 2, "glibc", "at most", 1.10))
    return bars


def programs_ratio(results, peer, base, prefix="run_"):
    """Geometric mean of the whole programs' ratios, or None when one of them is missing."""
    ratios = [results.ratio(prefix + name, peer, base) for name in programs.BAR_PROGRAMS]
    if not all(ratios):
        return None
    return math.exp(sum(math.log(ratio) for ratio in ratios) / len(ratios))


def find_build(results, bar):
    """The peer that a bar is about. The core's level 2 is judged on `firn-core`, a level-2 build
    without the hardening features, when one was given as a peer."""
    if bar.group == "core" and bar.level == 2 and "firn-core" in results.peers:
        return "firn-core"
    for name in results.peers:
        if results.levels[name] == bar.level:
            return name
    return None


def is_mostly_disturbed(results, metric):
    """True when other processes disturbed more than half of a metric's samples."""
    samples = sum(len(values) for values in results.samples.get(metric, {}).values())
    return 2 * results.disturbed.get(metric, 0) > samples


def judged_metric(results, metric):
    """The metric itself, or its CPU-time companion when other processes disturbed most of the
    wall-clock samples: those then say more about the neighbours than about the allocators."""
    companion = CPU_COMPANIONS.get(metric)
    if companion in results.samples and is_mostly_disturbed(results, metric):
        return companion
    return metric


def compute(results, bar, metric, build):
    """The figure that the bar's limit is compared with, or None."""
    if bar.metric == "programs":
        return programs_ratio(results, build, bar.base)
    value = results.median(metric, build)
    base = results.median(metric, bar.base) if bar.base else 1.0
    if value is None or not base:
        return None
    if bar.kind == "plus":
        return value - base
    return value / base


def evaluate(results, bar):
    """(figure, verdict); the figure is None when it was not measured."""
    build = find_build(results, bar)
    metric = judged_metric(results, bar.metric)
    figure = compute(results, bar, metric, build) if build else None
    if figure is None:
        return None, "not measured"
    if metric == bar.metric and is_mostly_disturbed(results, metric):
        return figure, "undecided"
    is_met = figure >= bar.limit if bar.kind == "at least" else figure <= bar.limit
    suffix = "" if metric == bar.metric else " (CPU time)"
    return figure, ("met" if is_met else "MISSED") + suffix


def describe(bar):
    """The bar in words."""
    if bar.kind == "plus":
        return f"≤ {bar.base} + {bar.limit} KiB"
    sign = "≥" if bar.kind == "at least" else "≤"
    return f"{sign} {bar.limit:.2f}" + (f" × {bar.base}" if bar.base else "")


def render(results):
    """A table of every bar with its figure and verdict, and a count."""
    rows = []
    counts = {"met": 0, "MISSED": 0, "undecided": 0, "not measured": 0}
    for bar in core_bars() + hardening_bars():
        figure, verdict = evaluate(results, bar)
        counts[verdict.removesuffix(" (CPU time)")] += 1
        unit = " KiB" if bar.kind == "plus" and figure is not None else ""
        sign = "+" if unit and figure >= 0 else ""
        text = f"{sign}{figure:.0f}{unit}" if unit else report.format_value(figure)
        rows.append([f"{bar.group}: {bar.metric}", str(bar.level), describe(bar), text, verdict])
    summary = ", ".join(f"{count} {verdict}" for verdict, count in counts.items())
    note = ""
    if any("CPU time" in row[-1] for row in rows):
        note = ("\n\nCPU time: most wall-clock samples of the row were disturbed by other "
                "processes, so its companion in CPU time is judged.")
    if counts["undecided"]:
        note += ("\n\nundecided: most samples were disturbed by other processes and nothing in CPU "
                 "time can stand in; measure again on a quiet machine.")
    return "Bars: " + summary + ".\n\n" + report.table(
        ["bar", "level", "promised", "measured", "verdict"], rows) + note, counts["MISSED"]
