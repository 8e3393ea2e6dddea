{{/* Labels of an object and its pods; takes the component and its name. */}}
{{- define "millrace.labels" -}}
app.kubernetes.io/name: {{ .name }}
app.kubernetes.io/component: {{ .component }}
app.kubernetes.io/part-of: millrace
{{- end }}

{{/* GOMEMLIMIT: nine tenths of the limit of memory, a multiple of 10 MiB. */}}
{{- define "millrace.gomemlimit" -}}
{{- $limit := .resources.limits.memory -}}
{{- $mebi := trimSuffix "Mi" $limit | int -}}
{{- if hasSuffix "Gi" $limit }}{{ $mebi = mul 1024 (trimSuffix "Gi" $limit | int) }}{{ end -}}
{{- if lt (int $mebi) 128 }}{{ fail (printf "%s.resources.limits.memory is %s: it takes at least 128Mi" .component $limit) }}{{ end -}}
{{- mul 10 (div (mul $mebi 9) 100) }}MiB
{{- end }}

{{/* What the pods of all Deployments have in common; takes the root and the component. */}}
{{- define "millrace.pod" -}}
{{- $values := index .root.Values .component -}}
serviceAccountName: broker-{{ .component }}
securityContext:
  runAsNonRoot: true
  runAsUser: 65532
  runAsGroup: 65532
  seccompProfile: {type: RuntimeDefault}
topologySpreadConstraints:
- maxSkew: 1
  topologyKey: kubernetes.io/hostname
  whenUnsatisfiable: ScheduleAnyway
  labelSelector:
    matchLabels: {app.kubernetes.io/name: broker-{{ .component }}}
{{- with .root.Values.images.pullSecrets }}
imagePullSecrets:
{{- range . }}
- name: {{ . }}
{{- end }}
{{- end }}
{{- include "millrace.scheduling" $values }}
{{- with include "millrace.natsVolumes" .root }}
volumes:
{{- . }}
{{- end }}
{{- end }}

{{/* Where pods may run; takes the values of the component. Begins with a line break, and is empty if nothing is set. */}}
{{- define "millrace.scheduling" -}}
{{- range $field := list "nodeSelector" "tolerations" "affinity" "priorityClassName" }}
{{- with index $ $field }}
{{ $field }}: {{ toYaml . | nindent 2 }}
{{- end }}
{{- end }}
{{- end }}

{{/* What the containers of all Deployments have in common; takes the root and the component. */}}
{{- define "millrace.container" -}}
{{- $values := index .root.Values .component -}}
name: broker-{{ .component }}
image: {{ printf "%s/broker-%s:%s" .root.Values.images.prefix .component (.root.Values.images.tag | default .root.Chart.AppVersion) }}
{{- with .root.Values.images.pullPolicy }}
imagePullPolicy: {{ . }}
{{- end }}
envFrom:
- configMapRef: {name: millrace-settings}
startupProbe:
  httpGet: {path: /healthz, port: admin}
  periodSeconds: 1
  failureThreshold: 60
livenessProbe:
  httpGet: {path: /healthz, port: admin}
  periodSeconds: 10
  timeoutSeconds: 5
readinessProbe:
  httpGet: {path: /readyz, port: admin}
  periodSeconds: 2
  timeoutSeconds: 2
resources: {{- toYaml $values.resources | nindent 2 }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
{{- with include "millrace.natsMounts" .root }}
volumeMounts:
{{- . }}
{{- end }}
{{- end }}

{{/* Annotations of pods: that of the settings has them made anew when these change. */}}
{{- define "millrace.podAnnotations" -}}
checksum/settings: {{ include "millrace.settings" .root | sha256sum }}
{{- with (index .root.Values .component).podAnnotations }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* Files with which the programs prove who they are to NATS. Both begin with a line break, and are empty if there are none. */}}
{{- define "millrace.natsVolumes" -}}
{{- with .Values.nats.credentialsSecret }}
- name: nats-credentials
  secret: {secretName: {{ . }}}
{{- end }}
{{- with .Values.nats.tls.secret }}
- name: nats-tls
  secret: {secretName: {{ . }}}
{{- end }}
{{- end }}

{{- define "millrace.natsMounts" -}}
{{- if .Values.nats.credentialsSecret }}
- name: nats-credentials
  mountPath: /etc/millrace/nats-credentials
  readOnly: true
{{- end }}
{{- if .Values.nats.tls.secret }}
- name: nats-tls
  mountPath: /etc/millrace/nats-tls
  readOnly: true
{{- end }}
{{- end }}

{{/* The environment of all programs. */}}
{{- define "millrace.settings" -}}
{{- $nats := .Values.nats -}}
{{- if and $nats.install $nats.url -}}
{{- fail "nats.url names NATS servers of yours: set nats.install to false, or leave nats.url empty" -}}
{{- else if not (or $nats.install $nats.url) -}}
{{- fail "nats.install is false: set nats.url to the URLs of your NATS servers, separated by commas" -}}
{{- else if and $nats.install (ne (int (index .Values.settings "stream-replicas" | default 1)) (int $nats.replicas)) -}}
{{- fail (printf "settings.stream-replicas is %v, but nats.replicas is %v: give both the same number" (index .Values.settings "stream-replicas") $nats.replicas) -}}
{{- else if and $nats.tls.clientCertificate (not $nats.tls.secret) -}}
{{- fail "nats.tls.clientCertificate is true: set nats.tls.secret to the Secret that has it" -}}
{{- end -}}
{{- $urls := list (printf "nats://nats.%s.svc:4222" .Release.Namespace) -}}
{{- if gt (int $nats.replicas) 1 -}}
{{- $urls = list -}}
{{- range $i := until (int $nats.replicas) -}}
{{- $urls = append $urls (printf "nats://nats-%d.nats.%s.svc:4222" $i $.Release.Namespace) -}}
{{- end -}}
{{- end -}}
MILLRACE_NATS_URL: {{ $nats.url | default (join "," $urls) }}
{{- if $nats.credentialsSecret }}
MILLRACE_NATS_CREDENTIALS: /etc/millrace/nats-credentials/nats.creds
{{- end }}
{{- if $nats.tls.secret }}
MILLRACE_NATS_TLS_CA: /etc/millrace/nats-tls/ca.crt
{{- if $nats.tls.clientCertificate }}
MILLRACE_NATS_TLS_CERT: /etc/millrace/nats-tls/tls.crt
MILLRACE_NATS_TLS_KEY: /etc/millrace/nats-tls/tls.key
{{- end }}
{{- end }}
{{- range $name, $value := .Values.settings }}
MILLRACE_{{ $name | replace "-" "_" | upper }}: {{ $value | toString | quote }}
{{- end }}
{{- end }}

{{/* A PodDisruptionBudget; takes the root and the component. */}}
{{- define "millrace.budget" -}}
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  name: broker-{{ .component }}
  namespace: {{ .root.Release.Namespace }}
spec:
  maxUnavailable: 1
  selector:
    matchLabels: {app.kubernetes.io/name: broker-{{ .component }}}
{{- end }}
