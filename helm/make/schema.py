"""What the chart knows of the gateway's settings, from docs/configuration.md, which the gateway prints itself."""

import json
import re
from pathlib import Path

# Settings that the chart makes of other values, or that a cluster has no use for.
NOT_IN_CONFIG = {
    "listen", "admin-listen", "redis", "redis-password", "redis-sentinel-password", "redis-ca", "redis-prefix", "node-id",
    "workers", "echo", "config", "drain-delay", "drain-window", "shutdown-timeout", "log-format", "log", "otlp-endpoint",
    "otlp-sample-ratio",
}
# Settings whose values are secrets, or files: the chart takes them from Secrets and ConfigMaps of yours.
SECRETS = {"jwt-secret", "api-keys", "livekit-api-secret", "webhook-secret", "authorize-secret"}
FILES = {"jwt-public-key", "outbound-ca"}
ROW = re.compile(r"^\| `--([a-z-]+)` \| `ROOMCAST_[A-Z_]+` \| (.*?) \| (.*?) \| (.*) \|$", re.MULTILINE)


def settings(docs: str) -> dict[str, tuple[str, str]]:
    """Name to what it accepts and what it means."""
    part = docs.split("## Settings")[1].split("## Rooms")[0]
    return {match[1]: (match[3], match[4]) for match in ROW.finditer(part)}


def camel(name: str) -> str:
    first, *others = name.split("-")
    return first + "".join(word.capitalize() for word in others)


def accepts(name: str, words: str, meaning: str = "") -> dict:
    if "comma-separated" in meaning or "comma-separated" in words:
        return {"type": "array", "items": {"type": "string", "minLength": 1}}
    if found := re.fullmatch(r"a whole number from (\d+) to (\d+)", words):
        return {"type": "integer", "minimum": int(found[1]), "maximum": int(found[2])}
    if words.startswith("a duration"):
        return {"$ref": "#/definitions/duration"}
    if found := re.fullmatch(r"a number from (\d+) to (\d+)", words):
        return {"type": "number", "minimum": int(found[1]), "maximum": int(found[2])}
    if words.startswith(("origins", "networks")):
        return {"type": "array", "items": {"type": "string", "minLength": 1}}
    if words == "true or false":
        return {"type": "boolean"}
    if found := re.fullmatch(r"([a-z-]+) or ([a-z-]+)", words):
        return {"enum": [found[1], found[2]]}
    if words.startswith(("https://", "wss://")):
        return {"type": "string", "minLength": 1}
    if words.startswith(("a path", "any text", "a text", "a key", "text")) or re.match(r"\d+ to \d+ (of the )?characters", words):
        return {"type": "string"}
    raise SystemExit(f"helm/make/schema.py does not know how to check --{name}, which accepts {words}")


def with_settings(path: Path, docs: Path) -> str:
    schema = json.loads(path.read_text())
    schema["properties"]["config"] = {
        "type": "object",
        "additionalProperties": False,
        "properties": {
            camel(name): accepts(name, words, meaning) | {"description": meaning}
            for name, (words, meaning) in settings(docs.read_text()).items() if name not in NOT_IN_CONFIG | SECRETS | FILES
        },
    }
    for place, names, kind in ("secrets", SECRETS, "secretKey"), ("files", FILES, "fileKey"):
        schema["properties"][place] = {
            "type": "object",
            "additionalProperties": False,
            "properties": {camel(name): {"$ref": f"#/definitions/{kind}"} for name in sorted(names)},
        }
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def with_app_version(chart: Path, cargo: Path) -> str:
    version = re.search(r'^\[workspace\.package\]\nversion = "([^"]+)"', cargo.read_text(), re.MULTILINE)[1]
    return re.sub(r'^appVersion: .*$', f'appVersion: "{version}"', chart.read_text(), flags=re.MULTILINE)
