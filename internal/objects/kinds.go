package objects

import (
	"fmt"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	eventingv1 "millrace.dev/api/eventing/v1"
	sourcesv1 "millrace.dev/api/sources/v1"
	sourcesv1alpha1 "millrace.dev/api/sources/v1alpha1"
)

// kindSecret is the kind of Kubernetes' own objects that sources refer to.
const kindSecret = "Secret"

// maxSlips is how many characters of a group may be wrong for it still to be the one meant.
const maxSlips = 3

// objectKind is the apiVersion and kind of a manifest.
type objectKind struct {
	group, version, name string
}

func kindOf(node *yaml.Node) objectKind {
	apiVersion := scalarAt(node, "apiVersion")
	kind := objectKind{version: apiVersion, name: scalarAt(node, "kind")}
	if group, version, ok := strings.Cut(apiVersion, "/"); ok {
		kind.group, kind.version = group, version
	}
	return kind
}

// String returns the kind as in a manifest's first two lines: apps/v1 Deployment.
func (k objectKind) String() string {
	switch {
	case k.name == "":
		return "not a Kubernetes object"
	case k.group == "":
		return strings.TrimSpace(k.version + " " + k.name)
	}
	return k.group + "/" + k.version + " " + k.name
}

func (k objectKind) ours() bool { return k.group == eventingv1.Group }

func (k objectKind) named() bool {
	return k.name == eventingv1.KindBroker || k.name == eventingv1.KindTrigger
}

func (k objectKind) isSource() bool { return k.group == sourcesv1.Group }

// sourceKind is a kind of source, and the versions in which its objects may be written, the preferred one first.
type sourceKind struct {
	name     string
	versions []string
}

func sourceKinds() []sourceKind {
	return []sourceKind{
		{sourcesv1.KindKafkaSource, sourcesv1.Versions()},
		{sourcesv1alpha1.KindRocketMQSource, []string{sourcesv1alpha1.Version}},
	}
}

// sourceVersions returns the versions of a kind of source; nil if it is none of those that are served.
func (k objectKind) sourceVersions() []string {
	for _, kind := range sourceKinds() {
		if kind.name == k.name {
			return kind.versions
		}
	}
	return nil
}

func (k objectKind) served() bool {
	return k.ours() && k.version == eventingv1.Version && k.named() ||
		k.isSource() && slices.Contains(k.sourceVersions(), k.version) ||
		k.group == "" && k.version == "v1" && k.name == kindSecret
}

// item is the kind of what a list holds: of FooList it is Foo.
func (k objectKind) item() objectKind {
	name, ok := strings.CutSuffix(k.name, "List")
	if !ok {
		return objectKind{}
	}
	return objectKind{group: k.group, version: k.version, name: name}
}

func (k objectKind) isList() bool {
	return k.group == "" && k.name == "List" || k.isSource() && k.item().sourceVersions() != nil ||
		k.ours() && (k.name == eventingv1.KindBroker+"List" || k.name == eventingv1.KindTrigger+"List")
}

// mistake says what is wrong with the apiVersion or kind of an object that was meant for us, and in which of the two. An
// empty detail means that the object is none of our business.
func (k objectKind) mistake(node *yaml.Node) (wrong, detail, hint string) {
	if k.isSource() || k.sourceVersions() != nil {
		return k.sourceMistake()
	}
	switch {
	case k.ours() && k.name == "":
		return "kind", "is missing", "write kind: Trigger or kind: Broker"
	case k.ours() && k.named():
		return "apiVersion", "version " + k.version + " is not served", "write " + eventingv1.APIVersion
	case k.ours() && !slices.Contains(otherKinds(), k.name):
		return "kind", fmt.Sprintf("there is no kind %s in %s", k.name, k.group), k.kindHint()
	case k.named() && k.nearOurs():
		return "apiVersion", k.groupFault(), "write apiVersion: " + eventingv1.APIVersion
	case k.name == "" && k.version == "" && looksLikeTrigger(node):
		return "", "apiVersion and kind are missing", "write apiVersion: " + eventingv1.APIVersion + " and kind: Trigger"
	}
	return "", "", ""
}

// sourceMistake is mistake for sources. Of their group there are kinds by others, which are none of our business.
func (k objectKind) sourceMistake() (wrong, detail, hint string) {
	var names []string
	for _, kind := range sourceKinds() {
		names = append(names, kind.name)
	}
	near := nearest(k.name, names)
	versions := k.sourceVersions()
	switch {
	case k.isSource() && k.name == "":
		return "kind", "is missing", "write kind: " + strings.Join(names, " or ")
	case k.isSource() && versions != nil:
		return "apiVersion", "version " + k.version + " is not served", "write " + sourcesv1.Group + "/" + versions[0]
	case k.isSource() && near != "":
		return "kind", fmt.Sprintf("there is no kind %s in %s", k.name, k.group), "did you mean " + near + "?"
	case !k.isSource() && (k.group == "" || strings.HasSuffix(k.group, "knative.dev") || editDistance(k.group, sourcesv1.Group) <= maxSlips):
		return "apiVersion", k.groupFault(), "write apiVersion: " + sourcesv1.Group + "/" + versions[0]
	}
	return "", "", ""
}

func (k objectKind) groupFault() string {
	if k.version == "" {
		return "is missing"
	}
	return fmt.Sprintf("there is no kind %s in %s", k.name, strings.TrimPrefix(k.group+"/"+k.version, "/"))
}

func (k objectKind) kindHint() string {
	kinds := append(otherKinds(), eventingv1.KindBroker, eventingv1.KindTrigger)
	if near := nearest(k.name, kinds); near != "" {
		return "did you mean " + near + "?"
	}
	if singular := strings.TrimSuffix(k.name, "s"); slices.Contains(kinds, singular) {
		return "did you mean " + singular + "?"
	}
	return "its kinds are Broker and Trigger"
}

// nearOurs reports whether the group most likely was meant to be ours. Other projects have Triggers too.
func (k objectKind) nearOurs() bool {
	return k.group == "" || strings.HasSuffix(k.group, "knative.dev") || editDistance(k.group, eventingv1.Group) <= maxSlips
}

// otherKinds are the kinds of the group that Millrace does not serve and that do no harm beside it.
func otherKinds() []string {
	return []string{"EventType", "EventPolicy", "RequestReply", "EventTransform"}
}

func looksLikeTrigger(node *yaml.Node) bool {
	spec := child(node, "spec")
	return child(spec, "subscriber") != nil || child(spec, "broker") != nil
}
