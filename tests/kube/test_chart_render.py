"""The chart as text: what it renders for which values and clusters, and what it refuses."""

import json
from typing import Any

import kubernetes_validate
import pytest
import yaml
from support import helm
from support.helm import of_kind, pod_templates, render, rendering

MONITORING = ("monitoring.coreos.com/v1/ServiceMonitor", "monitoring.coreos.com/v1/PrometheusRule")
ROUTES = ("gateway.networking.k8s.io/v1/HTTPRoute",)
FOREIGN = ("ServiceMonitor", "PrometheusRule", "HTTPRoute")
AUTOSCALING = {"minReplicas": 2, "maxReplicas": 5, "targetCPUUtilizationPercentage": 60}
DIGEST = "sha256:" + "0" * 64

MATRIX: dict[str, dict[str, Any]] = {
    "as shipped": {},
    "by digest": {"image": {"digest": DIGEST}, "imagePullSecrets": ["registry"]},
    "autoscaled": {"gateway": {"autoscaling": AUTOSCALING}},
    "small": {
        "gateway": {"replicas": 1},
        "api": {"replicas": 1},
        "operator": {"replicas": 1},
        "sshGateway": {"enabled": False},
        "migrate": {"enabled": False},
        "networkPolicy": {"enabled": False},
    },
    "ingress": {
        "ingress": {
            "enabled": True,
            "className": "nginx",
            "host": "api.example.com",
            "tlsSecret": "api-tls",
            "annotations": {"cert-manager.io/cluster-issuer": "letsencrypt"},
        }
    },
    "route": {
        "httpRoute": {
            "enabled": True,
            "parentRefs": [{"name": "public", "namespace": "infra"}],
            "hostnames": ["api.example.com"],
        }
    },
    "closed": {
        "engineToken": {"existingSecret": "engines"},
        "networkPolicy": {
            "gatewayFrom": [{"namespaceSelector": {"matchLabels": {"name": "ingress"}}}],
            "databaseTo": [{"ipBlock": {"cidr": "10.0.0.5/32"}}],
            "apiServerTo": [{"ipBlock": {"cidr": "10.0.0.1/32"}}],
        },
        "settings": {"log_level": "DEBUG", "resume_patience_seconds": 30},
    },
    "watched": {"metrics": {"dashboards": {"enabled": True}}},
    "placed": {
        "operator": {
            "nodeSelector": {"pool": "system"},
            "tolerations": [{"key": "system", "operator": "Exists"}],
            "affinity": {"nodeAffinity": {}},
            "podAnnotations": {"a": "b"},
        },
        "xidActions": {"79": "reset-gpu"},
    },
}


@pytest.mark.parametrize("values", MATRIX.values(), ids=MATRIX.keys())
def test_every_choice_renders_for_old_servers_with_unique_names(values: dict[str, Any]) -> None:
    objects = render(values=values, version=helm.OLDEST, apis=(*MONITORING, *ROUTES))
    keys = [(it["kind"], it["metadata"]["name"]) for it in objects]
    assert len(keys) == len(set(keys))


@pytest.mark.parametrize("values", MATRIX.values(), ids=MATRIX.keys())
def test_every_object_is_valid_for_the_newest_server(values: dict[str, Any]) -> None:
    for body in render(values=values, apis=(*MONITORING, *ROUTES)):
        if body["kind"] not in FOREIGN:
            kubernetes_validate.validate(body, helm.NEWEST, strict=True)


@pytest.mark.parametrize("values", MATRIX.values(), ids=MATRIX.keys())
def test_lint_has_nothing_to_say(values: dict[str, Any]) -> None:
    if "httpRoute" in values:
        pytest.skip("lint knows no cluster that has the Gateway API")
    result = helm.run("lint", "--strict", str(helm.CHART), values=helm.merged(helm.GIVEN, values))
    assert result.returncode == 0, result.stdout + result.stderr
    assert "missing required" not in result.stderr


@pytest.mark.parametrize("missing", ["database", "redis", "pepper"])
def test_what_must_be_given_is_asked_for_by_name(missing: str) -> None:
    result = rendering(values={missing: {"existingSecret": ""}})
    assert result.returncode != 0
    assert f"set {missing}.existingSecret to the name of a Secret" in result.stderr


