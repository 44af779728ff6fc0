package plugin

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/grafana/grafana-plugin-sdk-go/backend"
	"github.com/grafana/grafana-plugin-sdk-go/data"

	"github.com/fleettracing/fleet-tracing/grafana-datasource/pkg/frames"
	"github.com/fleettracing/fleet-tracing/grafana-datasource/pkg/query"
	"github.com/fleettracing/fleet-tracing/grafana-datasource/pkg/reader"
)

// SubscribeStream admits a viewer to a stream of an allowed fleet, and returns the current map.
func (d *Datasource) SubscribeStream(ctx context.Context, req *backend.SubscribeStreamRequest) (*backend.SubscribeStreamResponse, error) {
	q, err := query.ParseChannel(req.Path)
	if err != nil || d.settingsErr != nil {
		return &backend.SubscribeStreamResponse{Status: backend.SubscribeStreamStatusNotFound}, nil
	}
	if err := d.executor.Authorize(q); err != nil {
		backend.Logger.FromContext(ctx).Warn("stream rejected", "reason", reasonForbidden, "error", err)
		d.metrics.errors.WithLabelValues(query.TypeLatest, reasonForbidden).Inc()
		return &backend.SubscribeStreamResponse{Status: backend.SubscribeStreamStatusPermissionDenied}, nil
	}
	response := &backend.SubscribeStreamResponse{Status: backend.SubscribeStreamStatusOK}
	vehicles, err := d.executor.LiveVehicles(ctx, q)
	if err != nil {
		return response, nil // the stream retries, and the panel shows the result of its query
	}
	if initial, err := backend.NewInitialFrame(d.executor.LiveFrame(vehicles), data.IncludeAll); err == nil {
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

// maxFailures is how many reads of a fleet may fail in a row before its streams end and Grafana restarts them.
const maxFailures = 5

// RunStream sends the map whenever it changes. It returns an error when the data source was replaced or the fleet
// cannot be read, so that Grafana restarts the stream; after nil, Grafana would not restart it.
func (d *Datasource) RunStream(ctx context.Context, req *backend.RunStreamRequest, sender *backend.StreamSender) error {
	q, err := query.ParseChannel(req.Path)
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
	var sent []byte
	var sentAt time.Time
	for failures := 0; ; {
		vehicles, err := d.executor.LiveVehicles(ctx, q)
		current := fingerprint(vehicles)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil:
			if failures++; failures >= maxFailures {
				return fmt.Errorf("read fleet %s: %w", q.Fleets[0], err)
			}
		case !slices.Equal(current, sent) || d.now().Sub(sentAt) >= maxSilence:
			if err := sender.SendFrame(d.executor.LiveFrame(vehicles), data.IncludeAll); err != nil {
				d.metrics.streamPackets.WithLabelValues("failed").Inc()
				return fmt.Errorf("send packet: %w", err)
			}
			d.metrics.streamPackets.WithLabelValues("sent").Inc()
			sent, sentAt = current, d.now()
		}
		if err == nil {
			failures = 0
		}
		// All streams read at multiples of the interval, so the streams of one fleet share its reads.
		interval := d.settings.LiveInterval
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-d.disposed:
			return reader.ErrClosed
		case <-time.After(interval - time.Duration(time.Now().UnixNano())%interval):
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
