package cluster_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/streaming/pkg/httpstream"
	"k8s.io/streaming/pkg/httpstream/spdy"

	"millrace.dev/internal/cli/cluster"
)

// apiServer answers as an API server with the pods, whose every port leads to an admin port that tells which token it got.
type apiServer struct {
	t     *testing.T
	pods  []corev1.Pod
	admin map[string]string // host:port of each pod
	asked authenticationv1.TokenRequestSpec
}

func (s *apiServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch asked := r.URL.Path; {
	case strings.HasSuffix(asked, "/portforward"):
		s.forward(w, r)
	case asked == "/api/v1/namespaces/millrace-system/pods":
		s.answer(w, corev1.PodList{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "PodList"}, Items: s.pods})
	case asked == "/api/v1/namespaces/team/serviceaccounts/viewer/token":
		body, err := io.ReadAll(r.Body)
		if err != nil {
			s.t.Error(err)
		}
		request := &authenticationv1.TokenRequest{}
		if _, _, err := scheme.Codecs.UniversalDeserializer().Decode(body, nil, request); err != nil {
			s.t.Error(err)
		}
		s.asked = request.Spec
		request.APIVersion, request.Kind = "authentication.k8s.io/v1", "TokenRequest"
		request.Status.Token = "of-the-viewer"
		s.answer(w, request)
	default:
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusForbidden)
		s.answer(w, metav1.Status{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Status"}, Status: "Failure", Reason: metav1.StatusReasonForbidden, Code: http.StatusForbidden, Message: "forbidden"})
	}
}

func (s *apiServer) answer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(v); err != nil {
		s.t.Error(err)
	}
}

// forward does as a kubelet does, by SPDY; it knows no WebSockets.
func (s *apiServer) forward(w http.ResponseWriter, r *http.Request) {
	admin, ok := s.admin[path.Base(path.Dir(r.URL.Path))]
	if !ok {
		http.Error(w, "there is no such pod any more", http.StatusNotFound)
		return
	}
	if strings.EqualFold(r.Header.Get("Upgrade"), "websocket") {
		http.Error(w, "no WebSockets", http.StatusBadRequest)
		return
	}
	if _, err := httpstream.Handshake(r, w, []string{"portforward.k8s.io"}); err != nil {
		s.t.Error(err)
		return
	}
	conn := spdy.NewResponseUpgrader().UpgradeResponse(w, r, func(stream httpstream.Stream, replied <-chan struct{}) error {
		if stream.Headers().Get(corev1.StreamType) != corev1.StreamTypeData {
			go func() {
				<-replied
				_ = stream.Close()
			}()
			return nil
		}
		if port := stream.Headers().Get(corev1.PortHeader); port != "8081" {
			s.t.Errorf("port %s is forwarded", port)
		}
		go s.carry(admin, stream, replied)
		return nil
	})
	if conn != nil {
		<-conn.CloseChan()
	}
}

func (s *apiServer) carry(admin string, stream httpstream.Stream, replied <-chan struct{}) {
	<-replied
	defer func() { _ = stream.Reset() }()
	var dialer net.Dialer
	conn, err := dialer.DialContext(context.Background(), "tcp", admin)
	if err != nil {
		s.t.Error(err)
		return
	}
	defer func() { _ = conn.Close() }()
	go func() { _, _ = io.Copy(conn, stream) }()
	_, _ = io.Copy(stream, conn)
}

func pod(name string, ready corev1.ConditionStatus) corev1.Pod {
	return corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: corev1.PodSpec{Containers: []corev1.Container{{Ports: []corev1.ContainerPort{
			{Name: "other", ContainerPort: 1}, {Name: "admin", ContainerPort: 8081},
		}}}},
		Status: corev1.PodStatus{Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: ready}}},
	}
}

// newServer returns the URL of an API server.
func newServer(t *testing.T, pods ...corev1.Pod) (*apiServer, string) {
	t.Helper()
	admin := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, r.Host[:strings.IndexByte(r.Host, ':')]+" "+r.Header.Get("Authorization"))
	}))
	t.Cleanup(admin.Close)
	s := &apiServer{t: t, pods: pods, admin: map[string]string{"broker-filter-b": admin.Listener.Addr().String()}}
	server := httptest.NewTLSServer(s)
	t.Cleanup(server.Close)
	return s, server.URL
}

