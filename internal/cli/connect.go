package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"millrace.dev/internal/adminapi"
	"millrace.dev/internal/cli/cluster"
	"millrace.dev/internal/cli/terminal"
	"millrace.dev/internal/cmdline"
)

// These flags have environment variables; other flags have none: a forgotten one would change what is purged.
const (
	adminURLFlag       = "admin-url"
	adminTokenFileFlag = "admin-token-file"
	serviceAccountFlag = "service-account"
	systemFlag         = "system-namespace"
)

// Names of flags that are as kubectl's.
const (
	contextFlag       = "context"
	kubeconfigFlag    = "kubeconfig"
	namespaceFlag     = "namespace"
	allNamespacesFlag = "all-namespaces"
)

// devURL is where the admin port of millrace dev is. Tests change it.
var devURL = "http://127.0.0.1:8081"

// probeTimeout bounds the look whether millrace dev runs here.
const probeTimeout = 500 * time.Millisecond

// defaultNamespace is the one of names without a namespace, where no kubeconfig says otherwise.
const defaultNamespace = "default"

// adminFlags lead to an admin API, and say how its answers are printed.
type adminFlags struct {
	adminURL, tokenFile string
	kube                cluster.Options
	all                 bool
	output              string
	formats             []string // that output may be
	// changes says that the command changes something.
	changes bool

	// home is the namespace of names without one, once there is a client.
	home string
	// tried says what was looked at before, or where the admin API is, for errors.
	tried string
}

func (f *adminFlags) register(cmd *cobra.Command, formats ...string) {
	f.registerWay(cmd, formats...)
	flags := cmd.Flags()
	flags.BoolVarP(&f.all, allNamespacesFlag, "A", false, "look in all namespaces")
	flags.StringVar(&f.kube.ServiceAccount, serviceAccountFlag, "", "act as this ServiceAccount, `namespace/name`, where the context's user has no token")
	flags.StringVar(&f.kube.SystemNamespace, systemFlag, cluster.DefaultSystemNamespace, "`namespace` that Millrace runs in")
}

// registerWay adds the flags of a command that in a cluster speaks to the API server alone.
func (f *adminFlags) registerWay(cmd *cobra.Command, formats ...string) {
	flags := cmd.Flags()
	flags.StringVar(&f.adminURL, adminURLFlag, "", "`URL` of the admin port of millrace dev or of a filter (default "+devURL+" if millrace dev runs there, or else the cluster)")
	flags.StringVar(&f.tokenFile, adminTokenFileFlag, "", "`file` with the bearer token to send to --"+adminURLFlag)
	flags.StringVar(&f.kube.Context, contextFlag, "", "`name` of the kubeconfig's context: look in that cluster")
	flags.StringVar(&f.kube.Kubeconfig, kubeconfigFlag, "", "kubeconfig `file`: look in its cluster (default that of KUBECONFIG, or ~/.kube/config)")
	flags.StringVarP(&f.kube.Namespace, namespaceFlag, "n", "", "`namespace` to look in (default that of the context; all of millrace dev)")
	f.formats = append([]string{"table", "json", "yaml"}, formats...)
	flags.StringVarP(&f.output, "output", "o", "table", anyOf(f.formats))
}

// anyOf lists alternatives.
func anyOf(words []string) string {
	last := len(words) - 1
	return strings.Join(words[:last], ", ") + " or " + words[last]
}

// client returns the client of the admin API that the flags, or the environment, lead to.
func (f *adminFlags) client(cmd *cobra.Command) (*adminapi.Client, error) {
	in, err := f.way(cmd)
	switch {
	case err != nil:
		return nil, err
	case in == nil:
		return f.ofURL()
	default:
		return f.ofCluster(cmd, in)
	}
}

