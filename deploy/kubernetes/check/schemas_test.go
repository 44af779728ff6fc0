package check

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"sigs.k8s.io/yaml"
)

// published lists the Go modules with the schemas of operators.
var published = []struct{ module, folder string }{
	{"github.com/grafana/grafana-operator/v5@v5.18.0", "config/crd/bases"},
	{"github.com/prometheus-operator/prometheus-operator@v0.85.0", "example/prometheus-operator-crd"},
	{"github.com/kedacore/keda/v2@v2.21.0", "config/crd/bases"},
	{"github.com/cert-manager/cert-manager@v1.21.2", "deploy/crds"},
}

// unpublished lists the API groups whose schemas are in no Go module that the proxy serves. FLEET_CRDS can supply them.
var unpublished = []string{"k8ssandra.io", "kafka.strimzi.io"}

// kind returns the name of the kind of an object: apiVersion/Kind.
func kind(object map[string]any) string {
	return fmt.Sprintf("%v/%v", object["apiVersion"], object["kind"])
}

// builtIn has the types of Kubernetes itself.
var builtIn = map[string]func() any{
	"v1/ConfigMap":                             func() any { return new(corev1.ConfigMap) },
	"v1/Namespace":                             func() any { return new(corev1.Namespace) },
	"v1/Secret":                                func() any { return new(corev1.Secret) },
	"v1/Service":                               func() any { return new(corev1.Service) },
	"v1/ServiceAccount":                        func() any { return new(corev1.ServiceAccount) },
	"apps/v1/Deployment":                       func() any { return new(appsv1.Deployment) },
	"apps/v1/StatefulSet":                      func() any { return new(appsv1.StatefulSet) },
	"batch/v1/Job":                             func() any { return new(batchv1.Job) },
	"networking.k8s.io/v1/NetworkPolicy":       func() any { return new(networkingv1.NetworkPolicy) },
	"policy/v1/PodDisruptionBudget":            func() any { return new(policyv1.PodDisruptionBudget) },
	"rbac.authorization.k8s.io/v1/Role":        func() any { return new(rbacv1.Role) },
	"rbac.authorization.k8s.io/v1/RoleBinding": func() any { return new(rbacv1.RoleBinding) },
}

var (
	readOnce sync.Once
	found    = map[string]*jsonschema.Schema{}
)

// schemas returns the schemas of the operators, from Go modules, which are downloaded once per user, and from the files in FLEET_CRDS,
// which take precedence.
func schemas(t *testing.T) map[string]*jsonschema.Schema {
	t.Helper()
	readOnce.Do(func() { fetch(t) })
	return found
}

func fetch(t *testing.T) {
	t.Helper()
	for _, p := range published {
		out, err := exec.CommandContext(t.Context(), "go", "mod", "download", "-json", p.module).Output()
		var module struct{ Dir, Error string }
		require.NoError(t, json.Unmarshal(out, &module))
		if err != nil {
			t.Logf("%s cannot be downloaded: %s", p.module, module.Error)
			continue
		}
		maps.Copy(found, readSchemas(t, filepath.Join(module.Dir, p.folder)))
	}
	if folder := os.Getenv("FLEET_CRDS"); folder != "" {
		given := readSchemas(t, folder)
		require.NotEmpty(t, given, "FLEET_CRDS %q: no CustomResourceDefinition in its .yaml files", folder)
		maps.Copy(found, given)
	}
}

type definition struct {
	Kind  string       `json:"kind"`
	Items []definition `json:"items"` // of a list, as kubectl get prints
	Spec  struct {
		Group    string                `json:"group"`
		Names    struct{ Kind string } `json:"names"`
		Versions []struct {
			Name   string `json:"name"`
			Schema struct {
				OpenAPIV3Schema map[string]any `json:"openAPIV3Schema"`
			} `json:"schema"`
		} `json:"versions"`
	} `json:"spec"`
}

func readSchemas(t *testing.T, folder string) map[string]*jsonschema.Schema {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(folder, "*.yaml"))
	require.NoError(t, err)
	found := map[string]*jsonschema.Schema{}
	for _, file := range files {
		for _, document := range documents(t, file) {
			var d definition
			require.NoError(t, yaml.Unmarshal(document, &d), file)
			for _, d := range append(d.Items, d) {
				if d.Kind != "CustomResourceDefinition" || !used(d.Spec.Group) {
					continue
				}
				for _, v := range d.Spec.Versions {
					name := d.Spec.Group + "/" + v.Name + "/" + d.Spec.Names.Kind
					c := jsonschema.NewCompiler()
					require.NoError(t, c.AddResource(name, strict(v.Schema.OpenAPIV3Schema, true)), name)
					found[name], err = c.Compile(name)
					require.NoError(t, err, name)
				}
			}
		}
	}
	return found
}

