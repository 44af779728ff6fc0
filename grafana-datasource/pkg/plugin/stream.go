package plugin

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/grafana/grafana-plugin-sdk-go/backend"
	"github.com/grafana/grafana-plugin-sdk-go/data"

	"github.com/fleettracing/fleet-tracing/cassandra"
)

// A channel is fleet/FLEET or fleet/FLEET/CONDITIONS, each part in base64 without padding: all that a stream depends on
// is in its path, since it outlives the query that named it and may run on another server.

// maxChannel is the longest channel that Grafana takes.
const maxChannel = 160

// conditions are the parts of a query that a stream heeds.
type conditions struct {
	States        []string `json:"s,omitempty"`
	Zones         []string `json:"z,omitempty"`
	Devices       []string `json:"d,omitempty"`
	MinSpeedKmh   *float64 `json:"a,omitempty"`
	MaxSpeedKmh   *float64 `json:"b,omitempty"`
	MinBatteryPct *float64 `json:"c,omitempty"`
	MaxBatteryPct *float64 `json:"e,omitempty"`
	Filters       []filter `json:"f,omitempty"`
	Limit         int      `json:"l,omitempty"`
}

// channel is the channel of the fleet's map under the conditions of a query, if there is room for them.
func (d *Datasource) channel(fleets []string, m *model) (string, bool) {
	if len(fleets) != 1 {
		return "", false
	}
	path := "fleet/" + base64.RawURLEncoding.EncodeToString([]byte(fleets[0]))
	text, err := json.Marshal(conditions{m.States, m.Zones, m.Devices, m.MinSpeedKmh, m.MaxSpeedKmh, m.MinBatteryPct, m.MaxBatteryPct, m.Filters, m.Limit})
	if err != nil {
		return "", false
	}
	if string(text) != "{}" {
		path += "/" + base64.RawURLEncoding.EncodeToString(text)
	}
	channel := "ds/" + d.uid + "/" + path
	return channel, len(channel) <= maxChannel
}

// parsePath reads the path of a channel.
func parsePath(path string) (fleet string, q *query, err error) {
	parts := strings.Split(path, "/")
	if len(parts) < 2 || len(parts) > 3 || parts[0] != "fleet" {
		return "", nil, fmt.Errorf("stream %q: there is fleet/FLEET and fleet/FLEET/CONDITIONS", path)
	}
	name, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil || !validName(string(name)) {
		return "", nil, fmt.Errorf("stream %q: the fleet is no name in base64", path)
	}
	q = &query{queryType: typeLatest}
	if len(parts) == 3 {
		text, err := base64.RawURLEncoding.DecodeString(parts[2])
		if err != nil {
			return "", nil, fmt.Errorf("stream %q: the conditions are not base64: %w", path, err)
		}
		var c conditions
		if err := json.Unmarshal(text, &c); err != nil {
			return "", nil, fmt.Errorf("stream %q: the conditions are not JSON: %w", path, err)
		}
		q.model = model{States: c.States, Zones: c.Zones, Devices: c.Devices, MinSpeedKmh: c.MinSpeedKmh, MaxSpeedKmh: c.MaxSpeedKmh,
			MinBatteryPct: c.MinBatteryPct, MaxBatteryPct: c.MaxBatteryPct, Filters: c.Filters, Limit: c.Limit}
	}
	return string(name), q, q.check()
}

// SubscribeStream lets a viewer join a stream if the data source has a right on the fleet, and gives the map as it is.
func (d *Datasource) SubscribeStream(ctx context.Context, req *backend.SubscribeStreamRequest) (*backend.SubscribeStreamResponse, error) {
	fleet, q, err := parsePath(req.Path)
	if err != nil || d.wrong != nil {
		return &backend.SubscribeStreamResponse{Status: backend.SubscribeStreamStatusNotFound}, nil
	}
	if !d.settings.allows(fleet) {
		backend.Logger.FromContext(ctx).Warn("stream refused", "fleet", fleet, "reason", reasonForbidden)
		d.metrics.errors.WithLabelValues(typeLatest, reasonForbidden).Inc()
		return &backend.SubscribeStreamResponse{Status: backend.SubscribeStreamStatusPermissionDenied}, nil
	}
	response := &backend.SubscribeStreamResponse{Status: backend.SubscribeStreamStatusOK}
	ctx, cancel := context.WithTimeout(ctx, d.settings.queryTimeout)
	defer cancel()
	rows, err := d.reader.latest(ctx, &cost{}, fleet)
	if err != nil {
		return response, nil // the stream itself goes on trying; the panel has what its query brought
	}
	if initial, err := backend.NewInitialFrame(d.latestFrame(d.shown(rows, q)), data.IncludeAll); err == nil {
		response.InitialData = initial
	}
	return response, nil
}

// PublishStream refuses: nobody but the pipeline moves vehicles.
func (d *Datasource) PublishStream(context.Context, *backend.PublishStreamRequest) (*backend.PublishStreamResponse, error) {
	return &backend.PublishStreamResponse{Status: backend.PublishStreamStatusPermissionDenied}, nil
}

// heartbeat is the longest time without a packet: vehicles that send nothing grow older all the same.
const heartbeat = 10 * time.Second