// way finds where the flags, or the environment, lead to: a cluster, or else the admin port at f.adminURL.
func (f *adminFlags) way(cmd *cobra.Command) (*cluster.Cluster, error) {
	if !slices.Contains(f.formats, f.output) {
		return nil, usageErrorf("--output %q is not known; write %s", f.output, anyOf(f.formats))
	}
	changed := cmd.Flags().Changed
	if f.all && f.kube.Namespace != "" {
		return nil, usageErrorf("--%s does not go with --%s; leave out one of them", allNamespacesFlag, namespaceFlag)
	}
	inCluster := changed(contextFlag) || changed(kubeconfigFlag) || changed(serviceAccountFlag) || changed(systemFlag)
	if inCluster && changed(adminURLFlag) {
		return nil, usageErrorf("--%s leads to an admin port, --%s and the like to a cluster; leave out one of them", adminURLFlag, contextFlag)
	}
	if err := f.environment(cmd, inCluster); err != nil {
		return nil, err
	}
	switch {
	case inCluster:
		return f.find(cmd, true)
	case f.adminURL != "":
		return nil, nil //nolint:nilnil // as is said above
	case !isPlugin(cmd):
		err := probe(cmd.Context(), devURL)
		if err == nil {
			f.adminURL = devURL
			return nil, nil //nolint:nilnil // as is said above
		}
		f.tried = fmt.Sprintf("no millrace dev runs here (%v)", err)
	}
	return f.find(cmd, isPlugin(cmd))
}

// environment takes from the environment what no flag says.
func (f *adminFlags) environment(cmd *cobra.Command, inCluster bool) error {
	names := []string{serviceAccountFlag, systemFlag}
	if !inCluster {
		names = append(names, adminURLFlag, adminTokenFileFlag)
	}
	for _, name := range names {
		flag := cmd.Flags().Lookup(name)
		if value := os.Getenv(cmdline.EnvName(name)); value != "" && flag != nil && !flag.Changed {
			if err := flag.Value.Set(value); err != nil {
				return usageErrorf("%s: %w", cmdline.EnvName(name), err)
			}
		}
	}
	return nil
}

func (f *adminFlags) ofURL() (*adminapi.Client, error) {
	if err := validateURL(f.adminURL); err != nil {
		return nil, fmt.Errorf("--%s: %w", adminURLFlag, err)
	}
	f.home, f.tried = cmp.Or(f.kube.Namespace, defaultNamespace), ""
	c := &adminapi.Client{URL: f.adminURL, Namespace: f.kube.Namespace, HTTP: &http.Client{
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
	if f.tokenFile == "" {
		return c, nil
	}
	c.Token = func(context.Context) (string, error) {
		text, err := os.ReadFile(f.tokenFile) // anew: tokens that are mounted change
		if err != nil {
			return "", fmt.Errorf("--%s: %w", adminTokenFileFlag, err)
		}
		return strings.TrimSpace(string(text)), nil
	}
	return c, nil
}

// find returns the cluster of the kubeconfig. named says that somebody asked for it.
func (f *adminFlags) find(cmd *cobra.Command, named bool) (*cluster.Cluster, error) {
	found, err := cluster.Find(f.kube)
	switch {
	case errors.Is(err, cluster.ErrNone) && f.tried != "":
		return nil, fmt.Errorf("%s, and %w; start millrace dev, or give --%s, or --%s and --%s", f.tried, err, adminURLFlag, kubeconfigFlag, contextFlag)
	case errors.Is(err, cluster.ErrNone):
		return nil, fmt.Errorf("%w; give --%s or --%s", err, kubeconfigFlag, contextFlag)
	case err != nil:
		return nil, err
	case f.changes && !named:
		// A dev mode that has stopped must not make its command one for whatever cluster is current.
		return nil, fmt.Errorf("%s; to change something in the cluster of context %q, name it with --%s", f.tried, found.Context, contextFlag)
	}
	if f.home = found.Namespace; !named && terminal.Interactive(cmd.ErrOrStderr()) {
		namespace := found.Namespace
		if f.all {
			namespace = "all"
		}
		style := terminal.StyleFor(cmd.ErrOrStderr())
		fmt.Fprintln(cmd.ErrOrStderr(), style.Dim(fmt.Sprintf("Context %s, namespace %s.", found.Context, namespace)))
	}
	return found, nil
}

// ofCluster leads to a filter of the cluster.
func (f *adminFlags) ofCluster(cmd *cobra.Command, in *cluster.Cluster) (*adminapi.Client, error) {
	url, client, err := in.Connect(cmd.Context())
	if err != nil {
		return nil, f.unconnected(err)
	}
	return f.ofFilter(in, url, client), nil
}

// clients returns one for each filter of the cluster, or that of the admin port that the flags lead to, and how many filters there are.
func (f *adminFlags) clients(cmd *cobra.Command) (all []*adminapi.Client, filters int, _ error) {
	in, err := f.way(cmd)
	if err != nil {
		return nil, 0, err
	}
	if in == nil {
		c, err := f.ofURL()
		return []*adminapi.Client{c}, 1, err
	}
	urls, filters, client, err := in.ConnectAll(cmd.Context())
	if err != nil {
		return nil, 0, f.unconnected(err)
	}
	for _, url := range urls {
		all = append(all, f.ofFilter(in, url, client))
	}
	return all, filters, nil
}

func (f *adminFlags) unconnected(err error) error {
	if f.tried != "" {
		return fmt.Errorf("%s, and in the cluster: %w", f.tried, err)
	}
	return err
}

func (f *adminFlags) ofFilter(in *cluster.Cluster, url string, client *http.Client) *adminapi.Client {
	f.tried = fmt.Sprintf("in the cluster of context %q", in.Context)
	c := &adminapi.Client{URL: url, HTTP: client, Namespace: in.Namespace}
	if f.all {
		c.Namespace = ""
	}
	return c
}

// probe looks whether an admin API answers at the URL.
func probe(ctx context.Context, url string) error {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url+adminapi.Prefix, nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("nothing answers at %s", url)
	}
	defer resp.Body.Close()
	if media, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type")); media != "application/problem+json" {
		return fmt.Errorf("what answers at %s is something else", url)
	}
	return nil
}