// used reports whether the manifests use an API group.
func used(group string) bool {
	return slices.Contains([]string{"cert-manager.io", "grafana.integreatly.org", "k8ssandra.io", "kafka.strimzi.io", "keda.sh", "monitoring.coreos.com"}, group)
}

func documents(t *testing.T, file string) [][]byte {
	t.Helper()
	text, err := os.ReadFile(file)
	require.NoError(t, err)
	return bytes.Split(append([]byte("\n"), text...), []byte("\n---\n"))
}

// strict converts a structural schema to a JSON Schema that rejects unknown fields. The API server drops them silently.
func strict(s map[string]any, root bool) map[string]any {
	s = maps.Clone(s)
	delete(s, "default") // may have a form that the compiler does not support
	open := s["x-kubernetes-preserve-unknown-fields"] == true
	if properties, ok := s["properties"].(map[string]any); ok {
		properties = maps.Clone(properties)
		for name, p := range properties {
			properties[name] = strict(p.(map[string]any), false)
		}
		if root {
			properties["metadata"] = map[string]any{"type": "object"} // checked by the API server
		}
		s["properties"] = properties
	}
	switch more := s["additionalProperties"].(type) {
	case map[string]any:
		s["additionalProperties"] = strict(more, false)
	case nil:
		if s["type"] == "object" && !open {
			s["additionalProperties"] = false
		}
	}
	if items, ok := s["items"].(map[string]any); ok {
		s["items"] = strict(items, false)
	}
	if s["x-kubernetes-int-or-string"] == true {
		s["type"] = []any{"integer", "string"}
	}
	if s["nullable"] == true {
		s["type"] = []any{s["type"], "null"}
	}
	return s
}

// validate checks an object against its schema. unknown reports that there is no schema of its kind.
func validate(object map[string]any, schemas map[string]*jsonschema.Schema) (err error, unknown bool) {
	if empty, ok := builtIn[kind(object)]; ok {
		text, err := yaml.Marshal(object)
		if err != nil {
			return err, false
		}
		return yaml.UnmarshalStrict(text, empty()), false
	}
	schema, ok := schemas[kind(object)]
	if !ok {
		return nil, true
	}
	text, err := json.Marshal(object)
	if err != nil {
		return err, false
	}
	value, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		return err, false
	}
	return schema.Validate(value), false
}

// kinds returns the rendered objects by kind.
func kinds(t *testing.T) map[string][]map[string]any {
	t.Helper()
	all := map[string][]map[string]any{}
	for _, object := range rendered(t) {
		all[kind(object)] = append(all[kind(object)], object)
	}
	return all
}

// noSchema ends a test of a kind without a schema. It fails unless the schema is unpublished or FLEET_ALLOW_SKIP names crds.
func noSchema(t *testing.T, kind string) {
	t.Helper()
	group, _, _ := strings.Cut(kind, "/")
	if slices.Contains(unpublished, group) || slices.Contains(strings.Split(os.Getenv("FLEET_ALLOW_SKIP"), ","), "crds") {
		t.Skipf("no schema of %s: set FLEET_CRDS to a folder with its CustomResourceDefinition", kind)
	}
	t.Fatalf("no schema of %s: allow downloads of Go modules, or set FLEET_CRDS to a folder with its CustomResourceDefinition (or skip it: FLEET_ALLOW_SKIP=crds)", kind)
}

func TestObjectsMatchTheirSchemas(t *testing.T) {
	schemas := schemas(t)
	for kind, objects := range kinds(t) {
		t.Run(kind, func(t *testing.T) {
			for _, object := range objects {
				err, unknown := validate(object, schemas)
				if unknown {
					noSchema(t, kind)
				}
				assert.NoError(t, err, name(object))
			}
		})
	}
}

// TestMisspelledFieldIsFound tests the check itself.
func TestMisspelledFieldIsFound(t *testing.T) {
	schemas := schemas(t)
	for kind, objects := range kinds(t) {
		t.Run(kind, func(t *testing.T) {
			where := objects[0]
			if spec, ok := where["spec"].(map[string]any); ok {
				where = spec
			}
			where["misspelled"] = "x"
			err, unknown := validate(objects[0], schemas)
			if unknown {
				noSchema(t, kind)
			}
			assert.ErrorContains(t, err, "misspelled")
		})
	}
}
