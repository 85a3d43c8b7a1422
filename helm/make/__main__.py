"""Makes what is derived from the chart and its sources: `make chart`. With --check it changes nothing and fails on drift.

Derived: copies of dashboards and alerts, the chart's appVersion, the schema of `config`, the README's table, k8s/.
"""

import sys
from pathlib import Path

import manifests
import readme
import schema

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "helm/roomcast"
# Folders in which every file is derived: what is not made any more goes.
OWNED = [CHART / "files", ROOT / "k8s/base", ROOT / "k8s/overlays/production"]


def copies() -> dict[Path, str]:
    """Dashboards and alerts: the sources are in grafana/, and a chart can hold only what lies within it."""
    made = {}
    for source in sorted((ROOT / "grafana/dashboards").glob("*.json")):
        made[CHART / "files/dashboards" / source.name] = source.read_text()
    alerts = ROOT / "grafana/alerts.yaml"
    if alerts.exists():
        made[CHART / "files/alerts.yaml"] = alerts.read_text()
    return made


def derived() -> dict[Path, str]:
    made = copies()
    made[CHART / "Chart.yaml"] = schema.with_app_version(CHART / "Chart.yaml", ROOT / "Cargo.toml")
    made[CHART / "values.schema.json"] = schema.with_settings(CHART / "values.schema.json", ROOT / "docs/configuration.md")
    made[CHART / "README.md"] = readme.with_table(CHART / "README.md", CHART / "values.yaml")
    return made


def write(made: dict[Path, str]) -> None:
    for path, text in made.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists() or path.read_text() != text:
            path.write_text(text)
            print(f"chart: wrote {path.relative_to(ROOT)}")


def stale(made: dict[Path, str]) -> list[Path]:
    return [path for folder in OWNED for path in sorted(folder.rglob("*")) if path.is_file() and path not in made]


def check(made: dict[Path, str]) -> list[str]:
    words = [f"{path.relative_to(ROOT)} is not what `make chart` makes"
             for path, text in made.items() if not path.exists() or path.read_text() != text]
    return words + [f"{path.relative_to(ROOT)} is made by nothing" for path in stale(made)]


def main(arguments: list[str]) -> int:
    made = derived()
    if "--check" in arguments:
        # Manifests are rendered from the chart as it is; if the chart itself drifted, that is said first.
        words = [word for word in check(made) if "is made by nothing" not in word] or check(made | manifests.render(ROOT))
        print("\n".join(f"chart: {word}" for word in words) or "chart: no drift")
        return 1 if words else 0
    write(made)
    made |= manifests.render(ROOT)
    write(made)
    for path in stale(made):
        path.unlink()
        print(f"chart: removed {path.relative_to(ROOT)}")
    return 0


sys.exit(main(sys.argv[1:]))
