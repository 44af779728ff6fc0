package plugin

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/grafana/grafana-plugin-sdk-go/backend"
	"github.com/grafana/grafana-plugin-sdk-go/data"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fleettracing/fleet-tracing/grafana-datasource/pkg/query"
	"github.com/fleettracing/fleet-tracing/grafana-datasource/pkg/reader"
)

const northPath, southPath = "fleet/bm9ydGg", "fleet/c291dGg"

func TestSubscribeStream(t *testing.T) {
	d := newTestDatasource(t, &fakeStore{}, map[string]any{"allowedFleets": "north"})
	for path, want := range map[string]backend.SubscribeStreamStatus{
		northPath: backend.SubscribeStreamStatusOK, southPath: backend.SubscribeStreamStatusPermissionDenied, "fleet": backend.SubscribeStreamStatusNotFound,
	} {
		got, err := d.SubscribeStream(t.Context(), &backend.SubscribeStreamRequest{Path: path})
		require.NoError(t, err)
		assert.Equal(t, want, got.Status, path)
		assert.Equal(t, want == backend.SubscribeStreamStatusOK, got.InitialData != nil, path)
	}
	assert.Equal(t, 1.0, testutil.ToFloat64(d.metrics.errors.WithLabelValues(query.TypeLatest, reasonForbidden)))

	down := newTestDatasource(t, &fakeStore{err: errors.New("down")}, map[string]any{})
	got, err := down.SubscribeStream(t.Context(), &backend.SubscribeStreamRequest{Path: northPath})
	require.NoError(t, err)
	assert.Equal(t, backend.SubscribeStreamStatusOK, got.Status, "the stream itself retries")

	published, err := d.PublishStream(t.Context(), &backend.PublishStreamRequest{Path: northPath})
	require.NoError(t, err)
	assert.Equal(t, backend.PublishStreamStatusPermissionDenied, published.Status)
}

// packets collects the packets of a stream.
type packets chan *data.Frame

func (p packets) Send(packet *backend.StreamPacket) error {
	f := &data.Frame{}
	if err := json.Unmarshal(packet.Data, f); err != nil {
		return err
	}
	p <- f
	return nil
}

func TestRunStream(t *testing.T) {
	d := newTestDatasource(t, &fakeStore{}, map[string]any{"liveInterval": "200ms", "latestCache": "0s"})
	sent := make(packets, 10)
	ended := make(chan error, 1)
	go func() {
		ended <- d.RunStream(t.Context(), &backend.RunStreamRequest{Path: northPath}, backend.NewStreamSender(sent))
	}()
	first := <-sent
	assert.Equal(t, 1, first.Rows())
	time.Sleep(500 * time.Millisecond)
	assert.Empty(t, sent, "nothing changed, so nothing is sent")
	assert.Equal(t, 1.0, testutil.ToFloat64(d.metrics.streams))
	d.Dispose()
	require.ErrorIs(t, <-ended, reader.ErrClosed, "Grafana restarts a stream that ends with an error")
	assert.Equal(t, 0.0, testutil.ToFloat64(d.metrics.streams))
	assert.Equal(t, 1.0, testutil.ToFloat64(d.metrics.streamPackets.WithLabelValues("sent")))
}

func TestStreamsOfAFleetShareItsReads(t *testing.T) {
	store := &fakeStore{}
	d := newTestDatasource(t, store, map[string]any{"liveInterval": "200ms", "latestCache": "100ms"})
	filtered, ok := query.Channel("uid", "north", &query.Latest{Common: query.Common{Limit: 1}})
	require.True(t, ok)
	ctx, cancel := context.WithCancel(t.Context())
	start := time.Now()
	var streams sync.WaitGroup
	for _, path := range []string{northPath, northPath, strings.TrimPrefix(filtered, "ds/uid/")} {
		streams.Go(func() {
			sent := make(packets, 10)
			assert.ErrorIs(t, d.RunStream(ctx, &backend.RunStreamRequest{Path: path}, backend.NewStreamSender(sent)), context.Canceled)
			assert.Len(t, sent, 1)
		})
	}
	time.Sleep(1100 * time.Millisecond)
	cancel()
	streams.Wait()
	assert.LessOrEqual(t, int(store.reads.Load()), int(time.Since(start)/(200*time.Millisecond))+2)
}

func TestFailedReadsEndAStream(t *testing.T) {
	store := &fakeStore{err: errors.New("down")}
	d := newTestDatasource(t, store, map[string]any{"liveInterval": "200ms"})
	err := d.RunStream(t.Context(), &backend.RunStreamRequest{Path: northPath}, backend.NewStreamSender(make(packets, 1)))
	require.EqualError(t, err, "read fleet north: down")
	assert.Equal(t, int32(maxFailures), store.reads.Load())
}

func TestRunStreamErrors(t *testing.T) {
	restricted := newTestDatasource(t, &fakeStore{}, map[string]any{"allowedFleets": "north"})
	sender := backend.NewStreamSender(make(packets, 1))
	require.ErrorContains(t, restricted.RunStream(t.Context(), &backend.RunStreamRequest{Path: southPath}, sender), "not allowed for this data source")
	require.ErrorContains(t, restricted.RunStream(t.Context(), &backend.RunStreamRequest{Path: "fleet"}, sender), "use fleet/FLEET")
	invalid := newTestDatasource(t, &fakeStore{}, map[string]any{"maxRows": 0})
	require.ErrorContains(t, invalid.RunStream(t.Context(), &backend.RunStreamRequest{Path: northPath}, sender), "Rows per query")
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, restricted.RunStream(canceled, &backend.RunStreamRequest{Path: northPath}, backend.NewStreamSender(make(packets, 10))), context.Canceled)
}
