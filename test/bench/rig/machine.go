package rig

import (
	"fmt"
	"os"
	"runtime"
	"time"

	"github.com/prometheus/procfs"
)

// Load is the processor time used so far on the whole machine, and by whom.
type Load struct {
	at         time.Time
	busy, ours float64 // seconds
}

// Load reads what the machine has used, and of it this process and those of the rig.
func (r *Rig) Load() (Load, error) {
	fs, err := procfs.NewDefaultFS()
	if err != nil {
		return Load{}, fmt.Errorf("read the load of the machine: %w", err)
	}
	stat, err := fs.Stat()
	if err != nil {
		return Load{}, fmt.Errorf("read the load of the machine: %w", err)
	}
	self, err := fs.Proc(os.Getpid())
	if err != nil {
		return Load{}, fmt.Errorf("read the usage of this process: %w", err)
	}
	usage, err := self.Stat()
	if err != nil {
		return Load{}, fmt.Errorf("read the usage of this process: %w", err)
	}
	t := stat.CPUTotal
	l := Load{at: time.Now(), busy: t.User + t.Nice + t.System + t.IRQ + t.SoftIRQ + t.Steal, ours: usage.CPUTime()}
	for _, p := range r.Processes {
		used, err := p.CPU()
		if err != nil {
			return Load{}, err
		}
		l.ours += used.Seconds()
	}
	return l, nil
}

// Others is the part of the machine, in percent of all cores, that others had since before.
func (l Load) Others(before Load) float64 {
	others := (l.busy - before.busy) - (l.ours - before.ours)
	return max(0, 100*others/l.at.Sub(before.at).Seconds()/float64(runtime.NumCPU()))
}