// kubeconfig writes one with a context for each user, the first of which is current.
func kubeconfig(t *testing.T, server string, users map[string]string, current string) string {
	t.Helper()
	text := "apiVersion: v1\nkind: Config\nclusters: [{name: c, cluster: {server: '" + server + "', insecure-skip-tls-verify: true}}]\ncurrent-context: '" + current + "'\nusers:\n"
	for name, user := range users {
		text += "- {name: " + name + ", user: " + user + "}\n"
	}
	text += "contexts:\n"
	for name := range users {
		text += "- {name: " + name + ", context: {cluster: c, user: " + name + ", namespace: team}}\n"
	}
	file := filepath.Join(t.TempDir(), "config")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func credentials(t *testing.T) map[string]string {
	t.Helper()
	dir := t.TempDir()
	file, plugin := filepath.Join(dir, "token"), filepath.Join(dir, "login")
	const script = "#!/bin/sh\necho '{\"apiVersion\": \"client.authentication.k8s.io/v1\", \"kind\": \"ExecCredential\", \"status\": {\"token\": \"of-the-plugin\"}}'\n"
	for name, text := range map[string]string{file: "of-the-file\n", plugin: script} {
		if err := os.WriteFile(name, []byte(text), 0o700); err != nil { //nolint:gosec // one is a program
			t.Fatal(err)
		}
	}
	return map[string]string{
		"token":       "{token: of-the-user}",
		"file":        "{tokenFile: " + file + "}",
		"plugin":      "{exec: {apiVersion: client.authentication.k8s.io/v1, command: " + plugin + ", interactiveMode: Never}}",
		"certificate": "{}",
		"password":    "{username: a, password: b}",
		"other":       "{token: of-the-user, as: somebody}",
	}
}

// TestConnect sends a request by a forwarded port as each kind of user.
func TestConnect(t *testing.T) {
	server, url := newServer(t, pod("broker-filter-a", corev1.ConditionFalse), pod("broker-filter-b", corev1.ConditionTrue))
	file := kubeconfig(t, url, credentials(t), "token")
	for name, c := range map[string]struct {
		options      cluster.Options
		token, wrong string
	}{
		"the current context":   {cluster.Options{}, "of-the-user", ""},
		"a file with a token":   {cluster.Options{Context: "file"}, "of-the-file", ""},
		"a login plugin":        {cluster.Options{Context: "plugin"}, "of-the-plugin", ""},
		"a certificate":         {cluster.Options{Context: "certificate"}, "", "give --service-account NAMESPACE/NAME"},
		"a password":            {cluster.Options{Context: "password"}, "", "give --service-account NAMESPACE/NAME"},
		"somebody else":         {cluster.Options{Context: "other"}, "", `acts as "somebody"`},
		"an account":            {cluster.Options{Context: "certificate", ServiceAccount: "team/viewer"}, "of-the-viewer", ""},
		"an account for others": {cluster.Options{ServiceAccount: "team/admin"}, "", "the right to create serviceaccounts/token in namespace team"},
		"half an account":       {cluster.Options{ServiceAccount: "viewer"}, "", "write NAMESPACE/NAME"},
		"another namespace":     {cluster.Options{SystemNamespace: "elsewhere"}, "", "bind the Role millrace-connect of namespace elsewhere"},
	} {
		t.Run(name, func(t *testing.T) {
			c.options.Kubeconfig = file
			got, err := fetch(t, c.options)
			if c.wrong != "" {
				if err == nil || !strings.Contains(err.Error(), c.wrong) {
					t.Errorf("got %q, %v, want an error with %q", got, err, c.wrong)
				}
				return
			}
			if err != nil || got != "127.0.0.1 Bearer "+c.token {
				t.Errorf("the admin port got %q, %v", got, err)
			}
		})
	}
	if got := server.asked; len(got.Audiences) != 1 || got.Audiences[0] != "millrace.dev" {
		t.Errorf("the token that was asked for is %+v", got)
	}
}

func fetch(t *testing.T, o cluster.Options) (string, error) {
	t.Helper()
	c, err := cluster.Find(o)
	if err != nil {
		return "", err
	}
	url, client, err := c.Connect(t.Context())
	if err != nil {
		return "", err
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	resp, err := client.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return string(text), err
}

// TestConnectAll forwards ports to all ready filters, of which one has gone meanwhile.
func TestConnectAll(t *testing.T) {
	server, url := newServer(t, pod("broker-filter-c", corev1.ConditionTrue), pod("broker-filter-a", corev1.ConditionFalse),
		pod("broker-filter-b", corev1.ConditionTrue), pod("broker-filter-d", corev1.ConditionTrue))
	for _, name := range []string{"broker-filter-b", "broker-filter-c"} {
		admin := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, name) }))
		t.Cleanup(admin.Close)
		server.admin[name] = admin.Listener.Addr().String()
	}
	c, err := cluster.Find(cluster.Options{Kubeconfig: kubeconfig(t, url, map[string]string{"token": "{token: t}"}, "token")})
	if err != nil {
		t.Fatal(err)
	}
	urls, ready, client, err := c.ConnectAll(t.Context())
	if err != nil || ready != 3 {
		t.Fatalf("%d filters are ready, %v", ready, err)
	}
	var got []string
	for _, url := range urls {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, string(text))
	}
	if want := []string{"broker-filter-b", "broker-filter-c"}; !slices.Equal(got, want) {
		t.Errorf("ports lead to %v, want %v", got, want)
	}
	clear(server.admin)
	if _, _, _, err := c.ConnectAll(t.Context()); err == nil || !strings.Contains(err.Error(), "forward a port to pod millrace-system/broker-filter-b") {
		t.Errorf("without a pod: %v", err)
	}
}

