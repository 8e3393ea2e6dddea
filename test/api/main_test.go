// Package api tests Millrace against a real Kubernetes API: what its CRDs accept, what the controller makes of objects,
// and what reaches the data plane. Run it with make test-api.
package api

import (
	"flag"
	"fmt"
	"os"
	"testing"

	"millrace.dev/test/cluster"
)

// kube is the cluster of all tests of this package.
var kube *cluster.Cluster

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	if !cluster.Available() {
		return m.Run()
	}
	c, err := cluster.Start()
	kube = c
	code := 1
	if err == nil {
		code = m.Run()
	}
	if everything := flag.Lookup("test.run").Value.String() == ""; everything && code == 0 {
		err = checkRightsAreUsed(c)
	}
	for _, err := range []error{err, c.Stop()} {
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	return code
}

// needsCluster skips a test where there is no Kubernetes API.
func needsCluster(t *testing.T) {
	t.Helper()
	if kube == nil {
		t.Skip("no cluster: run make test-api, or set KUBECONFIG")
	}
}
