// Command krew builds the archives and the manifest by which krew, kubectl's manager of plugins, installs `kubectl millrace`.
//
//	krew -version v1.2.3 -downloads URL [-out FOLDER] [-platforms linux/amd64,...] [-homepage URL]
//
// The archives are to be served below the URL under their names. The same commit and toolchain give the same archives, whose checksums are
// in the manifest.
package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"flag"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/krew/pkg/constants"
	"sigs.k8s.io/krew/pkg/index"
	"sigs.k8s.io/yaml"
)

// platforms are those that an archive is made for unless told otherwise.
const platforms = "linux/amd64,linux/arm64,darwin/amd64,darwin/arm64,windows/amd64,windows/arm64"

const (
	plugin  = "millrace"         // the name that people install
	program = "kubectl-millrace" // what kubectl looks for
)

type options struct {
	root, version, downloads, out, homepage string
	platforms                               []string
}

func main() {
	o := options{}
	flag.StringVar(&o.root, "root", "../..", "the checkout")
	flag.StringVar(&o.version, "version", "", "version of the plugin, such as v1.2.3")
	flag.StringVar(&o.downloads, "downloads", "", "URL below which the archives are to be found")
	flag.StringVar(&o.out, "out", "../../bin/krew", "folder for the archives and the manifest")
	flag.StringVar(&o.homepage, "homepage", "https://millrace.dev", "URL of the project's page")
	list := flag.String("platforms", platforms, "operating systems and architectures, separated by commas")
	flag.Parse()
	o.platforms = strings.Split(*list, ",")
	if err := o.run(); err != nil {
		fmt.Fprintf(os.Stderr, "krew: %v\n", err)
		os.Exit(1)
	}
}

func (o *options) run() error {
	if !strings.HasPrefix(o.version, "v") {
		return fmt.Errorf("-version %q: krew wants a semantic version that begins with v, such as v1.2.3", o.version)
	}
	if u, err := url.Parse(o.downloads); err != nil || u.Scheme != "https" || u.Host == "" {
		return fmt.Errorf("-downloads %q: write the https URL below which the archives are to be found", o.downloads)
	}
	if err := os.MkdirAll(o.out, 0o755); err != nil {
		return err
	}
	license, err := os.ReadFile(filepath.Join(o.root, "LICENSE"))
	if err != nil {
		return err
	}
	p := newPlugin(o.version, o.homepage)
	for _, platform := range o.platforms {
		system, arch, ok := strings.Cut(platform, "/")
		if !ok {
			return fmt.Errorf("%q is no platform; write linux/amd64 or the like", platform)
		}
		binary := program
		if system == "windows" {
			binary += ".exe"
		}
		content, err := o.build(system, arch)
		if err != nil {
			return err
		}
		archive, err := pack(file{binary, 0o755, content}, file{"LICENSE", 0o644, license})
		if err != nil {
			return err
		}
		name := fmt.Sprintf("%s_%s_%s_%s.tar.gz", program, o.version, system, arch)
		if err := os.WriteFile(filepath.Join(o.out, name), archive, 0o644); err != nil {
			return err
		}
		sum := sha256.Sum256(archive)
		p.Spec.Platforms = append(p.Spec.Platforms, index.Platform{
			URI: strings.TrimSuffix(o.downloads, "/") + "/" + name, Sha256: hex.EncodeToString(sum[:]),
			Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"os": system, "arch": arch}},
			Files:    []index.FileOperation{{From: binary, To: "."}, {From: "LICENSE", To: "."}},
			Bin:      binary,
		})
	}
	text, err := yaml.Marshal(p)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(o.out, plugin+constants.ManifestExtension), text, 0o644)
}

// newPlugin is the manifest without the platforms.
func newPlugin(version, homepage string) *index.Plugin {
	return &index.Plugin{
		TypeMeta:   metav1.TypeMeta{APIVersion: constants.CurrentAPIVersion, Kind: constants.PluginKind},
		ObjectMeta: metav1.ObjectMeta{Name: plugin},
		Spec: index.PluginSpec{
			Version: version, Homepage: homepage,
			ShortDescription: "Follow, explain, redrive and replay events",
			Description: "What becomes of the events of Brokers and Triggers that Millrace serves: follow them,\n" +
				"have it explained why one was not delivered, redrive those that were given up, replay\n" +
				"those of an archive, pause and resume Triggers.\n",
			Caveats: "It reaches the filters by a forwarded port: you need the Role millrace-connect in the\n" +
				"namespace of the installation, and roles such as view or edit in those of your Brokers.\n",
		},
	}
}

// build returns the program for a platform.
func (o *options) build(system, arch string) ([]byte, error) {
	target := filepath.Join(o.out, program+".building")
	target, err := filepath.Abs(target)
	if err != nil {
		return nil, err
	}
	defer os.Remove(target)
	cmd := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-tags=grpcnotrace", // the Makefile says what the tag is for
		"-ldflags=-s -w -X millrace.dev/internal/version.linked="+o.version, "-o", target, "./cmd/millrace")
	cmd.Dir = o.root
	cmd.Env = append(os.Environ(), "GOOS="+system, "GOARCH="+arch, "CGO_ENABLED=0", "GOWORK=off", "GOFLAGS=")
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build for %s/%s: %w\n%s", system, arch, err, out)
	}
	return os.ReadFile(target)
}

type file struct {
	name    string
	mode    int64
	content []byte
}

// pack makes an archive of files, without a time or an owner.
func pack(files ...file) ([]byte, error) {
	var b bytes.Buffer
	zipped := gzip.NewWriter(&b)
	w := tar.NewWriter(zipped)
	for _, f := range files {
		err := w.WriteHeader(&tar.Header{Name: f.name, Mode: f.mode, Size: int64(len(f.content)), Format: tar.FormatUSTAR})
		if err == nil {
			_, err = w.Write(f.content)
		}
		if err != nil {
			return nil, fmt.Errorf("pack %s: %w", f.name, err)
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	if err := zipped.Close(); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}
