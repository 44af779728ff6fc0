package kafka

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"time"

	"github.com/sirupsen/logrus"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

// SinkOptions say where records are sent.
type SinkOptions struct {
	Connection  Connection
	Topic       string
	Compression string // one of Compressions; empty is lz4
	Logger      logrus.FieldLogger
}

// Message is a value with its key.
type Message struct{ Key, Value []byte }

// Sink sends records to a topic as a device's gateway would: one JSON object each, under the device's id as key, so that
// all records of a device are in one partition and in order.
type Sink struct{ producer *producer }

// NewSink checks the options. It connects to nothing yet.
func NewSink(o SinkOptions) (*Sink, error) {
	if o.Compression == "" {
		o.Compression = "lz4"
	}
	p, err := newProducer(o.Connection, o.Topic, o.Compression, o.Logger, time.Now)
	if err != nil {
		return nil, fmt.Errorf("kafka sink: %w", err)
	}
	return &Sink{p}, nil
}

// Write sends records and returns when all of them are stored on all replicas in sync. It waits for a broker that does
// not answer until ctx ends. After an error some of the records may be stored.
func (s *Sink) Write(ctx context.Context, records []telemetry.Record) error {
	messages := make([]Message, len(records))
	for i := range records {
		value, err := records[i].AppendJSON(nil)
		if err != nil {
			return fmt.Errorf("send record of %s at %s: %w", records[i].DeviceID, records[i].Time(), err)
		}
		messages[i] = Message{[]byte(records[i].DeviceID), value}
	}
	return s.WriteRaw(ctx, messages)
}

// WriteRaw is Write with values as they are, whatever they are.
func (s *Sink) WriteRaw(ctx context.Context, messages []Message) error {
	if len(messages) == 0 {
		return nil
	}
	records := make([]*kgo.Record, len(messages))
	for i, m := range messages {
		records[i] = &kgo.Record{Key: m.Key, Value: m.Value}
	}
	failed, err := s.producer.store(ctx, records)
	if err == nil && len(failed) > 0 {
		err = s.producer.explain(one(records, failed))
	}
	if err != nil {
		return fmt.Errorf("send to kafka: %w", err)
	}
	return nil
}

// NDJSON is a writer that sends each line as a value, under the device id that is in it as key, and returns from Write when
// all are stored. Each Write must end with a line's end, as those of generator.WriteNDJSON do.
func (s *Sink) NDJSON(ctx context.Context) io.Writer { return &lines{ctx, s} }

type lines struct {
	ctx  context.Context
	sink *Sink
}

func (l *lines) Write(text []byte) (int, error) {
	if len(text) > 0 && text[len(text)-1] != '\n' {
		return 0, fmt.Errorf("send to kafka: %d bytes end amid a line: write whole lines", len(text))
	}
	text = bytes.Clone(text) // a writer keeps nothing of what it was given, and a producer may
	var messages []Message
	for line := range bytes.Lines(text) {
		line = bytes.TrimRight(line, "\r\n")
		messages = append(messages, Message{keyOf(line), line})
	}
	if err := l.sink.WriteRaw(l.ctx, messages); err != nil {
		return 0, err
	}
	return len(text), nil
}

// Close ends the connection; everything that Write accepted is stored already.
func (s *Sink) Close() { s.producer.close() }
