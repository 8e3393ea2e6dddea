// Package cluster leads the commands to the admin API of a filter in a Kubernetes cluster, with the user's kubeconfig: by
// a forwarded port, and with the user's own token or one of a ServiceAccount. It needs neither kubectl nor access to NATS.
package cluster

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	_ "k8s.io/client-go/plugin/pkg/client/auth" // the ways to log in that kubeconfigs may name
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/transport/spdy"
	"k8s.io/klog/v2"
	"k8s.io/streaming/pkg/httpstream"
)

// DefaultSystemNamespace is where Millrace is installed unless somebody chose another namespace.
const DefaultSystemNamespace = "millrace-system"

const (
	// filters are the pods with an admin API, adminPort is the name of its port.
	filters   = "app.kubernetes.io/component=filter,app.kubernetes.io/part-of=millrace"
	adminPort = "admin"
	// audience is the one that the admin API takes besides that of the API server.
	audience = "millrace.dev"
	// tokenSeconds is how long a token of a ServiceAccount is valid, and with it the longest `millrace tail`.
	tokenSeconds = 3600
)

// Options say which cluster and which user, as kubectl's flags of these names do.
type Options struct {
	// Kubeconfig is a file; empty for those of the environment variable KUBECONFIG, or else ~/.kube/config.
	Kubeconfig string
	// Context is one of the kubeconfig; empty for the current one.
	Context string
	// Namespace is empty for that of the context.
	Namespace string
	// SystemNamespace is where Millrace runs; default [DefaultSystemNamespace].
	SystemNamespace string
	// ServiceAccount, if set, is namespace/name of one to act as: the user must be allowed to create tokens of it.
	ServiceAccount string
}

// Cluster is a cluster of the kubeconfig. Nothing is asked of it before [Cluster.Connect].
type Cluster struct {
	// Context is the name of the context, empty inside a pod. Namespace is the one to work in.
	Context, Namespace string

	opts   Options
	config *rest.Config
}

// ErrNone says that no kubeconfig names a cluster.
var ErrNone = errors.New("no kubeconfig names a cluster to use")

// Find reads the kubeconfig. The error is [ErrNone] if there is none, or none with a current context.
func Find(o Options) (*Cluster, error) {
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = o.Kubeconfig
	overrides := &clientcmd.ConfigOverrides{CurrentContext: o.Context}
	overrides.Context.Namespace = o.Namespace
	loader := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, overrides)
	raw, err := loader.RawConfig()
	if err != nil {
		return nil, fmt.Errorf("read the kubeconfig: %w", err)
	}
	c := &Cluster{Context: cmp.Or(o.Context, raw.CurrentContext), opts: o}
	if c.Context == "" {
		return nil, ErrNone
	}
	if raw.Contexts[c.Context] == nil {
		return nil, fmt.Errorf("the kubeconfig has no context %q; it has %s", c.Context, names(raw.Contexts))
	}
	if c.config, err = loader.ClientConfig(); err != nil {
		return nil, fmt.Errorf("read context %q of the kubeconfig: %w", c.Context, err)
	}
	if c.Namespace, _, err = loader.Namespace(); err != nil {
		return nil, fmt.Errorf("read the namespace of context %q: %w", c.Context, err)
	}
	return c, nil
}

// Contexts are the names of those in the kubeconfig; none if it cannot be read.
func Contexts(o Options) []string {
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = o.Kubeconfig
	raw, err := rules.Load()
	if err != nil {
		return nil
	}
	return slices.Sorted(maps.Keys(raw.Contexts))
}

func names[V any](m map[string]V) string {
	if len(m) == 0 {
		return "none"
	}
	return strings.Join(slices.Sorted(maps.Keys(m)), ", ")
}

// maxFilters bounds how many filters are asked at a time: each takes a connection by way of the API server.
const maxFilters = 32

// Connect forwards a port of this machine's loopback to a ready filter until ctx ends, and returns the URL of its admin API and
// the client to use with it, which sends the user's token.
func (c *Cluster) Connect(ctx context.Context) (string, *http.Client, error) {
	urls, _, client, err := c.connect(ctx, 1)
	if err != nil {
		return "", nil, err
	}
	return urls[0], client, nil
}

// ConnectAll does the same with all ready filters, [maxFilters] at most. ready is how many there are: some of them may have gone since.
func (c *Cluster) ConnectAll(ctx context.Context) (urls []string, ready int, _ *http.Client, _ error) {
	return c.connect(ctx, maxFilters)
}

