// Package e2esources runs sources against real servers. It is skipped unless MILLRACE_KAFKA_JARS names the folder with the
// jars of Apache Kafka, and MILLRACE_ROCKETMQ_JARS those of
// Apache RocketMQ, as `make e2e-sources` sees to.
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
	// Plain is the address without authentication, where everything is allowed. Secure is that with TLS and SASL: for alice, who may do
	// everything, and by SCRAM-SHA-512 for bob, who may do nothing; the password of both is hush. Mutual is that with TLS for clients that
	// have the certificate ClientCert and its key ClientKey.
	Plain, Secure, Mutual string
	// CA is the certification authority of Secure and Mutual. It and the certificate are in PEM format.
	CA, ClientCert, ClientKey string

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
	k := &Kafka{Plain: address(), Secure: address(), Mutual: address(), jars: jars, dir: t.TempDir()}
	key, certificate := newCertificate(t, "kafka")
	harness.WriteFile(t, filepath.Join(k.dir, "server.pem"), key+certificate)
	k.CA = certificate
	k.ClientKey, k.ClientCert = newCertificate(t, "client")
	harness.WriteFile(t, filepath.Join(k.dir, "clients.pem"), k.ClientCert)
	harness.WriteFile(t, k.config(), k.properties(address()))
	format := k.java(t.Context(), "kafka.tools.StorageTool", "format", "--cluster-id", "AAAAAAAAAAAAAAAAAAAAAQ", "--config", k.config(),
		"--add-scram", "SCRAM-SHA-256=[name=alice,password=hush]", "--add-scram", "SCRAM-SHA-512=[name=alice,password=hush]",
		"--add-scram", "SCRAM-SHA-512=[name=bob,password=hush]")
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
		"listeners=PLAINTEXT://" + k.Plain + ",SASL_SSL://" + k.Secure + ",SSL://" + k.Mutual + ",CONTROLLER://" + controller,
		"advertised.listeners=PLAINTEXT://" + k.Plain + ",SASL_SSL://" + k.Secure + ",SSL://" + k.Mutual,
		"controller.listener.names=CONTROLLER", "inter.broker.listener.name=PLAINTEXT",
		"listener.security.protocol.map=PLAINTEXT:PLAINTEXT,SASL_SSL:SASL_SSL,SSL:SSL,CONTROLLER:PLAINTEXT",
		"sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512,OAUTHBEARER",
		jaas("plain", "plain.PlainLoginModule", `user_alice="hush"`),
		jaas("scram-sha-256", "scram.ScramLoginModule", ""), jaas("scram-sha-512", "scram.ScramLoginModule", ""),
		// Without further settings the broker takes tokens that nobody has signed. The claim is of the broker's own.
		jaas("oauthbearer", "oauthbearer.OAuthBearerLoginModule", `unsecuredLoginStringClaim_sub="kafka"`),
		"ssl.keystore.type=PEM", "ssl.keystore.location=" + filepath.Join(k.dir, "server.pem"),
		"ssl.truststore.type=PEM", "ssl.truststore.location=" + filepath.Join(k.dir, "clients.pem"), "listener.name.ssl.ssl.client.auth=required",
		"authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer", "super.users=User:ANONYMOUS;User:alice;User:CN=client",
		"log.dirs=" + filepath.Join(k.dir, "data"), "auto.create.topics.enable=false", "group.initial.rebalance.delay.ms=0",
		"offsets.topic.replication.factor=1", "offsets.topic.num.partitions=4",
		"transaction.state.log.replication.factor=1", "transaction.state.log.min.isr=1", "transaction.state.log.num.partitions=2",
		"share.coordinator.state.topic.replication.factor=1", "share.coordinator.state.topic.min.isr=1",
		"log.cleaner.dedupe.buffer.size=16777216", // the default does not fit into the small heap
	}, "\n") + "\n"
}

// jaas is the setting for a SASL mechanism of Secure.
func jaas(mechanism, module, options string) string {
	return "listener.name.sasl_ssl." + mechanism + ".sasl.jaas.config=org.apache.kafka.common.security." + module + " required " + options + ";"
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
func (k *Kafka) Client(t testing.TB, opts ...kgo.Opt) *kgo.Client {
	t.Helper()
	own := []kgo.Opt{kgo.SeedBrokers(k.Plain), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.RecordDeliveryTimeout(time.Minute)}
	client, err := kgo.NewClient(append(own, opts...)...)
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

// newCertificate returns a key and a certificate for 127.0.0.1 with the common name, which is its own authority, in PEM format.
func newCertificate(t testing.TB, name string) (key, certificate string) {
	t.Helper()
	pair, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &pair.PublicKey, pair)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(pair)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})),
		string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}
