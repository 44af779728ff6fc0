package plugin

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/grafana/grafana-plugin-sdk-go/backend"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fleettracing/fleet-tracing/cassandra"
	"github.com/fleettracing/fleet-tracing/grafana-datasource/pkg/memory"
	"github.com/fleettracing/fleet-tracing/grafana-datasource/pkg/query"
	"github.com/fleettracing/fleet-tracing/grafana-datasource/pkg/reader"
	"github.com/fleettracing/fleet-tracing/grafana-datasource/pkg/settings"
)

func TestErrorResponses(t *testing.T) {
	d := newTestDatasource(t, &fakeStore{}, map[string]any{})
	d.settingsErr = errors.New("Contact points: none")
	store := func(reason cassandra.Reason) error {
		return &cassandra.Error{Op: "read", Reason: reason, Err: errors.New("x")}
	}
	for name, c := range map[string]struct {
		err    error
		reason string
		status backend.Status
		source backend.ErrorSource
		want   string
	}{
		"invalid":      {query.Invalid("limit -1"), "invalid", 400, backend.ErrorSourceDownstream, "limit -1"},
		"forbidden":    {settings.Forbidden("fleet"), "forbidden", 403, backend.ErrorSourceDownstream, "fleet"},
		"settings":     {d.settingsErr, "invalid", 400, backend.ErrorSourceDownstream, "settings of the data source: Contact points: none"},
		"closed":       {reader.ErrClosed, "canceled", 502, backend.ErrorSourceDownstream, "settings of the data source have changed"},
		"busy":         {&cassandra.Error{Op: "read", Err: &memory.Error{Busy: true, Limit: 192 << 20}}, "memory", 429, backend.ErrorSourceDownstream, "query memory: all 192 MB of the data source are in use; try again, or choose fewer rows"},
		"too large":    {&memory.Error{Limit: 96 << 20}, "invalid", 400, backend.ErrorSourceDownstream, "query memory: the request needs more than 96 MB"},
		"timeout":      {fmt.Errorf("read: %w", context.DeadlineExceeded), "deadline", 504, backend.ErrorSourceDownstream, "query timed out after 10s; choose a shorter time range"},
		"no nodes":     {store(cassandra.ReasonNoHosts), "no_hosts", 502, backend.ErrorSourceDownstream, "no node is reachable"},
		"unavailable":  {store(cassandra.ReasonUnavailable), "unavailable", 502, backend.ErrorSourceDownstream, "too few replicas are up"},
		"unauthorized": {store(cassandra.ReasonUnauthorized), "unauthorized", 502, backend.ErrorSourceDownstream, "grant the user"},
		"schema":       {store(cassandra.ReasonInvalid), "schema", 400, backend.ErrorSourceDownstream, "fleet-etl schema check"},
		"other":        {store(cassandra.ReasonOther), "other", 502, backend.ErrorSourceDownstream, "x"},
		"bug":          {errors.New("unexpected"), "plugin", 500, backend.ErrorSourcePlugin, "unexpected"},
	} {
		response, reason := d.errorResponse(t.Context(), c.err)
		assert.Equal(t, c.reason, reason, name)
		assert.Equal(t, c.status, response.Status, name)
		assert.Equal(t, c.source, response.ErrorSource, name)
		require.ErrorContains(t, response.Error, c.want, name)
	}
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	response, reason := d.errorResponse(canceled, context.Canceled)
	assert.Equal(t, "canceled", reason)
	assert.Equal(t, statusClientClosed, response.Status)
}

func TestConnectErrorsNameTheRemedy(t *testing.T) {
	d := newTestDatasource(t, &fakeStore{}, map[string]any{})
	r, err := reader.New(d.settings, d.memory, d.metrics.cacheRequests, func(context.Context) (reader.Store, error) { return nil, errors.New("refused") }, d.now)
	require.NoError(t, err)
	_, err = r.Fleets(t.Context())
	response, reason := d.errorResponse(t.Context(), err)
	assert.Equal(t, "connect", reason)
	assert.EqualError(t, response.Error, "cannot connect to Cassandra: refused; Save & test of the data source shows the failing stage")
}
