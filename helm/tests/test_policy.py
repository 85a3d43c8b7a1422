"""A policy check (checkov) over everything that is rendered. What is let pass stands here, with its reason."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import FILES, rendered

# Check: objects that it is let pass for (a kind, or a kind and the end of a name), and why.
ACCEPTED = {
    "CKV_K8S_11": (["Deployment", "StatefulSet", "Job", "Pod"], "no CPU limits: throttled threads make latency; set resources.limits.cpu where a policy wants them"),
    "CKV_K8S_10": (["Deployment/rc-roomcast"], "single-values.yaml asks for no resources"),
    "CKV_K8S_12": (["Deployment/rc-roomcast"], "the same"),
    "CKV_K8S_13": (["Deployment/rc-roomcast"], "the same"),
    "CKV_K8S_43": (["Deployment", "StatefulSet", "Job", "Pod"], "digests are image.digest: which image has which is not the chart's to know"),
    "CKV_K8S_15": (["Deployment", "StatefulSet", "Job", "Pod"], "IfNotPresent: tags are versions, and a registry that is down must not keep a node from starting"),
    "CKV_K8S_35": (["Deployment", "Job", "StatefulSet"], "the gateway and redis_exporter read the Redis password from a variable, redis-cli its own; Redis itself reads a file"),
    "CKV_K8S_8": (["Pod/-test-chat"], "a test that ends by itself"),
    "CKV_K8S_9": (["Pod/-test-chat", "StatefulSet"], "the same; and a Redis whose exporter is not ready still serves"),
}


def accepted(check: str, resource: str) -> bool:
    kind, name = resource.split(".")[0], resource.split(".", 2)[-1]
    return any(kind == one.split("/")[0] and ("/" not in one or name.endswith(one.split("/")[1]))
               for one in ACCEPTED.get(check, ([], ""))[0])


def findings(folder: Path) -> list[tuple[str, str, str, str]]:
    """File, check, resource and words of each failure."""
    tool = Path(sys.executable).with_name("checkov")
    done = subprocess.run([str(tool), "--framework", "kubernetes", "--skip-download", "--quiet", "--compact", "--output", "json",
                           "--directory", str(folder)], capture_output=True, text=True, timeout=170, check=False)
    report = json.loads(done.stdout)
    assert report["summary"]["parsing_errors"] == 0 and report["summary"]["passed"] > 100
    return [(Path(one["file_path"]).name, one["check_id"], one["resource"], one["check_name"])
            for one in report["results"]["failed_checks"]]


@pytest.fixture(scope="module")
def found(tmp_path_factory) -> list[tuple[str, str, str, str]]:
    folder = tmp_path_factory.mktemp("rendered")
    for file in FILES:
        # Containers and objects of others are theirs to secure.
        done = rendered("{initContainers: [], extraContainers: [], extraObjects: []}", (file,), "1.32.0", "rc", "chat")
        assert done.returncode == 0, done.stderr
        (folder / file.name).write_text(done.stdout)
    bad = rendered("{securityContext: {allowPrivilegeEscalation: true, capabilities: {add: [SYS_ADMIN]}}, podSecurityContext: {runAsNonRoot: false, runAsUser: 0}}",
                   (), "1.32.0", "rc", "chat")
    (folder / "bad.yaml").write_text(bad.stdout)
    return findings(folder)


def test_nothing_is_found_that_is_not_explained(found):
    unexplained = sorted({(file, check, resource, words) for file, check, resource, words in found
                          if file != "bad.yaml" and not accepted(check, resource)})
    assert unexplained == []


def test_nothing_is_explained_that_is_not_found(found):
    seen = {check for file, check, _, _ in found if file != "bad.yaml"}
    assert set(ACCEPTED) <= seen


def test_the_check_can_fail(found):
    bad = {check for file, check, _, _ in found if file == "bad.yaml"}
    assert {"CKV_K8S_20", "CKV_K8S_39"} <= bad, bad


