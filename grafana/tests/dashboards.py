"""Dashboards: are they consistent, and does every query of every panel return data from a real, loaded cluster?

usage: dashboards.py GATEWAY LOADTEST
The last line is `N passed, N failed`. What is provoked stands in `provoke`; panels in PROVOKED must show it. All must show
something before that, too.
"""

import copy
import json
import os
import re
import signal
import socket
import sys
import time

from cluster import NODES, Cluster, until
from consistency import ROOT, Count, alerts, dashboards, findings, mutants, panels_of, tidied
from schema import unknown_fields

# What Grafana would put in. The short interval of the scrapes makes short windows do.
INTERVALS = {"__rate_interval": "10s", "__interval": "5s", "__range": "30s"}
# Panels that must show more than zeros after what happened to the cluster.
PROVOKED = {
    "overview": [
        "Do publishes fail, and why?", "Are clients turned away, and why?", "Why do sessions end?", "How many alerts fire?",
        "Do clients that come back miss anything?", "How fast is the error budget used up?", "Is the work shared evenly?",
        "How long until a message has reached everyone?", "Which node needs a look?",
    ],
    "node": [
        "How many clients come, and how many are turned away?", "Why do sessions end here?", "What do clients ask for?",
        "What do clients get back when they join?", "How do publishes end here?", "How many frames go out in one write?",
        "Is a worker full?", "What are clients told off for?",
    ],
    "redis": [
        "How often must connections be made again?", "Which calls fail, and how?", "What is not delivered twice?",
        "Did nodes die in the last day?", "Are nodes taken for dead?", "How full is its memory?", "Can it save?",
        "How busy is its main thread?", "Which commands take its time?", "Which nodes hear Redis, over time?",
    ],
    "capacity": [
        "How full is the fullest node?", "How full if a node dies?", "How large can a storm be?",
        "How long to let its clients in?", "When will the places run out?",
        "How much of Redis does a publish take?", "How many people does a message reach?",
    ],
}  # fmt: skip
# Alerts that must have noticed; for the others it was too short.
WOKEN = [
    ("RoomcastTakeover", "firing"), ("RoomcastTargetDown", "pending"), ("RoomcastBrokerDeaf", "pending"),
    ("RoomcastPublishesFail", "pending"), ("RoomcastPublishBudgetBurnsFast", "pending"),
]  # fmt: skip
WINDOW = 30


def substitute(text, values):
    for name, value in {**INTERVALS, **values}.items():
        # A function, since sub would read the value's backslashes.
        text = re.sub(rf"\$({name}\b|\{{{name}\}})", lambda _, value=value: value, text)
    if "$" in text:
        raise ValueError(f"a variable that Grafana does not know here: {text}")
    return text


def escaped(value):
    """A value as Grafana writes it into a regular expression in a string."""
    return re.escape(value).replace("\\-", "-").replace("\\", "\\\\")


