{{/* Several pools: what the templates need to know of each, as {pools: [...]}; empty without `pools`. */}}
{{- define "epp.pools" -}}
{{- if .Values.pools -}}
{{- include "epp.checkPools" . -}}
{{- $standalone := eq .Values.mode "standalone" -}}
{{- $found := list -}}
{{- range .Values.pools -}}
{{- $namespace := .namespace | default $.Release.Namespace -}}
{{- $here := eq $namespace $.Release.Namespace -}}
{{- $own := .inferencePool | default dict -}}
{{- $settings := mergeOverwrite (omit (deepCopy $.Values.inferencePool) "matchLabels") (deepCopy $own) -}}
{{- $labels := $own.matchLabels | default (dict "mif.moreh.io/pool" .name) -}}
{{- $byName := not (or .endpoints .endpointSelector $standalone) -}}
{{- $creates := and $byName $here $settings.create (ne .group "inference.networking.x-k8s.io") -}}
{{- if and $own.create (not $creates) -}}
{{- fail (printf "pools: %s: inferencePool.create: an InferencePool of this chart is one of inference.networking.k8s.io and names a Service of its own namespace, and endpoints, endpointSelector and mode standalone need none: remove it" .name) -}}
{{- end -}}
{{- $entry := pick . "name" "namespace" "group" "shadowShare" "objects" "endpoints" "endpointSelector" "targetPorts" "match" "default" "grpcPort" "maxBufferedBytes" -}}
{{- if and $standalone (not .endpoints) (not .endpointSelector) -}}
{{- $selector := list -}}
{{- range $key, $value := $labels -}}{{- $selector = append $selector (printf "%s=%s" $key $value) -}}{{- end -}}
{{- $ports := list -}}
{{- range $settings.targetPorts -}}{{- $ports = append $ports (int .number) -}}{{- end -}}
{{- $entry = merge (dict "endpointSelector" (join "," $selector) "targetPorts" $ports) $entry -}}
{{- end -}}
{{- if .config -}}{{- $entry = set $entry "configFile" (printf "pool-%s.yaml" .name) -}}{{- end -}}
{{- if .shadowConfig -}}{{- $entry = set $entry "shadowConfigFile" (printf "shadow-%s.yaml" .name) -}}{{- end -}}
{{- $pool := dict "name" .name "namespace" $namespace "entry" $entry "byName" $byName "inCluster" (not .endpoints) "creates" $creates -}}
{{- $_ := set $pool "group" (.group | default "inference.networking.k8s.io") -}}
{{- $_ := set $pool "config" (.config | default dict) -}}
{{- $_ := set $pool "shadowConfig" (.shadowConfig | default dict) -}}
{{- $_ := set $pool "port" (int (.grpcPort | default 9002)) -}}
{{- $_ := set $pool "ownPort" (int (.grpcPort | default 0)) -}}
{{- $_ := set $pool "limit" (.maxBufferedBytes | default "") -}}
{{- $_ := set $pool "labels" $labels -}}
{{- $_ := set $pool "settings" $settings -}}
{{- $_ := set $pool "objectives" (.inferenceObjectives | default list) -}}
{{- $_ := set $pool "routes" (and $byName $here) -}}
{{- $_ := set $pool "monitors" (or $creates $own.matchLabels (and $standalone (not .endpoints) (not .endpointSelector))) -}}
{{- $route := .route | default dict -}}
{{- $match := .match | default dict -}}
{{- $hosts := list -}}
{{- range $match.authorities -}}{{- $hosts = append $hosts (regexReplaceAll ":[0-9]+$" . "" | lower) -}}{{- end -}}
{{- $_ := set $pool "hostnames" ($route.hostnames | default $hosts | uniq) -}}
{{- $_ := set $pool "headers" ($match.headers | default dict) -}}
{{- $_ := set $pool "models" ($route.models | default list) -}}
{{- $found = append $found $pool -}}
{{- end -}}
{{- toYaml (dict "pools" $found) -}}
{{- end -}}
{{- end -}}

