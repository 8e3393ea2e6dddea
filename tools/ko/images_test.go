// Package ko tests hack/images.sh, which builds images with the ko of this module, against a registry on loopback.
package ko

import (
	"archive/tar"
	"context"
	"debug/buildinfo"
	"encoding/json"
	"errors"
	"io"
	"log"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

const (
	program = "broker-ingress"
	version = "v1.2.3"
	// patience bounds a build. It is long because machines are busy, and the first build compiles all there is.
	patience = 8 * time.Minute
)

// TestImages builds an image for all platforms and looks into it.
func TestImages(t *testing.T) {
	server := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	t.Cleanup(server.Close)
	host := strings.TrimPrefix(server.URL, "http://")
	base(t, host)

	first := build(t, host, host+"/first")
	again := build(t, host, host+"/again")
	digest, err := first.Digest()
	if err != nil {
		t.Fatal(err)
	}
	if other, err := again.Digest(); err != nil || other != digest {
		t.Errorf("the same sources give %v, and then %v (%v)", digest, other, err)
	}

	manifest, err := first.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	var platforms []string
	for _, d := range manifest.Manifests {
		platforms = append(platforms, d.Platform.String())
		image, err := first.Image(d.Digest)
		if err != nil {
			t.Fatal(err)
		}
		checkConfig(t, image, d.Platform.Architecture)
		modules := checkProgram(t, image, d.Platform.Architecture)
		checkSBOM(t, host+"/first/"+program, d.Digest, modules)
	}
	if got := strings.Join(platforms, " "); got != "linux/amd64 linux/arm64" {
		t.Errorf("the image is for %s", got)
	}
}

// base puts an empty base image into the registry, in the place of the real one: ko takes a base from nowhere else.
func base(t *testing.T, host string) {
	t.Helper()
	index := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	for _, architecture := range []string{"amd64", "arm64"} {
		config := &v1.ConfigFile{OS: "linux", Architecture: architecture, RootFS: v1.RootFS{Type: "layers"}}
		image, err := mutate.ConfigFile(mutate.MediaType(empty.Image, types.OCIManifestSchema1), config)
		if err != nil {
			t.Fatal(err)
		}
		index = mutate.AppendManifests(index, mutate.IndexAddendum{
			Add: image, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: architecture}},
		})
	}
	if err := remote.WriteIndex(reference(t, host+"/base:latest"), index); err != nil {
		t.Fatal(err)
	}
}

func reference(t *testing.T, text string) name.Reference {
	t.Helper()
	r, err := name.ParseReference(text)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// build runs hack/images.sh and returns what it pushed.
func build(t *testing.T, host, prefix string) v1.ImageIndex {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	c := exec.CommandContext(ctx, filepath.Join("..", "..", "hack", "images.sh"), prefix, version, program)
	c.Env = append(os.Environ(), "KO_DEFAULTBASEIMAGE="+host+"/base:latest")
	// All that the script has started ends with it, and says where it was.
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	c.Cancel = func() error { return syscall.Kill(-c.Process.Pid, syscall.SIGQUIT) }
	c.WaitDelay = 10 * time.Second
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	index, err := remote.Index(reference(t, prefix+"/"+program+":"+version))
	if err != nil {
		t.Fatal(err)
	}
	return index
}

// checkConfig looks at how the image is to be run.
func checkConfig(t *testing.T, image v1.Image, architecture string) {
	t.Helper()
	config, err := image.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	if config.Architecture != architecture || config.OS != "linux" {
		t.Errorf("the image for %s says it is for %s/%s", architecture, config.OS, config.Architecture)
	}
	if config.Config.User != "65532" {
		t.Errorf("%s runs as user %q", architecture, config.Config.User)
	}
	if e := config.Config.Entrypoint; len(e) != 1 || e[0] != "/ko-app/"+program {
		t.Errorf("%s runs %v", architecture, e)
	}
	for label, want := range map[string]string{"title": program, "version": version, "licenses": "Apache-2.0"} {
		if got := config.Config.Labels["org.opencontainers.image."+label]; got != want {
			t.Errorf("label %s of %s is %q, want %q", label, architecture, got, want)
		}
	}
	if len(config.Config.Labels["org.opencontainers.image.revision"]) < 40 {
		t.Errorf("%s has no revision: %v", architecture, config.Config.Labels)
	}
}

// checkProgram looks at the program in the image and returns the modules in it.
func checkProgram(t *testing.T, image v1.Image, architecture string) map[string]string {
	t.Helper()
	content := mutate.Extract(image)
	t.Cleanup(func() { _ = content.Close() })
	for files := tar.NewReader(content); ; {
		header, err := files.Next()
		if errors.Is(err, io.EOF) {
			t.Fatalf("%s holds no program", architecture)
		}
		if err != nil {
			t.Fatal(err)
		}
		if filepath.Base(header.Name) != program {
			continue
		}
		file := filepath.Join(t.TempDir(), program)
		out, err := os.Create(file)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(out, files); err != nil {
			t.Fatal(err)
		}
		if err := out.Close(); err != nil {
			t.Fatal(err)
		}
		info, err := buildinfo.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		settings := map[string]string{}
		for _, s := range info.Settings {
			settings[s.Key] = s.Value
		}
		if settings["GOARCH"] != architecture || settings["CGO_ENABLED"] != "0" || settings["-trimpath"] != "true" || settings["-tags"] != "grpcnotrace" {
			t.Errorf("%s holds a program built with %v", architecture, settings)
		}
		modules := map[string]string{}
		for _, m := range info.Deps {
			modules[m.Path] = m.Version
		}
		return modules
	}
}

// checkSBOM finds every module of the program in the SPDX document of its image.
func checkSBOM(t *testing.T, repository string, digest v1.Hash, modules map[string]string) {
	t.Helper()
	if len(modules) < 10 {
		t.Fatalf("the program has only %d modules", len(modules))
	}
	attached, err := remote.Image(reference(t, repository+":"+strings.ReplaceAll(digest.String(), ":", "-")+".sbom"))
	if err != nil {
		t.Fatalf("no SBOM of %v: %v", digest, err)
	}
	layers, err := attached.Layers()
	if err != nil || len(layers) != 1 {
		t.Fatalf("the SBOM of %v has %d layers: %v", digest, len(layers), err)
	}
	content, err := layers[0].Uncompressed()
	if err != nil {
		t.Fatal(err)
	}
	var document struct {
		Version  string `json:"spdxVersion"`
		Packages []struct {
			Name, VersionInfo string
		}
	}
	if err := json.NewDecoder(content).Decode(&document); err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(document.Version, "SPDX-2.") {
		t.Errorf("the SBOM is of version %q", document.Version)
	}
	listed := map[string]bool{}
	for _, p := range document.Packages {
		listed[p.Name+"@"+p.VersionInfo] = true
	}
	for path, version := range modules {
		if !listed[path+"@"+version] {
			t.Errorf("the SBOM does not list %s %s", path, version)
		}
	}
}
