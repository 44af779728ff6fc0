package api

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"net/http"

	"go.yaml.in/yaml/v3"

	"github.com/fleettracing/fleet-tracing/etl/internal/api/rest"
)

//go:embed openapi.yaml
var openAPI []byte

// openAPIRoute serves the OpenAPI document as JSON. It needs no token.
func openAPIRoute() (rest.Route, error) {
	var document map[string]any
	if err := yaml.Unmarshal(openAPI, &document); err != nil {
		return rest.Route{}, fmt.Errorf("openapi.yaml: %w", err)
	}
	text, err := json.MarshalIndent(document, "", "  ")
	if err != nil {
		return rest.Route{}, fmt.Errorf("openapi.yaml: %w", err)
	}
	return rest.Route{Name: "openapi", Method: http.MethodGet, Path: "/v1/openapi.json", Handle: func(w *rest.Response, _ *rest.Request) error {
		w.Header().Set("Content-Type", rest.JSONType)
		_, _ = w.Write(text) // the client may be gone
		return nil
	}}, nil
}
