"""Collected samples, their medians and ratios, and the tables made of them (markdown)."""

import json
import os
import platform
import statistics
import subprocess
import time

import measure

BEGIN_MARK = "<!-- measured: begin (bench/run --write replaces this part) -->"
END_MARK = "<!-- measured: end -->"

# A median whose middle half spreads wider than this is marked in the tables.
NOISY_SPREAD = 0.20


class Results:
    """Samples by metric and peer, in the order first seen; the machine; failures."""

    def __init__(self, peers):
        self.peers = [peer.name for peer in peers]
        self.paths = {peer.name: peer.path for peer in peers}
        self.levels = {peer.name: peer.level for peer in peers}
        self.units = {}
        self.samples = {}
        self.disturbed = {}
        self.failures = []
        self.machine = describe_machine()

    def add(self, metric, peer_name, value, unit):
        """One sample."""
        self.units[metric] = unit
        self.samples.setdefault(metric, {}).setdefault(peer_name, []).append(value)

    def count_disturbed(self, metric, is_disturbed):
        """Counts samples of wall-clock metrics taken while the machine was not quiet."""
        if is_disturbed:
            self.disturbed[metric] = self.disturbed.get(metric, 0) + 1

    def median(self, metric, peer_name):
        """The median, or None when there is no sample."""
        values = self.samples.get(metric, {}).get(peer_name)
        return statistics.median(values) if values else None

    def ratio(self, metric, peer_name, base_name):
        """Median over the base's median, or None."""
        value = self.median(metric, peer_name)
        base = self.median(metric, base_name)
        return value / base if value is not None and base else None

    def is_noisy(self, metric, peer_name):
        """True when the middle half of the samples is wider than NOISY_SPREAD of the median."""
        values = self.samples.get(metric, {}).get(peer_name, [])
        if len(values) < 4:
            return False
        low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
        return high - low > NOISY_SPREAD * middle

    def save(self, path):
        """Writes everything as JSON, for --from, --bars and plot."""
        with open(path + ".new", "w", encoding="utf-8") as out:
            json.dump(self.__dict__, out, indent=1)
            out.write("\n")
        os.replace(path + ".new", path)

    @staticmethod
    def load(path):
        """Reads what save() wrote."""
        results = Results([])
        with open(path, encoding="utf-8") as saved:
            results.__dict__.update(json.load(saved))
        return results


def first_line(argv):
    """First line of a command's output, or '?'."""
    try:
        output = subprocess.run(argv, capture_output=True, text=True, check=False).stdout
    except OSError:
        return "?"
    return output.splitlines()[0] if output else "?"


def cpu_model():
    """The processor's name as the kernel tells it."""
    with open("/proc/cpuinfo", encoding="utf-8") as cpuinfo:
        for line in cpuinfo:
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.machine()


def describe_machine():
    """Label and text of everything about the machine that a figure depends on."""
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    huge = "/sys/kernel/mm/transparent_hugepage/enabled"
    with open(huge, encoding="ascii") as policy:
        thp = policy.read().split("[", 1)[-1].split("]", 1)[0]
    return [
        ("date", time.strftime("%Y-%m-%d %H:%M %Z")),
        ("machine", f"{cpu_model()}, {os.cpu_count()} CPUs, {memory_gib:.0f} GiB"),
        ("kernel", f"{platform.system()} {platform.release()}, transparent huge pages: {thp}"),
        ("compiler", first_line([os.environ.get("CC") or "gcc", "--version"])),
        ("libc", " ".join(platform.libc_ver())),
        ("load", "%.1f before the run" % os.getloadavg()[0]),
    ]


def format_value(value):
    """Three significant digits, no exponent."""
    if value is None:
        return "–"
    for limit, digits in ((100, 0), (10, 1), (1, 2)):
        if value >= limit:
            return f"{value:.{digits}f}"
    return f"{value:.3f}"


def table(header, rows):
    """A markdown table, its columns padded so that it also reads as text."""
    widths = [max(len(row[i]) for row in [header] + rows) for i in range(len(header))]

    def line(cells):
        padded = [cells[0].ljust(widths[0])]
        padded += [cell.rjust(width) for cell, width in zip(cells[1:], widths[1:])]
        return "| " + " | ".join(padded) + " |"

    rule = "|" + "|".join(
        "-" * (width + 2) if i == 0 else "-" * (width + 1) + ":"
        for i, width in enumerate(widths)) + "|"
    return "\n".join([line(header), rule] + [line(row) for row in rows])


def value_table(results):
    """Medians, one row a metric and one column a peer."""
    rows = []
    for metric in results.samples:
        row = [f"{metric} ({results.units[metric]})"]
        for peer in results.peers:
            noisy = " ~" if results.is_noisy(metric, peer) else ""
            row.append(format_value(results.median(metric, peer)) + noisy)
        rows.append(row)
    return table(["median"] + results.peers, rows)


def ratio_table(results, base):
    """Medians over the base's medians; rates are turned over, so that less is always better.
    Wall times and the means, which are ratios already, are left to the table of values."""
    rows = []
    for metric in results.samples:
        if metric.startswith(("wall_", "programs_")):
            continue
        row = [metric]
        for peer in results.peers:
            ratio = results.ratio(metric, peer, base)
            if ratio and measure.is_rate(results.units[metric]):
                ratio = 1 / ratio
            row.append(format_value(ratio))
        rows.append(row)
    return table([f"÷ {base}"] + results.peers, rows)


def describe_disturbance(results):
    """How many wall-clock samples are suspect because other processes ran at the same time."""
    if not results.disturbed:
        return "No wall-clock sample was disturbed by other processes."
    shares = [f"{metric} {count} of {sum(map(len, results.samples[metric].values()))}"
              for metric, count in results.disturbed.items()]
    return (f"Samples taken while others used more than {measure.DISTURBED_CPUS} CPUs, after "
            f"{measure.QUIET_TRIES} tries: {', '.join(shares)}.")


def render(results, bars_text):
    """The whole report."""
    counts = [len(values) for metric, by_peer in results.samples.items()
              for values in by_peer.values() if not metric.startswith("programs_")]
    parts = ["\n".join(f"- {label}: {text}" for label, text in results.machine)]
    if counts:
        low, high = min(counts), max(counts)
        span = str(low) if low == high else f"{low} to {high}"
        parts.append(f"Interleaved runs, {span} samples a cell, medians. "
                     f"`~`: the middle half of the samples spreads over more than "
                     f"{NOISY_SPREAD:.0%} of the median.")
        parts.append(value_table(results))
        parts.append(describe_disturbance(results))
    for base in ("mimalloc", "glibc"):
        if base in results.peers and counts:
            parts.append(f"Relative to {base}; smaller is better in every row (rates inverted):")
            parts.append(ratio_table(results, base))
    if results.failures:
        parts.append("Runs that gave no figure:")
        parts.append("\n".join(f"- {failure}" for failure in results.failures))
    if bars_text:
        parts.append(bars_text)
    return "\n\n".join(parts) + "\n"


def write_into(path, text):
    """Replaces the part between the marks of a markdown file; the rest is kept."""
    with open(path, encoding="utf-8") as old:
        before, begin, rest = old.read().partition(BEGIN_MARK)
    _, end, after = rest.partition(END_MARK)
    if not begin or not end:
        raise SystemExit(f"bench: {path} has no part between {BEGIN_MARK!r} and {END_MARK!r}")
    with open(path, "w", encoding="utf-8") as new:
        new.write(f"{before}{BEGIN_MARK}\n\n{text}\n{END_MARK}{after}")
