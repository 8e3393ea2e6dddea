// Command crdcheck checks CRD manifests as the API server does when they are applied: the schema must be structural, and
// its CEL rules must compile and keep within their cost budget. It takes the files as arguments and prints what is wrong.
package main

import (
	"context"
	"fmt"
	"os"

	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"sigs.k8s.io/yaml"
)

func main() {
	failed := len(os.Args) < 2
	for _, path := range os.Args[1:] {
		errs, err := check(path)
		for _, fault := range errs {
			fmt.Fprintf(os.Stderr, "%s: %v\n", path, fault)
		}
		if err != nil {
			fmt.Fprintf(os.Stderr, "%s: %v\n", path, err)
		}
		failed = failed || err != nil || len(errs) > 0
	}
	if failed {
		os.Exit(1)
	}
}

// check returns what the API server would object to in a CRD.
func check(path string) (field.ErrorList, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read crd: %w", err)
	}
	var crd apiextensionsv1.CustomResourceDefinition
	if err := yaml.UnmarshalStrict(content, &crd); err != nil {
		return nil, fmt.Errorf("decode crd: %w", err)
	}
	apiextensionsv1.SetDefaults_CustomResourceDefinition(&crd)
	apiextensionsv1.SetDefaults_CustomResourceDefinitionSpec(&crd.Spec)
	var internal apiextensions.CustomResourceDefinition
	if err := apiextensionsv1.Convert_v1_CustomResourceDefinition_To_apiextensions_CustomResourceDefinition(&crd, &internal, nil); err != nil {
		return nil, fmt.Errorf("convert crd: %w", err)
	}
	// The API server fills these in before it looks.
	for _, version := range crd.Spec.Versions {
		if version.Storage {
			internal.Status.StoredVersions = []string{version.Name}
		}
	}
	return validation.ValidateCustomResourceDefinition(context.Background(), &internal), nil
}
