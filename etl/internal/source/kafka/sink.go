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

// SinkOptions say where a Sink sends records.
type SinkOptions struct {
	Connection  Connection
	Topic       string
	Compression string // one of Compressions; empty is lz4
	Logger      logrus.FieldLogger
}

// Message is a value with its key.
type Message struct{ Key, Value []byte }

// Sink sends records to a topic as a gateway of devices does: one JSON object per value, with the device id as key, so
// that all records of a device are in one partition and in order.
type Sink struct{ producer *producer }

// NewSink checks the options. It does not connect yet.
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

// Write sends records and returns when they are stored on all in-sync replicas. It waits for an unreachable broker until
// ctx ends. After an error some of the records may be stored.
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

// WriteRaw is Write for values that may be anything.
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
		err = s.producer.explain(firstError(records, failed))
	}
	if err != nil {
		return fmt.Errorf("send to kafka: %w", err)
	}
	return nil
}

// NDJSON returns a writer that sends each line as a value, with the device id in it as key. Write returns when all lines
// are stored. Each Write must end with a line end, as generator.WriteNDJSON does.
func (s *Sink) NDJSON(ctx context.Context) io.Writer { return &lineWriter{ctx, s} }

type lineWriter struct {
	ctx  context.Context
	sink *Sink
}

func (l *lineWriter) Write(text []byte) (int, error) {
	if len(text) > 0 && text[len(text)-1] != '\n' {
		return 0, fmt.Errorf("send to kafka: %d bytes end within a line: write whole lines", len(text))
	}
	text = bytes.Clone(text) // the producer may keep the text, a Writer must not
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

// Close closes the connection. Everything that Write accepted is stored already.
func (s *Sink) Close() { s.producer.close() }
