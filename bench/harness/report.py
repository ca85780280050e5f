"""Figures of several runs as one table."""
import statistics

CONTROL = "copy"
# The figure that is compared with the control's, by workload; None where the peers' own ratio is the point.
COMPARED = {"W1": "seconds", "W2": None, "W3": "p50_ms", "W4": "seconds", "W5": None, "W6": None, "W8": None}


def median(runs, name):
    values = [run[name] for run in runs if run.get(name) is not None]
    if not values or not isinstance(values[0], (int, float)):
        return values[-1] if values else None
    return statistics.median(values)


def ratio(runs, controls, name):
    """The median of the ratios run by run: what slowed one run down slowed its control down too."""
    pairs = [(run, control) for run in runs for control in controls if run["run"] == control["run"]]
    ratios = [run[name] / control[name] for run, control in pairs]
    return statistics.median(ratios) if ratios else None


def show(value):
    if value is None:
        return "-"
    if isinstance(value, dict):
        return " ".join(f"{key}:{count}" for key, count in sorted(value.items()))
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def table(results):
    """Markdown: for each workload the peers below each other, one figure a column."""
    lines = []
    for workload, size in dict.fromkeys((result["workload"], result["size"]) for result in results):
        rows = [result for result in results if (result["workload"], result["size"]) == (workload, size)]
        good = [row for row in rows if "failed" not in row]
        names = [name for name in (good or [{}])[0] if name not in ("workload", "size", "peer", "run", "load")]
        compared = COMPARED[workload]
        head = [f"{workload}, {size:,}", *names] + ([f"{compared} / control"] if compared else [])
        lines += ["", "| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
        for peer in dict.fromkeys(row["peer"] for row in rows):
            own = [row for row in good if row["peer"] == peer]
            if not own:
                failed = next(row["failed"] for row in rows if row["peer"] == peer)
                lines.append(f"| {peer} | failed: {failed} " + "| " * (len(head) - 1))
                continue
            cells = [show(median(own, name)) for name in names]
            controls = [row for row in good if row["peer"] == CONTROL]
            cells += [show(ratio(own, controls, compared))] if compared else []
            lines.append("| " + " | ".join([peer, *cells]) + " |")
    return "\n".join(lines).strip()
