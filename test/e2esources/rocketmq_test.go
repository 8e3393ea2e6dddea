package e2esources

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha1"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	v2 "github.com/apache/rocketmq-clients/golang/v5/protocol/v2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/timestamppb"

	"millrace.dev/test/harness"
)

// RocketMQ is one real name server, and one proxy with a broker in it, on loopback. The proxy speaks both with and without TLS.
type RocketMQ struct {
	// Endpoint is the address of the proxy, and CA the certification authority of its certificate, in PEM format.
	Endpoint, CA string

	jars, dir        string
	names, broker    string // addresses
	config           rocketMQConfig
	nameserv, server *harness.Process
}

// rocketMQConfig is what a RocketMQ has from the start.
type rocketMQConfig struct {
	// topics and groups are there from the start, by name: whether they keep order.
	topics, groups map[string]bool
	// acl has requests authenticated and authorized: root, whose password is secret, may do everything.
	acl bool
}

// StartRocketMQ starts the servers.
func StartRocketMQ(t testing.TB, config rocketMQConfig) *RocketMQ {
	t.Helper()
	jars := os.Getenv("MILLRACE_ROCKETMQ_JARS")
	if jars == "" {
		t.Skip("MILLRACE_ROCKETMQ_JARS is not set: run make e2e-sources")
	}
	address := func() string { return fmt.Sprintf("127.0.0.1:%d", harness.FreePort(t)) }
	r := &RocketMQ{Endpoint: address(), jars: jars, dir: memoryDir(t), names: address(), broker: address(), config: config}
	key, certificate := newCertificate(t, "rocketmq")
	harness.WriteFile(t, filepath.Join(r.dir, "server.pem"), key+certificate)
	r.CA = certificate
	r.configure(t)
	r.nameserv = r.launch(t, "org.apache.rocketmq.namesrv.NamesrvStartup", "-c", r.file("names.conf"))
	r.Start(t)
	return r
}

// memoryDir is a folder in memory where there is such a thing: RocketMQ takes no message when the disk is nearly full.
func memoryDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "rocketmq") //nolint:usetesting // a test's own folder is not in memory
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func (r *RocketMQ) file(name string) string { return filepath.Join(r.dir, name) }

// configure writes what the servers read when they start.
func (r *RocketMQ) configure(t testing.TB) {
	t.Helper()
	port := func(address string) string {
		_, port, _ := net.SplitHostPort(address)
		return port
	}
	// auth is what the broker and the proxy around it have in common; each has its own way to the users.
	auth := func(users, rights string) map[string]any {
		if !r.config.acl {
			return nil
		}
		return map[string]any{
			"authenticationEnabled": true, "authorizationEnabled": true,
			"authenticationProvider":               "org.apache.rocketmq.auth.authentication.provider.DefaultAuthenticationProvider",
			"authorizationProvider":                "org.apache.rocketmq.auth.authorization.provider.DefaultAuthorizationProvider",
			"authenticationMetadataProvider":       users,
			"authorizationMetadataProvider":        rights,
			"initAuthenticationUser":               `{"username":"root","password":"secret"}`,
			"innerClientAuthenticationCredentials": `{"accessKey":"root","secretKey":"secret"}`,
			"userCacheExpiredSecond":               1, "userCacheRefreshSecond": 1, "aclCacheExpiredSecond": 1, "aclCacheRefreshSecond": 1,
		}
	}
	harness.WriteFile(t, r.file("names.conf"), "listenPort="+port(r.names)+"\n")
	lines := []string{
		"brokerClusterName=tests", "brokerName=a", "brokerId=0", "brokerIP1=127.0.0.1", "listenPort=" + port(r.broker), "namesrvAddr=" + r.names,
		"haListenPort=" + fmt.Sprint(harness.FreePort(t)), "fastListenPort=" + fmt.Sprint(harness.FreePort(t)),
		"storePathRootDir=" + r.file("store"), "mappedFileSizeCommitLog=67108864", "mappedFileSizeConsumeQueue=600000",
		"enablePropertyFilter=true", "autoCreateTopicEnable=false", "autoCreateSubscriptionGroup=false", "diskMaxUsedSpaceRatio=95",
	}
	proxy := map[string]any{
		"rocketMQClusterName": "tests", "proxyMode": "LOCAL", "namesrvAddr": r.names, "localServeAddr": "127.0.0.1",
		"grpcServerPort": json.Number(port(r.Endpoint)), "enableRemotingLocalProxyGrpc": false, "remotingListenPort": harness.FreePort(t),
		"tlsTestModeEnable": false, "tlsKeyPath": r.file("server.pem"), "tlsCertPath": r.file("server.pem"),
	}
	for key, value := range auth("org.apache.rocketmq.auth.authentication.provider.LocalAuthenticationMetadataProvider",
		"org.apache.rocketmq.auth.authorization.provider.LocalAuthorizationMetadataProvider") {
		lines = append(lines, fmt.Sprintf("%s=%v", key, value))
	}
	maps.Copy(proxy, auth("org.apache.rocketmq.proxy.auth.ProxyAuthenticationMetadataProvider", "org.apache.rocketmq.proxy.auth.ProxyAuthorizationMetadataProvider"))
	harness.WriteFile(t, r.file("broker.conf"), strings.Join(lines, "\n")+"\n")
	text, err := json.Marshal(proxy)
	if err != nil {
		t.Fatal(err)
	}
	harness.WriteFile(t, r.file("proxy.json"), string(text))
	r.seed(t)
}

