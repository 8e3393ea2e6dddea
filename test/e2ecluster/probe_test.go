package e2ecluster

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"testing"

	"k8s.io/client-go/rest"

	"millrace.dev/test/cluster"
)

const probeManifest = `
apiVersion: v1
kind: Service
metadata: {name: probe}
spec:
  selector: {app: probe}
  ports: [{port: 80, targetPort: 8080}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: probe}
spec:
  replicas: 1
  selector: {matchLabels: {app: probe}}
  template:
    metadata: {labels: {app: probe}}
    spec:
      automountServiceAccountToken: false
      terminationGracePeriodSeconds: 1
      containers:
      - name: probe
        image: IMAGE
        ports: [{containerPort: 8080}]
        readinessProbe: {httpGet: {path: /in/none, port: 8080}, periodSeconds: 1}
`

// event is what is posted.
type event struct{ id, kind, source, region, data string }

// received is an event as a subscriber got it.
type received struct {
	Type, Source, ID string
	Attributes       map[string]string
	Data             string
}

// probe is the pod of test/e2ecluster/probe and its Service, reached through the API server.
type probe struct {
	base   string
	client *http.Client
}

func startProbe(t *testing.T, namespace string) *probe {
	t.Helper()
	for _, o := range cluster.Decode(t, strings.Replace(probeManifest, "IMAGE", os.Getenv(probeEnv), 1)) {
		if err := kube.TryApply(t.Context(), namespace, o); err != nil {
			t.Fatal(err)
		}
		if o.GetKind() == "Deployment" {
			rolledOut(t, o)
		}
	}
	c, err := rest.HTTPClientFor(kube.Config)
	if err != nil {
		t.Fatal(err)
	}
	host, _, err := rest.DefaultServerUrlFor(kube.Config)
	if err != nil {
		t.Fatal(err)
	}
	p := &probe{base: host.String() + "/api/v1/namespaces/" + namespace + "/services/probe:80/proxy", client: c}
	// A Service is reachable a moment after its pods are ready, once the node forwards its address.
	self := url.Values{"to": {"http://probe." + namespace + ".svc.cluster.local/in/none"}}
	eventually(t, "the probe reaches its Service", func(ctx context.Context) error { return p.call(ctx, http.MethodPost, "/send", self, nil) })
	return p
}

// call makes a request without a body and decodes the answer, which must be a 200.
func (p *probe) call(ctx context.Context, method, path string, query url.Values, into any) error {
	request, err := http.NewRequestWithContext(ctx, method, p.base+path+"?"+query.Encode(), nil)
	if err != nil {
		return err
	}
	response, err := p.client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s %s: %d %s", method, path, response.StatusCode, body)
	}
	if into == nil {
		return nil
	}
	return json.Unmarshal(body, into)
}

// mustCall is call where a failure ends the test.
func (p *probe) mustCall(t *testing.T, method, path string, query url.Values, into any) {
	t.Helper()
	if err := p.call(t.Context(), method, path, query, into); err != nil {
		t.Fatal(err)
	}
}

// post has the pod post an event, which must be accepted.
func (p *probe) post(t *testing.T, to string, e event) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, p.base+"/send?"+url.Values{"to": {to}}.Encode(), strings.NewReader(e.data))
	if err != nil {
		t.Fatal(err)
	}
	for header, value := range map[string]string{
		"Ce-Specversion": "1.0", "Ce-Id": e.id, "Ce-Type": e.kind, "Ce-Source": e.source, "Ce-Region": e.region,
		"Content-Type": "application/json",
	} {
		if value != "" {
			request.Header.Set(header, value)
		}
	}
	response, err := p.client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, _ := io.ReadAll(response.Body)
	if response.StatusCode != http.StatusAccepted {
		t.Fatalf("post %s to %s: %d %s", e.id, to, response.StatusCode, body)
	}
}

// inbox returns what arrived at a subscriber, by id. An event that arrived twice is there once.
func (p *probe) inbox(ctx context.Context, name string) (map[string]received, error) {
	var list []received
	if err := p.call(ctx, http.MethodGet, "/in/"+name, nil, &list); err != nil {
		return nil, err
	}
	byID := map[string]received{}
	for _, r := range list {
		byID[r.ID] = r
	}
	return byID, nil
}

// arrives waits until exactly the events of these ids have arrived at a subscriber, and returns them.
func (p *probe) arrives(t *testing.T, name string, ids ...string) map[string]received {
	t.Helper()
	var in map[string]received
	eventually(t, fmt.Sprintf("%v at %s", ids, name), func(ctx context.Context) error {
		var err error
		if in, err = p.inbox(ctx, name); err != nil {
			return err
		}
		for _, id := range ids {
			if _, ok := in[id]; !ok {
				return fmt.Errorf("%s is missing, there are %v", id, in)
			}
		}
		return nil
	})
	if len(in) != len(ids) {
		t.Errorf("%s got %v, want only %v", name, in, ids)
	}
	return in
}
