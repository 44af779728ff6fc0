package query

import _ "embed"

// OpenAPI is the description of the routes: a complete OpenAPI 3.0 document in YAML, whose paths and components can be
// merged into that of the whole server.
//
//go:embed openapi.yaml
var OpenAPI []byte
