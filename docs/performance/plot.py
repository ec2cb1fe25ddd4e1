#!/usr/bin/env python3
"""Draws the plots of docs/PERFORMANCE.md: data/*.json, as `peerpost bench --sweep` prints it, to
*.svg beside this file. Needs nothing but Python's standard library."""

import json
import math
import pathlib
import sys
from html import escape

HERE = pathlib.Path(__file__).resolve().parent

WIDTH, HEIGHT = 720, 380
LEFT, RIGHT, TOP, BOTTOM = 76, 20, 46, 84

# Told apart in both modes, and by those who do not see every colour.
COLOURS = ["#1f83c9", "#d55e00", "#009e73", "#cc79a7"]
MARKS = ["circle", "square", "diamond", "triangle"]

STYLE = """
  text { font: 13px system-ui, sans-serif; fill: #24292f }
  .title { font-size: 15px; font-weight: 600 }
  .tick { font-size: 12px; fill: #57606a }
  .grid { stroke: #d0d7de; stroke-width: 1 }
  .axis { stroke: #57606a; stroke-width: 1 }
  .band { fill: #d0d7de; fill-opacity: 0.6 }
  .line { fill: none; stroke-width: 2 }
  .back { fill: #ffffff }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3 }
    .tick { fill: #9198a1 }
    .grid { stroke: #30363d }
    .axis { stroke: #9198a1 }
    .band { fill: #484f58 }
    .back { fill: #0d1117 }
  }
"""


class Axis:
    """Where a number stands between two ends, and which numbers are written there."""

    def __init__(self, numbers, begin, end, log):
        low, high = min(numbers), max(numbers)
        self.begin, self.end, self.log = begin, end, log
        if log:
            self.ticks = log_ticks(low, high)
            self.low, self.high = min(low, self.ticks[0]), max(high, self.ticks[-1])
        else:
            low = low if low > high / 4 else 0
            step = nice_step(high - low)
            first, last = math.floor(low / step), math.ceil(high / step)
            self.low, self.high = first * step, last * step
            self.ticks = [step * n for n in range(first, last + 1)]

    def place(self, number):
        low, high = self.low, self.high
        if self.log:
            number, low, high = math.log(max(number, low)), math.log(low), math.log(high)
        share = (number - low) / (high - low) if high > low else 0.5
        return self.begin + share * (self.end - self.begin)


def nice_step(high):
    """1, 2 or 5 times a power of ten, so that there are four to eight of it."""
    power = 10 ** math.floor(math.log10(high / 4)) if high > 0 else 1
    return next(power * factor for factor in (1, 2, 5, 10) if high / (power * factor) <= 8)


