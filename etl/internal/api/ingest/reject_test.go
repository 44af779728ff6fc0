package ingest

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/fleettracing/fleet-tracing/etl/internal/api/auth"
	"github.com/fleettracing/fleet-tracing/etl/internal/api/protocol"
	"github.com/fleettracing/fleet-tracing/etl/internal/api/rest"
	"github.com/fleettracing/fleet-tracing/etl/internal/pipeline"
	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

// rejecting returns a function that rejects a request of one record.
func rejecting(g *Ingest) func(origin string) error {
	return func(origin string) error {
		q := &request{Ingest: g, Request: &rest.Request{Request: httptest.NewRequest(http.MethodPost, "/", nil), ID: origin, Grant: auth.Grant{Fleet: "wuxi"}}}
		return q.reject(&entry{Origin: origin, Messages: []protocol.Message{{Rejection: telemetry.Reject(telemetry.Malformed, "", "", "fix it"), Raw: origin}}})
	}
}

func TestRejectedRequestsShareWrites(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newIngest(newMemorySpool(), 10)
		gate := make(chan error)
		var writes []string
		kept := 0
		g.Reject = func(_ context.Context, origin string, rejected []pipeline.Rejected) error {
			writes, kept = append(writes, origin), kept+len(rejected)
			return <-gate
		}
		reject, answers := rejecting(g), make(chan error, 40)
		go func() { answers <- reject("first") }()
		synctest.Wait()
		for i := range 32 {
			go func() { answers <- reject(fmt.Sprint(i)) }()
		}
		synctest.Wait()
		require.Equal(t, []string{"first"}, writes, "one write at a time")
		for range 3 {
			gate <- nil
			synctest.Wait()
		}
		for range 33 {
			require.NoError(t, <-answers)
		}
		require.Len(t, writes, 3)
		require.Equal(t, batchRejecting-1, strings.Count(writes[1], ","), "the origin names each request")
		require.Equal(t, 33, kept)

		go func() { answers <- reject("full disk") }()
		gate <- errors.New("no space left")
		problem := (*rest.Problem)(nil)
		require.ErrorAs(t, <-answers, &problem)
		require.Equal(t, rest.SpoolFailed, problem.Kind)
		require.Positive(t, problem.RetryAfter)
	})
}

func TestRejectedRequestsDoNotWaitForever(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newIngest(newMemorySpool(), 10)
		g.Reject = func(ctx context.Context, _ string, _ []pipeline.Rejected) error { <-ctx.Done(); return ctx.Err() }
		reject, answers := rejecting(g), make(chan error, 3)
		for i := range cap(answers) {
			go func() { answers <- reject(fmt.Sprint(i)) }()
		}
		for range cap(answers) {
			problem := (*rest.Problem)(nil)
			require.ErrorAs(t, <-answers, &problem)
			require.Equal(t, rest.SpoolSlow, problem.Kind)
		}
		require.Empty(t, g.rejects.waiting, "a request that is gone holds no memory")
	})
}
