"""Choices of values of the chart, and kinds that a cluster may have. Used by tests/kube."""

from typing import Any

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
    "of money": {
        "pepper": {"previousKey": "before"},
        "engineToken": {"existingSecret": "engines"},
        "paymentEvents": {"existingSecret": "payments"},
        "auditAnchors": {"enabled": True, "signingKey": {"existingSecret": "audit"}},
        "settings": {"oidc_issuer": "https://id.example.com", "seller_name": "Example Ltd"},
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
