package kafka_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/sasl"

	"millrace.dev/pkg/source"
	"millrace.dev/pkg/source/kafka"
)

// certificate returns a certificate that is good for 127.0.0.1, signed by itself.
func certificate(t *testing.T) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(parsed)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pool
}

// TestClientCertificate is let in with the certificate that the servers know, and told what is wrong without.
func TestClientCertificate(t *testing.T) {
	t.Parallel()
	server, serverPool := certificate(t)
	client, clientPool := certificate(t)
	stranger, strangerPool := certificate(t)
	c, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, "orders"), kfake.TLS(&tls.Config{
		Certificates: []tls.Certificate{server}, ClientCAs: clientPool, ClientAuth: tls.RequireAndVerifyClientCert,
	}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	config := func(own []tls.Certificate, roots *x509.CertPool) *tls.Config {
		return &tls.Config{Certificates: own, RootCAs: roots, MinVersion: tls.VersionTLS12}
	}
	r := &rig{t: t, cluster: c}
	for name, o := range map[string]struct {
		tls  *tls.Config
		want string
	}{
		"right":                  {config([]tls.Certificate{client}, serverPool), ""},
		"none":                   {config(nil, serverPool), source.ReasonTLSFailed},
		"one unknown to servers": {config([]tls.Certificate{stranger}, serverPool), source.ReasonTLSFailed},
		"servers unknown":        {config([]tls.Certificate{client}, strangerPool), source.ReasonTLSFailed},
		"no TLS":                 {nil, source.ReasonUnreachable},
	} {
		t.Run(name, func(t *testing.T) {
			options := r.options(&recorder{})
			options.TLS, options.Group = o.tls, name
			s := r.run(options)
			eventually(t, "the source is as it should be", func() bool {
				status := s.Status()
				return status.Reason == o.want && status.Ready == (o.want == "")
			})
			s.stop()
		})
	}
}

// TestOAuthBearer sends the token as RFC 7628 says.
func TestOAuthBearer(t *testing.T) {
	t.Parallel()
	r := start(t, kfake.SeedTopics(1, "orders"))
	r.cluster.ControlKey(int16(kmsg.SASLHandshake), func(req kmsg.Request) (kmsg.Response, error, bool) {
		r.cluster.KeepControl()
		answer := req.ResponseKind().(*kmsg.SASLHandshakeResponse)
		answer.SupportedMechanisms = []string{"OAUTHBEARER"}
		if req.(*kmsg.SASLHandshakeRequest).Mechanism != "OAUTHBEARER" {
			answer.ErrorCode = kerr.UnsupportedSaslMechanism.Code
		}
		return answer, nil, true
	})
	r.cluster.ControlKey(int16(kmsg.SASLAuthenticate), func(req kmsg.Request) (kmsg.Response, error, bool) {
		r.cluster.KeepControl()
		answer := req.ResponseKind().(*kmsg.SASLAuthenticateResponse)
		if !bytes.Contains(req.(*kmsg.SASLAuthenticateRequest).SASLAuthBytes, []byte("\x01auth=Bearer s3cret\x01")) {
			answer.ErrorCode = kerr.SaslAuthenticationFailed.Code
		}
		return answer, nil, true
	})
	for name, c := range map[string]struct{ mechanism, token, want string }{
		"right":                 {"OAUTHBEARER", "s3cret", ""},
		"wrong token":           {"OAUTHBEARER", "other", source.ReasonAuthenticationFailed},
		"a mechanism not there": {"PLAIN", "s3cret", source.ReasonAuthenticationFailed},
	} {
		t.Run(name, func(t *testing.T) {
			o := r.options(&recorder{})
			mechanism, err := kafka.NewMechanism(c.mechanism, "alice", c.token)
			if err != nil {
				t.Fatal(err)
			}
			o.Mechanism, o.Group = mechanism, name
			s := r.run(o)
			eventually(t, "the source is as it should be", func() bool {
				status := s.Status()
				return status.Reason == c.want && status.Ready == (c.want == "")
			})
			if bytes.Contains([]byte(s.Status().Message), []byte(c.token)) {
				t.Error("the message tells the token")
			}
			s.stop()
		})
	}
}

// TestNotAuthorized says so, whichever right is missing, and works once it is given.
func TestNotAuthorized(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		key    int16
		answer func(kmsg.Request) kmsg.Response
	}{
		"of the group": {int16(kmsg.JoinGroup), func(req kmsg.Request) kmsg.Response {
			answer := req.ResponseKind().(*kmsg.JoinGroupResponse)
			answer.ErrorCode = kerr.GroupAuthorizationFailed.Code
			return answer
		}},
		"of the topic": {int16(kmsg.Metadata), func(req kmsg.Request) kmsg.Response {
			asked := req.(*kmsg.MetadataRequest)
			if len(asked.Topics) == 0 {
				return nil
			}
			answer := req.ResponseKind().(*kmsg.MetadataResponse)
			topic := kmsg.NewMetadataResponseTopic()
			topic.Topic, topic.ErrorCode = kmsg.StringPtr("orders"), kerr.TopicAuthorizationFailed.Code
			answer.Topics = append(answer.Topics, topic)
			return answer
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := start(t, kfake.SeedTopics(1, "orders"))
			allowed := make(chan struct{})
			r.cluster.ControlKey(c.key, func(req kmsg.Request) (kmsg.Response, error, bool) {
				select {
				case <-allowed:
					return nil, nil, false
				default:
				}
				r.cluster.KeepControl()
				answer := c.answer(req)
				return answer, nil, answer != nil
			})
			s := r.run(r.options(&recorder{}))
			eventually(t, "the reason is found", func() bool { return s.Status().Reason == source.ReasonNotAuthorized })
			close(allowed)
			r.ready(s)
		})
	}
}

