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

{{- /* Where a component may connect to. Takes (list $ wants...): database, redis, apiServer, engines, bare. */ -}}
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

{{- /* A list of peers under its word; nothing, which means everybody, when there are none. */ -}}
{{- define "flashplane.peers" -}}
{{- with index . 1 }}{{ $ | first }}:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}