{{/* What values.schema.json cannot tell: what concerns one pool beside several, and names and ports that are given twice. */}}
{{- define "epp.checkPools" -}}
{{- range $name := list "config" "featureGates" "inferenceObjectives" -}}
{{- if index $.Values $name -}}
{{- fail (printf "%s concerns one pool and cannot be used with pools: write it at each pool, feature gates into its config" $name) -}}
{{- end -}}
{{- end -}}
{{- $names := dict -}}
{{- $ports := dict "9002" "the Service's grpc-ext-proc" "9090" "the Service's http-metrics" "5557" "the Service's zmq" -}}
{{- range $name, $port := .Values.containerPorts -}}{{- $_ := set $ports (toString (int $port)) (printf "containerPorts.%s" $name) -}}{{- end -}}
{{- $all := "" -}}
{{- $default := "" -}}
{{- $shared := 0 -}}
{{- range .Values.pools -}}{{- if not .grpcPort -}}{{- $shared = add1 $shared -}}{{- end -}}{{- end -}}
{{- range .Values.pools -}}
{{- if hasKey $names .name -}}{{- fail (printf "pools: the name %s is given twice" .name) -}}{{- end -}}
{{- $_ := set $names .name true -}}
{{- if .grpcPort -}}
{{- if eq $.Values.mode "standalone" -}}
{{- fail (printf "pools: %s: grpcPort: the Envoy of mode standalone asks at one port: choose by match" .name) -}}
{{- end -}}
{{- $port := toString (int .grpcPort) -}}
{{- if hasKey $ports $port -}}{{- fail (printf "pools: %s: grpcPort %s is that of %s: give it another one" .name $port (get $ports $port)) -}}{{- end -}}
{{- $_ := set $ports $port (printf "the pool %s" .name) -}}
{{- end -}}
{{- $route := .route | default dict -}}
{{- $match := .match | default dict -}}
{{- if and .grpcPort (or .match .default) -}}
{{- fail (printf "pools: %s: match and default are never asked, as it has grpcPort and gets all that comes there: keep one" .name) -}}
{{- end -}}
{{- if and (not .grpcPort) (gt (int $shared) 1) (not (or .default $match.authorities $match.headers)) -}}
{{- fail (printf "pools: %s: no request would reach it: give it match with authorities or headers, or grpcPort, or default: true" .name) -}}
{{- end -}}
{{- if and .default $default -}}{{- fail (printf "pools: %s: the pool %s is the default already: keep one" .name $default) -}}{{- end -}}
{{- if .default -}}{{- $default = .name -}}{{- end -}}
{{- $routed := not (or .endpoints .endpointSelector (ne (.namespace | default $.Release.Namespace) $.Release.Namespace)) -}}
{{- if and $.Values.gateway.name $routed (not (or $route.hostnames $route.models $match.authorities $match.headers)) -}}
{{- if $all -}}
{{- fail (printf "pools: the HTTPRoutes of %s and %s would both take all requests: give one of them route.hostnames or route.models" $all .name) -}}
{{- end -}}
{{- $all = .name -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* The pools file and the documents of its pools, as data of a ConfigMap; nothing without `pools`. */}}
{{- define "epp.poolsData" -}}
{{- $pools := (include "epp.pools" . | fromYaml).pools -}}
{{- if $pools -}}
{{- $entries := list -}}
{{- range $pools -}}
{{- $entries = append $entries .entry -}}
{{- end -}}
pools.yaml: |
  {{- toYaml (dict "apiVersion" "inference.networking.x-k8s.io/v1alpha1" "kind" "EndpointPickerPools" "pools" $entries) | nindent 2 }}
{{- range $pools }}
{{- if .config }}
{{ .entry.configFile }}: |
  {{- include "epp.document" (dict "document" .config "root" $) | nindent 2 }}
{{- end }}
{{- if .shadowConfig }}
{{ .entry.shadowConfigFile }}: |
  {{- include "epp.document" (dict "document" .shadowConfig "root" $) | nindent 2 }}
{{- end }}
{{- end }}
{{- end -}}
{{- end -}}

{{/* Ports of pools with one of their own, as {ports: [...]} */}}
{{- define "epp.ownPorts" -}}
{{- $ports := list -}}
{{- range (include "epp.pools" . | fromYaml).pools -}}
{{- if .ownPort -}}{{- $ports = append $ports (int .ownPort) -}}{{- end -}}
{{- end -}}
{{- toYaml (dict "ports" $ports) -}}
{{- end -}}

{{/* What of the pools file takes a restart, whatever configReload says: ports of pools and their limits. */}}
{{- define "epp.poolPorts" -}}
{{- range (include "epp.pools" . | fromYaml).pools -}}
{{- if .ownPort -}}{{ .name }}={{ int .ownPort }}/{{ .limit }};{{- end -}}
{{- end -}}
{{- end -}}

{{/* "true" or empty: a changed document is a new pod. Of several pools it would be one for all of them. */}}
{{- define "epp.restarts" -}}
{{- if eq (.Values.configReload | default (ternary "hot" "restart" (not (empty .Values.pools)))) "restart" -}}true{{- end -}}
{{- end -}}

{{/* Rules of a Role: byName: pools and objectives are read, too */}}
{{- define "epp.readRules" -}}
- {apiGroups: [""], resources: [pods], verbs: [get, list, watch]}
{{- if .byName }}
- apiGroups: [inference.networking.k8s.io, inference.networking.x-k8s.io]
  resources: [inferencepools]
  verbs: [get, list, watch]
- apiGroups: [llm-d.ai, inference.networking.x-k8s.io]
  resources: [inferenceobjectives, inferencemodelrewrites]
  verbs: [get, list, watch]
{{- end }}
- {apiGroups: [""], resources: [events], verbs: [create, patch]}
{{- end -}}

{{/* Namespaces of the pools that follow pods, as {<namespace>: {byName: <some InferencePool is among them>}} */}}
{{- define "epp.poolNamespaces" -}}
{{- $found := dict -}}
{{- range (include "epp.pools" . | fromYaml).pools -}}
{{- if .inCluster -}}
{{- $before := get $found .namespace | default (dict "byName" false) -}}
{{- $_ := set $found .namespace (dict "byName" (or $before.byName .byName)) -}}
{{- end -}}
{{- end -}}
{{- toYaml $found -}}
{{- end -}}
