// Command image writes static programs as container images into one tar file that a container runtime can import. An
// image holds its program as /app and nothing else, and runs it as user 65532.
//
//	image FILE NAME=PROGRAM...
package main

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

func main() {
	if len(os.Args) < 3 {
		fmt.Fprintln(os.Stderr, "usage: image FILE NAME=PROGRAM...")
		os.Exit(2)
	}
	if err := write(os.Args[1], os.Args[2:]); err != nil {
		fmt.Fprintln(os.Stderr, "image:", err)
		os.Exit(1)
	}
}

func write(file string, pairs []string) error {
	images := map[name.Reference]v1.Image{}
	for _, pair := range pairs {
		reference, program, ok := strings.Cut(pair, "=")
		if !ok {
			return fmt.Errorf("%q is not NAME=PROGRAM", pair)
		}
		tag, err := name.NewTag(reference)
		if err != nil {
			return err
		}
		if images[tag], err = image(program); err != nil {
			return fmt.Errorf("%s: %w", reference, err)
		}
	}
	return tarball.MultiRefWriteToFile(file, images)
}

func image(program string) (v1.Image, error) {
	binary, err := os.ReadFile(program)
	if err != nil {
		return nil, err
	}
	var layer bytes.Buffer
	w := tar.NewWriter(&layer)
	if err := w.WriteHeader(&tar.Header{Name: "app", Mode: 0o755, Size: int64(len(binary)), Typeflag: tar.TypeReg}); err != nil {
		return nil, err
	}
	if _, err := w.Write(binary); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	content, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(layer.Bytes())), nil })
	if err != nil {
		return nil, err
	}
	i, err := mutate.AppendLayers(empty.Image, content)
	if err != nil {
		return nil, err
	}
	config, err := i.ConfigFile()
	if err != nil {
		return nil, err
	}
	config.Architecture, config.OS = runtime.GOARCH, "linux"
	config.Config = v1.Config{Entrypoint: []string{"/app"}, User: "65532"}
	return mutate.ConfigFile(i, config)
}
