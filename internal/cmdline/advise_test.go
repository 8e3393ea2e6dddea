package cmdline_test

import (
	"errors"
	"net"
	"strings"
	"testing"

	"millrace.dev/internal/cmdline"
)

func TestAdvise(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // the test holds it until its end
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	_, inUse := net.Listen("tcp", taken.Addr().String()) //nolint:noctx // as above
	if got := cmdline.Advise(inUse, "--listen", "--admin"); !strings.HasSuffix(got.Error(), "--listen or --admin") {
		t.Errorf("Advise(%v) = %v, which names no flag", inUse, got)
	}
	for _, err := range []error{nil, errors.New("another")} {
		if got := cmdline.Advise(err, "--listen"); !errors.Is(got, err) || got != nil && got.Error() != err.Error() {
			t.Errorf("Advise(%v) = %v, want it unchanged", err, got)
		}
	}
}