def test_the_ssh_gateway_wants_a_key_of_its_own() -> None:
    result = rendering(values={"sshGateway": {"hostKey": {"existingSecret": ""}}})
    assert "set sshGateway.hostKey.existingSecret" in result.stderr


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"gatewy": {}}, "gatewy"),
        ({"gateway": {"replica": 3}}, "replica"),
        ({"gateway": {"replicas": 0}}, "replicas"),
        ({"gateway": {"replicas": "two"}}, "replicas"),
        ({"gateway": {"autoscaling": {"minReplicas": 2}}}, "autoscaling"),
        ({"gateway": {"journal": {"size": "five"}}}, "size"),
        ({"image": {"digest": "latest"}}, "digest"),
        ({"image": {"pullPolicy": "Sometimes"}}, "pullPolicy"),
        ({"database": {"url": "postgresql://in-the-open"}}, "url"),
        ({"database": {"existingSecret": "Not A Name"}}, "existingSecret"),
        ({"settings": {"database_url": "postgresql://in-the-open"}}, "database_url"),
        ({"settings": {"engine_token": "in-the-open"}}, "engine_token"),
        ({"settings": {"LOG_LEVEL": "DEBUG"}}, "LOG_LEVEL"),
        ({"sshGateway": {"service": {"type": "ExternalName"}}}, "type"),
        ({"networkPolicy": {"gatewayFrom": [{"everybody": True}]}}, "everybody"),
        ({"networkPolicy": {"apiServerPorts": [0]}}, "apiServerPorts"),
        ({"xidActions": {"79": "pray"}}, "xidActions"),
        ({"metrics": {"serviceMonitor": {"interval": "often"}}}, "interval"),
    ],
)
def test_bad_values_are_refused_by_name(values: dict[str, Any], told: str) -> None:
    result = rendering(values=values)
    assert result.returncode != 0
    assert told in result.stderr


def test_the_schema_knows_every_value_and_no_other() -> None:
    schema = json.loads((helm.CHART / "values.schema.json").read_text())
    values = yaml.safe_load((helm.CHART / "values.yaml").read_text())

    def compare(schema: dict[str, Any], value: object, path: str) -> None:
        if "properties" not in schema:
            return
        assert schema["additionalProperties"] is False, path
        assert isinstance(value, dict)
        assert set(schema["properties"]) - {"global"} == set(value), path
        for name, inner in value.items():
            compare(schema["properties"][name], inner, f"{path}.{name}")

    compare(schema, values, "values")


def test_an_autoscaled_gateway_leaves_the_number_to_the_autoscaler() -> None:
    objects = render(values={"gateway": {"autoscaling": AUTOSCALING}})
    (gateway,) = of_kind(objects, "StatefulSet")
    (scaler,) = of_kind(objects, "HorizontalPodAutoscaler")
    assert "replicas" not in gateway["spec"]
    assert scaler["spec"]["scaleTargetRef"]["name"] == gateway["metadata"]["name"]


def test_a_fixed_gateway_has_no_autoscaler() -> None:
    objects = render()
    assert of_kind(objects, "StatefulSet")[0]["spec"]["replicas"] == 2
    assert of_kind(objects, "HorizontalPodAutoscaler") == []


def test_single_replicas_have_no_disruption_budget() -> None:
    budgets = {it["metadata"]["name"] for it in of_kind(render(), "PodDisruptionBudget")}
    assert budgets == {"fp-flashplane-gateway", "fp-flashplane-api", "fp-flashplane-operator"}
    assert of_kind(render(values=MATRIX["small"]), "PodDisruptionBudget") == []


def test_budgets_let_nodes_be_drained() -> None:
    for budget in of_kind(render(), "PodDisruptionBudget"):
        assert budget["spec"]["maxUnavailable"] == 1
        assert "minAvailable" not in budget["spec"]


def test_journals_outlive_pods_and_releases() -> None:
    (gateway,) = of_kind(render(), "StatefulSet")
    spec = gateway["spec"]
    assert spec["persistentVolumeClaimRetentionPolicy"] == {
        "whenScaled": "Retain",
        "whenDeleted": "Retain",
    }
    (claim,) = spec["volumeClaimTemplates"]
    (container,) = spec["template"]["spec"]["containers"]
    mounts = {it["name"]: it["mountPath"] for it in container["volumeMounts"]}
    values = {it["name"]: it.get("value", "") for it in container["env"]}
    folder = values["FLASHPLANE_JOURNAL_DIR"]
    assert folder.startswith(mounts[claim["metadata"]["name"]] + "/")
    assert values["FLASHPLANE_GATEWAY_NAME"] == "$(POD_NAMESPACE)/$(POD_NAME)"


