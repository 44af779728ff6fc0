package plugin

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
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
	reading, account, err := d.openAccount(ctx)
	defer closeAfter(ctx, account)
	if err != nil {
		return response, nil
	}
	vehicles, err := d.executor.LiveVehicles(reading, q)
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
	var last packet
	for failures := 0; ; {
		read, err := d.sendLive(ctx, q, sender, &last)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case read:
			failures = 0
			if err != nil {
				return err
			}
		case err != nil:
			if failures++; failures >= maxFailures {
				return fmt.Errorf("read fleet %s: %w", q.Fleets[0], err)
			}
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

// packet is the last packet of a stream.
type packet struct {
	fingerprint [sha256.Size]byte
	sentAt      time.Time
}

// sendLive reads the vehicles of a stream, and sends them if they differ from the last packet. It reports whether they were
// read.
func (d *Datasource) sendLive(ctx context.Context, q *query.Latest, sender *backend.StreamSender, last *packet) (read bool, err error) {
	ctx, account, err := d.openAccount(ctx)
	defer account.Close()
	if err != nil {
		return false, err
	}
	vehicles, err := d.executor.LiveVehicles(ctx, q)
	if err != nil {
		return false, err
	}
	current := fingerprint(vehicles)
	if current == last.fingerprint && d.now().Sub(last.sentAt) < maxSilence {
		return true, nil
	}
	if err := sender.SendFrame(d.executor.LiveFrame(vehicles), data.IncludeAll); err != nil {
		d.metrics.streamPackets.WithLabelValues("failed").Inc()
		return true, fmt.Errorf("send packet: %w", err)
	}
	d.metrics.streamPackets.WithLabelValues("sent").Inc()
	*last = packet{current, d.now()}
	return true, nil
}

// fingerprint identifies a map by its vehicles, their times and states. It ignores ages, which always change.
func fingerprint(vehicles []frames.Vehicle) [sha256.Size]byte {
	h := sha256.New()
	var line []byte
	for i := range vehicles {
		v := &vehicles[i]
		line = append(append(append(line[:0], v.DeviceID...), '\n'), v.State...)
		h.Write(binary.LittleEndian.AppendUint64(line, uint64(v.Ts.UnixNano()))) // a hash never fails
	}
	return [sha256.Size]byte(h.Sum(nil))
}
