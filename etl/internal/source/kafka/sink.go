package kafka

import (
	"bytes"
	"context"
	"fmt"
	"time"

	"github.com/sirupsen/logrus"
	"github.com/twmb/franz-go/pkg/kgo"
)

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
