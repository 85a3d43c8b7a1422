"""Alerts: are the rules sound, does every alert come when it should and only then, and does the runbook know it?

The unit tests in alerts.test.yaml are put to the test themselves: with an alert that never comes, always comes, or comes
too early, one of them must fail for that alert.

usage: alerts.py
The last line is `N passed, N failed`.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from consistency import ROOT, Count, alerts

PROMTOOL = shutil.which("promtool", path=f"{os.environ['PATH']}:{ROOT.parent}/.cache/tools/bin")
RUNBOOK = ROOT.parent / "docs/runbook.md"
ALERT = re.compile(
    r"(?P<head>^ +- alert: (?P<name>\w+)\n)(?P<expr> +expr: .*?)^ +for: (?P<time>\w+)\n(?P<rest>.*?)(?=^ *- |\Z|^$)", re.M | re.S
)
RECORDS = re.compile(r"^  - name: roomcast-objectives\n.*?^\n", re.M | re.S)
# What an alert is made to be, and what the unit tests then get where they want something else.
MUTANTS = {
    "never comes": ("        expr: vector(1) > 2\n", None),
    "always comes": ('        expr: label_replace(vector(1), "always", "yes", "", "")\n', None),
    "comes too early": (None, "0m"),
}


def promtool(*words):
    # Collecting garbage would be a third of its work.
    environment = {**os.environ, "GOGC": "1000"}
    done = subprocess.run([PROMTOOL, *map(str, words)], capture_output=True, text=True, timeout=240, env=environment)
    return done.returncode, done.stdout + done.stderr


def mutated(text, expr, time):
    def change(match):
        return f"{match['head']}{expr or match['expr']}        for: {time or match['time']}\n{match['rest']}"

    # What is recorded takes half of the time, and nobody asks for it then.
    return ALERT.sub(change, RECORDS.sub("", text) if expr else text)


def surprised(text, tests):
    """Alerts whose unit tests fail with these rules."""
    with tempfile.TemporaryDirectory() as work:
        Path(work, "alerts.yaml").write_text(text)
        Path(work, "alerts.test.yaml").write_text(tests)
        _, output = promtool("test", "rules", Path(work, "alerts.test.yaml"))
    # An alert that always comes fails the tests that want it, too; what counts are those that want nothing.
    failures = re.findall(r'alertname=\\"(\w+)\\".*\n +exp: (.*)\n', output)
    return {name for name, _ in failures}, {name for name, wanted in failures if wanted == "nil"}


def check_units(count):
    rules = (ROOT / "alerts.yaml").read_text()
    tests = (ROOT / "alerts.test.yaml").read_text()
    status, output = promtool("check", "rules", ROOT / "alerts.yaml")
    count.check("promtool check rules", output if status else None)
    at_once = {match["name"] for match in ALERT.finditer(rules) if match["time"] == "0m"}
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        mutants = {words: pool.submit(surprised, mutated(rules, *change), tests) for words, change in MUTANTS.items()}
        status, output = promtool("test", "rules", ROOT / "alerts.test.yaml")
    count.check("promtool test rules", output if status else None)
    if status:
        return
    for words, (_, time) in MUTANTS.items():
        failing, uncalled = mutants[words].result()
        for alert in alerts():
            if time and alert in at_once:
                continue
            seen = uncalled if words == "always comes" else failing
            count.check(f"{alert} that {words} is noticed", None if alert in seen else "every unit test passes all the same")


def check_texts(count):
    blocks = {match["name"]: match["rest"] for match in ALERT.finditer((ROOT / "alerts.yaml").read_text())}
    count.check("every alert is understood by this test", set(alerts()) ^ set(blocks))
    for name, text in blocks.items():
        problems = [words for words in (
            "no severity" if not re.search(r"severity: (critical|warning)$", text, re.M) else None,
            "no summary" if "summary: " not in text else None,
            "a runbook of something else" if f"runbook_url: docs/runbook.md#{name.lower()}\n" not in text else None,
            "no value in its description" if "$value" not in text and name not in NO_VALUE else None,
        ) if words]  # fmt: skip
        count.check(f"{name} says what is needed", "; ".join(problems))


# A value says nothing there.
NO_VALUE = {"RoomcastNoNodeReady"}


def check_runbook(count):
    text = RUNBOOK.read_text() if RUNBOOK.exists() else ""
    entries = re.findall(r"^### (Roomcast\w+)$", text, re.M)
    count.check("no alert without an entry in the runbook", sorted(set(alerts()) - set(entries)))
    count.check("no entry in the runbook without an alert", sorted(set(entries) - set(alerts())))
    count.check("one entry each, in the order of the rules", None if entries == alerts() else entries)
    for name, entry in zip(entries, re.split(r"^### Roomcast\w+$", text, flags=re.M)[1:]):
        lacking = [word for word in ("**Means:**", "**Suffers:**", "**Look:**", "**Do:**", "**Nothing if:**") if word not in entry]
        count.check(f"the entry {name} is complete", lacking)


def main():
    count = Count()
    check_units(count)
    check_texts(count)
    check_runbook(count)
    return count.end()


if __name__ == "__main__":
    sys.exit(0 if main() else 1)
