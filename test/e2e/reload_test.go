package e2e

import (
	"bytes"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"millrace.dev/test/harness"
)

// steadyTriggers and the changing one are served by the same Broker.
const steadyManifest = `
apiVersion: eventing.knative.dev/v1
kind: Broker
metadata: {name: b}
---
apiVersion: eventing.knative.dev/v1
kind: Trigger
metadata: {name: all}
spec:
  broker: b
  subscriber: {uri: %[1]s/all}
---
apiVersion: eventing.knative.dev/v1
kind: Trigger
metadata: {name: even}
spec:
  broker: b
  filters: [{cel: 'int(ce.number) %% 2 == 0'}]
  subscriber: {uri: %[1]s/even}
`

const changingManifest = `
apiVersion: eventing.knative.dev/v1
kind: Trigger
metadata: {name: changing-%[2]d}
spec:
  broker: b
  filters: [{prefix: {type: %[3]s}}]
  subscriber: {uri: %[1]s/changing}
`

// post sends count events at the given rate by several connections, each until it is accepted.
func postAtRate(t *testing.T, broker string, count, perSecond int) {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}}
	defer client.CloseIdleConnections()
	numbers := make(chan int)
	var wg sync.WaitGroup
	for range 32 {
		wg.Go(func() {
			for n := range numbers {
				if err := postNumber(t, client, broker, n); err != nil {
					t.Errorf("event %d: %v", n, err)
				}
			}
		})
	}
	start := time.Now()
	for n := range count {
		time.Sleep(time.Until(start.Add(time.Duration(n) * time.Second / time.Duration(perSecond))))
		numbers <- n
	}
	close(numbers)
	wg.Wait()
	t.Logf("posted %d events in %s, %.0f a second", count, time.Since(start).Round(time.Millisecond), float64(count)/time.Since(start).Seconds())
}

func postNumber(t *testing.T, client *http.Client, broker string, n int) error {
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, broker, bytes.NewReader([]byte(`{"n":1}`)))
	if err != nil {
		return err
	}
	for k, v := range map[string]string{
		"Ce-Specversion": "1.0", "Ce-Id": strconv.Itoa(n), "Ce-Source": "/load", "Ce-Type": "com.example.load",
		"Ce-Number": strconv.Itoa(n), "Content-Type": "application/json",
	} {
		req.Header.Set(k, v)
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusAccepted {
		return fmt.Errorf("status %d", resp.StatusCode)
	}
	return nil
}

// 2,000 events a second while Triggers come, change and go: those untouched get each of their events exactly once.
func TestHotReloadUnderLoad(t *testing.T) {
	const count, rate = 12_000, 2_000
	ledger := harness.NewLedger(t)
	dir := t.TempDir()
	harness.WriteFile(t, filepath.Join(dir, "steady.yaml"), fmt.Sprintf(steadyManifest, ledger.URL))
	dev := harness.StartDev(t, t.TempDir(), dir)

	var done atomic.Bool
	var reloads int
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := 0; !done.Load(); i++ {
			path := filepath.Join(dir, fmt.Sprintf("changing-%d.yaml", i%3))
			switch i % 5 {
			case 4:
				_ = os.Remove(path)
			case 3:
				harness.WriteFile(t, path, "kind: Trigger\nmetadata: {name: half") // as if an editor were still writing
			default:
				harness.WriteFile(t, path, fmt.Sprintf(changingManifest, ledger.URL, i%3, "com.example"[:5+i%6]))
			}
			reloads++
			time.Sleep(150 * time.Millisecond) // longer than files must be quiet to be read, so each change counts
		}
	})
	postAtRate(t, dev.URL+"/default/b", count, rate)
	done.Store(true)
	wg.Wait()
	ledger.WaitQuiet(t, count+count/2, time.Second)
	checkExactlyOnce(t, ledger, count)
	if len(ledger.Path("/changing")) == 0 {
		t.Error("the changing triggers never got an event: the reloads had no effect")
	}
	t.Logf("%d file changes, %d events to the changing triggers", reloads, len(ledger.Path("/changing")))
}

func checkExactlyOnce(t *testing.T, ledger *harness.Ledger, count int) {
	t.Helper()
	all, even := ledger.Path("/all"), ledger.Path("/even")
	for n := range count {
		id := strconv.Itoa(n)
		if all[id] != 1 {
			t.Errorf("event %d came %d times to the trigger for all", n, all[id])
		}
		if want := 1 - n%2; even[id] != want {
			t.Errorf("event %d came %d times to the trigger for even numbers, want %d", n, even[id], want)
		}
		if t.Failed() {
			return
		}
	}
}

// What was accepted before a stop is delivered after the start, once.
func TestRestartResumesWithWhatWasStored(t *testing.T) {
	const count = 400
	ledger := harness.NewLedger(t)
	dir, data := t.TempDir(), t.TempDir()
	file := filepath.Join(dir, "steady.yaml")
	// At first nobody listens at the subscribers' address.
	harness.WriteFile(t, file, fmt.Sprintf(steadyManifest, "http://127.0.0.1:"+strconv.Itoa(harness.FreePort(t))))
	dev := harness.StartDev(t, data, dir)
	postAtRate(t, dev.URL+"/default/b", count, 2_000)
	dev.Stop(t)
	if n := ledger.Total(); n != 0 {
		t.Fatalf("%d deliveries before the subscriber was there", n)
	}
	harness.WriteFile(t, file, fmt.Sprintf(steadyManifest, ledger.URL))
	harness.StartDev(t, data, dir)
	ledger.WaitQuiet(t, count+count/2, time.Second)
	checkExactlyOnce(t, ledger, count)
}

// A stop in the middle of deliveries finishes them and repeats none.
func TestStopFinishesWhatIsUnderWay(t *testing.T) {
	const count = 3_000
	ledger := harness.NewLedger(t)
	dir, data := t.TempDir(), t.TempDir()
	harness.WriteFile(t, filepath.Join(dir, "steady.yaml"), fmt.Sprintf(steadyManifest, ledger.URL))
	for round := range 3 {
		dev := harness.StartDev(t, data, dir)
		var wg sync.WaitGroup
		wg.Go(func() { postRange(t, dev.URL+"/default/b", round*count/3, (round+1)*count/3) })
		wg.Wait()
		dev.Stop(t) // at once, with deliveries under way
	}
	harness.StartDev(t, data, dir)
	ledger.WaitQuiet(t, count+count/2, time.Second)
	checkExactlyOnce(t, ledger, count)
}

func postRange(t *testing.T, broker string, from, to int) {
	client := &http.Client{}
	defer client.CloseIdleConnections()
	for n := from; n < to; n++ {
		if err := postNumber(t, client, broker, n); err != nil {
			t.Errorf("event %d: %v", n, err)
			return
		}
	}
}

func TestSecondProcessOnTheSameDataIsRefused(t *testing.T) {
	dir, data := t.TempDir(), t.TempDir()
	harness.WriteFile(t, filepath.Join(dir, "b.yaml"), "apiVersion: eventing.knative.dev/v1\nkind: Broker\nmetadata: {name: b}\n")
	harness.StartDev(t, data, dir)
	err := harness.TryDev(t, data, dir)
	if err == nil || !strings.Contains(err.Error(), "in use by another process") {
		t.Errorf("got %v", err)
	}
}
