"""Dashboards: are they consistent, and does every query of every panel return data from a real, loaded cluster?

usage: dashboards.py GATEWAY LOADTEST
The last line is `N passed, N failed`. What is provoked stands in `provoke`; panels in PROVOKED must show it. All must show
something before that, too.
"""

import contextlib
import copy
import itertools
import json
import os
import re
import signal
import socket
import sys
import time

from backend import call
from cluster import NODES, Cluster, until
from consistency import ROOT, Count, alerts, dashboards, findings, mutants, panels_of, tidied
from schema import unknown_fields
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

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
    "backends": [
        "What share of tokens is refused?", "How often is nothing decided?", "Were events dropped in a day?",
        "Are limits counted alone?", "What is wrong with tokens?", "Which handshakes are refused?",
        "What may clients not do, or do no longer?", "How do fetches of keys end?", "What does it decide?",
        "How many answers are remembered?", "How do calls of receivers end?", "How many events are delivered?",
        "Which events are dropped, and why?", "Which errors do backends get?", "Do orders reach all nodes?",
        "Do nodes carry orders out?", "Which rates are run into?", "Whose connections are too many?",
        "Which limits hold for a node alone?",
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
    ("RoomcastKeysUnavailable", "pending"), ("RoomcastAuthorizeFails", "pending"), ("RoomcastWebhookEventsDropped", "firing"),
]  # fmt: skip
# Seconds that panels are asked about while nothing is wrong.
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


def enter(url, room, token):
    """A WebSocket in a room."""
    return connect(f"{url}/ws/{room}", additional_headers={"Authorization": f"Bearer {token}"}, proxy=None, open_timeout=20)


def knock(url, room, token):
    """The status of the answer to a handshake."""
    try:
        with enter(url, room, token):
            return 101
    except InvalidStatus as refused:
        return refused.response.status_code


def publish(url, room, token, count):
    """Publishes as fast as it goes; a node closes on who goes on for too long."""
    with contextlib.suppress(ConnectionClosed), enter(url, room, token) as client:
        for number in range(count):
            client.send(json.dumps({"type": "publish", "room": room, "data": number}))


