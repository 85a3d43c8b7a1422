"""What all dashboards have in common, as rules; no cluster is needed. Called by dashboards.py and alerts.py.

usage: consistency.py FILE...
Formats dashboards that were exported from Grafana, and says what is wrong with them.
"""

import json
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
WIDTH = 24
# Keys that Grafana writes when a dashboard is saved in it, and that mean nothing in a file.
NOISE = {"id", "version", "iteration", "gnetId", "weekStart", "liveNow", "fiscalYearStartMonth"}
PANEL_NOISE = {"pluginVersion", "interval", "maxDataPoints", "hideTimeOverride"}
# What a metric's name says about the unit of a panel that shows it as it is.
UNITS = {"s": r"_seconds\b(?!_total)|_seconds_bucket", "bytes": r"_bytes\b"}


class Count:
    """Counts checks, and says which failed."""

    def __init__(self):
        self.passed = self.failed = 0

    def check(self, words, problem):
        """`problem` is what is wrong: empty if nothing is."""
        if problem:
            self.failed += 1
            print(f"FAILED {words}: {problem}")
        else:
            self.passed += 1

    def end(self):
        print(f"{self.passed} passed, {self.failed} failed")
        return self.failed == 0


def dashboards():
    return sorted((ROOT / "dashboards").glob("*.json"))


def alerts():
    """Names of the alerts, in order."""
    return re.findall(r"^ +- alert: (\w+)$", (ROOT / "alerts.yaml").read_text(), re.M)


def records():
    return set(re.findall(r"^ +- record: (\S+)$", (ROOT / "alerts.yaml").read_text(), re.M))


def panels_of(dashboard):
    """Panels with queries, without the rows."""
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def findings(name, text, known_alerts):
    """What is wrong with a dashboard, in words."""
    dashboard = json.loads(text)
    found = list(whole(name, dashboard))
    if text != json.dumps(dashboard, indent=2, ensure_ascii=False) + "\n":
        found.append("is not formatted like json.dumps(.., indent=2)")
    titles = [panel["title"] for panel in panels_of(dashboard)]
    found += [f"two panels ask '{title}'" for title in sorted({title for title in titles if titles.count(title) > 1})]
    ids = [panel["id"] for panel in dashboard["panels"]]
    if len(set(ids)) != len(ids):
        found.append("two panels have one id")
    found += layout(dashboard["panels"])
    for panel in panels_of(dashboard):
        found += [f"'{panel['title']}' {words}" for words in about(panel, known_alerts)]
    return found


def whole(name, dashboard):
    if dashboard.get("uid") != f"roomcast-{name}":
        yield "its uid is not roomcast- and the file's name"
    if noise := NOISE & set(dashboard):
        yield f"carries {sorted(noise)}"
    if not dashboard.get("description"):
        yield "has no description"
    if "roomcast" not in dashboard.get("tags", []):
        yield "lacks the tag roomcast"
    # Not with all variables: Overview of one node is none, and Node of all is not, either.
    passed = "&".join(f"${{{variable}:queryparam}}" for variable in ("datasource", "namespace", "job"))
    others = {f"/d/roomcast-{path.stem}?{passed}" for path in dashboards() if path.stem != name}
    links = {link["url"] for link in dashboard["links"] if not link["includeVars"] and link["keepTime"]}
    if links != others:
        yield f"does not link to {sorted(others - links)} with time, and {sorted(links - others)} is not asked for"
    variables = [variable["name"] for variable in dashboard["templating"]["list"]]
    for wanted in ("datasource", "namespace", "job", "instance"):
        if wanted not in variables:
            yield f"has no variable {wanted}"


def layout(panels):
    """Panels within the grid, none over another."""
    taken = {}
    for panel in panels:
        grid = panel["gridPos"]
        if grid["x"] + grid["w"] > WIDTH:
            yield f"'{panel['title']}' reaches out of the grid"
        for x in range(grid["x"], grid["x"] + grid["w"]):
            for y in range(grid["y"], grid["y"] + grid["h"]):
                if (x, y) in taken:
                    yield f"'{panel['title']}' covers '{taken[x, y]}'"
                    return
                taken[x, y] = panel["title"]