// seed writes the topics and groups as the broker keeps them. To have an administration tool make each takes seconds.
func (r *RocketMQ) seed(t testing.TB) {
	t.Helper()
	topics, groups := map[string]any{}, map[string]any{}
	for name, ordered := range r.config.topics {
		kind := "NORMAL"
		if ordered {
			kind = "FIFO"
		}
		topics[name] = map[string]any{
			"topicName": name, "readQueueNums": 4, "writeQueueNums": 4, "perm": 6, "topicFilterType": "SINGLE_TAG", "topicSysFlag": 0,
			"order": false, "attributes": map[string]string{"message.type": kind},
		}
	}
	for name, ordered := range r.config.groups {
		groups[name] = map[string]any{
			"groupName": name, "consumeEnable": true, "consumeMessageOrderly": ordered, "consumeFromMinEnable": false, "retryQueueNums": 1,
			"retryMaxTimes": 16, "brokerId": 0, "whichBrokerWhenConsumeSlowly": 1, "notifyConsumerIdsChangedEnable": true,
			"consumeTimeoutMinute": 15, "groupRetryPolicy": map[string]string{"type": "CUSTOMIZED"}, "attributes": map[string]string{},
		}
	}
	version := map[string]int{"counter": 1, "stateVersion": 0, "timestamp": 1}
	for file, content := range map[string]any{
		"topics.json":            map[string]any{"dataVersion": version, "topicConfigTable": topics},
		"subscriptionGroup.json": map[string]any{"dataVersion": version, "forbiddenTable": map[string]any{}, "subscriptionGroupTable": groups},
	} {
		text, err := json.Marshal(content)
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(r.dir, "store", "config", file)
		if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
			t.Fatal(err)
		}
		harness.WriteFile(t, path, string(text))
	}
}

// arguments are those of a Java program. Its logs and all else that it writes go into the folder.
func (r *RocketMQ) arguments(class string, args ...string) []string {
	return append([]string{
		"-Xmx384m", "-XX:MaxDirectMemorySize=256m", "-Duser.home=" + r.dir,
		"--add-opens=java.base/java.nio=ALL-UNNAMED", "--add-opens=java.base/sun.nio.ch=ALL-UNNAMED",
		"--add-exports=java.base/jdk.internal.ref=ALL-UNNAMED", "--add-exports=java.base/sun.nio.ch=ALL-UNNAMED",
		"-cp", filepath.Join(r.jars, "*"), class,
	}, args...)
}

// launch starts a Java program.
func (r *RocketMQ) launch(t testing.TB, class string, args ...string) *harness.Process {
	t.Helper()
	java, err := exec.LookPath("java")
	if err != nil {
		t.Fatal(err)
	}
	env, err := exec.LookPath("env")
	if err != nil {
		t.Fatal(err)
	}
	return harness.Start(t, env, append([]string{"ROCKETMQ_HOME=" + r.dir, java}, r.arguments(class, args...)...)...)
}

// Start starts the proxy and the broker, which may have been killed before, and waits until they answer.
func (r *RocketMQ) Start(t testing.TB) {
	t.Helper()
	r.server = r.launch(t, "org.apache.rocketmq.proxy.ProxyStartup", "-pm", "local", "-n", r.names, "-pc", r.file("proxy.json"), "-bc", r.file("broker.conf"))
	p := r.Producer(t)
	const patience = 3 * time.Minute // it takes 15 s of processor time
	for start, topics := time.Now(), slices.Collect(maps.Keys(r.config.topics)); len(topics) > 0; time.Sleep(200 * time.Millisecond) {
		err := p.Ready(t.Context(), topics[0])
		if err == nil {
			topics = topics[1:]
		} else if time.Since(start) > patience {
			t.Fatalf("RocketMQ does not answer: %v", err)
		}
	}
}

// Kill ends the proxy and the broker without warning.
func (r *RocketMQ) Kill() { r.server.Kill() }

