package notify

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/sirupsen/logrus"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

const (
	bufferedSteps = 10_000
	bufferedBytes = 16 << 20
	closeWithin   = 5 * time.Second
)

// Topic puts each step of an alert on a Kafka topic as an Event, under the device's id as key, so that all steps of a
// device are in one partition and in order. A step may be there more than once: fleet_id, device_id, type, opened_at and
// transition identify it.
type Topic struct {
	topic   string
	client  *kgo.Client
	logger  logrus.FieldLogger
	now     func() time.Time
	metrics *metrics

	mu      sync.Mutex
	brokers map[string]*outage
	losing  *outage
}

// Event is the JSON of one step. Names and meanings of its fields are stable; others may be added.
type Event struct {
	FleetID    string               `json:"fleet_id"`
	DeviceID   string               `json:"device_id"`
	Type       telemetry.AlertType  `json:"type"`
	Severity   telemetry.Severity   `json:"severity"`
	Transition telemetry.Transition `json:"transition"`
	OpenedAt   string               `json:"opened_at"`  // RFC 3339 with milliseconds, UTC, as are all times
	StartedAt  string               `json:"started_at"` // when its condition began
	EndedAt    *string              `json:"ended_at"`   // null while it is open
	Peak       float64              `json:"peak"`       // km/h, percent, °C, or seconds for dwell, offline and stuck
	Threshold  float64              `json:"threshold"`  // in the same unit
	Zone       string               `json:"zone"`       // empty for none
	Lat        float64              `json:"lat"`
	Lon        float64              `json:"lon"`
	Message    string               `json:"message"`
}

func eventOf(s *telemetry.AlertEvent) Event {
	e := Event{
		FleetID: s.FleetID, DeviceID: s.DeviceID, Type: s.Type, Severity: s.Severity, Transition: s.Transition,
		OpenedAt: instant(s.OpenedMs), StartedAt: instant(s.StartedMs),
		Peak: s.Peak, Threshold: s.Threshold, Zone: s.Zone, Lat: s.Lat, Lon: s.Lon, Message: s.Message,
	}
	if s.EndedMs != 0 {
		ended := instant(s.EndedMs)
		e.EndedAt = &ended
	}
	return e
}

func instant(ms int64) string {
	return time.UnixMilli(ms).UTC().Format("2006-01-02T15:04:05.000Z07:00")
}

// NewTopic checks its arguments. It connects to nothing yet. connection is how brokers are reached: seeds, client id, TLS
// and login.
func NewTopic(connection []kgo.Opt, topic string, logger logrus.FieldLogger, reg prometheus.Registerer, now func() time.Time) (*Topic, error) {
	if topic == "" {
		return nil, errors.New("kafka alerts: topic: name one")
	}
	t := &Topic{
		topic: topic, logger: logger, now: now, brokers: map[string]*outage{},
		losing: &outage{
			logger: logger.WithField("topic", topic), now: now,
			away:  "kafka takes no alerts; some are lost to the topic",
			still: "kafka still takes no alerts",
			back:  "kafka takes alerts again",
		},
	}
	opts := append(append([]kgo.Opt{}, connection...),
		kgo.DefaultProduceTopic(topic), kgo.RequiredAcks(kgo.AllISRAcks()), kgo.ProducerBatchCompression(kgo.Lz4Compression()),
		kgo.AllowAutoTopicCreation(), kgo.MaxBufferedRecords(bufferedSteps), kgo.MaxBufferedBytes(bufferedBytes),
		kgo.WithHooks(attempts(t.reached)),
	)
	var err error
	if t.client, err = kgo.NewClient(opts...); err != nil {
		return nil, fmt.Errorf("kafka alerts: client: %w", err)
	}
	t.metrics = newMetrics(reg, "kafka")
	return t, nil
}

// Tell sends the steps. It never blocks and never fails: they wait in a bounded buffer for a Kafka that is away, and are
// counted as dropped where they don't fit.
func (t *Topic) Tell(steps []telemetry.AlertEvent) {
	for i := range steps {
		started := t.now()
		value, err := json.Marshal(eventOf(&steps[i]))
		if err != nil {
			t.settle(started, fmt.Errorf("write alert of %s as json: %w", steps[i].DeviceID, err))
			continue
		}
		record := &kgo.Record{Key: []byte(steps[i].DeviceID), Value: value}
		t.client.TryProduce(context.Background(), record, func(_ *kgo.Record, err error) { t.settle(started, err) })
	}
}

func (t *Topic) settle(started time.Time, err error) {
	switch {
	case errors.Is(err, kgo.ErrAborting), errors.Is(err, kgo.ErrClientClosed):
		t.metrics.count(dropped, 1)
		return // Close tells of them all at once
	case errors.Is(err, kgo.ErrMaxBuffered):
		t.metrics.count(dropped, 1)
	default:
		t.metrics.took(1, err, started, t.now())
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.losing.note(err)
}

// Close waits five seconds at the most for what is still on its way, and ends the connection.
func (t *Topic) Close() {
	ctx, cancel := context.WithTimeout(context.Background(), closeWithin)
	defer cancel()
	if err := t.client.Flush(ctx); err != nil {
		t.logger.WithFields(logrus.Fields{"topic": t.topic, "alerts": t.client.BufferedProduceRecords()}).
			Warn("kafka did not take the last alerts in time; they are lost to the topic")
		given, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = t.client.AbortBufferedRecords(given) // so that they are counted; it fails only when that takes too long
	}
	t.client.Close()
}

// reached hears of each attempt to connect: while no broker answers, steps only wait and nothing else would say so.
func (t *Topic) reached(broker string, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	o := t.brokers[broker]
	if o == nil {
		o = &outage{
			logger: t.logger.WithFields(logrus.Fields{"topic": t.topic, "broker": broker}), now: t.now,
			away:  "kafka broker does not answer; alerts wait for it",
			still: "kafka broker still does not answer",
			back:  "kafka broker answers again",
		}
		t.brokers[broker] = o
	}
	o.note(err)
}

// attempts hears of each attempt to connect, with its login.
type attempts func(broker string, err error)

// OnBrokerConnect implements kgo.HookBrokerConnect.
func (report attempts) OnBrokerConnect(meta kgo.BrokerMetadata, _ time.Duration, _ net.Conn, err error) {
	if errors.Is(err, context.Canceled) {
		return // we closed it
	}
	report(net.JoinHostPort(meta.Host, strconv.Itoa(int(meta.Port))), err)
}
