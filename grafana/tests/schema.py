"""What Grafana itself would not know in a dashboard: fields that its published types drop. Called by consistency.py."""

import json

from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

# Fields that Grafana writes and reads, and its types lack: a variable's query as the editor shows it, and the words of an
# annotation that comes from Prometheus.
UNTYPED = ("/templating/list/definition", "/annotations/list/titleFormat")

register_default_plugins()


def unknown_fields(dashboard):
    """Paths of fields that are lost, or change, on the way through Grafana's types."""
    understood = json.loads(JSONEncoder().encode(Dashboard.from_json(dashboard)))
    return sorted({path for path in differences(dashboard, understood, "") if path not in UNTYPED})


def differences(ours, theirs, path):
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for key, value in ours.items():
            if key in theirs:
                yield from differences(value, theirs[key], f"{path}/{key}")
            else:
                yield f"{path}/{key}"
    elif isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        for one, other in zip(ours, theirs):
            yield from differences(one, other, path)
    elif ours != theirs:
        yield path