// Admin runs an administration command and returns what it prints.
func (r *RocketMQ) Admin(t testing.TB, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "java", r.arguments("org.apache.rocketmq.tools.command.MQAdminStartup", args...)...)
	cmd.Env = append(os.Environ(), "ROCKETMQ_HOME="+r.dir)
	if r.config.acl {
		if err := os.MkdirAll(r.file("conf"), 0o750); err != nil {
			t.Fatal(err)
		}
		harness.WriteFile(t, filepath.Join(r.dir, "conf", "tools.yml"), "accessKey: root\nsecretKey: secret\n")
	}
	out, err := cmd.CombinedOutput()
	if text := string(out); err != nil || strings.Contains(text, "Exception") {
		t.Fatalf("mqadmin %s: %v\n%s", strings.Join(args, " "), err, text)
	}
	return string(out)
}

// Producer writes messages.
type Producer struct {
	stub   v2.MessagingServiceClient
	id     string
	signed bool
}

// Producer returns a producer.
func (r *RocketMQ) Producer(t testing.TB) *Producer {
	t.Helper()
	return &Producer{stub: r.dial(t, credentials.NewTLS(&tls.Config{InsecureSkipVerify: true})), id: "producer", signed: r.config.acl}
}

// dial connects to the proxy.
func (r *RocketMQ) dial(t testing.TB, secure credentials.TransportCredentials) v2.MessagingServiceClient {
	t.Helper()
	conn, err := grpc.NewClient("passthrough:///"+r.Endpoint, grpc.WithTransportCredentials(secure))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return v2.NewMessagingServiceClient(conn)
}

func (p *Producer) context(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(p.introduce(ctx), 10*time.Second)
}

// introduce says who asks.
func (p *Producer) introduce(ctx context.Context) context.Context {
	now := time.Now().UTC().Format("20060102T150405Z")
	pairs := []string{"x-mq-client-id", p.id, "x-mq-language", "GO", "x-mq-protocol", "v2", "x-mq-client-version", "5.1.4", "x-mq-date-time", now}
	if p.signed {
		mac := hmac.New(sha1.New, []byte("secret"))
		mac.Write([]byte(now))
		pairs = append(pairs, "authorization", "MQv2-HMAC-SHA1 Credential=root//Rocketmq, SignedHeaders=x-mq-date-time, Signature="+strings.ToUpper(hex.EncodeToString(mac.Sum(nil))))
	}
	return metadata.AppendToOutgoingContext(ctx, pairs...)
}

// Ready returns nil if the topic can be written to.
func (p *Producer) Ready(ctx context.Context, topic string) error {
	ctx, cancel := p.context(ctx)
	defer cancel()
	host, port := "127.0.0.1", 1
	answer, err := p.stub.QueryRoute(ctx, &v2.QueryRouteRequest{
		Topic:     &v2.Resource{Name: topic},
		Endpoints: &v2.Endpoints{Scheme: v2.AddressScheme_IPv4, Addresses: []*v2.Address{{Host: host, Port: int32(port)}}},
	})
	if err != nil {
		return err
	}
	if answer.GetStatus().GetCode() != v2.Code_OK {
		return fmt.Errorf("the route of %s: %v", topic, answer.GetStatus())
	}
	return nil
}

// message is one to be written.
type message struct {
	body       []byte
	group, tag string
	properties map[string]string
	keys       []string
}

// Send writes messages to a topic.
func (p *Producer) Send(ctx context.Context, topic string, messages ...message) error {
	return p.send(ctx, p.request(topic, messages...))
}

// request has messages written, all of which are of one group if they are of any. It can be repeated.
func (p *Producer) request(topic string, messages ...message) *v2.SendMessageRequest {
	request := &v2.SendMessageRequest{}
	for _, m := range messages {
		system := &v2.SystemProperties{
			MessageId: topic + "-" + rand.Text(), BornTimestamp: timestamppb.Now(), BornHost: "tests",
			BodyEncoding: v2.Encoding_IDENTITY, MessageType: v2.MessageType_NORMAL, Keys: m.keys,
		}
		if m.tag != "" {
			system.Tag = &m.tag
		}
		if m.group != "" {
			system.MessageGroup, system.MessageType = &m.group, v2.MessageType_FIFO
		}
		request.Messages = append(request.Messages, &v2.Message{
			Topic: &v2.Resource{Name: topic}, Body: m.body, UserProperties: m.properties, SystemProperties: system,
		})
	}
	return request
}

// send writes messages. What it returns an error for may be written all the same.
func (p *Producer) send(ctx context.Context, request *v2.SendMessageRequest) error {
	ctx, cancel := p.context(ctx)
	defer cancel()
	answer, err := p.stub.SendMessage(ctx, request)
	if err != nil {
		return err
	}
	if answer.GetStatus().GetCode() != v2.Code_OK {
		return fmt.Errorf("send: %v", answer.GetStatus())
	}
	return nil
}