def about(panel, known_alerts):
    if not panel["title"].endswith("?"):
        yield "asks nothing"
    if len(panel["title"]) > 8 * panel["gridPos"]["w"]:
        yield "has a title that Grafana cuts off at that width"
    description = panel.get("description", "")
    if len(description) < 20 or not description.endswith("."):
        yield "has no description that ends"
    for alert in re.findall(r"\bRoomcast[A-Z]\w+", description):
        if alert not in known_alerts:
            yield f"names {alert}, which is no alert"
    if noise := PANEL_NOISE & set(panel):
        yield f"carries {sorted(noise)}"
    defaults = panel["fieldConfig"]["defaults"]
    if not defaults.get("unit") or not defaults.get("thresholds"):
        yield "has no unit or no thresholds"
    if panel["datasource"] != DATASOURCE or any(target["datasource"] != DATASOURCE for target in panel["targets"]):
        yield "does not take its data source from the variable"
    if panel["type"] == "timeseries":
        yield from legends(panel)
    for target in panel["targets"]:
        yield from about_query(panel, target["expr"])
        # Zoomed out, a curve of fixed windows shows less than there was.
        if not target["instant"] and re.search(r"rate\([^()]*\[\d", target["expr"]):
            yield f"draws a rate over a fixed window: {target['expr']}"


def legends(panel):
    if any(target["legendFormat"] == "__auto" for target in panel["targets"]):
        yield "has a series without a name"
    for target in panel["targets"]:
        for label in re.findall(r"{{(\w+)}}", target["legendFormat"]):
            if not re.search(rf"by \([^)]*\b{label}\b", target["expr"]):
                yield f"names {label} in a legend and does not group by it"


def about_query(panel, query):
    for record in re.findall(r"\broomcast:[\w:]+", query):
        if record not in records():
            yield f"asks for {record}, which alerts.yaml does not record"
    if re.search(r"\b(roomcast|process|redis)_\w+(?!\w)(?!{)", re.sub(r'"[^"]*"', '""', query)):
        yield f"has a metric without the variables: {query}"
    unit = panel["fieldConfig"]["defaults"].get("unit")
    if panel["type"] == "timeseries" and "/" not in query:
        for wanted, pattern in UNITS.items():
            rated = wanted == "bytes" and "rate(" in query
            if re.search(pattern, query) and unit != ("Bps" if rated else wanted):
                yield f"shows {wanted} in {unit}"


def mutants(text):
    """Broken copies of a sound dashboard: each must be found."""

    def broken(change):
        dashboard = json.loads(text)
        change(dashboard, panels_of(dashboard)[0])
        return json.dumps(dashboard, indent=2, ensure_ascii=False) + "\n"

    yield "without a question", broken(lambda _, panel: panel.update(title="Ready nodes"))
    yield "without a description", broken(lambda _, panel: panel.update(description=""))
    yield "with an unknown alert", broken(lambda _, panel: panel.update(description="Fires RoomcastNoSuchThing, and so on."))
    yield "without a unit", broken(lambda _, panel: panel["fieldConfig"]["defaults"].pop("unit"))
    yield "with a fixed data source", broken(lambda _, panel: panel.update(datasource={"type": "prometheus", "uid": "abc"}))
    yield "with a panel over another", broken(lambda _, panel: panel["gridPos"].update(w=10))
    yield "with two panels of one id", broken(lambda one, _: one["panels"][1].update(id=one["panels"][2]["id"]))
    yield "with noise", broken(lambda one, _: one.update(version=7))
    yield "without its links", broken(lambda one, _: one["links"].pop())
    yield "with an unknown record", broken(lambda _, panel: panel["targets"][0].update(expr="roomcast:nothing:rate1m"))
    yield "with a query past the variables", broken(lambda _, panel: panel["targets"][0].update(expr="sum(roomcast_ready)"))
    yield "that is not formatted", text.replace("  ", " ")


def tidied(text):
    """A dashboard as it stands in the repository."""
    dashboard = {key: value for key, value in json.loads(text).items() if key not in NOISE}
    for panel in dashboard["panels"]:
        for key in PANEL_NOISE & set(panel):
            del panel[key]
    return json.dumps(dashboard, indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    for path in map(Path, sys.argv[1:]):
        path.write_text(tidied(path.read_text()))
        for words in findings(path.stem, path.read_text(), alerts()):
            print(f"{path.name}: {words}")