def log_ticks(low, high):
    """Powers of ten around the numbers; with halves between them where they are few."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    factors = (1, 2, 5) if len(powers) <= 3 else (1,)
    ticks = [factor * 10.0**power for power in powers for factor in factors]
    first = max((tick for tick in ticks if tick <= low), default=ticks[0])
    last = min((tick for tick in ticks if tick >= high), default=ticks[-1])
    return [tick for tick in ticks if first <= tick <= last]


def short(number):
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:g}{letter}"
    return f"{number:g}"


class Plot:
    def __init__(self, title, x_label, y_label, footer):
        self.title, self.x_label, self.y_label, self.footer = title, x_label, y_label, footer
        self.lines = []
        self.bands = []

    def line(self, name, points):
        self.stretches(name, [points])

    def stretches(self, name, stretches):
        """A line with gaps."""
        stretches = [sorted(points) for points in stretches if points]
        if stretches:
            self.lines.append((name, stretches))

    def band(self, begin, end):
        self.bands.append((begin, end))

    def svg(self, x_log=False, x_ticks=None, y_log=False, y_from=None):
        every = [point for _, line in self.lines for points in line for point in points]
        xs, ys = [x for x, _ in every], [y for _, y in every]
        x_axis = Axis(xs, LEFT, WIDTH - RIGHT, x_log)
        if x_ticks:
            x_axis.ticks, x_axis.low, x_axis.high = x_ticks, min(x_ticks), max(x_ticks)
        y_axis = Axis(ys + ([y_from] if y_from else []), HEIGHT - BOTTOM, TOP, y_log)
        parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
            f'width="{WIDTH}" height="{HEIGHT}" role="img" aria-label="{escape(self.title)}">',
            f"<style>{STYLE}</style>",
            f'<rect class="back" width="{WIDTH}" height="{HEIGHT}" rx="6"/>',
            f'<text class="title" x="{LEFT}" y="26">{escape(self.title)}</text>',
        ]
        parts += self.draw_bands(x_axis) + self.draw_axes(x_axis, y_axis)
        for index, (_, stretches) in enumerate(self.lines):
            for points in stretches:
                parts += draw_line(index, [(x_axis.place(x), y_axis.place(y)) for x, y in points])
        parts += self.draw_legend()
        return "\n".join(parts) + "\n</svg>\n"

    def draw_bands(self, axis):
        low, high = TOP, HEIGHT - BOTTOM
        places = [(axis.place(begin), axis.place(end)) for begin, end in self.bands]
        return [
            f'<rect class="band" x="{begin:.1f}" y="{low}" width="{end - begin:.1f}" '
            f'height="{high - low}"/>'
            for begin, end in places
        ]

    def draw_axes(self, x_axis, y_axis):
        left, right, bottom = LEFT, WIDTH - RIGHT, HEIGHT - BOTTOM
        parts = []
        for tick in y_axis.ticks:
            y = y_axis.place(tick)
            parts.append(f'<path class="grid" d="M{left} {y:.1f}H{right}"/>')
            parts.append(
                f'<text class="tick" x="{left - 8}" y="{y + 4:.1f}" text-anchor="end">'
                f"{short(tick)}</text>"
            )
        for tick in x_axis.ticks:
            x = x_axis.place(tick)
            parts.append(f'<path class="axis" d="M{x:.1f} {bottom}v5"/>')
            parts.append(
                f'<text class="tick" x="{x:.1f}" y="{bottom + 19}" text-anchor="middle">'
                f"{short(tick)}</text>"
            )
        parts.append(f'<path class="axis" d="M{left} {bottom}H{right}"/>')
        middle = (left + right) / 2
        parts.append(
            f'<text x="{middle:.0f}" y="{bottom + 38}" text-anchor="middle">'
            f"{escape(self.x_label)}</text>"
        )
        middle = (TOP + bottom) / 2
        parts.append(
            f'<text transform="translate(18 {middle:.0f}) rotate(-90)" text-anchor="middle">'
            f"{escape(self.y_label)}</text>"
        )
        return parts

    def draw_legend(self):
        parts, x, y = [], LEFT, HEIGHT - 26
        for index, (name, _) in enumerate(self.lines):
            parts.append(f'<path class="line" stroke="{COLOURS[index]}" d="M{x} {y - 4}h24"/>')
            parts.append(mark(index, x + 12, y - 4))
            parts.append(f'<text x="{x + 31}" y="{y}">{escape(name)}</text>')
            x += 31 + 7.2 * len(name) + 22
        for _ in self.bands[:1]:
            parts.append(f'<rect class="band" x="{x:.0f}" y="{y - 11}" width="24" height="13"/>')
            parts.append(f'<text x="{x + 31:.0f}" y="{y}">indexes are merged</text>')
        parts.append(f'<text class="tick" x="{LEFT}" y="{HEIGHT - 8}">{escape(self.footer)}</text>')
        return parts


def draw_line(index, places):
    path = "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
    parts = [f'<path class="line" stroke="{COLOURS[index]}" d="M{path}"/>']
    return parts + ([mark(index, x, y) for x, y in places] if len(places) <= 20 else [])


def mark(index, x, y):
    fill = f'fill="{COLOURS[index]}"'
    match MARKS[index]:
        case "circle":
            return f'<circle {fill} cx="{x:.1f}" cy="{y:.1f}" r="4"/>'
        case "square":
            return f'<rect {fill} x="{x - 3.5:.1f}" y="{y - 3.5:.1f}" width="7" height="7"/>'
        case "diamond":
            return f'<path {fill} d="M{x:.1f} {y - 5:.1f}l5 5l-5 5l-5 -5z"/>'
        case _:
            return f'<path {fill} d="M{x:.1f} {y - 5:.1f}l5 9h-10z"/>'


def points(swept, name, figure=lambda point: point["per_second"]):
    return [(point["x"], figure(point)) for point in swept["points"] if point["name"] == name]


def footer(swept):
    machine = swept["machine"]
    optimised = "" if machine["is_optimised"] else ", NOT OPTIMISED"
    return (
        f"peerpost {machine['version']}, {machine['cores']} cores shared by client and server, "
        f"{machine['file_system']}, 100-byte bodies{optimised}"
    )


def in_flight(swept):
    plot = Plot(
        "Durable sends, and calls that do nothing", "calls in flight", "per second", footer(swept)
    )
    plot.line("no-op call", points(swept, "no-op"))
    plot.line("durable send", points(swept, "send"))
    ticks = sorted({point["x"] for point in swept["points"]})
    return plot.svg(x_log=True, x_ticks=ticks)


def rate(swept):
    plot = Plot(
        "Latency of durable sends in an open loop", "sends offered a second",
        "milliseconds", footer(swept),
    )
    for name, key in (("p50", "p50_ms"), ("p99", "p99_ms"), ("p99.9", "p999_ms")):
        plot.line(name, points(swept, "send", lambda point: point["latency"][key]))
    return plot.svg(y_log=True)


def grown(swept, what):
    plot = Plot(f"Throughput by {what}", what, "per second", footer(swept))
    for name in ("catch-up", "stream, 1 stream", "send, 256 in flight"):
        plot.line(name, points(swept, name))
    ticks = sorted({point["x"] for point in swept["points"]})
    return plot.svg(x_log=True, x_ticks=ticks, y_log=True, y_from=1_000)


def merge(swept):
    slices = swept["slices"]
    rate = short(round(swept["points"][0]["x"], -2))
    plot = Plot(
        f"Sends at half of the maximum rate ({rate}/s) while indexes are merged",
        "messages stored", "milliseconds", footer(swept),
    )
    # Between two stretches messages were sent as fast as it went, up to near the next merge.
    begins = [
        n for n, part in enumerate(slices)
        if n == 0 or part["committed"] - slices[n - 1]["committed"] > 2 * part["sends"]
    ]
    stretches = [slices[b:e] for b, e in zip(begins, begins[1:] + [len(slices)])]
    for name, key in (("p50", "p50_ms"), ("p99", "p99_ms")):
        plot.stretches(name, [[(p["committed"], p[key]) for p in part] for part in stretches])
    for part in stretches:
        merging = [p["committed"] for p in part if p["is_merging"]]
        if merging:
            plot.band(min(merging), max(merging))
    return plot.svg(y_log=True)


DRAWN = {
    "in-flight": in_flight,
    "rate": rate,
    "messages": lambda swept: grown(swept, "messages stored"),
    "users": lambda swept: grown(swept, "users who receive"),
    "merge": merge,
}


def main(names):
    for name in names or DRAWN:
        source = HERE / "data" / f"{name}.json"
        target = HERE / f"{name}.svg"
        target.write_text(DRAWN[name](json.loads(source.read_text())))
        print(target.relative_to(HERE.parent.parent))


if __name__ == "__main__":
    main(sys.argv[1:])