def crowd(url, token, count):
    """Opens more WebSockets on a node than it takes, and closes them."""
    host, port = url.removeprefix("ws://").split(":")
    request = "GET /ws?room=crowd HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" + (
        f"Authorization: Bearer {token}\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
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
    """Load of every kind, and nothing wrong: clients that drop out come back. It goes on until the end."""
    for name, arguments in {
        "chat": ["chat", "--rooms", 20, "--members", 4, "--rate", 5, "--duration", "1h"],
        "cursors": ["chat", "--rooms", 5, "--members", 4, "--rate", 10, "--duration", "1h", "--mode", "ephemeral", "--prefix", "cursor"],
        "storm": ["storm", "--rooms", 10, "--members", 4, "--rate", 2, "--duration", "1h", "--first", "1s", "--every", "2s"],
    }.items():  # fmt: skip
        cluster.load(name, *arguments)
    cluster.backend.call_api_for_ever(cluster.api, cluster.api_key)
    until("clients talk", lambda: value(cluster, "sum(rate(roomcast_deliveries_total[5s]))") > 100)
    until("clients resume", lambda: value(cluster, 'sum(roomcast_joins_total{recovery="resumed"})') > 20)
    until("backends are told", lambda: value(cluster, "sum(roomcast_webhook_events_sent_total)") > 20 and cluster.backend.events > 20)
    until("orders are given", lambda: value(cluster, 'sum(roomcast_orders_given_total{outcome="answered"})') > 0)
    until("it is recorded", lambda: cluster.ask("query", query="roomcast:slow_deliveries:ratio_rate1d")["result"])


def misuse(cluster):
    """Clients want what they may not have, and more than they may."""
    url = cluster.urls[0]
    ann, anybody = cluster.token("--user", "ann", "--rooms", "*"), cluster.token("--rooms", "*")
    reader = cluster.token("--user", "bob", "--rooms", '{"join":["*"]}')

    def counted(words, metric, act):
        """Does it until the metric shows it: a slow machine may not be fast enough the first time."""

        def is_counted():
            act()
            return value(cluster, f"sum(increase({metric}[1m]))") > 0

        until(words, is_counted)

    for limit, (room, token) in {"client": ("c", anybody), "user": ("u", ann), "room": ("narrow", anybody)}.items():
        counted(f"the rate of a {limit}", f'roomcast_rate_limited_total{{limit="{limit}"}}', lambda: publish(url, room, token, 60))
    counted("no right to publish", 'roomcast_protocol_errors_total{code="forbidden"}', lambda: publish(url, "r", reader, 1))
    counted("a bad token", 'roomcast_tokens_total{outcome="malformed"}', lambda: knock(url, "k", "no-token"))
    with contextlib.ExitStack() as opened:
        for number in range(6):
            opened.enter_context(enter(cluster.urls[number % NODES], "lobby", ann))
        until("too many of a user", lambda: value(cluster, "sum(roomcast_user_connections_refused_total)") > 0)
        call(cluster.api, cluster.api_key, "POST", "/users/ann/disconnect", {"reconnect": False})
        until("she is sent away", lambda: value(cluster, 'sum(roomcast_closes_total{reason="removed"})') > 0)


def fail_backend(cluster):
    """What the operator runs is out of order for a while."""
    url, token = cluster.urls[0], cluster.token("--rooms", "*")
    numbers = itertools.count()

    def is_known(query):
        # Each time another question, and members who leave, which nobody wants to hear of.
        knock(url, f"knock-{next(numbers)}", token)
        return value(cluster, query) > 0

    with enter(url, "leaving", token):
        cluster.backend.is_well = False
    until("no keys", lambda: value(cluster, "max(roomcast_jwks_up)") == 0)
    for alert in ("RoomcastKeysUnavailable", "RoomcastAuthorizeFails", "RoomcastWebhookEventsDropped"):
        until(f"{alert} wakes", lambda alert=alert: is_known(f'count(ALERTS{{alertname="{alert}"}})'))
    cluster.backend.is_well = True
    until("keys are back", lambda: value(cluster, "min(roomcast_jwks_up)") == 1)
    until("somebody gets in", lambda: knock(url, f"knock-{next(numbers)}", token) == 101)


def provoke(cluster):
    """Trouble of every kind that a test can make."""
    misuse(cluster)
    fail_backend(cluster)
    crowd(cluster.urls[0], cluster.token("--rooms", "crowd"), 160)
    cluster.kill(2)
    until("a survivor takes over", lambda: value(cluster, 'sum(increase(roomcast_takeovers_total{outcome="done"}[1m]))') > 0)
    cluster.redis.send_signal(signal.SIGSTOP)
    until("the nodes notice", lambda: value(cluster, "sum(roomcast_broker_up)") == 0)
    until("limits hold alone", lambda: value(cluster, "sum(roomcast_limits_alone_total)") > 0)
    cluster.redis.send_signal(signal.SIGCONT)
    until("the nodes are back", lambda: value(cluster, "sum(roomcast_ready)") == 2)
    # Whether a pause breaks a connection depends on what was under way.
    reconnects = "sum(roomcast_broker_reconnects_total)"
    before = value(cluster, reconnects)
    cluster.cut_redis()
    until("connections are made again", lambda: value(cluster, reconnects) > before)
    until("publishing failed", lambda: value(cluster, "max(roomcast:publish_errors:ratio_rate5m)") > 0)


def has_data(series, is_range):
    points = [point for one in series for point in (one["values"] if is_range else [one["value"]])]
    numbers = [float(point[1]) for point in points]
    return [number for number in numbers if number == number]


def ask_target(cluster, target, values, window=WINDOW):
    """The numbers that a target's query returns, for the last seconds if it draws a curve."""
    query = substitute(target["expr"], values)
    if target["instant"]:
        return has_data(cluster.ask("query", query=query)["result"], False)
    end = time.time()
    return has_data(cluster.ask("query_range", query=query, start=end - window, end=end, step=1)["result"], True)


def check_panel(cluster, name, panel, values, count):
    """Data from every query, also when nothing is wrong."""
    for target in panel["targets"]:
        words = f"{name}: {panel['title']} {target['refId']}"
        try:
            count.check(words, None if ask_target(cluster, target, values) else f"no data from {target['expr']}")
        except ValueError as error:
            count.check(words, error)


def check_provoked(cluster, name, panel, values, count, window):
    """More than zeros after the trouble, which began so many seconds ago."""
    numbers = [number for target in panel["targets"] for number in ask_target(cluster, target, values, window)]
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


def check_rules(cluster, count, window):
    """The rules live: each can be evaluated, and trouble, which began so many seconds ago, is noticed by those meant for it."""
    for group in cluster.ask("rules")["groups"]:
        for rule in group["rules"]:
            count.check(f"rule {rule['name']}", None if rule["health"] == "ok" else rule.get("lastError"))
    recent = cluster.ask("query", query=f"max by (alertname, alertstate) (max_over_time(ALERTS[{window:.0f}s]))")["result"]
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
        trouble = time.monotonic()
        provoke(cluster)
        print(f"dashboards: provoked after {time.monotonic() - began:.0f} s")
        for name, dashboard in known.items():
            for panel in panels_of(dashboard):
                if panel["title"] in PROVOKED[name]:
                    check_provoked(cluster, name, panel, values[name], count, time.monotonic() - trouble)
        check_rules(cluster, count, time.monotonic() - trouble)
        check_runbook(cluster, count)
    return count.end()


if __name__ == "__main__":
    # So that what was started is stopped, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    sys.exit(0 if main(*sys.argv[1:]) else 1)
