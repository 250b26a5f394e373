{{- /* A policy's head: the pods of one component. Takes (list $ component). */ -}}
{{- define "flashplane.policy" -}}
{{- $component := index . 1 -}}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  {{- include "flashplane.metadata" (list (index . 0) $component $component) | nindent 2 }}
spec:
  podSelector:
    matchLabels:
      {{- include "flashplane.selector" . | nindent 6 }}
{{- end -}}

{{- /* Where a component may connect to. Takes (list $ wants...): database, redis, apiServer, engines, bare,
webhooks, oidc. */ -}}
{{- define "flashplane.egress" -}}
{{- $values := (index . 0).Values -}}
{{- $wants := rest . -}}
egress:
  - to:
      - namespaceSelector: {}
        podSelector:
          matchLabels: {k8s-app: kube-dns}
    ports:
      - {port: 53, protocol: UDP}
      - {port: 53, protocol: TCP}
  {{- if has "database" $wants }}
  - ports:
      - {port: {{ $values.database.port }}, protocol: TCP}
    {{- include "flashplane.peers" (list "to" $values.networkPolicy.databaseTo) | nindent 4 }}
  {{- end }}
  {{- if has "redis" $wants }}
  - ports:
      - {port: {{ $values.redis.port }}, protocol: TCP}
    {{- include "flashplane.peers" (list "to" $values.networkPolicy.redisTo) | nindent 4 }}
  {{- end }}
  {{- if has "apiServer" $wants }}
  - ports:
      {{- range $values.networkPolicy.apiServerPorts }}
      - {port: {{ . }}, protocol: TCP}
      {{- end }}
    {{- include "flashplane.peers" (list "to" $values.networkPolicy.apiServerTo) | nindent 4 }}
  {{- end }}
  {{- if has "engines" $wants }}
  - to:
      - namespaceSelector: {}
        podSelector:
          matchExpressions:
            - {key: flashplane.io/replica, operator: Exists}
    ports:
      - {port: 8000, protocol: TCP}
  {{- end }}
  {{- if has "webhooks" $wants }}
  # To receivers that tenants name.
  - to:
      {{- include "flashplane.public" . | nindent 6 }}
    ports:
      - {port: 443, protocol: TCP}
  {{- end }}
  {{- if and (has "oidc" $wants) $values.settings.oidc_issuer }}
  # For the keys that the identity provider signs with.
  - to:
      {{- with $values.networkPolicy.oidcTo }}
      {{- toYaml . | nindent 6 }}
      {{- else }}
      {{- include "flashplane.public" $ | nindent 6 }}
      {{- end }}
    ports:
      {{- range $values.networkPolicy.oidcPorts }}
      - {port: {{ . }}, protocol: TCP}
      {{- end }}
  {{- end }}
  {{- if has "bare" $wants }}
  # Forwarded ports of customers' containers; the gateway opens declared ones alone.
  - to:
      - namespaceSelector:
          matchExpressions:
            - {key: flashplane.io/tenant, operator: Exists}
        podSelector:
          matchLabels: {app.kubernetes.io/component: bare}
  {{- end }}
{{- end -}}

{{- /* Addresses of the internet, and none inside. */ -}}
{{- define "flashplane.public" -}}
- ipBlock:
    cidr: 0.0.0.0/0
    except: [10.0.0.0/8, 100.64.0.0/10, 169.254.0.0/16, 172.16.0.0/12, 192.168.0.0/16]
- ipBlock: {cidr: "::/0", except: ["fc00::/7", "fe80::/10"]}
{{- end -}}

{{- /* A list of peers under its word; nothing, which means everybody, when there are none. */ -}}
{{- define "flashplane.peers" -}}
{{- with index . 1 }}{{ $ | first }}:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}
