// Package deadletter keeps rejected records, each with the reason, and sends them through the pipeline again once the cause
// is fixed.
package deadletter

import (
	"context"

	"github.com/fleettracing/fleet-tracing/etl/internal/pipeline"
)

// Route sends the dead letters of some sources to a place of their own.
type Route struct {
	BySource map[string]pipeline.DeadLetters
	Default  pipeline.DeadLetters // for every other source
}

// Append implements pipeline.DeadLetters.
func (r Route) Append(ctx context.Context, source, origin string, rejected []pipeline.Rejected) error {
	to := r.Default
	if own, ok := r.BySource[source]; ok {
		to = own
	}
	return to.Append(ctx, source, origin, rejected)
}
