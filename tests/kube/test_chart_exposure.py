"""How the chart is reached and watched: services, ingress, routes, monitors."""

import json

import yaml
from support import helm
from support.chart_values import MATRIX, MONITORING, ROUTES
from support.helm import of_kind, pod_templates, render, rendering


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
