package stream

import (
	"errors"
	"fmt"
	"testing"
	"time"
)

func TestVerdict(t *testing.T) {
	t.Parallel()
	answer := func(code int, text string) string {
		return fmt.Sprintf(`{"error":{"code":500,"err_code":%d,"description":%q}}`, code, text)
	}
	for _, test := range []struct {
		name, answer         string
		unavailable, noSpace bool
	}{
		{name: "no such message", answer: answer(codeMessageDeleteFailed, "stream store EOF")},
		{name: "no such message, worded anew", answer: answer(codeMessageDeleteFailed, "whatever")},
		{name: "no such sequence", answer: answer(10043, "sequence 4611686018427387904 not found")},
		{name: "no such stream", answer: answer(10059, "stream not found")},
		{name: "success", answer: `{"success":true}`},
		{name: "not JSON", answer: "no space left"},
		{name: "full disk", answer: answer(codeMessageDeleteFailed, "write /x/1.blk: no space left on device"), unavailable: true, noSpace: true},
		{name: "quota", answer: answer(codeMessageDeleteFailed, "write /x/1.blk: disk quota exceeded"), unavailable: true, noSpace: true},
		{name: "broken disk", answer: answer(codeMessageDeleteFailed, "write /x/1.blk: input/output error"), unavailable: true},
		{name: "JetStream off", answer: answer(codeJetStreamOff, "JetStream not enabled"), unavailable: true},
		{name: "another error that names space", answer: answer(10059, "no space left"), unavailable: false},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			err := verdict([]byte(test.answer))
			if errors.Is(err, ErrUnavailable) != test.unavailable || errors.Is(err, ErrNoSpace) != test.noSpace {
				t.Errorf("got %v", err)
			}
		})
	}
}

// Who waits for a stream is told when it goes down, and only then; news is what changes.
func TestCondition(t *testing.T) {
	t.Parallel()
	s := &condition{down: make(chan struct{})}
	down, err := s.now()
	if err != nil || s.set(nil) {
		t.Fatal("a stream that was well has news")
	}
	if !s.set(ErrNoSpace) || s.set(ErrNoSpace) {
		t.Error("that it went down is news once")
	}
	select {
	case <-down:
	default:
		t.Error("who waited was not told")
	}
	if !s.set(nil) {
		t.Error("that it recovered is no news")
	}
	if down, err = s.now(); err != nil {
		t.Error(err)
	}
	select {
	case <-down:
		t.Error("who waits after the recovery is sent away")
	default:
	}
}

// However many publishes are slow, one goroutine asks, and not more often than probePause allows.
func TestOneFollower(t *testing.T) {
	t.Parallel()
	s, now := &condition{}, time.Now()
	if !s.start(now) || s.start(now.Add(time.Hour)) {
		t.Error("want one follower at a time")
	}
	s.stop()
	if s.start(now.Add(probePause/2)) || !s.start(now.Add(probePause)) {
		t.Error("want a pause between two followers")
	}
}
