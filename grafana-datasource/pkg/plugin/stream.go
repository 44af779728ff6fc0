package plugin

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/grafana/grafana-plugin-sdk-go/backend"
	"github.com/grafana/grafana-plugin-sdk-go/data"

	"github.com/fleettracing/fleet-tracing/grafana-datasource/pkg/frames"
	"github.com/fleettracing/fleet-tracing/grafana-datasource/pkg/live"
	"github.com/fleettracing/fleet-tracing/grafana-datasource/pkg/query"
	"github.com/fleettracing/fleet-tracing/grafana-datasource/pkg/reader"
)

// SubscribeStream admits a viewer to a stream of an allowed fleet, and returns the current map.
func (d *Datasource) SubscribeStream(ctx context.Context, req *backend.SubscribeStreamRequest) (*backend.SubscribeStreamResponse, error) {
	q, err := live.ParsePath(req.Path)
	if err != nil || d.settingsErr != nil {
		return &backend.SubscribeStreamResponse{Status: backend.SubscribeStreamStatusNotFound}, nil
	}
	if err := d.executor.Authorize(q); err != nil {
		backend.Logger.FromContext(ctx).Warn("stream rejected", "reason", reasonForbidden, "error", err)
		d.metrics.errors.WithLabelValues(query.TypeLatest, reasonForbidden).Inc()
		return &backend.SubscribeStreamResponse{Status: backend.SubscribeStreamStatusPermissionDenied}, nil
	}
	response := &backend.SubscribeStreamResponse{Status: backend.SubscribeStreamStatusOK}
	ctx, cancel := context.WithTimeout(ctx, d.settings.QueryTimeout)
	defer cancel()
	rows, err := d.reader.Latest(ctx, q.Fleets[0])
	if err != nil {
		return response, nil // the stream retries, and the panel shows the result of its query
	}
	if initial, err := backend.NewInitialFrame(d.executor.LiveFrame(d.executor.LiveVehicles(rows, q)), data.IncludeAll); err == nil {
		response.InitialData = initial
	}
	return response, nil
}

// PublishStream rejects every publication: only stored records move vehicles.
func (d *Datasource) PublishStream(context.Context, *backend.PublishStreamRequest) (*backend.PublishStreamResponse, error) {
	return &backend.PublishStreamResponse{Status: backend.PublishStreamStatusPermissionDenied}, nil
}

// maxSilence is the longest time without a packet: the ages of vehicles grow even if no vehicle sends.
const maxSilence = 10 * time.Second

// RunStream sends the map whenever it changes. It returns an error when the data source was replaced or the fleet
// cannot be read, so that Grafana restarts the stream; after nil, Grafana would not restart it.
func (d *Datasource) RunStream(ctx context.Context, req *backend.RunStreamRequest, sender *backend.StreamSender) error {
	q, err := live.ParsePath(req.Path)
	if err != nil {
		return err
	}
	if d.settingsErr != nil {
		return d.settingsErr
	}
	if err := d.executor.Authorize(q); err != nil {
		return err
	}
	d.metrics.streams.Inc()
	defer d.metrics.streams.Dec()
	snapshots, unsubscribe := d.live.Subscribe(q.Fleets[0])
	defer unsubscribe()
	var sent []byte
	var sentAt time.Time
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case s, ok := <-snapshots:
			if !ok {
				return reader.ErrClosed
			}
			if s.Err != nil {
				return fmt.Errorf("read fleet %s: %w", q.Fleets[0], s.Err)
			}
			vehicles := d.executor.LiveVehicles(s.Rows, q)
			current := fingerprint(vehicles)
			if slices.Equal(current, sent) && d.now().Sub(sentAt) < maxSilence {
				continue
			}
			if err := sender.SendFrame(d.executor.LiveFrame(vehicles), data.IncludeAll); err != nil {
				d.metrics.streamPackets.WithLabelValues("failed").Inc()
				return fmt.Errorf("send packet: %w", err)
			}
			d.metrics.streamPackets.WithLabelValues("sent").Inc()
			sent, sentAt = current, d.now()
		}
	}
}

// fingerprint identifies a map by its vehicles, their times and states. It ignores ages, which always change.
func fingerprint(vehicles []frames.Vehicle) []byte {
	print := make([]byte, 0, 64*len(vehicles))
	for i := range vehicles {
		v := &vehicles[i]
		print = append(print, v.DeviceID...)
		print = append(print, v.State...)
		print = v.Ts.AppendFormat(print, time.RFC3339Nano)
	}
	return print
}
