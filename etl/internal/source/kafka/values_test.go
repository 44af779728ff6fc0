package kafka

import (
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/sirupsen/logrus"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/fleettracing/fleet-tracing/etl/internal/pipeline"
	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

const truck = `{"device_id":"truck-1","fleet_id":"wuxi","timestamp":1750000000,"lat":31.5,"lon":120.25}`

func TestParse(t *testing.T) {
	multiline := strings.ReplaceAll(truck, ",", ",\n  ")
	torn := truck[:40]
	for name, c := range map[string]struct {
		value    []byte
		items    []string // their raw texts
		rejected map[string]telemetry.Reason
		skipped  string
	}{
		"one object":                  {value: []byte(truck), items: []string{truck}},
		"one that ends a line":        {value: []byte(truck + "\n"), items: []string{truck + "\n"}},
		"one over several lines":      {value: []byte(multiline), items: []string{multiline}},
		"one per line":                {value: []byte(truck + "\n" + truck + "\r\n\n" + truck), items: []string{truck, truck, truck}},
		"invalid among valid":         {value: []byte(truck + "\n" + torn + "\n" + truck), items: []string{truck, truck}, rejected: map[string]telemetry.Reason{torn: telemetry.Malformed}},
		"invalid first":               {value: []byte(torn + "\n" + truck), items: []string{truck}, rejected: map[string]telemetry.Reason{torn: telemetry.Malformed}},
		"no fleet":                    {value: []byte(`{"device_id":"a","timestamp":1,"lat":1,"lon":1}`), rejected: map[string]telemetry.Reason{`{"device_id":"a","timestamp":1,"lat":1,"lon":1}`: telemetry.MissingField}},
		"not JSON":                    {value: []byte{0xff, 0x00, 0x01}, rejected: map[string]telemetry.Reason{"\xff\x00\x01": telemetry.Malformed}},
		"longer than a record may be": {value: []byte(strings.Repeat("x", telemetry.MaxJSON+1)), rejected: map[string]telemetry.Reason{strings.Repeat("x", telemetry.MaxJSON+1): telemetry.TooLarge}},
		"a tombstone":                 {value: nil, skipped: skipTombstone},
		"empty":                       {value: []byte{}, skipped: skipEmpty},
		"blank":                       {value: []byte(" \n\n"), skipped: skipEmpty},
	} {
		t.Run(name, func(t *testing.T) {
			var b pipeline.Batch
			assert.Equal(t, c.skipped, parse(&b, &kgo.Record{Value: c.value, Offset: 42}))
			var items []string
			for _, i := range b.Items {
				items = append(items, i.Raw)
				assert.Equal(t, int64(42), i.Position)
				assert.Equal(t, "truck-1", i.DeviceID)
			}
			assert.Equal(t, c.items, items)
			require.Len(t, b.Rejected, len(c.rejected))
			for _, r := range b.Rejected {
				assert.Equal(t, c.rejected[r.Raw], r.Reason, r.Raw)
				assert.Equal(t, int64(42), r.Position)
			}
		})
	}
}

func TestKeyOf(t *testing.T) {
	for text, want := range map[string]string{
		truck:                             "truck-1",
		truck[:30]:                        "truck-1", // torn
		`{ "device_id" : "a.b:c-d_e" }`:   "a.b:c-d_e",
		`{"device_id":7}`:                 "",
		`{"device_id":"not a name"}`:      "",
		`{"my_device_id":"a"}`:            "",
		"\xff\x00":                        "",
		`{"lat":1,"device_id":"truck-9"}`: "truck-9",
	} {
		assert.Equal(t, want, string(keyOf([]byte(text))), text)
	}
}

func TestInvalidOptions(t *testing.T) {
	valid := func() Options {
		return Options{Connection: Connection{Brokers: []string{"localhost:9092"}}, Topics: []string{"t"}, Group: "g", FetchMaxBytes: 1 << 20, Logger: logrus.New()}
	}
	for name, c := range map[string]struct {
		change func(*Options)
		want   string
	}{
		"no brokers":             {func(o *Options) { o.Connection.Brokers = nil }, "brokers: empty"},
		"broker without a port":  {func(o *Options) { o.Connection.Brokers = []string{"a:1", "kafka"} }, `"kafka" is not host:port`},
		"unknown mechanism":      {func(o *Options) { o.Connection.Mechanism = "GSSAPI" }, `login mechanism "GSSAPI": give PLAIN or SCRAM-SHA-256`},
		"mechanism without user": {func(o *Options) { o.Connection.Mechanism = Plain }, "give a user with it"},
		"user without mechanism": {func(o *Options) { o.Connection.Username = "u" }, "has no login mechanism"},
	} {
		t.Run(name, func(t *testing.T) {
			o := valid()
			c.change(&o)
			_, err := New(o)
			require.ErrorContains(t, err, c.want)
			assert.ErrorContains(t, err, "kafka options: ")
		})
	}
}

func TestInvalidProducerOptions(t *testing.T) {
	_, err := NewSink(t.Context(), Connection{}, "t", logrus.New())
	require.ErrorContains(t, err, "kafka sink: brokers: empty")
	_, err = NewDeadLetterTopic(Connection{}, "t", logrus.New(), prometheus.NewRegistry(), time.Now)
	require.ErrorContains(t, err, "kafka dead letters: brokers: empty")
}
