package chart

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/pflag"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	"millrace.dev/internal/cmdline"
	"millrace.dev/test/cluster"
)

// difference is one that the chart may have from the manifests it stands for: a field that only the chart sets, or an object
// that only the manifests have.
type difference struct {
	kind, name string
	field      []string // empty: the whole object
	why        string
}

// differences is the list of them. Each must be there.
var differences = []difference{
	{"Namespace", Namespace, nil, "helm install --create-namespace makes it, docs/install.md says how to label it"},
	{"CustomResourceDefinition", "*", []string{"metadata", "annotations", "helm.sh/resource-policy"}, "uninstalling keeps the CRDs, and with them all Brokers and Triggers"},
	{"Deployment", "*", []string{"spec", "template", "metadata", "annotations"}, "a change of the settings makes the pods anew"},
	{"StatefulSet", "broker-source", []string{"spec", "template", "metadata", "annotations"}, "a change of the settings makes the pods anew"},
}

// TestChartIsInstallYAML renders the chart with its default values: object by object it is config/install.yaml.
func TestChartIsInstallYAML(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(cluster.Root(), "config", "install.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	compare(t, cluster.Decode(t, string(text)), Template(t, ""), differences)
}

// TestChartIsKustomization compares what is not part of install.yaml.
func TestChartIsKustomization(t *testing.T) {
	// The images are named as in install.yaml.
	text, err := os.ReadFile(filepath.Join(cluster.Root(), "config", "install.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	images := "images:\n"
	for _, image := range regexp.MustCompile(`image: millrace/(\S+):devel`).FindAllStringSubmatch(string(text), -1) {
		images += fmt.Sprintf("- {name: %s, newName: millrace/%[1]s, newTag: devel}\n", image[1])
	}
	for name, c := range map[string]struct{ kustomization, values string }{
		"autoscaling": {
			"resources: [../default]\ncomponents: [../autoscaling]\n" + images,
			"ingress: {autoscaling: {enabled: true}}",
		},
		"defaults": {
			"resources: [../default, ../defaults]\n" + images,
			"admission: {defaults: true}",
		},
		"own NATS": {
			"resources: [../crds, ../admission, ../system, ../controller, ../data-plane]\n" + images,
			"{nats: {install: false, url: 'nats://nats.millrace-system.svc:4222'}}",
		},
		"three NATS servers": {
			"resources: [../default]\ncomponents: [../nats-cluster]\n" + images,
			"{nats: {replicas: 3}, settings: {stream-replicas: 3}}",
		},
		"beside Knative": {
			"resources: [../admission, ../system, ../controller, ../data-plane, ../nats]\n" + images + "- {name: nats, newTag: 2.15.2-alpine}\n",
			"crds: {install: false}",
		},
	} {
		t.Run(name, func(t *testing.T) {
			folder, err := os.MkdirTemp(filepath.Join(cluster.Root(), "config"), ".chart-test-") //nolint:usetesting // kustomize reads nothing outside its root
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = os.RemoveAll(folder) })
			if err := os.WriteFile(filepath.Join(folder, "kustomization.yaml"), []byte(c.kustomization), 0o600); err != nil {
				t.Fatal(err)
			}
			permitted := differences
			if name == "beside Knative" {
				permitted = slices.DeleteFunc(slices.Clone(differences), func(d difference) bool { return d.kind == "CustomResourceDefinition" })
			}
			compare(t, Kustomize(t, folder), Template(t, c.values), permitted)
		})
	}
}

// compare reports how the chart's objects differ from those of the manifests, beyond what is permitted.
func compare(t *testing.T, manifests, rendered []*unstructured.Unstructured, permitted []difference) {
	t.Helper()
	want, got := index(t, manifests), index(t, rendered)
	for _, d := range permitted {
		found := false
		for key, o := range want {
			if o.GetKind() != d.kind || (d.name != "*" && o.GetName() != d.name) {
				continue
			}
			if len(d.field) == 0 {
				found = got[key] == nil
				delete(want, key)
				continue
			}
			if chart := got[key]; chart != nil {
				_, there, _ := unstructured.NestedFieldNoCopy(o.Object, d.field...)
				_, set, _ := unstructured.NestedFieldNoCopy(chart.Object, d.field...)
				found = found || set && !there
				if !there {
					unstructured.RemoveNestedField(chart.Object, d.field...)
				}
			}
		}
		if !found {
			t.Errorf("the difference that %s is not there any more: take it off the list", d.why)
		}
	}
	for _, key := range slices.Sorted(maps.Keys(want)) {
		if got[key] == nil {
			t.Errorf("charts/millrace lacks %s", key)
		} else if diff := cmp.Diff(want[key].Object, got[key].Object); diff != "" {
			t.Errorf("%s differs (- config/, + charts/millrace):\n%s", key, diff)
		}
		delete(got, key)
	}
	for _, key := range slices.Sorted(maps.Keys(got)) {
		t.Errorf("charts/millrace has %s, which config/ has not", key)
	}
}

// index returns the objects by kind, namespace and name.
func index(t *testing.T, objects []*unstructured.Unstructured) map[string]*unstructured.Unstructured {
	t.Helper()
	all := map[string]*unstructured.Unstructured{}
	for _, o := range objects {
		key := fmt.Sprintf("%s %s/%s", o.GroupVersionKind(), o.GetNamespace(), o.GetName())
		if all[key] != nil {
			t.Errorf("there are two of %s", key)
		}
		all[key] = o
	}
	return all
}

// TestValues renders the chart with values that are not the default ones, and looks at what they have to change.
func TestValues(t *testing.T) {
	objects := index(t, Template(t, `
images: {prefix: registry.example.com:5000/millrace, tag: v1.2.3, pullPolicy: Always, pullSecrets: [pull]}
crds: {keep: false}
settings: {stream-replicas: 3, sweep: false, default-max-bytes: 1Gi, deny-address: 10.0.0.0/8}
nats:
  install: false
  url: tls://nats-0.nats.data.svc:4222,tls://nats-1.nats.data.svc:4222,tls://nats-2.nats.data.svc:4222
  credentialsSecret: nats-user
  tls: {secret: nats-tls, clientCertificate: true}
controller: {replicas: 1}
ingress:
  autoscaling: {enabled: true, minReplicas: 3, maxReplicas: 5, cpu: "2"}
filter:
  replicas: 4
  resources: {requests: {cpu: "1"}, limits: {memory: 4Gi}}
  nodeSelector: {kubernetes.io/arch: arm64}
  tolerations: [{key: dedicated, operator: Exists}]
  affinity: {nodeAffinity: {}}
  podAnnotations: {example.com/team: events}
  priorityClassName: high
networkPolicies:
  adminFrom: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: monitoring}}}]
admission: {brokerClass: false, defaultClass: true}
`, "--namespace", "events"))
	find := func(kind, name string) map[string]any {
		for _, o := range objects {
			if o.GetKind() == kind && o.GetName() == name {
				return o.Object
			}
		}
		t.Errorf("no %s %s", kind, name)
		return nil
	}
	for _, c := range []struct{ kind, name, path, want string }{
		{"ConfigMap", "millrace-settings", "data", `
MILLRACE_DEFAULT_MAX_BYTES: 1Gi
MILLRACE_DENY_ADDRESS: 10.0.0.0/8
MILLRACE_LOG_FORMAT: json
MILLRACE_NATS_CREDENTIALS: /etc/millrace/nats-credentials/nats.creds
MILLRACE_NATS_TLS_CA: /etc/millrace/nats-tls/ca.crt
MILLRACE_NATS_TLS_CERT: /etc/millrace/nats-tls/tls.crt
MILLRACE_NATS_TLS_KEY: /etc/millrace/nats-tls/tls.key
MILLRACE_NATS_URL: tls://nats-0.nats.data.svc:4222,tls://nats-1.nats.data.svc:4222,tls://nats-2.nats.data.svc:4222
MILLRACE_STREAM_REPLICAS: "3"
MILLRACE_SWEEP: "false"
`},
		{"Deployment", "broker-controller", "spec.replicas", `1`},
		{"Deployment", "broker-ingress", "spec.replicas", `null`},
		{"Deployment", "broker-filter", "spec.replicas", `4`},
		{"HorizontalPodAutoscaler", "broker-ingress", "spec.minReplicas", `3`},
		{"HorizontalPodAutoscaler", "broker-ingress", "spec.maxReplicas", `5`},
		{"Deployment", "broker-filter", "spec.template.spec.nodeSelector", `{kubernetes.io/arch: arm64}`},
		{"Deployment", "broker-filter", "spec.template.spec.tolerations", `[{key: dedicated, operator: Exists}]`},
		{"Deployment", "broker-filter", "spec.template.spec.affinity", `{nodeAffinity: {}}`},
		{"Deployment", "broker-filter", "spec.template.spec.priorityClassName", `high`},
		{"Deployment", "broker-filter", "spec.template.metadata.annotations.example~com/team", `events`},
		{"Deployment", "broker-ingress", "spec.template.spec.imagePullSecrets", `[{name: pull}]`},
		{"Deployment", "broker-ingress", "spec.template.spec.volumes", `
- {name: nats-credentials, secret: {secretName: nats-user}}
- {name: nats-tls, secret: {secretName: nats-tls}}`},
		{"Deployment", "broker-filter", "spec.template.spec.containers.0.image", `registry.example.com:5000/millrace/broker-filter:v1.2.3`},
		{"Deployment", "broker-filter", "spec.template.spec.containers.0.imagePullPolicy", `Always`},
		{"Deployment", "broker-filter", "spec.template.spec.containers.0.resources", `{requests: {cpu: "1", memory: 256Mi}, limits: {memory: 4Gi}}`},
		{"Deployment", "broker-filter", "spec.template.spec.containers.0.env", `[{name: GOMEMLIMIT, value: 3680MiB}]`},
		{"Deployment", "broker-controller", "spec.template.spec.containers.0.volumeMounts", `
- {name: nats-credentials, mountPath: /etc/millrace/nats-credentials, readOnly: true}
- {name: nats-tls, mountPath: /etc/millrace/nats-tls, readOnly: true}`},
		{"NetworkPolicy", "admin", "spec.ingress.0.from", `
- podSelector: {}
- namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: monitoring}}`},
		{"MutatingAdmissionPolicyBinding", "millrace-default-class", "spec.policyName", `millrace-default-class`},
		{"CustomResourceDefinition", "brokers.eventing.knative.dev", "metadata.annotations.helm~sh/resource-policy", `null`},
	} {
		var want any
		if err := yaml.Unmarshal([]byte(c.want), &want); err != nil {
			t.Fatal(err)
		}
		// Through JSON, so that numbers are of one type.
		text, err := yaml.Marshal(at(find(c.kind, c.name), strings.Split(c.path, ".")))
		if err != nil {
			t.Fatal(err)
		}
		var got any
		if err := yaml.Unmarshal(text, &got); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s of %s %s (-want +got):\n%s", c.path, c.kind, c.name, diff)
		}
	}
	for key, o := range objects {
		if strings.Contains(key, "nats") || strings.Contains(key, "millrace-broker-class") {
			t.Errorf("%s is there although it is turned off", key)
		}
		text, err := yaml.Marshal(o.Object)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(text), Namespace) {
			t.Errorf("%s speaks of %s, but the release is in another namespace", key, Namespace)
		}
	}
}