def test_a_gateway_may_finish_its_streams_before_it_is_killed() -> None:
    (gateway,) = of_kind(render(values={"gateway": {"shutdownGraceSeconds": 300}}), "StatefulSet")
    pod = gateway["spec"]["template"]["spec"]
    values = {it["name"]: it.get("value", "") for it in pod["containers"][0]["env"]}
    assert values["FLASHPLANE_SHUTDOWN_GRACE_SECONDS"] == "300"
    assert pod["terminationGracePeriodSeconds"] >= 300 + 15


def test_monitors_are_made_only_where_their_kinds_are() -> None:
    assert of_kind(render(), "ServiceMonitor") + of_kind(render(), "PrometheusRule") == []
    objects = render(apis=MONITORING)
    assert len(of_kind(objects, "ServiceMonitor")) == 3
    (rule,) = of_kind(objects, "PrometheusRule")
    alerts = yaml.safe_load((helm.ROOT / "deploy/prometheus/alerts.yaml").read_text())
    assert rule["spec"] == alerts


def test_every_monitor_finds_a_service_with_its_port() -> None:
    objects = render(apis=MONITORING)
    for monitor in of_kind(objects, "ServiceMonitor"):
        wanted = monitor["spec"]["selector"]["matchLabels"].items()
        ports = {
            port["name"]
            for service in of_kind(objects, "Service")
            if wanted <= service["metadata"]["labels"].items()
            for port in service["spec"]["ports"]
        }
        assert {it["port"] for it in monitor["spec"]["endpoints"]} <= ports


def test_every_service_finds_pods_with_its_ports() -> None:
    objects = render()
    pods = pod_templates(objects).values()
    for service in of_kind(objects, "Service"):
        wanted = service["spec"]["selector"].items()
        found = [pod for pod in pods if wanted <= pod["metadata"]["labels"].items()]
        assert len(found) == 1, service["metadata"]["name"]
        (container,) = found[0]["spec"]["containers"]
        names = {port["name"] for port in container["ports"]}
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= names


def test_a_route_without_the_gateway_api_is_refused() -> None:
    result = rendering(values=MATRIX["route"])
    assert "which this cluster lacks" in result.stderr


def test_a_route_has_no_time_limits() -> None:
    (route,) = of_kind(render(values=MATRIX["route"], apis=ROUTES), "HTTPRoute")
    (rule,) = route["spec"]["rules"]
    assert rule["timeouts"] == {"request": "0s", "backendRequest": "0s"}


def test_ingress_and_route_exclude_each_other() -> None:
    both = {**MATRIX["route"], **MATRIX["ingress"]}
    assert "not both" in rendering(values=both, apis=ROUTES).stderr


def test_an_ingress_lets_streams_of_hours_through() -> None:
    (ingress,) = of_kind(render(values=MATRIX["ingress"]), "Ingress")
    annotations = ingress["metadata"]["annotations"]
    prefix = "nginx.ingress.kubernetes.io/"
    assert int(annotations[prefix + "proxy-read-timeout"]) >= 3600
    assert annotations[prefix + "proxy-buffering"] == "off"
    assert annotations[prefix + "proxy-next-upstream"] == "off"
    assert annotations["cert-manager.io/cluster-issuer"] == "letsencrypt"
    assert ingress["spec"]["tls"][0]["hosts"] == ["api.example.com"]


def test_no_ingress_leads_to_the_admin_api() -> None:
    (ingress,) = of_kind(render(values=MATRIX["ingress"]), "Ingress")
    assert "fp-flashplane-api" not in json.dumps(ingress["spec"])


def test_old_servers_get_kinds_they_know() -> None:
    versions = {
        it["kind"]: it["apiVersion"]
        for it in render(values={"gateway": {"autoscaling": AUTOSCALING}}, version=helm.OLDEST)
    }
    assert versions["PodDisruptionBudget"] == "policy/v1beta1"
    assert versions["CronJob"] == "batch/v1beta1"
    assert versions["HorizontalPodAutoscaler"] == "autoscaling/v2beta2"
    assert "ValidatingAdmissionPolicy" not in versions


def test_changed_xid_actions_keep_numbers_as_keys() -> None:
    tables = of_kind(render(values={"xidActions": {"79": "reset-gpu"}}), "ConfigMap")
    (table,) = [it for it in tables if it["metadata"]["name"] == "flashplane-xid-actions"]
    assert yaml.safe_load(table["data"]["actions.yaml"]) == {79: "reset-gpu"}
