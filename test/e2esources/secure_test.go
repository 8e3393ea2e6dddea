package e2esources

import (
	"encoding/base64"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"millrace.dev/test/harness"
)

// secured is a KafkaSource and its Secret.
type secured struct {
	name, server string
	// mechanism, if set, has it log in as user.
	mechanism, user, password string
	// ca is whom it trusts, cert and key, if set, are its own.
	ca, cert, key string
}

// write writes the manifests of the source, whose events go to a path that is its name.
func (s *secured) write(t *testing.T, dir, sink string) {
	t.Helper()
	net := "    tls:\n      enable: true\n" + secretRef("caCert")
	if s.cert != "" {
		net += secretRef("cert") + secretRef("key")
	}
	if s.mechanism != "" {
		net += "    sasl:\n      enable: true\n" + secretRef("type") + secretRef("user") + secretRef("password")
	}
	values := ""
	for key, value := range map[string]string{
		"type": s.mechanism, "user": s.user, "password": s.password, "caCert": s.ca, "cert": s.cert, "key": s.key,
	} {
		values += fmt.Sprintf("  %s: %q\n", key, value)
	}
	harness.WriteFile(t, filepath.Join(dir, s.name+".yaml"), strings.ReplaceAll(fmt.Sprintf(`
apiVersion: sources.knative.dev/v1
kind: KafkaSource
metadata: {name: NAME}
spec:
  bootstrapServers: ["%s"]
  topics: [secure]
  consumerGroup: NAME
  initialOffset: earliest
  sink: {uri: "%s/NAME"}
  net:
%s---
apiVersion: v1
kind: Secret
metadata: {name: NAME}
stringData:
%s`, s.server, sink, net, values), "NAME", s.name))
}

func secretRef(field string) string {
	return fmt.Sprintf("      %[1]s: {secretKeyRef: {name: NAME, key: %[1]s}}\n", field)
}

// TestSecure reads from a Kafka that asks who is there.
func TestSecure(t *testing.T) {
	t.Parallel()
	k := StartKafka(t)
	k.Create(t, "secure", 1)
	client := k.Client(t)
	for range 10 {
		if err := client.ProduceSync(t.Context(), &kgo.Record{Topic: "secure", Value: []byte("x")}).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	t.Run("corrected", func(t *testing.T) { correct(t, k) })
	t.Run("each way", func(t *testing.T) { logIn(t, k) })
	t.Run("rights", func(t *testing.T) { grant(t, k) })
}

// correct has the source say what is wrong with a password and with a certificate, until it is corrected in the Secret.
func correct(t *testing.T, k *Kafka) {
	ledger, dir := harness.NewLedger(t), t.TempDir()
	s := secured{name: "corrected", server: k.Secure, mechanism: "SCRAM-SHA-512", user: "alice", password: "loud", ca: k.CA}
	s.write(t, dir, ledger.URL)
	dev := harness.StartDev(t, t.TempDir(), dir)
	waitOutput(t, dev, "Not ready  AuthenticationFailed")
	s.password = "hush"
	_, s.ca = newCertificate(t, "kafka")
	s.write(t, dir, ledger.URL)
	waitOutput(t, dev, "Not ready  TLSFailed")
	s.ca = k.CA
	s.write(t, dir, ledger.URL)
	waitOutput(t, dev, "Ready      -> ")
	ledger.WaitQuiet(t, 10, 300*time.Millisecond)
	if strings.Contains(dev.Out.String(), "hush") || strings.Contains(dev.Out.String(), "loud") {
		t.Error("the password is printed")
	}
}

// logIn has a source for each way to say who one is.
func logIn(t *testing.T, k *Kafka) {
	ledger, dir := harness.NewLedger(t), t.TempDir()
	now := time.Now()
	sources := []secured{
		{name: "plain", server: k.Secure, mechanism: "PLAIN", user: "alice", password: "hush", ca: k.CA},
		{name: "scram-256", server: k.Secure, mechanism: "SCRAM-SHA-256", user: "alice", password: "hush", ca: k.CA},
		{name: "scram-512", server: k.Secure, mechanism: "SCRAM-SHA-512", user: "alice", password: "hush", ca: k.CA},
		{name: "oauth", server: k.Secure, mechanism: "OAUTHBEARER", password: token("alice", now, now.Add(time.Hour)), ca: k.CA},
		{name: "certificate", server: k.Mutual, ca: k.CA, cert: k.ClientCert, key: k.ClientKey},
	}
	refused := []secured{
		{name: "other-token", server: k.Secure, mechanism: "OAUTHBEARER", password: token("alice", now.Add(-2*time.Hour), now.Add(-time.Hour)), ca: k.CA},
		{name: "no-certificate", server: k.Mutual, ca: k.CA},
	}
	for _, s := range append(sources, refused...) {
		s.write(t, dir, ledger.URL)
	}
	dev := harness.StartDev(t, t.TempDir(), dir)
	waitOutput(t, dev, fmt.Sprintf("Source  %-32s Not ready  AuthenticationFailed", "default/other-token"))
	waitOutput(t, dev, fmt.Sprintf("Source  %-32s Not ready  TLSFailed", "default/no-certificate"))
	ledger.WaitQuiet(t, 10*len(sources), 300*time.Millisecond)
	for _, s := range sources {
		if got := len(ledger.Path("/" + s.name)); got != 10 {
			t.Errorf("%s: %d of 10 records came", s.name, got)
		}
	}
}

// token is one that nobody has signed, which Kafka takes unless told otherwise.
func token(user string, from, until time.Time) string {
	part := base64.RawURLEncoding.EncodeToString
	return part([]byte(`{"alg":"none"}`)) + "." +
		part(fmt.Appendf(nil, `{"sub":"%s","iat":%d,"exp":%d}`, user, from.Unix(), until.Unix())) + "."
}

// grant has the source say which right its user lacks, until it has all.
func grant(t *testing.T, k *Kafka) {
	ledger, dir := harness.NewLedger(t), t.TempDir()
	s := secured{name: "bobs", server: k.Secure, mechanism: "SCRAM-SHA-512", user: "bob", password: "hush", ca: k.CA}
	s.write(t, dir, ledger.URL)
	admin := kadm.NewClient(k.Client(t))
	allow := func(rule *kadm.ACLBuilder) {
		t.Helper()
		results, err := admin.CreateACLs(t.Context(), rule.Allow("User:bob").AllowHosts())
		if err != nil || results[0].Err != nil {
			t.Fatal(err, results)
		}
	}
	dev := harness.StartDev(t, t.TempDir(), dir)
	waitOutput(t, dev, "Not ready  NotAuthorized: allow the user the operation READ on the topics")
	allow(kadm.NewACLs().Topics("secure").ResourcePatternType(kadm.ACLPatternLiteral).Operations(kadm.OpDescribe))
	waitOutput(t, dev, "Not ready  NotAuthorized: allow the user the operation READ on the consumer group bobs")
	allow(kadm.NewACLs().Groups("bobs").ResourcePatternType(kadm.ACLPatternLiteral).Operations(kadm.OpRead))
	waitOutput(t, dev, "Not ready  NotAuthorized: allow the user the operation READ on the topics: fetch from topic secure")
	allow(kadm.NewACLs().Topics("secure").ResourcePatternType(kadm.ACLPatternLiteral).Operations(kadm.OpRead))
	ledger.WaitQuiet(t, 10, 300*time.Millisecond)
	waitOutput(t, dev, "Ready      -> ")
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
