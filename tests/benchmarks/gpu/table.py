"""Markdown of the report: what the machine is, and a table for each section."""


def markdown(content):
    """Format the content of `report.json`."""
    lines = ["# GPU kit" + (" (smoke run: tiny sizes, no figure means anything)" if content["smoke"] else ""), ""]
    lines += [f"- {name}: {value}" for name, value in content["machine"].items()]
    rows = content["rows"]
    for section in dict.fromkeys(row["section"] for row in rows):
        lines += ["", f"## {section.capitalize()}", "", *_table([row for row in rows if row["section"] == section])]
    lines += ["", _summary(rows), ""]
    return "\n".join(lines)


def _table(rows):
    columns = list(dict.fromkeys(column for row in rows for column in row["values"]))
    head = ["what", *columns, "state", "took"]
    yield "| " + " | ".join(head) + " |"
    yield "|" + "---|" * len(head)
    for row in rows:
        state = row["state"] + (f": {row['note']}" if row["note"] else "")
        cells = [
            row["name"],
            *(_cell(row["values"].get(column)) for column in columns),
            state,
            f"{row['seconds']:.1f} s",
        ]
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _summary(rows):
    states = [row["state"] for row in rows]
    counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    return f"{len(rows)} rows: {counts}."


def _cell(value):
    if value is None:
        return ""
    if isinstance(value, (list, tuple)):  # an error and what is allowed
        return f"{value[0]:.1e} of {value[1]:.0e}"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return f"{value:,}" if isinstance(value, int) else str(value)