func (c *Cluster) connect(ctx context.Context, most int) (urls []string, ready int, _ *http.Client, _ error) {
	klog.SetSlogLogger(slog.New(slog.DiscardHandler)) // the client logs what it also returns
	system := cmp.Or(c.opts.SystemNamespace, DefaultSystemNamespace)
	core, err := newCore(c.config)
	if err != nil {
		return nil, 0, nil, fmt.Errorf("prepare the client of the cluster: %w", err)
	}
	client, err := c.client(ctx, core)
	if err != nil {
		return nil, 0, nil, err
	}
	var pods corev1.PodList
	err = core.Get().Namespace(system).Resource("pods").Param("labelSelector", filters).Do(ctx).Into(&pods)
	if err != nil {
		return nil, 0, nil, c.explain("list the filter's pods in namespace "+system, err, "list pods")
	}
	found, err := choose(pods.Items, system)
	if err != nil {
		return nil, 0, nil, err
	}
	var firstErr error
	for _, f := range found[:min(len(found), most)] {
		local, err := c.forward(ctx, core.Post().Resource("pods").Namespace(system).Name(f.pod).SubResource("portforward").URL(), f.port)
		if err != nil {
			firstErr = cmp.Or(firstErr, c.explain("forward a port to pod "+system+"/"+f.pod, err, "create pods/portforward"))
			continue
		}
		urls = append(urls, "http://127.0.0.1:"+strconv.Itoa(local))
	}
	if len(urls) == 0 {
		return nil, 0, nil, firstErr
	}
	return urls, len(found), client, nil
}

// explain says what to do about an error of the API server. needed is the right that the request takes, in the namespace
// of the installation.
func (c *Cluster) explain(what string, err error, needed string) error {
	system := cmp.Or(c.opts.SystemNamespace, DefaultSystemNamespace)
	switch {
	case apierrors.IsUnauthorized(err):
		return fmt.Errorf("%s: %w; context %q needs a new login", what, err, c.Context)
	case apierrors.IsForbidden(err) || strings.Contains(err.Error(), "forbidden"):
		return fmt.Errorf("%s: %w; have somebody bind the Role millrace-connect of namespace %s to you, which lets you %s there", what, err, system, needed)
	default:
		return fmt.Errorf("%s: %w; is the cluster of context %q running, and is its address right?", what, err, c.Context)
	}
}

// newCore returns a client of the API group "" that knows the few kinds needed. The typed client would bring all kinds of
// Kubernetes into millrace dev, too.
func newCore(config *rest.Config) (rest.Interface, error) {
	version := corev1.SchemeGroupVersion
	scheme := runtime.NewScheme()
	metav1.AddToGroupVersion(scheme, version)
	scheme.AddKnownTypes(version, &corev1.PodList{})
	scheme.AddKnownTypes(authenticationv1.SchemeGroupVersion, &authenticationv1.TokenRequest{})
	config = rest.CopyConfig(config)
	config.APIPath, config.GroupVersion = "/api", &version
	config.NegotiatedSerializer = serializer.NewCodecFactory(scheme).WithoutConversion()
	return rest.RESTClientFor(config)
}

// filterPort is the admin port of a filter.
type filterPort struct {
	pod  string
	port int32
}

// choose returns the filters that are ready, by name; at least one.
func choose(pods []corev1.Pod, system string) ([]filterPort, error) {
	if len(pods) == 0 {
		return nil, fmt.Errorf("there is no filter in namespace %s; if Millrace is installed elsewhere, say where with --system-namespace", system)
	}
	slices.SortFunc(pods, func(x, y corev1.Pod) int { return cmp.Compare(x.Name, y.Name) })
	var found []filterPort
	for i := range pods {
		p := &pods[i]
		if p.DeletionTimestamp != nil || !slices.ContainsFunc(p.Status.Conditions, func(c corev1.PodCondition) bool {
			return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
		}) {
			continue
		}
		if port := adminPortOf(p); port > 0 {
			found = append(found, filterPort{p.Name, port})
		}
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("none of the %d filters in namespace %s is ready; `kubectl -n %s describe pods -l %s` says why", len(pods), system, system, filters)
	}
	return found, nil
}

// adminPortOf returns 0 if the pod has none.
func adminPortOf(p *corev1.Pod) int32 {
	for _, container := range p.Spec.Containers {
		for _, port := range container.Ports {
			if port.Name == adminPort {
				return port.ContainerPort
			}
		}
	}
	return 0
}