// TestGroupInUse says that others divide the group in another way, and works when they are gone.
func TestGroupInUse(t *testing.T) {
	t.Parallel()
	r := start(t, kfake.SeedTopics(1, "orders"))
	other, err := kgo.NewClient(kgo.SeedBrokers(r.cluster.ListenAddrs()...), kgo.ConsumerGroup("group"), kgo.ConsumeTopics("orders"),
		kgo.Balancers(kgo.RangeBalancer()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(other.Close)
	eventually(t, "the other has joined", func() bool {
		groups, err := r.admin.DescribeGroups(t.Context(), "group")
		return err == nil && groups["group"].State == "Stable"
	})
	s := r.run(r.options(&recorder{}))
	eventually(t, "the reason is found", func() bool { return s.Status().Reason == kafka.ReasonGroupInUse })
	other.Close()
	r.ready(s)
}

// TestStaticMembership has a member that is restarted keep its partitions, and the others theirs.
func TestStaticMembership(t *testing.T) {
	t.Parallel()
	r := start(t, kfake.SeedTopics(4, "orders"))
	sink := &recorder{}
	run := func(instance string) *running {
		o := r.options(sink)
		o.Instance = instance
		return r.run(o)
	}
	a, b := run("a"), run("b")
	eventually(t, "the partitions are divided", func() bool { return a.Status().Assigned == 2 && b.Status().Assigned == 2 })
	a.stop()
	groups, err := r.admin.DescribeGroups(t.Context(), "group")
	if err != nil || len(groups["group"].Members) != 2 {
		t.Fatalf("the group has %d members, %v", len(groups["group"].Members), err)
	}
	if got := b.Status().Assigned; got != 2 {
		t.Errorf("the other member has %d partitions", got)
	}
	a = run("a")
	eventually(t, "the member has its partitions back", func() bool { return a.Status().Assigned == 2 })
	var want []string
	for p := range int32(4) {
		r.produce("orders", p, 1, 5)
		want = append(want, values(p, 1, 5)...)
	}
	eventually(t, "all is delivered", func() bool { return len(sink.all()) >= 20 })
	if got := slices.Sorted(slices.Values(sink.all())); !slices.Equal(got, want) {
		t.Errorf("got %v", got)
	}
}

// TestLatestTwice has two members begin at the end at once: what is written after the first was ready is delivered.
func TestLatestTwice(t *testing.T) {
	t.Parallel()
	for range 5 {
		r := start(t, kfake.SeedTopics(4, "orders"))
		sink := &recorder{}
		for p := range int32(4) {
			r.produce("orders", p, 1, 10)
		}
		o := r.options(sink)
		o.FromStart = false
		members := []*running{r.run(o), r.run(o)}
		eventually(t, "one is ready", func() bool { return members[0].Status().Ready || members[1].Status().Ready })
		var want []string
		for p := range int32(4) {
			r.produce("orders", p, 11, 20)
			want = append(want, values(p, 11, 20)...)
		}
		eventually(t, "what is new is delivered", func() bool {
			got := sink.all()
			return !slices.ContainsFunc(want, func(v string) bool { return !slices.Contains(got, v) })
		})
		for _, v := range sink.all() {
			if !slices.Contains(want, v) {
				t.Errorf("%s is delivered, which is older", v)
			}
		}
		for _, m := range members {
			m.stop()
		}
	}
}

// TestRights says which right of a user is missing, one after the other, and delivers once the last is given.
func TestRights(t *testing.T) {
	t.Parallel()
	c, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, "orders"), kfake.EnableSASL(), kfake.EnableACLs(),
		kfake.Superuser("PLAIN", "admin", "hush"), kfake.User("PLAIN", "bob", "hush"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	login := func(user string) sasl.Mechanism {
		m, err := kafka.NewMechanism("PLAIN", user, "hush")
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	client, err := kgo.NewClient(kgo.SeedBrokers(c.ListenAddrs()...), kgo.SASL(login("admin")))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	if err := client.ProduceSync(t.Context(), &kgo.Record{Topic: "orders", Value: []byte("0/1")}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	r := &rig{t: t, cluster: c}
	sink := &recorder{}
	o := r.options(sink)
	o.Mechanism = login("bob")
	s := r.run(o)
	says := func(words ...string) {
		t.Helper()
		eventually(t, "the source says what is missing", func() bool {
			status := s.Status()
			return !status.Ready && status.Reason == source.ReasonNotAuthorized &&
				!slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(status.Message, w) })
		})
	}
	grant := func(rule *kadm.ACLBuilder) {
		t.Helper()
		results, err := kadm.NewClient(client).CreateACLs(t.Context(), rule.Allow("User:bob").AllowHosts())
		if err != nil || results[0].Err != nil {
			t.Fatal(err, results)
		}
	}
	says("READ on the topics", "list topics")
	grant(kadm.NewACLs().Topics("orders").Operations(kadm.OpDescribe))
	says("READ on the consumer group group")
	grant(kadm.NewACLs().Groups("group").Operations(kadm.OpRead))
	says("READ on the topics", "fetch from topic orders")
	grant(kadm.NewACLs().Topics("orders").Operations(kadm.OpRead))
	r.ready(s)
	eventually(t, "the record is delivered", func() bool { return len(sink.all()) == 1 })
}