// at returns what is in an object at a path of fields and indices, nil if there is nothing. A dot in a field is a ~ in the path.
func at(value any, path []string) any {
	for _, step := range path {
		switch v := value.(type) {
		case map[string]any:
			value = v[strings.ReplaceAll(step, "~", ".")]
		case []any:
			var i int
			if _, err := fmt.Sscan(step, &i); err != nil || i >= len(v) {
				return nil
			}
			value = v[i]
		default:
			return nil
		}
	}
	return value
}

// TestSettingsMakePodsAnew shows that pods are made anew when the settings change, and not otherwise.
func TestSettingsMakePodsAnew(t *testing.T) {
	checksum := func(values string) any {
		for _, o := range Template(t, values) {
			if o.GetKind() == "Deployment" && o.GetName() == "broker-filter" {
				return at(o.Object, []string{"spec", "template", "metadata", "annotations", "checksum/settings"})
			}
		}
		return nil
	}
	before := checksum("")
	if same := checksum("filter: {replicas: 5}"); before == nil || same != before {
		t.Errorf("checksum %v, with other replicas %v", before, same)
	}
	if changed := checksum("settings: {log-level: debug}"); changed == before {
		t.Errorf("checksum %v, the same with other settings", before)
	}
}

// TestBadValues holds what users are told about values that make no sense.
func TestBadValues(t *testing.T) {
	for values, want := range map[string]string{
		`replicas: 3`:                                                             `additional properties 'replicas' not allowed`,
		`filter: {replica: 3}`:                                                    `at '/filter': additional properties 'replica' not allowed`,
		`filter: {replicas: 0}`:                                                   `at '/filter/replicas': minimum: got 0, want 1`,
		`filter: {replicas: "3"}`:                                                 `at '/filter/replicas': got string, want integer`,
		`settings: {default-max-byte: 1Gi}`:                                       `at '/settings': additional properties 'default-max-byte' not allowed`,
		`settings: {default-max-bytes: 1073741824}`:                               `at '/settings/default-max-bytes': got number, want string`,
		`settings: {stream-replicas: 2}`:                                          `at '/settings/stream-replicas': value must be one of 1, 3, 5`,
		`settings: {sweep: "yes"}`:                                                `at '/settings/sweep': got string, want boolean`,
		`settings: {log-level: trace}`:                                            `at '/settings/log-level': value must be one of 'debug', 'info', 'warn', 'error'`,
		`settings: {sweep-grace: 1d}`:                                             `at '/settings/sweep-grace': '1d' does not match pattern`,
		`ingress: {resources: {limits: null}}`:                                    `at '/ingress/resources': missing property 'limits'`,
		`ingress: {resources: {limits: {memory: 1G}}}`:                            `at '/ingress/resources/limits/memory': '1G' does not match pattern`,
		`ingress: {resources: {limits: {memory: 9Mi}}}`:                           `ingress.resources.limits.memory is 9Mi: it takes at least 128Mi`,
		`ingress: {autoscaling: {enabled: true, minReplicas: 9, maxReplicas: 3}}`: `ingress.autoscaling.minReplicas is 9, more than maxReplicas, which is 3`,
		`source: {secretNamespaces: [Shop]}`:                                      `at '/source/secretNamespaces/0': 'Shop' does not match pattern`,
		`networkPolicies: {sourceEgress: [{from: []}]}`:                           `at '/networkPolicies/sourceEgress/0': additional properties 'from' not allowed`,
		`images: {tag: "a b"}`:                                                    `at '/images/tag': 'a b' does not match pattern`,
		`images: {pullPolicy: Sometimes}`:                                         `at '/images/pullPolicy': value must be one of`,
		`nats: {install: false}`:                                                  `nats.install is false: set nats.url to the URLs of your NATS servers`,
		`nats: {url: "nats://a:4222"}`:                                            `nats.url names NATS servers of yours: set nats.install to false`,
		`nats: {install: false, url: "a:4222"}`:                                   `at '/nats/url': 'a:4222' does not match pattern`,
		`nats: {install: false, url: "nats://u:p@a"}`:                             `at '/nats/url'`,
		`nats: {maxFileStore: 18Gi}`:                                              `at '/nats/maxFileStore': '18Gi' does not match pattern`,
		`nats: {tls: {clientCertificate: true}}`:                                  `set nats.tls.secret to the Secret that has it`,
		`settings: {stream-replicas: 3}`:                                          `settings.stream-replicas is 3, but nats.replicas is 1: give both the same number`,
	} {
		out, err := TryTemplate(t, values)
		if err == nil {
			t.Errorf("%s is accepted:\n%s", values, out)
		} else if !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v\nwant it to say %s", values, err, want)
		}
	}
}