func TestNoFilterIsReady(t *testing.T) {
	going := pod("broker-filter-b", corev1.ConditionTrue)
	going.DeletionTimestamp = new(metav1.Now())
	for want, pods := range map[string][]corev1.Pod{
		"there is no filter in namespace millrace-system": nil,
		"none of the 2 filters":                           {pod("broker-filter-a", corev1.ConditionFalse), going},
	} {
		_, url := newServer(t, pods...)
		_, err := fetch(t, cluster.Options{Kubeconfig: kubeconfig(t, url, map[string]string{"token": "{token: t}"}, "token")})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("with %d pods: got %v, want %q", len(pods), err, want)
		}
	}
}

func TestFind(t *testing.T) {
	file := kubeconfig(t, "https://127.0.0.1:1", map[string]string{"a": "{}", "b": "{}"}, "a")
	nothing := kubeconfig(t, "https://127.0.0.1:1", map[string]string{"a": "{}"}, "")
	for i, c := range []struct {
		options                  cluster.Options
		context, namespace, want string
	}{
		{cluster.Options{Kubeconfig: file}, "a", "team", ""},
		{cluster.Options{Kubeconfig: file, Context: "b", Namespace: "mine"}, "b", "mine", ""},
		{cluster.Options{Kubeconfig: file, Context: "c"}, "", "", `no context "c"; it has a, b`},
		{cluster.Options{Kubeconfig: nothing}, "", "", "no kubeconfig names a cluster"},
		{cluster.Options{Kubeconfig: nothing, Context: "a"}, "a", "team", ""},
		{cluster.Options{Kubeconfig: filepath.Join(t.TempDir(), "none")}, "", "", "no such file"},
	} {
		got, err := cluster.Find(c.options)
		if c.want != "" {
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%d: got %v, want %q", i, err, c.want)
			}
			continue
		}
		if err != nil || got.Context != c.context || got.Namespace != c.namespace {
			t.Errorf("%d: got %+v, %v", i, got, err)
		}
	}
	t.Setenv("KUBECONFIG", nothing)
	if _, err := cluster.Find(cluster.Options{}); !errors.Is(err, cluster.ErrNone) {
		t.Errorf("got %v, want %v", err, cluster.ErrNone)
	}
	t.Setenv("KUBECONFIG", strconv.Itoa(1))
	if _, err := cluster.Find(cluster.Options{}); !errors.Is(err, cluster.ErrNone) {
		t.Errorf("without the file of KUBECONFIG: got %v, want %v", err, cluster.ErrNone)
	}
}
