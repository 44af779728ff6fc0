package ingest

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
)

//go:embed openapi.json
var openAPI []byte

// openapi serves the description of the API; it needs no token.
func (c *call) openapi() *problem {
	c.w.Header().Set("Content-Type", "application/json")
	_, _ = c.w.Write(c.description)
	return nil
}

// describe joins the description of mounted routes to ours. The error names what both describe.
func describe(more []byte) ([]byte, error) {
	if len(more) == 0 {
		return openAPI, nil
	}
	var ours, theirs map[string]any
	if err := json.Unmarshal(openAPI, &ours); err != nil {
		return nil, fmt.Errorf("our OpenAPI description: %w", err)
	}
	if err := json.Unmarshal(more, &theirs); err != nil {
		return nil, fmt.Errorf("OpenAPI description of mounted routes: %w", err)
	}
	join := func(what string, into, from any) error {
		a, _ := into.(map[string]any)
		b, _ := from.(map[string]any)
		for _, name := range slices.Sorted(maps.Keys(b)) {
			if a[name] != nil {
				return fmt.Errorf("OpenAPI description of mounted routes: %s %s is in ours too: name it otherwise", what, name)
			}
			a[name] = b[name]
		}
		return nil
	}
	if err := join("path", ours["paths"], theirs["paths"]); err != nil {
		return nil, err
	}
	components, _ := ours["components"].(map[string]any)
	extra, _ := theirs["components"].(map[string]any)
	for kind, named := range extra {
		if components[kind] == nil {
			components[kind] = map[string]any{}
		}
		if err := join(kind, components[kind], named); err != nil {
			return nil, err
		}
	}
	return json.MarshalIndent(ours, "", "  ")
}

var _ http.Handler = (*Source)(nil)