// TestLint has helm look for mistakes, and takes its advice for such.
func TestLint(t *testing.T) {
	if out, err := Helm(t.Context(), "lint", "--strict", Folder()); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// TestPackage packages the chart as a release does, and renders the package.
func TestPackage(t *testing.T) {
	folder := t.TempDir()
	if _, err := Helm(t.Context(), "package", Folder(), "--version", "1.2.3", "--app-version", "v1.2.3", "--destination", folder); err != nil {
		t.Fatal(err)
	}
	out, err := Helm(t.Context(), "template", "millrace", filepath.Join(folder, "millrace-1.2.3.tgz"), "--namespace", Namespace)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(out, "millrace/broker-filter:v1.2.3") {
		t.Error("the packaged chart does not name the images of its version")
	}
	if n, all := len(cluster.Decode(t, out)), len(Template(t, "")); n != all {
		t.Errorf("the package holds %d objects, the folder %d", n, all)
	}
}

// TestEveryValueIsDescribed holds values.yaml, its schema and the programs' flags together.
func TestEveryValueIsDescribed(t *testing.T) {
	var schema, values map[string]any
	for name, into := range map[string]*map[string]any{"values.schema.json": &schema, "values.yaml": &values} {
		text, err := os.ReadFile(filepath.Join(Folder(), name))
		if err != nil {
			t.Fatal(err)
		}
		if err := yaml.Unmarshal(text, into); err != nil {
			t.Fatal(err)
		}
	}
	properties := at(schema, []string{"properties"}).(map[string]any)
	delete(properties, "global")
	for part, known := range properties {
		for name := range at(known, []string{"properties"}).(map[string]any) {
			if value := at(values, []string{part, name}); value == nil && part != "settings" {
				t.Errorf("values.yaml lacks %s.%s, which the schema knows", part, name)
			}
		}
	}

	var f cmdline.Flags
	fs := pflag.NewFlagSet("", pflag.ContinueOnError)
	f.BindProcess(fs)
	f.BindNATS(fs)
	f.BindSubscribers(fs)
	elsewhere := []string{"admin", "filename", "service", "nats-url", "nats-credentials", "nats-tls-ca", "nats-tls-cert", "nats-tls-key"}
	settings := at(properties, []string{"settings", "properties"}).(map[string]any)
	fs.VisitAll(func(flag *pflag.Flag) {
		if settings[flag.Name] == nil && !slices.Contains(elsewhere, flag.Name) {
			t.Errorf("values.schema.json lacks the flag settings.%s", flag.Name)
		}
		delete(settings, flag.Name)
	})
	for name := range settings {
		t.Errorf("values.schema.json has settings.%s, but no program has such a flag", name)
	}
}
