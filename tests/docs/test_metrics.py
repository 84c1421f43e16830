"""The page of metrics and traces, the dashboard and the alert rules, compared with what the code declares."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import yaml

from local_airflow.layout import CHECKOUT
from registry_sync.hooks.sync_metrics import METRICS, TIMER
from registry_sync.hooks.sync_traces import ATTRIBUTES

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
    page = (DOCS / "reference" / "metrics.md").read_text(encoding="utf-8").partition("## Traces")[0]
    listed = {name: (kind, tuple(re.findall(r"`(\w+)`", tags))) for name, kind, tags in _LINE.findall(page)}
    assert listed == {metric.name: (metric.kind, metric.tags) for metric in METRICS.values()}


def test_every_attribute_of_a_span_has_a_line_and_no_other_has() -> None:
    traces = (DOCS / "reference" / "metrics.md").read_text(encoding="utf-8").partition("## Traces")[2]
    listed = re.findall(r"^\| `registry_sync\.([\w.]+)` \| .+ \| .+ \|$", traces, re.MULTILINE)
    assert sorted(listed) == sorted(ATTRIBUTES)


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


def test_prometheus_takes_the_rules() -> None:
    subprocess.run(["promtool", "check", "rules", str(RULES)], check=True, capture_output=True)


def test_the_rules_fire_for_what_they_are_about_and_for_nothing_else(tmp_path: Path) -> None:
    """Prometheus' own unit tests of rules: series go in, alerts with their texts come out."""
    mirror = 'registry="quay.io", mirror="app"'
    every = 5  # minutes; three days by the minute take 7 s of the processor
    days, fails = 3 * 24 * 60 // every, 0.1 * every
    series = {
        f"airflow_registry_sync_mirror_last_success{{{mirror}}}": f"0x{days}",
        'airflow_registry_sync_mirror_last_success{registry="quay.io", mirror="fresh"}': f"0+{60 * every}x{days}",
        f"airflow_registry_sync_mirror_held_tags{{{mirror}}}": f"2x{days}",
        'airflow_registry_sync_responses{registry="quay.io", mirror="app", status="429"}': f"0+{60 * every}x{days}",
        'airflow_registry_sync_responses{registry="ghcr.io", mirror="b", status="403"}': f"0+{60 * every}x{days}",
        'airflow_registry_sync_remaining_pulls{registry="hub"}': f"7x{days}",
        f'airflow_registry_sync_stage_duration_count{{{mirror}, stage="fetch", outcome="failed"}}': f"0+{fails}x{days}",
    }
    both, registry = {"registry": "quay.io", "mirror": "app"}, {"registry": "quay.io"}
    expected = {
        "MirrorIsOld": both,
        "MirrorHoldsTags": both,
        "RegistryThrottles": registry,
        "RegistryRefuses": {"registry": "ghcr.io"},
        "FewPullsLeft": {"registry": "hub"},
        "SyncStagesFail": {"mirror": "app"},
    }
    rules = {rule["alert"]: rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]}
    assert rules.keys() == expected.keys()
    values = {"MirrorIsOld": "2d 23h 0m 0s", "MirrorHoldsTags": "2", "RegistryThrottles": "1"}
    values |= {"RegistryRefuses": "", "FewPullsLeft": "7", "SyncStagesFail": "6"}

    def summary(name: str) -> str:
        text = re.sub(r"{{ \$value[^}]*}}", values[name], rules[name]["annotations"]["summary"])
        return re.sub(r"{{ \$labels\.(\w+) }}", lambda found: expected[name][found[1]], text)

    tests = {
        "rule_files": [str(RULES)],
        "evaluation_interval": f"{every}m",
        "tests": [
            {
                "interval": f"{every}m",
                "input_series": [{"series": name, "values": found} for name, found in series.items()],
                "alert_rule_test": [
                    {
                        "eval_time": "71h",
                        "alertname": name,
                        "exp_alerts": [
                            {
                                "exp_labels": {"severity": "warning", **labels},
                                "exp_annotations": {**rules[name]["annotations"], "summary": summary(name)},
                            }
                        ],
                    }
                    for name, labels in expected.items()
                ],
            }
        ],
    }
    (tmp_path / "tests.yaml").write_text(yaml.safe_dump(tests))
    done = subprocess.run(
        ["promtool", "test", "rules", "tests.yaml"], check=False, cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
