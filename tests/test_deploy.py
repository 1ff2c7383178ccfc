"""The files for operation (manifests, units, alerts, a dashboard), compared with the code."""

from __future__ import annotations

import json
import re
import runpy
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import kubernetes_validate
import pytest
import yaml
from prometheus_client import REGISTRY

from receiver import metrics
from sender import metrics as sender_metrics
from shared.settings import ReceiverSettings, SenderSettings, known_names, load
from tests import machine

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parent.parent
KUBERNETES = ROOT / "deploy" / "kubernetes"
MONITORING = ROOT / "deploy" / "monitoring"
UNITS = sorted((ROOT / "deploy" / "systemd").iterdir())
VERSIONS = ("1.30", "1.34")  # the oldest and a new one that are tried
OPERATIONS = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")


def documents() -> Iterator[dict[str, Any]]:
    for path in sorted(KUBERNETES.glob("*.yaml")):
        if path.name != "kustomization.yaml":
            yield from yaml.safe_load_all(path.read_text(encoding="utf-8"))


def pods() -> list[dict[str, Any]]:
    return [one["spec"]["template"]["spec"] for one in documents() if one["kind"] in ("Deployment", "Job")]


KUSTOMIZATION = yaml.safe_load((KUBERNETES / "kustomization.yaml").read_text(encoding="utf-8"))
MAPPED = dict(literal.split("=", 1) for literal in KUSTOMIZATION["configMapGenerator"][0]["literals"])


@pytest.mark.parametrize("version", VERSIONS)
def test_kubernetes_takes_each_manifest(version: str) -> None:
    found = list(documents())
    assert len(found) > 8
    for document in found:
        kubernetes_validate.validate(document, version, strict=True)
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate({**found[0], "spec": {"no-such": 1}}, version, strict=True)


def test_kustomization_lists_every_manifest() -> None:
    there = {path.name for path in KUBERNETES.glob("*.yaml")} - {"kustomization.yaml"}
    assert set(KUSTOMIZATION["resources"]) == there


def test_every_setting_in_the_manifests_exists() -> None:
    names = set(MAPPED)
    for pod in pods():
        names |= {variable["name"] for variable in pod["containers"][0].get("env", [])}
    assert {name.removesuffix("_FILE") for name in names} <= known_names()


def test_pods_are_hardened_and_get_no_variables_of_services() -> None:
    for pod in pods():
        assert pod["enableServiceLinks"] is False
        assert pod["automountServiceAccountToken"] is False
        assert pod["securityContext"]["runAsNonRoot"] is True
        [container] = pod["containers"]
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert "memory" in container["resources"]["limits"]


def test_what_redis_carries_is_signed() -> None:
    for pod in pods():
        container = pod["containers"][0]
        if container["name"] in ("sender", "receiver"):
            assert "ORDERBELL_LIVE_KEYS_FILE" in {variable["name"] for variable in container["env"]}


def test_graces_fit_the_drain() -> None:
    receiver = next(pod for pod in pods() if pod["containers"][0]["name"] == "receiver")
    needed = float(MAPPED["ORDERBELL_READY_DELAY_SECONDS"]) + float(MAPPED["ORDERBELL_DRAIN_SECONDS"]) + 10
    assert receiver["terminationGracePeriodSeconds"] >= needed
    probe = receiver["containers"][0]["readinessProbe"]
    # A balancer sees the 503 before the listener closes.
    assert probe["periodSeconds"] * probe["failureThreshold"] < float(MAPPED["ORDERBELL_READY_DELAY_SECONDS"])


