package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"millrace.dev/test/harness"
)

// pauseVariable sets for how long a Trigger is paused, as a duration of Go.
const pauseVariable = "MILLRACE_PAUSE"

// 1,000 events a second while a Trigger is paused: it gets none, another all at once, and once it is resumed it gets every one of them
// exactly once.
func TestPauseUnderLoadLosesNothing(t *testing.T) {
	const rate = 1000
	pause := 3 * time.Second
	if d, err := time.ParseDuration(os.Getenv(pauseVariable)); err == nil {
		pause = d
	}
	count := int(pause.Seconds() * rate)
	ledger := harness.NewLedger(t)
	file := filepath.Join(t.TempDir(), "steady.yaml")
	manifests := fmt.Sprintf(steadyManifest, ledger.URL)
	harness.WriteFile(t, file, strings.Replace(manifests, "{name: all}", `{name: all, annotations: {millrace.dev/paused: "true"}}`, 1))
	dev := harness.StartDev(t, t.TempDir(), file)

	postAtRate(t, dev.URL+"/default/b", count, rate)
	ledger.WaitQuiet(t, count/2, time.Second)
	if n := len(ledger.Path("/all")); n != 0 {
		t.Errorf("while it was paused, the Trigger got %d events", n)
	}
	if n := len(ledger.Path("/even")); n != count/2 {
		t.Errorf("the other got %d events, want %d", n, count/2)
	}

	harness.WriteFile(t, file, manifests)
	ledger.WaitQuiet(t, count+count/2, 2*time.Second)
	checkExactlyOnce(t, ledger, count)
}
