"""Runs schemathesis on a node and counts the operations that held. Called by conformance.sh with a key and the nodes.

The last line is `N passed, N failed`; what failed stands above it, with a command that shows it again.
"""

import os
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from pathlib import Path

EXAMPLES = 20
SECONDS = 240


def main() -> int:
    key, url = sys.argv[1], sys.argv[2]
    with tempfile.TemporaryDirectory() as work:
        report = Path(work) / "report.xml"
        command = [
            Path(sys.executable).with_name("schemathesis"), "run", f"{url}/api/v1/openapi.json",
            "--header", f"Authorization: Bearer {key}", "--seed", "1", "--max-examples", str(EXAMPLES),
            "--phases", "examples,coverage,fuzzing", "--checks", "all", "--continue-on-failure", "--warnings", "off",
            "--report-junit-path", report, "--report", "junit", "--request-timeout", "30",
        ]  # fmt: skip
        environment = {**os.environ, "NO_COLOR": "1", "HYPOTHESIS_STORAGE_DIRECTORY": work}
        run = subprocess.run(command, cwd=work, env=environment, timeout=SECONDS)
        if not report.exists():
            print(f"schemathesis ended with {run.returncode} and no report")
            print("0 passed, 1 failed")
            return 1
        cases = list(ElementTree.parse(report).iter("testcase"))
    failed = [case for case in cases if case.find("failure") is not None or case.find("error") is not None]
    skipped = [case for case in cases if case.find("skipped") is not None]
    for case in failed + skipped:
        print("not held:", case.get("name"))
    bad = len(failed) + len(skipped)
    if bad == 0 and run.returncode != 0:
        print(f"schemathesis ended with {run.returncode}")
        bad = 1
    print(f"{len(cases) - len(failed) - len(skipped)} passed, {bad} failed")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