def crowd(url, count):
    """Opens more WebSockets on a node than it takes, and closes them."""
    host, port = url.removeprefix("ws://").split(":")
    request = "GET /ws?room=crowd HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" + (
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    sockets = []
    for _ in range(count):
        sockets.append(socket.create_connection((host, int(port)), timeout=10))
        sockets[-1].sendall(request.encode())
    answers = {one.recv(16).split()[1] for one in sockets}
    for one in sockets:
        one.close()
    if b"503" not in answers:
        raise AssertionError(f"nobody of {count} was turned away: {answers}")


def value(cluster, query):
    result = cluster.ask("query", query=query)["result"]
    return float(result[0]["value"][1]) if result else 0.0


def load(cluster):
    """Load of every kind, and nothing wrong: clients that drop out come back."""
    for name, arguments in {
        "chat": ["chat", "--rooms", 20, "--members", 4, "--rate", 5, "--duration", "60s"],
        "cursors": ["chat", "--rooms", 5, "--members", 4, "--rate", 10, "--duration", "60s", "--mode", "ephemeral", "--prefix", "cursor"],
        "storm": ["storm", "--rooms", 10, "--members", 4, "--rate", 2, "--duration", "60s", "--first", "1s", "--every", "2s"],
    }.items():  # fmt: skip
        cluster.load(name, *arguments)
    until("clients talk", lambda: value(cluster, "sum(rate(roomcast_deliveries_total[5s]))") > 100)
    until("clients resume", lambda: value(cluster, 'sum(roomcast_joins_total{recovery="resumed"})') > 20)
    until("it is recorded", lambda: cluster.ask("query", query="roomcast:slow_deliveries:ratio_rate1d")["result"])


def provoke(cluster):
    """Trouble of every kind that a test can make."""
    crowd(cluster.urls[0], 160)
    cluster.kill(2)
    until("a survivor takes over", lambda: value(cluster, 'sum(increase(roomcast_takeovers_total{outcome="done"}[1m]))') > 0)
    cluster.redis.send_signal(signal.SIGSTOP)
    until("the nodes notice", lambda: value(cluster, "sum(roomcast_broker_up)") == 0)
    cluster.redis.send_signal(signal.SIGCONT)
    until("the nodes are back", lambda: value(cluster, "sum(roomcast_ready)") == 2)
    until("publishing failed", lambda: value(cluster, "max(roomcast:publish_errors:ratio_rate5m)") > 0)


def has_data(series, is_range):
    points = [point for one in series for point in (one["values"] if is_range else [one["value"]])]
    numbers = [float(point[1]) for point in points]
    return [number for number in numbers if number == number]


def ask_target(cluster, target, values):
    """The numbers that a target's query returns."""
    query = substitute(target["expr"], values)
    if target["instant"]:
        return has_data(cluster.ask("query", query=query)["result"], False)
    end = time.time()
    return has_data(cluster.ask("query_range", query=query, start=end - WINDOW, end=end, step=1)["result"], True)


def check_panel(cluster, name, panel, values, count):
    """Data from every query, also when nothing is wrong."""
    for target in panel["targets"]:
        words = f"{name}: {panel['title']} {target['refId']}"
        try:
            count.check(words, None if ask_target(cluster, target, values) else f"no data from {target['expr']}")
        except ValueError as error:
            count.check(words, error)


def check_provoked(cluster, name, panel, values, count):
    """More than zeros after the trouble."""
    numbers = [number for target in panel["targets"] for number in ask_target(cluster, target, values)]
    count.check(f"{name}: {panel['title']} shows what happened", None if any(numbers) else "only zeros")


def check_variables(cluster, name, dashboard, count):
    """The variables with everything chosen that may be, by name."""
    chosen = {}
    for variable in dashboard["templating"]["list"]:
        if variable["type"] != "query":
            continue
        selector, label = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["query"]["query"]).groups()
        values = cluster.ask(f"label/{label}/values", **{"match[]": substitute(selector, chosen)})
        count.check(f"{name}: variable {variable['name']}", None if values else "no values")
        if variable["multi"]:
            chosen[variable["name"]] = variable.get("allValue", f"({'|'.join(map(escaped, values))})")
        else:
            chosen[variable["name"]] = cluster.admin[0]
    return chosen


def check_annotations(cluster, name, dashboard, values, count):
    for annotation in dashboard["annotations"]["list"]:
        if "expr" in annotation:
            problem = None
            try:
                cluster.ask("query", query=substitute(annotation["expr"], values))
            except ValueError as error:
                problem = error
            count.check(f"{name}: annotation {annotation['name']}", problem)


def check_peace(cluster, count):
    """As long as all is well no alert is even pending, once everything was scraped."""
    until("everything is scraped", lambda: value(cluster, "sum(roomcast_ready) + sum(redis_up)") == NODES + 1)

    def awake():
        return [one["labels"]["alertname"] for one in cluster.ask("alerts")["alerts"]]

    # Until the first scrape there was no node.
    until(f"no alert is pending: {awake()}", lambda: not awake())
    count.check("no alert in peace", awake())


