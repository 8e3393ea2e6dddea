package chaos

import (
	"bufio"
	"net"
	"strings"
	"testing"
	"time"
)

// These tests are of the test itself: what finds no fault must be able to find one.

func TestVerdictFindsWhatIsWrong(t *testing.T) {
	p := newPlan(1)
	now := time.Now()
	at := func(place, id string, nth, status int) received {
		return received{At: now, Place: place, ID: id, Nth: nth, Status: status}
	}
	for name, c := range map[string]struct {
		received []received
		accepted bool
		parked   []parked
		lost     int
		repeated int
		mistakes string
	}{
		"in order":         {received: []received{at("steady", "15-0-0", 1, 200), at("slow", "15-0-0", 1, 202)}, accepted: true},
		"lost":             {received: []received{at("steady", "15-0-0", 1, 200)}, accepted: true, lost: 1, mistakes: "15-0-0 is lost for slow"},
		"only attempted":   {received: []received{at("steady", "15-0-0", 1, 200), at("slow", "15-0-0", 1, 0)}, accepted: true, lost: 1, mistakes: "after 1 requests"},
		"not accepted":     {},
		"stored unnoticed": {received: []received{at("steady", "15-0-0", 1, 200)}},
		"repeated": {
			received: []received{at("steady", "15-0-0", 1, 200), at("steady", "15-0-0", 2, 200), at("slow", "15-0-0", 1, 202)},
			accepted: true, repeated: 1, mistakes: "2 times although nothing was broken",
		},
		"misrouted": {
			received: []received{at("steady", "15-0-0", 1, 200), at("half", "15-0-0", 1, 204), at("slow", "15-0-0", 1, 202)},
			accepted: true, mistakes: "half got 15-0-0, which does not match",
		},
		"made up": {received: []received{at("steady", "99-0-0", 1, 200)}, mistakes: "which nobody sent"},
		"given up too early": {
			received: []received{
				at("steady", "15-0-0", 1, 200), {At: now, Place: sinkName, ID: "15-0-0", Status: 200, Trigger: "slow", Code: 500, Attempts: 1},
			},
			accepted: true, mistakes: "given up for slow",
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := &books{Posted: []posted{{IDs: []string{"15-0-0"}}}, Received: c.received, Parked: c.parked}
			if c.accepted {
				b.Answered = []answered{{IDs: []string{"15-0-0"}, Status: accepted}}
			}
			v := judgeBooks(p, b)
			if v.Lost != c.lost || v.Duplicates != c.repeated {
				t.Errorf("%d lost, %d repeated; want %d and %d", v.Lost, v.Duplicates, c.lost, c.repeated)
			}
			mistakes := strings.Join(v.Mistakes, "\n")
			if (mistakes == "") != (c.mistakes == "") || !strings.Contains(mistakes, c.mistakes) {
				t.Errorf("mistakes %q, want %q", mistakes, c.mistakes)
			}
		})
	}
}

func TestVerdictAsksForReplies(t *testing.T) {
	p := newPlan(1)
	b := &books{
		Posted:   []posted{{IDs: []string{"1-0-0"}}},
		Received: []received{{Place: "asking", ID: "1-0-0", Nth: 2, Status: 200}},
	}
	if v := judgeBooks(p, b); v.Lost != 1 || !strings.Contains(strings.Join(v.Mistakes, "\n"), "re-1-0-0 is lost for listening") {
		t.Errorf("%d lost, mistakes %q", v.Lost, v.Mistakes)
	}
}

func TestProxyHoldsBackFromAMatch(t *testing.T) {
	var lc net.ListenConfig
	server, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Close() })
	p := newProxy(t, server.Addr().String())
	client, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", p.address())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	conn, err := server.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	caught := p.up.catch("stop")
	if _, err := client.Write([]byte("go\nstop\n")); err != nil {
		t.Fatal(err)
	}
	<-caught
	got := bufio.NewReader(conn)
	if line, err := got.ReadString('\n'); line != "go\n" {
		t.Fatalf("before the match came %q (%v)", line, err)
	}
	if n := got.Buffered(); n > 0 {
		t.Fatalf("%d bytes came through a shut valve", n)
	}
	p.up.open()
	if line, err := got.ReadString('\n'); line != "stop\n" {
		t.Fatalf("after opening came %q (%v)", line, err)
	}
	p.cut()
	if line, err := got.ReadString('\n'); err == nil {
		t.Fatalf("a cut connection brought %q", line)
	}
}

func TestCulpritIsTheFaultBetweenCopies(t *testing.T) {
	start := time.Now()
	at := func(seconds int) time.Time { return start.Add(time.Duration(seconds) * time.Second) }
	faults := []fault{
		{Kind: "pause an ingress", From: at(10), Until: at(12)},
		{Kind: "kill a filter", From: at(20), Until: at(22)},
		{Kind: "cut a filter's connection", From: at(40), Until: at(41)},
	}
	for _, c := range []struct {
		first, again int
		want         string
	}{
		{9, 11, "pause an ingress"},
		{9, 30, "kill a filter"},
		{23, 30, "kill a filter"}, // the ack was lost with what came before it
		{30, 45, "cut a filter's connection"},
		{28, 35, "no fault"},
		{50, 60, "no fault"},
	} {
		if got := culprit(faults, at(c.first), at(c.again)); got != c.want {
			t.Errorf("copies at %d and %d s: %s, want %s", c.first, c.again, got, c.want)
		}
	}
}
