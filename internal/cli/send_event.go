package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"millrace.dev/internal/cli/eventfile"
	"millrace.dev/pkg/event"
)

// source calls send for each event, or fail for what is not one, until they return false.
type source func(send func(*event.Event) bool, fail func(error) bool)

func (f *sendFlags) events(stdin io.Reader) (source, error) {
	if f.file != "" {
		return f.fileEvents(stdin), nil
	}
	template, err := f.event(stdin)
	if err != nil {
		return nil, err
	}
	return func(send func(*event.Event) bool, _ func(error) bool) {
		for range f.repeat {
			e := template.Clone()
			if f.id == "" {
				e.Set(event.ID, uuid.NewString(), event.String)
			}
			if !send(e) {
				return
			}
		}
	}, nil
}

func (f *sendFlags) fileEvents(stdin io.Reader) source {
	return func(send func(*event.Event) bool, fail func(error) bool) {
		for range f.repeat {
			for item := range eventfile.Open(f.file, stdin) {
				if item.Err != nil && !fail(item.Err) || item.Err == nil && !send(item.Event) {
					return
				}
			}
		}
	}
}

// event makes the event that the flags describe.
func (f *sendFlags) event(stdin io.Reader) (*event.Event, error) {
	data, err := f.readData(stdin)
	if err != nil {
		return nil, err
	}
	e := &event.Event{Data: data}
	set := func(name, value string) { e.Set(name, value, event.String) }
	set(event.SpecVersion, "1.0")
	set(event.ID, f.id)
	if f.id == "" {
		set(event.ID, uuid.NewString())
	}
	set(event.Source, f.source)
	set(event.Type, f.eventType)
	if f.subject != "" {
		set(event.Subject, f.subject)
	}
	set(event.Time, time.Now().UTC().Format(time.RFC3339Nano))
	if len(data) > 0 {
		set(event.DataContentType, f.contentType)
	}
	if err := f.addExtensions(e); err != nil {
		return nil, err
	}
	if err := e.Validate(); err != nil {
		return nil, usageErrorf("the flags do not make a CloudEvent: %w", err)
	}
	return e, nil
}

func (f *sendFlags) addExtensions(e *event.Event) error {
	given := map[string]bool{}
	for _, ext := range f.extensions {
		name, value, ok := strings.Cut(ext, "=")
		switch {
		case !ok:
			return usageErrorf("--ext %q has no value; write --ext name=value", ext)
		case slices.Contains(eventFlags(), name):
			return usageErrorf("--ext %s: write --%s", name, name)
		case name == event.DataContentType:
			return usageErrorf("--ext %s: write --content-type", name)
		case given[name]:
			return usageErrorf("--ext %s is given twice", name)
		}
		given[name] = true
		e.Set(name, value, event.String)
	}
	return nil
}

func (f *sendFlags) readData(stdin io.Reader) ([]byte, error) {
	var data []byte
	var err error
	if path, ok := strings.CutPrefix(f.data, "@"); ok {
		data, err = os.ReadFile(path)
	} else if f.data == "-" {
		data, err = io.ReadAll(stdin)
	} else {
		data = []byte(f.data)
	}
	if err != nil {
		return nil, fmt.Errorf("read data: %w", err)
	}
	if len(data) > 0 && event.IsJSON(f.contentType) && !json.Valid(data) {
		return nil, usageErrorf("the data is not JSON; correct it, or say what it is: --content-type text/plain")
	}
	return data, nil
}
