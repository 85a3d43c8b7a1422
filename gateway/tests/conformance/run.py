#!/usr/bin/env python3
"""Runs the Autobahn cases (RFC 6455, all but compression) against a WebSocket echo server and judges every one.

    run.py --gateway target/debug/gateway     start the gateway with --echo on free ports, run, stop it
    run.py --url ws://127.0.0.1:9001/echo     run against whatever listens there

Passed is a case whose events are OK (or NON-STRICT and listed below, or INFORMATIONAL by Autobahn's own definition) and
whose closing is OK or INFORMATIONAL. The last line is `N passed, N failed`; the exit status is 0 if none failed.
Called by `scripts/conformance.sh`.
"""

import argparse
import asyncio
import json
import subprocess
import sys
import threading
import time
from pathlib import Path
from urllib.parse import urlsplit

import suite
from peer import Peer

#: Cases allowed to be NON-STRICT, each with the reason. Empty: the gateway is strict everywhere.
NON_STRICT = {}

#: The whole suite without compression. Fewer means that something was left out without a word.
WHOLE = 301

#: What the mass cases need: 16 MiB in one message, 65,536 fragments, minutes for a message sent in chops.
LIMITS = [
    "--max-message-bytes", "16777216",
    "--outbound-queue-bytes", "33554432",
    "--max-fragments", "65536",
    "--message-deadline", "300s",
]  # fmt: skip
START_DEADLINE, CASE_DEADLINE = 60.0, 300.0
#: Connections at once. Cases of category 9 move megabytes: two keep both ends busy.
LIGHT, HEAVY = 32, 2


def start_gateway(binary, place):
    """Starts the gateway and returns (process, address), the address read from its log line `listening`."""
    command = [binary, "--echo", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--log-format", "json"]
    # A directory and an environment of its own keep the developer's settings out.
    process = subprocess.Popen(
        command + LIMITS, cwd=place, env={}, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True
    )
    found, address, said = threading.Event(), [], []

    def read():
        # Reads to the end of the process: a full pipe would stop it.
        for line in process.stderr:
            if found.is_set():
                continue
            said.append(line)
            try:
                entry = json.loads(line)
            except ValueError:
                continue
            fields = {**entry, **entry.get("fields", {})} if isinstance(entry, dict) else {}
            if fields.get("message") == "listening" and "addr" in fields:
                address.append(fields["addr"])
                found.set()
        found.set()

    threading.Thread(target=read, daemon=True).start()
    if not found.wait(START_DEADLINE) or not address:
        process.kill()
        raise SystemExit(f"conformance: {binary} did not say where it listens:\n{''.join(said)}")
    host, port = address[0].rsplit(":", 1)
    return process, (host, int(port), "/echo")


async def run_case(case_id, klass, target, gate):
    async with gate:
        began, peer = time.monotonic(), Peer(*target)
        try:
            case = await asyncio.wait_for(peer.execute(klass), CASE_DEADLINE)
            result = verdict(case_id, case, peer)
        except (OSError, asyncio.TimeoutError) as error:
            result = {"behavior": "FAILED", "behaviorClose": "FAILED", "passed": False, "words": repr(error)}
    return case_id, result | {"duration_ms": round((time.monotonic() - began) * 1000)}


def verdict(case_id, case, peer):
    behavior, words = case.behavior, case.result
    if case_id.startswith("9.") and peer.differs:
        # Autobahn leaves this one as a FIXME: it compares lengths only.
        behavior, words = "FAILED", "the echo's content differs"
    good = behavior in ("OK", "INFORMATIONAL") or (behavior == "NON-STRICT" and case_id in NON_STRICT)
    good = good and case.behaviorClose in ("OK", "INFORMATIONAL") and peer.violation is None
    words = f"{words} {case.resultClose}" + (f" Violation: {peer.violation}." if peer.violation else "")
    return {
        "behavior": behavior,
        "behaviorClose": case.behaviorClose,
        "remoteCloseCode": peer.remoteCloseCode,
        "passed": good,
        "words": words,
    }


async def run_all(cases, target):
    light, heavy = asyncio.Semaphore(LIGHT), asyncio.Semaphore(HEAVY)
    results = {}
    for group in ([c for c in cases if not c[0].startswith("9.")], [c for c in cases if c[0].startswith("9.")]):
        gate = heavy if group and group[0][0].startswith("9.") else light
        results.update(await asyncio.gather(*(run_case(name, klass, target, gate) for name, klass in group)))
    return results


def report(results, out):
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(results, indent=1), encoding="utf-8")
    tally = {}
    for case_id, result in results.items():
        tally[result["behavior"]] = tally.get(result["behavior"], 0) + 1
        if not result["passed"]:
            print(f"case {case_id}: {result['behavior']}, closing {result['behaviorClose']}: {result['words']}")
    failed = sum(not result["passed"] for result in results.values())
    print("conformance: " + ", ".join(f"{count} {name}" for name, count in sorted(tally.items())) + f"; report in {out}")
    print(f"{len(results) - failed} passed, {failed} failed")
    return failed


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--gateway", help="the gateway's executable")
    where.add_argument("--url", help="an echo server that runs already")
    parser.add_argument("--cases", default="", help="only the cases whose id starts with this, such as 6.4.")
    parser.add_argument("--cache", type=Path, default=Path(".cache/conformance"))
    options = parser.parse_args()

    cases = [case for case in suite.load(options.cache / "cases") if case[0].startswith(options.cases)]
    if not cases:
        raise SystemExit(f"conformance: no case starts with {options.cases!r}")
    if not options.cases and len(cases) != WHOLE:
        raise SystemExit(f"conformance: {len(cases)} cases were loaded, {WHOLE} are known")
    process = None
    if options.gateway:
        process, target = start_gateway(str(Path(options.gateway).resolve()), options.cache)
    else:
        url = urlsplit(options.url)
        target = (url.hostname, url.port, url.path)
    try:
        results = asyncio.run(run_all(cases, target))
        died = process is not None and process.poll() is not None
    finally:
        if process is not None:
            process.terminate()
            process.wait(timeout=30)
    if died:
        print("conformance: the gateway ended while the cases ran")
    return 1 if report(results, options.cache / "report.json") or died else 0


if __name__ == "__main__":
    sys.exit(main())
