"""What a sweep found, less what differs between any two sweeps: its id, its times and how long it took, and the host.

Not one figure is compared with a tolerance.
"""

import json
import re
from typing import Any

from service.client import Client

Findings = dict[str, Any]


def findings(client: Client, sweep_id: str) -> Findings:
    """Of a sweep that has succeeded: table, controls, decision with all verified lists, warnings, report."""
    ended = client.sweep(sweep_id)
    assert ended["state"] == "succeeded", ended["problem"]
    report, table, fallback = (
        json.loads(client.report(sweep_id, "json")),
        client.layers(sweep_id),
        json.loads(client.report(sweep_id, "fallback-layers")),
    )
    for document, names in ((report, ("sweep_id", "created_at", "finished_at")), (table, ("sweep",))):
        for name in names:
            del document[name]
    del report["environment"]["host"], report["cost"]["seconds"], fallback["sweep"]
    page = client.report(sweep_id, "html").decode().replace(sweep_id, "SWEEP")
    page = re.sub(r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d(:\d\d)?", "TIME", page)
    page = re.sub(r"\b(prepare|calibrate|measure|select|verify|report) [\d.,]+ s", r"\1 SECONDS", page)
    return {
        "report": report,
        "layers": table,
        "decision": ended["decision"],
        "warnings": ended["warnings"],
        "fallback": fallback,
        "csv": client.layers_csv(sweep_id),
        "page": page,
    }
