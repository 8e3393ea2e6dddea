// Package e2esources runs sources against real servers. It is skipped unless MILLRACE_KAFKA_JARS names the folder with the
// jars of Apache Kafka, as `make e2e-sources` sees to.
package e2esources

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"millrace.dev/test/harness"
)

// Kafka is one real broker in KRaft mode, on loopback.
type Kafka struct {
	// Plain is the address without authentication, Secure that with TLS and SCRAM for alice, whose password is hush.
	Plain, Secure string
	// CA is the certification authority of Secure, in PEM format.
	CA string

	jars, dir string
	process   *harness.Process
}

// StartKafka formats a store and starts a broker on it.
func StartKafka(t testing.TB) *Kafka {
	t.Helper()
	jars := os.Getenv("MILLRACE_KAFKA_JARS")
	if jars == "" {
		t.Skip("MILLRACE_KAFKA_JARS is not set: run make e2e-sources")
	}
	address := func() string { return fmt.Sprintf("127.0.0.1:%d", harness.FreePort(t)) }
	k := &Kafka{Plain: address(), Secure: address(), jars: jars, dir: t.TempDir()}
	k.CA = writeCertificate(t, filepath.Join(k.dir, "server.pem"))
	harness.WriteFile(t, k.config(), k.properties(address()))
	format := k.java(t.Context(), "kafka.tools.StorageTool", "format", "--cluster-id", "AAAAAAAAAAAAAAAAAAAAAQ", "--config", k.config(),
		"--add-scram", "SCRAM-SHA-512=[name=alice,password=hush]")
	if out, err := format.CombinedOutput(); err != nil {
		t.Fatalf("format the store of Kafka: %v\n%s", err, out)
	}
	k.Start(t)
	return k
}

func (k *Kafka) config() string { return filepath.Join(k.dir, "server.properties") }

func (k *Kafka) properties(controller string) string {
	return strings.Join([]string{
		"process.roles=broker,controller", "node.id=1", "controller.quorum.voters=1@" + controller,
		"listeners=PLAINTEXT://" + k.Plain + ",SASL_SSL://" + k.Secure + ",CONTROLLER://" + controller,
		"advertised.listeners=PLAINTEXT://" + k.Plain + ",SASL_SSL://" + k.Secure,
		"controller.listener.names=CONTROLLER", "inter.broker.listener.name=PLAINTEXT",
		"listener.security.protocol.map=PLAINTEXT:PLAINTEXT,SASL_SSL:SASL_SSL,CONTROLLER:PLAINTEXT",
		"sasl.enabled.mechanisms=SCRAM-SHA-512",
		"listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;",
		"ssl.keystore.type=PEM", "ssl.keystore.location=" + filepath.Join(k.dir, "server.pem"),
		"log.dirs=" + filepath.Join(k.dir, "data"), "auto.create.topics.enable=false", "group.initial.rebalance.delay.ms=0",
		"offsets.topic.replication.factor=1", "offsets.topic.num.partitions=4",
		"transaction.state.log.replication.factor=1", "transaction.state.log.min.isr=1", "transaction.state.log.num.partitions=2",
		"share.coordinator.state.topic.replication.factor=1", "share.coordinator.state.topic.min.isr=1",
		"log.cleaner.dedupe.buffer.size=16777216", // the default does not fit into the small heap
	}, "\n") + "\n"
}

func (k *Kafka) java(ctx context.Context, class string, args ...string) *exec.Cmd {
	return exec.CommandContext(ctx, "java", k.arguments(class, args...)...)
}

func (k *Kafka) arguments(class string, args ...string) []string {
	return append([]string{"-Xmx512m", "-Xms256m", "-cp", filepath.Join(k.jars, "*"), class}, args...)
}

// Start starts the broker, which may have been killed before, and waits until it answers.
func (k *Kafka) Start(t testing.TB) {
	t.Helper()
	java, err := exec.LookPath("java")
	if err != nil {
		t.Fatal(err)
	}
	k.process = harness.Start(t, java, k.arguments("kafka.Kafka", k.config())...)
	client := k.Client(t)
	harness.Eventually(t, "Kafka answers", func() error {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		_, err := kadm.NewClient(client).ListTopics(ctx)
		return err
	})
}

// Kill ends the broker without warning.
func (k *Kafka) Kill() { k.process.Kill() }

// Client returns a client that writes to the partitions that records name.
func (k *Kafka) Client(t testing.TB) *kgo.Client {
	t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(k.Plain), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.RecordDeliveryTimeout(time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return client
}

// Create makes a topic.
func (k *Kafka) Create(t testing.TB, topic string, partitions int32) {
	t.Helper()
	if _, err := kadm.NewClient(k.Client(t)).CreateTopic(t.Context(), partitions, 1, nil, topic); err != nil {
		t.Fatal(err)
	}
}

// writeCertificate writes a key and a certificate for 127.0.0.1 and returns the authority that signed it: itself.
func writeCertificate(t testing.TB, path string) (ca string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "kafka"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	certificate, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	ca = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate}))
	harness.WriteFile(t, path, string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}))+ca)
	return ca
}
