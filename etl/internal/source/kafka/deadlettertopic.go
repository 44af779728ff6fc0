package kafka

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/sirupsen/logrus"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/fleettracing/fleet-tracing/etl/internal/pipeline"
	"github.com/fleettracing/fleet-tracing/etl/internal/promutil"
	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

// DeadLetterTopic stores rejected records on a topic: the raw record as the value, the reason in headers.
type DeadLetterTopic struct {
	producer *producer
	now      func() time.Time
	stored   prometheus.Counter
}

// NewDeadLetterTopic checks its arguments. It does not connect yet.
func NewDeadLetterTopic(c Connection, topic string, logger logrus.FieldLogger, reg prometheus.Registerer, now func() time.Time) (*DeadLetterTopic, error) {
	p, err := newProducer(c, topic, logger, now)
	if err != nil {
		return nil, fmt.Errorf("kafka dead letters: %w", err)
	}
	stored := promutil.With(reg).Counter("fleet_etl_kafka_dead_letters_total", "Rejected records that were stored on the dead-letter topic.")
	return &DeadLetterTopic{producer: p, now: now, stored: stored}, nil
}

// Append implements pipeline.DeadLetters: it returns when the records are stored on all in-sync replicas. It waits for an
// unreachable broker until ctx ends. The error of any other failure names the topic.
func (d *DeadLetterTopic) Append(ctx context.Context, source, origin string, rejected []pipeline.Rejected) error {
	records := make([]*kgo.Record, len(rejected))
	for i := range rejected {
		records[i] = d.record(source, origin, &rejected[i])
	}
	failed, err := d.producer.store(ctx, records)
	if err == nil && len(failed) > 0 {
		failed, err = d.storeTruncated(ctx, failed)
	}
	for _, e := range failed {
		err = d.producer.explain(e)
	}
	if err != nil {
		return fmt.Errorf("write dead letters of %s: %w", origin, err)
	}
	d.stored.Add(float64(len(rejected)))
	return nil
}

// storeTruncated stores the beginning of records that are too large for the topic, with their length in the header cut. The whole record is still where it came
// from, and a dead letter that can't be stored would stop its partition.
func (d *DeadLetterTopic) storeTruncated(ctx context.Context, failed map[*kgo.Record]error) (map[*kgo.Record]error, error) {
	var truncated []*kgo.Record
	for r, err := range failed {
		if !errors.Is(err, kerr.MessageTooLarge) || len(r.Value) <= telemetry.MaxJSON {
			return failed, nil
		}
		headers := append(r.Headers, kgo.RecordHeader{Key: "cut", Value: []byte(strconv.Itoa(len(r.Value)))})
		truncated = append(truncated, &kgo.Record{Key: r.Key, Value: r.Value[:telemetry.MaxJSON], Headers: headers, Timestamp: r.Timestamp})
	}
	return d.producer.store(ctx, truncated)
}

// record makes a dead letter. A header whose value is unknown is empty.
func (d *DeadLetterTopic) record(source, origin string, r *pipeline.Rejected) *kgo.Record {
	now := d.now().UTC()
	record := &kgo.Record{Key: keyOf([]byte(r.Raw)), Value: []byte(r.Raw), Timestamp: now}
	for _, h := range [...][2]string{
		{"reason", string(r.Reason)}, {"field", r.Field}, {"value", r.Value}, {"remedy", r.Remedy},
		{"source", source},
		{"origin", origin}, // topic/partition
		{"position", strconv.FormatInt(r.Position, 10)}, // offset
		{"time", now.Format(time.RFC3339Nano)},          // of the rejection
	} {
		record.Headers = append(record.Headers, kgo.RecordHeader{Key: h[0], Value: []byte(h[1])})
	}
	return record
}

// Close closes the connection. Everything is stored already, and an Append that still waits fails.
func (d *DeadLetterTopic) Close() { d.producer.close() }

// Sink sends records to a topic as a gateway of devices does: one JSON object per value, with the device id as key, so
// that all records of a device are in one partition and in order. It is an io.Writer of NDJSON.
type Sink struct {
	ctx      context.Context
	producer *producer
}

// NewSink checks its arguments. It does not connect yet. ctx bounds the waits of Write for an unreachable broker.
func NewSink(ctx context.Context, c Connection, topic string, logger logrus.FieldLogger) (*Sink, error) {
	p, err := newProducer(c, topic, logger, time.Now)
	if err != nil {
		return nil, fmt.Errorf("kafka sink: %w", err)
	}
	return &Sink{ctx, p}, nil
}

// Write sends each line as a value, and returns when all of them are stored on all in-sync replicas. The text must end
// with a line end, as generator.WriteNDJSON writes it. After an error some of the lines may be stored.
func (s *Sink) Write(text []byte) (int, error) {
	if len(text) > 0 && text[len(text)-1] != '\n' {
		return 0, fmt.Errorf("send to kafka: %d bytes end within a line: write whole lines", len(text))
	}
	var records []*kgo.Record
	for line := range bytes.Lines(bytes.Clone(text)) { // the producer may keep the text, a Writer must not
		line = bytes.TrimRight(line, "\r\n")
		records = append(records, &kgo.Record{Key: keyOf(line), Value: line})
	}
	failed, err := s.producer.store(s.ctx, records)
	for _, e := range failed {
		err = s.producer.explain(e)
	}
	if err != nil {
		return 0, fmt.Errorf("send to kafka: %w", err)
	}
	return len(text), nil
}

// Close closes the connection. Everything that Write accepted is stored already.
func (s *Sink) Close() { s.producer.close() }