def check_rules(cluster, count):
    """The rules live: each can be evaluated, and a killed node is noticed by those meant for it."""
    for group in cluster.ask("rules")["groups"]:
        for rule in group["rules"]:
            count.check(f"rule {rule['name']}", None if rule["health"] == "ok" else rule.get("lastError"))
    recent = cluster.ask("query", query="max by (alertname, alertstate) (max_over_time(ALERTS[1m]))")["result"]
    states = {(one["metric"]["alertname"], one["metric"]["alertstate"]) for one in recent}
    for alert in cluster.ask("alerts")["alerts"]:
        texts = " ".join(alert["annotations"].values())
        count.check(f"texts of {alert['labels']['alertname']}", texts if "error expanding" in texts or "<no value>" in texts else None)
    for alert, state in WOKEN:
        count.check(f"{alert} was {state}", None if (alert, state) in states else states)


def check_runbook(cluster, count):
    """Queries that the runbook tells people to ask can be asked."""
    text = (ROOT.parent / "docs/runbook.md").read_text()
    looks = "".join(re.findall(r"^- \*\*Look:\*\*.*?(?=^- \*\*Do)", text, re.M | re.S))
    queries = [code for code in re.findall(r"`([^`]+)`", looks) if re.search(r"\b(roomcast|process|redis)_[a-z]|^up ", code)]
    count.check("the runbook has queries", None if len(queries) > 40 else queries)
    for query in queries:
        try:
            cluster.ask("query", query=query)
            count.check(query, None)
        except ValueError as error:
            count.check(f"runbook: {query}", error)


def check_consistency(count):
    known = {path.stem: json.loads(path.read_text()) for path in dashboards()}
    for path in dashboards():
        found = findings(path.stem, path.read_text(), alerts())
        count.check(f"{path.name} is consistent", "; ".join(found))
        count.check(f"Grafana knows all of {path.name}", unknown_fields(known[path.stem]))
    typo = copy.deepcopy(known["overview"])
    typo["panels"][1]["options"]["colourMode"] = "value"
    count.check("a misspelt option is found", None if unknown_fields(typo) == ["/panels/options/colourMode"] else unknown_fields(typo))
    noisy = json.dumps({"id": 3, **known["node"], "version": 9})
    tidied_up = tidied(noisy) == (ROOT / "dashboards/node.json").read_text()
    count.check("an exported dashboard is tidied", None if tidied_up else "it is not")
    for words, text in mutants((ROOT / "dashboards/overview.json").read_text()):
        count.check(f"a dashboard {words} is found", None if findings("overview", text, alerts()) else "not found")
    for name, titles in PROVOKED.items():
        unknown = set(titles) - {panel["title"] for panel in panels_of(known[name])}
        count.check(f"{name} has the panels to be provoked", unknown)
    return known


def main(gateway, loadtest):
    count = Count()
    known = check_consistency(count)
    programs = {"gateway": os.path.abspath(gateway), "loadtest": os.path.abspath(loadtest)}
    began = time.monotonic()
    with Cluster(programs, ROOT / "alerts.yaml") as cluster:
        check_peace(cluster, count)
        load(cluster)
        print(f"dashboards: under load after {time.monotonic() - began:.0f} s")
        values = {name: check_variables(cluster, name, dashboard, count) for name, dashboard in known.items()}
        for name, dashboard in known.items():
            for panel in panels_of(dashboard):
                check_panel(cluster, name, panel, values[name], count)
            check_annotations(cluster, name, dashboard, values[name], count)
        provoke(cluster)
        print(f"dashboards: provoked after {time.monotonic() - began:.0f} s")
        for name, dashboard in known.items():
            for panel in panels_of(dashboard):
                if panel["title"] in PROVOKED[name]:
                    check_provoked(cluster, name, panel, values[name], count)
        check_rules(cluster, count)
        check_runbook(cluster, count)
    return count.end()


if __name__ == "__main__":
    # So that what was started is stopped, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    sys.exit(0 if main(*sys.argv[1:]) else 1)
