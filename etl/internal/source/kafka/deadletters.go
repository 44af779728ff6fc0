package kafka

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/sirupsen/logrus"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/fleettracing/fleet-tracing/etl/internal/pipeline"
	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

// The headers of a dead letter. All but HeaderCut are always there, empty where nothing can be said.
const (
	HeaderReason   = "reason"
	HeaderField    = "field"
	HeaderValue    = "value"
	HeaderRemedy   = "remedy"
	HeaderSource   = "source"
	HeaderOrigin   = "origin"   // topic/partition
	HeaderPosition = "position" // offset
	HeaderTime     = "time"     // RFC 3339, when it was refused
	HeaderCut      = "cut"      // length in bytes of a raw record that was too long for the topic; the value is its beginning
)

// DeadLetterOptions say where refused records go.
type DeadLetterOptions struct {
	Connection Connection
	Topic      string

	Logger     logrus.FieldLogger
	Registerer prometheus.Registerer
	Now        func() time.Time // nil is time.Now
}

// DeadLetters keeps records that were refused on their way from Kafka on a topic, whole, with the reason in headers.
type DeadLetters struct {
	o        DeadLetterOptions
	producer *producer
	stored   prometheus.Counter
}

// NewDeadLetters checks the options. It does not connect yet.
func NewDeadLetters(o DeadLetterOptions) (*DeadLetters, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	p, err := newProducer(o.Connection, o.Topic, "lz4", o.Logger, o.Now)
	if err != nil {
		return nil, fmt.Errorf("kafka dead letters: %w", err)
	}
	d := &DeadLetters{o: o, producer: p, stored: prometheus.NewCounter(prometheus.CounterOpts{
		Name: "fleet_etl_kafka_dead_letters_total",
		Help: "Refused records that were stored on the dead-letter topic.",
	})}
	o.Registerer.MustRegister(d.stored)
	return d, nil
}

// Append implements pipeline.DeadLetters: it returns when the records are stored on all replicas in sync. It waits for a
// broker that does not answer; the error of any other failure names the topic.
func (d *DeadLetters) Append(ctx context.Context, source, origin string, letters []pipeline.Rejected) error {
	records := make([]*kgo.Record, len(letters))
	for i, r := range letters {
		records[i] = d.letter(source, origin, r)
	}
	failed, err := d.producer.store(ctx, records)
	if err == nil && len(failed) > 0 {
		failed, err = d.cut(ctx, failed)
	}
	if err == nil && len(failed) > 0 {
		for _, e := range failed {
			err = d.producer.explain(e)
		}
	}
	if err != nil {
		return fmt.Errorf("write dead letters of %s: %w", origin, err)
	}
	d.stored.Add(float64(len(letters)))
	return nil
}

// cut stores the beginning of those that were too long: the whole is still where the record came from, and a record
// that can't be put away would stop its partition for ever.
func (d *DeadLetters) cut(ctx context.Context, failed map[*kgo.Record]error) (map[*kgo.Record]error, error) {
	var again []*kgo.Record
	for r, err := range failed {
		if !tooLarge(err) || len(r.Value) <= telemetry.MaxJSON {
			return failed, nil
		}
		headers := append(r.Headers, kgo.RecordHeader{Key: HeaderCut, Value: []byte(strconv.Itoa(len(r.Value)))})
		again = append(again, &kgo.Record{Key: r.Key, Value: r.Value[:telemetry.MaxJSON], Headers: headers, Timestamp: r.Timestamp})
	}
	return d.producer.store(ctx, again)
}

func (d *DeadLetters) letter(source, origin string, r pipeline.Rejected) *kgo.Record {
	now := d.o.Now().UTC()
	letter := &kgo.Record{Key: keyOf([]byte(r.Raw)), Value: []byte(r.Raw), Timestamp: now}
	for _, h := range [...][2]string{
		{HeaderReason, string(r.Reason)}, {HeaderField, r.Field}, {HeaderValue, r.Value}, {HeaderRemedy, r.Remedy},
		{HeaderSource, source}, {HeaderOrigin, origin}, {HeaderPosition, strconv.FormatInt(r.Position, 10)},
		{HeaderTime, now.Format(time.RFC3339Nano)},
	} {
		letter.Headers = append(letter.Headers, kgo.RecordHeader{Key: h[0], Value: []byte(h[1])})
	}
	return letter
}

// Close ends the connection; everything is stored already. An Append that still waits gives up.
func (d *DeadLetters) Close() { d.producer.close() }
