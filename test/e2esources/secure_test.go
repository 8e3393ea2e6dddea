package e2esources

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"millrace.dev/test/harness"
)

const secureManifest = `
apiVersion: sources.knative.dev/v1
kind: KafkaSource
metadata: {name: secure}
spec:
  bootstrapServers: ["%[1]s"]
  topics: [secure]
  initialOffset: earliest
  net:
    sasl:
      enable: true
      type: {secretKeyRef: {name: kafka, key: type}}
      user: {secretKeyRef: {name: kafka, key: user}}
      password: {secretKeyRef: {name: kafka, key: password}}
    tls:
      enable: true
      caCert: {secretKeyRef: {name: kafka, key: ca.crt}}
  sink: {uri: "%[2]s/secure"}
`

const secretManifest = `
apiVersion: v1
kind: Secret
metadata: {name: kafka}
stringData:
  type: SCRAM-SHA-512
  user: alice
  password: %s
  ca.crt: |
    %s
`

// TestSecure logs in by SCRAM through TLS, and says what is wrong with a password and with a certificate until it is
// corrected in the Secret.
func TestSecure(t *testing.T) {
	t.Parallel()
	k := StartKafka(t)
	k.Create(t, "secure", 1)
	ledger := harness.NewLedger(t)
	dir := t.TempDir()
	secret := func(password, ca string) {
		harness.WriteFile(t, filepath.Join(dir, "secret.yaml"), fmt.Sprintf(secretManifest, password, strings.ReplaceAll(strings.TrimSpace(ca), "\n", "\n    ")))
	}
	secret("loud", k.CA)
	harness.WriteFile(t, filepath.Join(dir, "source.yaml"), fmt.Sprintf(secureManifest, k.Secure, ledger.URL))
	dev := harness.StartDev(t, t.TempDir(), dir)
	waitOutput(t, dev, "Not ready  AuthenticationFailed")
	secret("hush", writeCertificate(t, filepath.Join(t.TempDir(), "other.pem")))
	waitOutput(t, dev, "Not ready  TLSFailed")
	secret("hush", k.CA)
	waitOutput(t, dev, "Ready      -> ")
	client := k.Client(t)
	for range 10 {
		if err := client.ProduceSync(t.Context(), &kgo.Record{Topic: "secure", Value: []byte("x")}).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	ledger.WaitQuiet(t, 10, 300*time.Millisecond)
	if got := len(ledger.Path("/secure")); got != 10 || ledger.Total() != 10 {
		t.Errorf("%d events came in %d requests, want 10", got, ledger.Total())
	}
}

func waitOutput(t *testing.T, dev *harness.Dev, text string) {
	t.Helper()
	harness.Eventually(t, "dev mode prints "+text, func() error {
		if !strings.Contains(dev.Out.String(), text) {
			return fmt.Errorf("it printed %s", dev.Out)
		}
		return nil
	})
}