// qualify completes a name without a namespace. UIDs are left as they are.
func (f *adminFlags) qualify(name string) string {
	if _, err := uuid.Parse(name); name == "" || err == nil || strings.Contains(name, "/") {
		return name
	}
	return f.home + "/" + name
}

// explain says what to do about an error of the client.
func (f *adminFlags) explain(err error) error {
	var problem *adminapi.Problem
	var own *exitError
	var noToken *cluster.NoTokenError
	switch {
	case err == nil, errors.As(err, &own), errors.Is(err, adminapi.ErrCutOff):
		return err
	case errors.As(err, &problem):
		return problem
	case errors.As(err, &noToken):
		return noToken
	case errors.Is(err, context.Canceled) && f.changes:
		return errors.New("interrupted; what was not done yet is still parked")
	case errors.Is(err, context.Canceled):
		return errors.New("interrupted")
	case errors.Is(err, adminapi.ErrUnreachable) && f.tried != "":
		return fmt.Errorf("%w, %s; run it again: the filter may have been replaced", err, f.tried)
	case errors.Is(err, adminapi.ErrUnreachable):
		return fmt.Errorf("%w; is millrace dev running? If it is, give its admin port with --%s or %s, or a cluster with --%s",
			err, adminURLFlag, cmdline.EnvName(adminURLFlag), contextFlag)
	default:
		return err
	}
}

// pluginPrefix is how the name of a program begins that kubectl finds as its command.
const pluginPrefix = "kubectl-"

// programName is how people call a program of this path.
func programName(path string) string {
	name := strings.TrimSuffix(filepath.Base(path), ".exe")
	if plugin, ok := strings.CutPrefix(name, pluginPrefix); ok {
		return "kubectl " + strings.ReplaceAll(plugin, "_", "-")
	}
	return "millrace"
}

// isPlugin says whether the program is a command of kubectl, and so for a cluster unless told otherwise.
func isPlugin(cmd *cobra.Command) bool {
	return strings.HasPrefix(cmd.Root().Annotations[cobra.CommandDisplayNameAnnotation], "kubectl ")
}