def test_no_gateway_is_sent_away_while_another_one_drains() -> None:
    """Kubernetes does not wait for the end of a pod before it ends the next one."""
    [gateways] = [
        one["spec"]
        for one in documents()
        if one["kind"] == "Deployment" and one["metadata"]["name"] == "orderbell-receiver"
    ]
    assert gateways["strategy"]["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}
    drain = float(MAPPED["ORDERBELL_READY_DELAY_SECONDS"]) + float(MAPPED["ORDERBELL_DRAIN_SECONDS"])
    assert drain < gateways["minReadySeconds"] < gateways.get("progressDeadlineSeconds", 600)


@pytest.mark.parametrize("unit", UNITS, ids=lambda path: path.name)
def test_systemd_never_gives_a_service_up(unit: Path) -> None:
    """By default it does after five starts within ten seconds."""
    heads = unit.read_text(encoding="utf-8").partition("[Service]")
    assert "\nStartLimitIntervalSec=0\n" in heads[0]
    assert "\nRestart=always\n" in heads[2]


def test_secrets_that_pods_read_are_those_of_the_docs() -> None:
    page = (ROOT / "docs" / "kubernetes.md").read_text(encoding="utf-8")
    keys = {
        item["key"]
        for pod in pods()
        for volume in pod.get("volumes", [])
        for item in volume.get("secret", {}).get("items", [])
    }
    assert keys
    for key in (*keys, "owner-database-url"):
        assert f"--from-literal={key}=" in page


@pytest.mark.parametrize("unit", UNITS, ids=lambda path: path.name)
def test_systemd_takes_each_unit(unit: Path, tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        machine.not_run("no systemd-analyze")
    # As an instance, and with a program that is there.
    text = unit.read_text(encoding="utf-8").replace("/opt/orderbell/bin/python", "/bin/true")
    installed = tmp_path / unit.name.replace("@.", "@8091.")
    installed.write_text(text, encoding="utf-8")
    verified = subprocess.run(
        ["systemd-analyze", "verify", str(installed)], capture_output=True, text=True, timeout=60
    )
    ours = [line for line in verified.stderr.splitlines() if installed.name in line]
    assert (verified.returncode, ours) == (0, [])


def test_alerts_fire_for_their_causes_and_none_while_all_is_well() -> None:
    if shutil.which("promtool") is None:
        machine.not_run("no promtool; on Debian: apt-get install prometheus")
    tested = subprocess.run(
        ["promtool", "test", "rules", "rules_test.yaml"],
        cwd=MONITORING,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (tested.returncode, "SUCCESS" in tested.stdout) == (0, True), tested.stdout + tested.stderr


RULES = yaml.safe_load((MONITORING / "rules.yaml").read_text(encoding="utf-8"))["groups"][0]["rules"]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_each_alert_has_a_test_and_a_paragraph_in_the_run_book(rule: dict[str, Any]) -> None:
    tests = yaml.safe_load((MONITORING / "rules_test.yaml").read_text(encoding="utf-8"))["tests"]
    fired = [one["alertname"] for test in tests for one in test["alert_rule_test"] if one["exp_alerts"]]
    assert rule["alert"] in fired
    assert f"### {rule['alert']}\n" in OPERATIONS
    assert rule["annotations"]["runbook"] == f"docs/operations.md#{rule['alert'].lower()}"


def known_metrics() -> set[str]:
    metrics.describe(ReceiverSettings.model_construct(max_connections=1, max_connections_per_customer=1))
    names = {"up", "process_cpu_seconds_total", "process_resident_memory_bytes"}
    for registry in (REGISTRY, sender_metrics.registry):
        for family in registry.collect():
            suffix = {"counter": ["_total"], "histogram": ["_bucket", "_count", "_sum"]}.get(
                family.type, [""]
            )
            names |= {family.name + one for one in suffix}
    return names


def test_alerts_and_dashboard_name_metrics_that_exist() -> None:
    panels = runpy.run_path(str(MONITORING / "dashboard.py"))["PANELS"]
    queries = [query for *_, queries in panels for query, _ in queries] + [rule["expr"] for rule in RULES]
    named = {
        name for query in queries for name in re.findall(r"\b(?:orderbell|process)_[a-z_]+|\bup\b", query)
    }
    assert len(named) > 20
    assert named <= known_metrics()


def test_dashboard_is_the_one_that_is_made() -> None:
    made = runpy.run_path(str(MONITORING / "dashboard.py"))
    assert json.loads(made["PATH"].read_text(encoding="utf-8")) == made["dashboard"]()


def test_services_of_the_manifests_have_the_ports_that_the_services_listen_on() -> None:
    ports = {
        one["metadata"]["name"]: one["spec"]["ports"][0]["port"]
        for one in documents()
        if one["kind"] == "Service"
    }
    assert ports == {"orderbell-sender": 8090, "orderbell-receiver": 8091}
    assert MAPPED["ORDERBELL_SENDER_URL"] == "http://orderbell-sender:8090"


@pytest.mark.parametrize(("name", "kind"), [("sender", SenderSettings), ("receiver", ReceiverSettings)])
def test_settings_files_of_the_docs_are_complete_and_without_faults(
    name: str, kind: type[SenderSettings | ReceiverSettings], monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    text = page.partition(f"cat > /etc/orderbell/{name}.env <<EOF\n")[2].partition("\nEOF\n")[0]
    assert len(text.splitlines()) >= 3
    for line in text.replace("$api_key", "a" * 64).replace("$(openssl rand -hex 32)", "b" * 64).splitlines():
        setting, _, value = line.partition("=")
        monkeypatch.setenv(setting, value)
    load(kind)
