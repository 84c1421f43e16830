"""The page of metrics, the dashboard and the alert rules, compared with the metrics that the code declares."""

from __future__ import annotations

import json
import re
import shutil
import subprocess

import pytest
import yaml

from local_airflow.layout import CHECKOUT
from registry_sync.hooks.sync_metrics import METRICS, TIMER

DOCS = CHECKOUT / "docs"
DASHBOARD = DOCS / "monitoring" / "registry-sync-dashboard.json"
RULES = DOCS / "monitoring" / "registry-sync-alerts.yaml"
_LINE = re.compile(r"^\| `(registry_sync[\w.]+)` \| (\w+) \| (.+?) \| .+ \|$", re.MULTILINE)
_USED = re.compile(r"airflow_(registry_sync_\w+)(?:{([^}]*)})?")


def exported() -> dict[str, set[str]]:
    """The names that statsd_exporter makes of the metrics, each with its labels."""
    names: dict[str, set[str]] = {}
    for metric in METRICS.values():
        name = metric.name.replace(".", "_")
        for suffix in ("_count", "_sum") if metric.kind == TIMER else ("",):
            names[f"{name}{suffix}"] = set(metric.tags)
    return names


def expressions() -> list[str]:
    board, rules = json.loads(DASHBOARD.read_text()), yaml.safe_load(RULES.read_text())
    queries = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    queries += [rule["expr"] for group in rules["groups"] for rule in group["rules"]]
    return queries + [one["query"] for one in board["templating"]["list"] if one["type"] == "query"]


def test_every_metric_has_a_line_with_its_kind_and_tags_and_no_other_has() -> None:
    page = (DOCS / "reference" / "metrics.md").read_text(encoding="utf-8")
    listed = {name: (kind, tuple(re.findall(r"`(\w+)`", tags))) for name, kind, tags in _LINE.findall(page)}
    assert listed == {metric.name: (metric.kind, metric.tags) for metric in METRICS.values()}


def test_the_dashboard_and_the_rules_ask_for_metrics_and_labels_that_there_are() -> None:
    names = exported()
    used = [found for query in expressions() for found in _USED.findall(query)]
    assert {name for name, _ in used} <= names.keys()
    for name, labels in used:
        assert set(re.findall(r"(\w+)=", labels)) <= names[name], (name, labels)
    grouped = [
        (names[_USED.findall(query)[0][0]], set(re.split(r",\s*", by)))
        for query in expressions()
        for by in re.findall(r"\bby \(([^)]*)\)", query)
    ]
    assert all(by <= labels for labels, by in grouped)


def test_every_metric_is_on_the_dashboard() -> None:
    shown = {name for query in expressions() for name, _ in _USED.findall(query)}
    assert {re.sub("_(count|sum)$", "", name) for name in shown} == {
        metric.name.replace(".", "_") for metric in METRICS.values()
    }


def test_panels_do_not_overlap() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        place = panel["gridPos"]
        own = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert not own & taken, panel["title"]
        assert all(x < 24 for x, _ in own)
        taken |= own


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool of Prometheus is not installed")
def test_prometheus_takes_the_rules() -> None:
    subprocess.run(["promtool", "check", "rules", str(RULES)], check=True, capture_output=True)