// RunStream sends the map whenever it has changed. It ends with an error when the data source has been replaced or the
// fleet can't be read for a while, so that Grafana starts it anew; nil would end it for good.
func (d *Datasource) RunStream(ctx context.Context, req *backend.RunStreamRequest, sender *backend.StreamSender) error {
	fleet, q, err := parsePath(req.Path)
	if err != nil {
		return err
	}
	if d.wrong != nil {
		return d.wrong
	}
	if !d.settings.allows(fleet) {
		return forbidden(fleet, &d.settings)
	}
	d.metrics.streams.Inc()
	defer d.metrics.streams.Dec()
	snapshots, leave, err := d.hub.join(fleet)
	if err != nil {
		return err
	}
	defer leave()
	var sent []byte
	var at time.Time
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case s, ok := <-snapshots:
			if !ok {
				return errDisposed
			}
			if s.err != nil {
				return fmt.Errorf("read fleet %s: %w", fleet, s.err)
			}
			vehicles := d.shown(s.rows, q)
			print := fingerprint(vehicles)
			if slices.Equal(print, sent) && d.now().Sub(at) < heartbeat {
				continue
			}
			if err := sender.SendFrame(d.latestFrame(vehicles), data.IncludeAll); err != nil {
				d.metrics.packets.WithLabelValues("failed").Inc()
				return fmt.Errorf("send packet: %w", err)
			}
			d.metrics.packets.WithLabelValues("sent").Inc()
			sent, at = print, d.now()
		}
	}
}

// shown is the vehicles of a fleet that a stream shows.
func (d *Datasource) shown(rows []cassandra.Telemetry, q *query) []vehicle {
	vehicles := d.vehicles(rows, &q.model)
	return vehicles[:min(len(vehicles), q.rowLimit(&d.settings))]
}

// fingerprint tells maps apart by which vehicles are on them, their newest times and states; ages change all the time.
func fingerprint(vehicles []vehicle) []byte {
	print := make([]byte, 0, 64*len(vehicles))
	for i := range vehicles {
		v := &vehicles[i]
		print = append(print, v.DeviceID...)
		print = append(print, v.state...)
		print = v.Ts.AppendFormat(print, time.RFC3339Nano)
	}
	return print
}

// hub has one reader for each fleet that anybody watches, however many streams there are.
type hub struct {
	d *Datasource

	mu     sync.Mutex
	closed bool
	feeds  map[string]*feed
	done   sync.WaitGroup
}

// feed is the reader of one fleet.
type feed struct {
	cancel context.CancelFunc
	joined map[chan snapshot]bool
}

// snapshot is a fleet's newest fixes, or why they could not be read for a while.
type snapshot struct {
	rows []cassandra.Telemetry
	err  error
}

func newHub(d *Datasource) *hub { return &hub{d: d, feeds: map[string]*feed{}} }

// join gives the snapshots of a fleet from now on. A slow reader misses the older ones. The channel is closed when the
// data source is replaced.
func (h *hub) join(fleet string) (<-chan snapshot, func(), error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return nil, nil, errDisposed
	}
	f := h.feeds[fleet]
	if f == nil {
		ctx, cancel := context.WithCancel(context.Background())
		f = &feed{cancel: cancel, joined: map[chan snapshot]bool{}}
		h.feeds[fleet] = f
		h.done.Add(1)
		go func() {
			defer h.done.Done()
			h.read(ctx, fleet, f)
		}()
	}
	snapshots := make(chan snapshot, 1)
	f.joined[snapshots] = true
	return snapshots, func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		delete(f.joined, snapshots)
		if len(f.joined) == 0 {
			f.cancel()
			if h.feeds[fleet] == f {
				delete(h.feeds, fleet)
			}
		}
	}, nil
}

// failuresBorne is how many reads of a fleet may fail in a row before its streams end, to be started anew.
const failuresBorne = 5

func (h *hub) read(ctx context.Context, fleet string, f *feed) {
	tick := time.NewTicker(h.d.settings.liveInterval)
	defer tick.Stop()
	failures := 0
	for {
		limited, cancel := context.WithTimeout(ctx, h.d.settings.queryTimeout)
		rows, err := h.d.reader.latest(limited, &cost{}, fleet)
		cancel()
		if ctx.Err() != nil {
			return
		}
		if err == nil {
			failures = 0
			h.send(f, snapshot{rows: rows})
		} else if failures++; failures >= failuresBorne {
			failures = 0
			h.send(f, snapshot{err: err})
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (h *hub) send(f *feed, s snapshot) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for joined := range f.joined {
		select {
		case joined <- s:
		default: // the one before is not taken yet: let the newer take its place
			select {
			case <-joined:
			default:
			}
			joined <- s
		}
	}
}

// close ends all streams and waits for their readers.
func (h *hub) close() {
	h.mu.Lock()
	h.closed = true
	for fleet, f := range h.feeds {
		f.cancel()
		for joined := range f.joined {
			close(joined)
			delete(f.joined, joined)
		}
		delete(h.feeds, fleet)
	}
	h.mu.Unlock()
	h.done.Wait()
}
