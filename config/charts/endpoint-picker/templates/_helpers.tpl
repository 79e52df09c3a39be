{{- define "epp.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" -}}
{{- else if and .Values.nameOverride (not (contains .Values.nameOverride .Release.Name)) -}}
{{- printf "%s-%s" .Release.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- else -}}
{{- .Release.Name | trunc 63 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "epp.selectorLabels" -}}
app.kubernetes.io/name: {{ .Values.nameOverride | default .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "epp.labels" -}}
{{ include "epp.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "epp.metadata" -}}
name: {{ include "epp.fullname" . }}
namespace: {{ .Release.Namespace }}
labels:
  {{- include "epp.labels" . | nindent 2 }}
{{- end -}}

{{- define "epp.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- .Values.serviceAccount.name | default (include "epp.fullname" .) -}}
{{- else -}}
{{- .Values.serviceAccount.name | default "default" -}}
{{- end -}}
{{- end -}}

{{- define "epp.matchLabels" -}}
{{- if .Values.inferencePool.matchLabels -}}
{{- toYaml .Values.inferencePool.matchLabels -}}
{{- else -}}
mif.moreh.io/pool: {{ include "epp.fullname" . }}
{{- end -}}
{{- end -}}

{{/* "true" or empty */}}
{{- define "epp.election" -}}
{{- if kindIs "bool" .Values.leaderElection -}}
{{- if .Values.leaderElection -}}true{{- end -}}
{{- else if gt (int .Values.replicas) 1 -}}
true
{{- end -}}
{{- end -}}

{{/* image: the value; default tag: that of the chart */}}
{{- define "epp.image" -}}
{{- $registry := .image.registry | default "" -}}
{{- $name := printf "%s%s" (ternary (printf "%s/" $registry) "" (ne $registry "")) .image.repository -}}
{{- if .image.digest -}}
{{- printf "%s@%s" $name .image.digest -}}
{{- else -}}
{{- printf "%s:%s" $name (toString (.image.tag | default .default)) -}}
{{- end -}}
{{- end -}}

{{/* The document, or nothing */}}
{{- define "epp.config" -}}
{{- if or .Values.config .Values.featureGates -}}
{{- $document := deepCopy .Values.config -}}
{{- with .Values.featureGates -}}
{{- $_ := set $document "featureGates" (concat ($document.featureGates | default list) . | uniq) -}}
{{- end -}}
{{- include "epp.document" (dict "document" $document "root" .) -}}
{{- end -}}
{{- end -}}

{{/* document: the value; root: what its templates see */}}
{{- define "epp.document" -}}
{{- $document := deepCopy .document -}}
{{- if not (hasKey $document "apiVersion") -}}{{- $_ := set $document "apiVersion" "inference.networking.x-k8s.io/v1alpha1" -}}{{- end -}}
{{- if not (hasKey $document "kind") -}}{{- $_ := set $document "kind" "EndpointPickerConfig" -}}{{- end -}}
{{- tpl (toYaml $document) .root -}}
{{- end -}}

{{- define "epp.monitors" -}}
{{- if eq (toString .enabled) "auto" -}}
{{- if .root.Capabilities.APIVersions.Has "monitoring.coreos.com/v1" -}}true{{- end -}}
{{- else if .enabled -}}
true
{{- end -}}
{{- end -}}

{{/* Environment of OpenTelemetry, as a list */}}
{{- define "epp.tracingEnv" -}}
{{- with .Values.tracing }}
{{- if .enabled }}
{{- with (.exporter | default dict).endpoint }}
- {name: OTEL_EXPORTER_OTLP_ENDPOINT, value: {{ . | quote }}}
{{- end }}
{{- if kindIs "map" .sampler }}
- {name: OTEL_TRACES_SAMPLER, value: {{ .sampler.type | default "parentbased_traceidratio" | quote }}}
- {name: OTEL_TRACES_SAMPLER_ARG, value: {{ .sampler.argument | default "0.1" | toString | quote }}}
{{- else }}
- {name: OTEL_TRACES_SAMPLER, value: parentbased_traceidratio}
- {name: OTEL_TRACES_SAMPLER_ARG, value: {{ ternary "0.1" (.sampler | toString) (kindIs "invalid" .sampler) | quote }}}
{{- end }}
{{- end }}
{{- end }}
{{- end -}}
