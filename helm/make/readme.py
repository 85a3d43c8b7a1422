"""The table of values in the chart's README, from the comments in values.yaml."""

import json
import re
from pathlib import Path

import yaml

BEGIN, END = "<!-- generated: make chart -->", "<!-- end of the generated part -->"
KEY = re.compile(r"^( *)([A-Za-z][A-Za-z0-9]*):")


def comments(text: str) -> dict[tuple[str, ...], str]:
    """What `# --` says, by path."""
    found: dict[tuple[str, ...], str] = {}
    path: list[tuple[int, str]] = []
    words: list[str] = []
    for line in text.splitlines():
        stripped = line.strip()
        if stripped.startswith("# -- "):
            words = [stripped[5:]]
        elif stripped.startswith("#") and words:
            words.append(stripped.lstrip("# "))
        elif match := KEY.match(line):
            depth = len(match[1])
            path = [step for step in path if step[0] < depth] + [(depth, match[2])]
            if words:
                found[tuple(name for _, name in path)] = " ".join(words)
            words = []
        else:
            words = []
    return found


def leaves(values: object, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    if isinstance(values, dict) and values:
        return [leaf for key, value in values.items() for leaf in leaves(value, (*path, key))]
    return [path]


def undocumented(text: str) -> list[str]:
    said = comments(text)
    return [".".join(leaf) for leaf in leaves(yaml.safe_load(text))
            if not any(leaf[:depth] in said for depth in range(1, len(leaf) + 1))]


def table(text: str) -> str:
    values = yaml.safe_load(text)
    rows = ["| Value | Default | Meaning |", "|---|---|---|"]
    for path, meaning in comments(text).items():
        default = values
        for key in path:
            default = default[key]
        shown = json.dumps(default, ensure_ascii=False).replace("|", "\\|")
        rows.append(f"| `{'.'.join(path)}` | `{shown}` | {meaning.replace('|', chr(92) + '|')} |")
    return "\n".join(rows)


def with_table(readme: Path, values: Path) -> str:
    before, rest = readme.read_text().split(BEGIN)
    after = rest.split(END)[1]
    return f"{before}{BEGIN}\n\n{table(values.read_text())}\n\n{END}{after}"