// forward returns the port of this machine that leads to the pod's until ctx ends.
func (c *Cluster) forward(ctx context.Context, target *url.URL, port int32) (int, error) {
	transport, upgrader, err := spdy.RoundTripperFor(c.config)
	if err != nil {
		return 0, err
	}
	websocket, err := portforward.NewSPDYOverWebsocketDialerForStreaming(target, c.config)
	if err != nil {
		return 0, err
	}
	// As kubectl does: API servers and proxies that know no WebSockets here take SPDY.
	dialer := portforward.NewFallbackDialerForStreaming(websocket, spdy.NewDialerForStreaming(upgrader, &http.Client{Transport: transport}, http.MethodPost, target),
		func(err error) bool { return httpstream.IsUpgradeFailure(err) || httpstream.IsHTTPSProxyError(err) })
	ready := make(chan struct{})
	forwarder, err := portforward.NewOnAddressesForStreamingWithContext(ctx, dialer, []string{"127.0.0.1"}, []string{fmt.Sprintf("0:%d", port)}, ready, io.Discard, io.Discard)
	if err != nil {
		return 0, err
	}
	failed := make(chan error, 1)
	go func() { failed <- forwarder.ForwardPorts() }()
	select {
	case err := <-failed:
		return 0, cmp.Or(err, context.Cause(ctx))
	case <-ready:
	}
	ports, err := forwarder.GetPorts()
	if err != nil {
		return 0, err
	}
	return int(ports[0].Local), nil
}

// client returns one that sends the token of the user, or that of the ServiceAccount.
func (c *Cluster) client(ctx context.Context, core rest.Interface) (*http.Client, error) {
	config := c.config
	if user := config.Impersonate.UserName; user != "" && c.opts.ServiceAccount == "" {
		return nil, fmt.Errorf("context %q acts as %q, which the admin API cannot see: take a context that logs in as itself, or give --service-account", c.Context, user)
	}
	if c.opts.ServiceAccount != "" {
		token, err := c.serviceToken(ctx, core)
		if err != nil {
			return nil, err
		}
		config = &rest.Config{BearerToken: token}
	}
	plain := http.DefaultTransport.(*http.Transport).Clone() //nolint:forcetypeassert // net/http says so
	plain.Proxy = nil                                        // the way begins on this machine
	transport, err := rest.HTTPWrappersForConfig(config, &bearers{next: plain, context: c.Context})
	if err != nil {
		return nil, fmt.Errorf("prepare the login of context %q: %w", c.Context, err)
	}
	return &http.Client{
		Transport:     transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}, nil
}

func (c *Cluster) serviceToken(ctx context.Context, core rest.Interface) (string, error) {
	namespace, name, ok := strings.Cut(c.opts.ServiceAccount, "/")
	if !ok || namespace == "" || name == "" {
		return "", fmt.Errorf("--service-account %q: write NAMESPACE/NAME", c.opts.ServiceAccount)
	}
	seconds := int64(tokenSeconds)
	request := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{Audiences: []string{audience}, ExpirationSeconds: &seconds}}
	err := core.Post().Namespace(namespace).Resource("serviceaccounts").Name(name).SubResource("token").Body(request).Do(ctx).Into(request)
	switch {
	case apierrors.IsForbidden(err):
		return "", fmt.Errorf("get a token of --service-account: %w; you need the right to create serviceaccounts/token in namespace %s", err, namespace)
	case apierrors.IsNotFound(err):
		return "", fmt.Errorf("get a token of --service-account: %w; make it with `kubectl -n %s create serviceaccount %s`, and bind a role such as view to it", err, namespace, name)
	case err != nil:
		return "", fmt.Errorf("get a token of --service-account, with context %q: %w", c.Context, err)
	}
	return request.Status.Token, nil
}

// NoTokenError says that a user of the kubeconfig has no token that could be sent.
type NoTokenError struct{ Context string }

// Error says what to do.
func (e *NoTokenError) Error() string {
	return fmt.Sprintf("the user of context %q logs in without a token, by a client certificate, which a forwarded port cannot carry; "+
		"give --service-account NAMESPACE/NAME, and the command gets a token of that account. One that may view all:\n"+
		"  kubectl -n %s create serviceaccount viewer\n"+
		"  kubectl create clusterrolebinding millrace-viewer --clusterrole=view --serviceaccount=%s:viewer", e.Context, DefaultSystemNamespace, DefaultSystemNamespace)
}

// bearers lets no request pass without a bearer token. It comes after all that adds one.
type bearers struct {
	next    http.RoundTripper
	context string
}

// RoundTrip implements http.RoundTripper.
func (b *bearers) RoundTrip(r *http.Request) (*http.Response, error) {
	if scheme, _, _ := strings.Cut(r.Header.Get("Authorization"), " "); !strings.EqualFold(scheme, "Bearer") {
		return nil, &NoTokenError{Context: b.context}
	}
	return b.next.RoundTrip(r)
}
