"""k8s/: the chart's objects as plain manifests, for kustomize. The base is the chart with k8s/values-base.yaml, the
overlay is what values-ha.yaml and k8s/values-production.yaml make different.

Settings become generated ConfigMaps, so that a change of them is a new name and with that a rollout.
"""

import os
import subprocess
from pathlib import Path

import yaml

NAME, NAMESPACE, KUBERNETES = "roomcast", "roomcast", "1.32.0"
APIS = ["monitoring.coreos.com/v1"]
HEAD = "# Made by `make chart` from helm/roomcast: a change here is lost. Change it in an overlay of your own.\n"


def objects(root: Path, *values: str) -> dict[tuple[str, str], dict]:
    """What helm renders, by kind and name."""
    helm = os.environ.get("HELM", str(root / ".cache/tools/bin/helm"))
    command = [helm, "template", NAME, str(root / "helm/roomcast"), "--namespace", NAMESPACE, "--kube-version", KUBERNETES]
    for api in APIS:
        command += ["--api-versions", api]
    for file in values:
        command += ["--values", str(root / file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"chart: {' '.join(command)}\n{done.stderr}")
    return {(made["kind"], made["metadata"]["name"]): plain(made) for made in yaml.safe_load_all(done.stdout) if made}


def plain(made: dict) -> dict:
    """Without what only Helm has a use for, and without the namespace, which kustomize sets."""
    metadata = made["metadata"]
    metadata.pop("namespace", None)
    for label in ("helm.sh/chart", "app.kubernetes.io/managed-by"):
        metadata.get("labels", {}).pop(label, None)
    # What the chart's upgrades remember.
    if metadata.get("annotations", {}).pop("roomcast/replicas", None) and not metadata["annotations"]:
        metadata.pop("annotations")
    annotations = made.get("spec", {}).get("template", {}).get("metadata", {}).get("annotations", {}) \
        if isinstance(made.get("spec", {}).get("template"), dict) else {}
    annotations.pop("checksum/config", None)
    if annotations == {} and isinstance(made.get("spec", {}).get("template"), dict):
        made["spec"]["template"]["metadata"].pop("annotations", None)
    return made


def dump(made: object) -> str:
    class Readable(yaml.SafeDumper):
        def ignore_aliases(self, data):
            return True

    Readable.add_representer(str, lambda dumper, text: dumper.represent_scalar(
        "tag:yaml.org,2002:str", text, style="|" if "\n" in text else None))
    return yaml.dump(made, Dumper=Readable, sort_keys=False, width=118, allow_unicode=True)


def named_alike(old: object, new: object) -> bool:
    """Whether these are lists of which the new one has what the old one has, by name, and perhaps more behind it."""
    return (isinstance(old, list) and isinstance(new, list) and 0 < len(old) <= len(new)
            and all(isinstance(each, dict) for each in old + new)
            and all(one == two or one.get("name", 1) == two.get("name", 2) for one, two in zip(old, new)))


def difference(old: object, new: object, path: str = "") -> list[dict]:
    """A JSON patch (RFC 6902) that makes new of old."""
    if old == new:
        return []
    steps = []
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted(old.keys() | new.keys()):
            at = f"{path}/{key.replace('~', '~0').replace('/', '~1')}"
            if key not in new:
                steps.append({"op": "remove", "path": at})
            elif key not in old:
                steps.append({"op": "add", "path": at, "value": new[key]})
            else:
                steps += difference(old[key], new[key], at)
    elif named_alike(old, new):
        for index, each in enumerate(old):
            steps += difference(each, new[index], f"{path}/{index}")
        steps += [{"op": "add", "path": f"{path}/-", "value": each} for each in new[len(old):]]
    else:
        steps.append({"op": "replace", "path": path, "value": new})
    return steps


def file_of(kind: str, name: str) -> str:
    return f"{kind.lower()}{name.removeprefix(NAME)}.yaml"


def generator(made: dict, folder: str, behavior: str | None = None) -> tuple[dict, dict[str, str]]:
    """An entry of configMapGenerator, and the files that it reads."""
    name = made["metadata"]["name"]
    files = {f"{folder}{key}": text for key, text in made["data"].items()}
    entry = {"name": name, "files": [f"{key}={folder}{key}" for key in made["data"]]}
    if behavior:
        entry["behavior"] = behavior
    else:
        entry["options"] = {"labels": made["metadata"]["labels"]}
    return entry, files


def base(made: dict[tuple[str, str], dict]) -> dict[str, str]:
    files, generators, resources = {}, [], []
    for (kind, name), value in made.items():
        if kind == "ConfigMap":
            entry, texts = generator(value, "")
            generators.append(entry)
            files |= texts
        else:
            resources.append(file_of(kind, name))
            files[resources[-1]] = HEAD + dump(value)
    files["kustomization.yaml"] = HEAD + dump({
        "apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization", "namespace": NAMESPACE,
        "resources": sorted(resources), "configMapGenerator": generators,
    })
    return files


def overlay(old: dict[tuple[str, str], dict], new: dict[tuple[str, str], dict]) -> dict[str, str]:
    files, generators, resources, patches = {}, [], ["../../base"], []
    for key in sorted(old.keys() | new.keys()):
        kind, name = key
        target = {"kind": kind, "name": name}
        if key not in new:
            head = {"apiVersion": old[key]["apiVersion"], "kind": kind, "metadata": {"name": name}}
            patches.append({"patch": dump({"$patch": "delete"} | head), "target": target})
        elif key not in old:
            resources.append(file_of(kind, name))
            files[resources[-1]] = HEAD + dump(new[key])
        elif steps := difference(old[key], new[key]):
            if kind == "ConfigMap":
                entry, texts = generator(new[key], "", "replace")
                generators.append(entry)
                files |= texts
            else:
                patches.append({"path": f"patch-{file_of(kind, name)}", "target": target})
                files[patches[-1]["path"]] = HEAD + dump(steps)
    kustomization = {"apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization", "namespace": NAMESPACE,
                     "resources": resources}
    if generators:
        kustomization["configMapGenerator"] = generators
    files["kustomization.yaml"] = HEAD + dump(kustomization | {"patches": patches})
    return files


def render(root: Path) -> dict[Path, str]:
    small = objects(root, "k8s/values-base.yaml")
    large = objects(root, "helm/roomcast/values-ha.yaml", "k8s/values-production.yaml")
    made = {root / "k8s/base" / name: text for name, text in base(small).items()}
    return made | {root / "k8s/overlays/production" / name: text for name, text in overlay(small, large).items()}
