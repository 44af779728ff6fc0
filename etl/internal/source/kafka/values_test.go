package kafka

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sirupsen/logrus"
	"github.com/sirupsen/logrus/hooks/test"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/fleettracing/fleet-tracing/etl/internal/pipeline"
	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

const truck = `{"device_id":"truck-1","fleet_id":"wuxi","timestamp":1750000000,"lat":31.5,"lon":120.25}`

func TestRead(t *testing.T) {
	spread := strings.ReplaceAll(truck, ",", ",\n  ")
	torn := truck[:40]
	for name, c := range map[string]struct {
		value   []byte
		items   []string // their raw texts
		refused map[string]telemetry.Reason
		skipped string
	}{
		"one object":                  {value: []byte(truck), items: []string{truck}},
		"one that ends a line":        {value: []byte(truck + "\n"), items: []string{truck + "\n"}},
		"one over several lines":      {value: []byte(spread), items: []string{spread}},
		"one a line":                  {value: []byte(truck + "\n" + truck + "\r\n\n" + truck), items: []string{truck, truck, truck}},
		"a bad one among good":        {value: []byte(truck + "\n" + torn + "\n" + truck), items: []string{truck, truck}, refused: map[string]telemetry.Reason{torn: telemetry.Malformed}},
		"a bad one first":             {value: []byte(torn + "\n" + truck), items: []string{truck}, refused: map[string]telemetry.Reason{torn: telemetry.Malformed}},
		"no fleet":                    {value: []byte(`{"device_id":"a","timestamp":1,"lat":1,"lon":1}`), refused: map[string]telemetry.Reason{`{"device_id":"a","timestamp":1,"lat":1,"lon":1}`: telemetry.MissingField}},
		"no JSON at all":              {value: []byte{0xff, 0x00, 0x01}, refused: map[string]telemetry.Reason{"\xff\x00\x01": telemetry.Malformed}},
		"longer than a record may be": {value: []byte(strings.Repeat("x", telemetry.MaxJSON+1)), refused: map[string]telemetry.Reason{strings.Repeat("x", telemetry.MaxJSON+1): telemetry.TooLarge}},
		"a tombstone":                 {value: nil, skipped: skipTombstone},
		"empty":                       {value: []byte{}, skipped: skipEmpty},
		"blank":                       {value: []byte(" \n\n"), skipped: skipEmpty},
	} {
		t.Run(name, func(t *testing.T) {
			var b pipeline.Batch
			assert.Equal(t, c.skipped, read(&b, &kgo.Record{Value: c.value, Offset: 42}))
			var items []string
			for _, i := range b.Items {
				items = append(items, i.Raw)
				assert.Equal(t, int64(42), i.Position)
				assert.Equal(t, "truck-1", i.DeviceID)
			}
			assert.Equal(t, c.items, items)
			require.Len(t, b.Rejected, len(c.refused))
			for _, r := range b.Rejected {
				assert.Equal(t, c.refused[r.Raw], r.Reason, r.Raw)
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

func TestAnOutageIsSpokenOfAtOnceAndAgainEveryHalfMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		logger, hook := test.NewNullLogger()
		o := newOutages(logger, time.Now)
		refused := assert.AnError
		for range 65 { // one attempt a second
			o.note("a:1", refused)
			o.note("b:1", nil)
			time.Sleep(time.Second)
		}
		o.note("a:1", nil)
		o.note("a:1", nil)
		o.note("a:1", refused)
		var said []string
		for _, e := range hook.AllEntries() {
			assert.Equal(t, "a:1", e.Data["broker"])
			said = append(said, e.Level.String()+": "+e.Message)
		}
		assert.Equal(t, []string{
			"warning: kafka broker does not answer; trying again",
			"warning: kafka broker still does not answer; trying again",
			"warning: kafka broker still does not answer; trying again",
			"info: kafka broker answers again",
			"warning: kafka broker does not answer; trying again",
		}, said)
		assert.Equal(t, "1m5s", hook.AllEntries()[3].Data["after"])
	})
}

func TestOptionsThatCanNotWork(t *testing.T) {
	good := func() Options {
		return Options{Connection: Connection{Brokers: []string{"localhost:9092"}}, Topics: []string{"t"}, Group: "g", Logger: logrus.New()}
	}
	for name, c := range map[string]struct {
		spoil func(*Options)
		want  string
	}{
		"no brokers":             {func(o *Options) { o.Connection.Brokers = nil }, "brokers: none given"},
		"broker without a port":  {func(o *Options) { o.Connection.Brokers = []string{"a:1", "kafka"} }, `"kafka" is not host:port`},
		"unknown mechanism":      {func(o *Options) { o.Connection.Mechanism = "GSSAPI" }, `login mechanism "GSSAPI": take PLAIN or SCRAM-SHA-256`},
		"mechanism without user": {func(o *Options) { o.Connection.Mechanism = Plain }, "give a user with it"},
		"user without mechanism": {func(o *Options) { o.Connection.Username = "u" }, "logs in nowhere"},
		"no topic":               {func(o *Options) { o.Topics = nil }, "name at least one"},
		"an empty topic":         {func(o *Options) { o.Topics = []string{"t", ""} }, "name at least one"},
		"no group":               {func(o *Options) { o.Group = "" }, "name the consumer group"},
		"unknown start":          {func(o *Options) { o.Start = "middle" }, `start "middle": take earliest or latest`},
		"negative batch":         {func(o *Options) { o.BatchRecords = -1 }, "batch records -1"},
		"too little to fetch":    {func(o *Options) { o.FetchMaxBytes = 1 }, "fetch bytes 1"},
		"too much to fetch":      {func(o *Options) { o.FetchMaxBytes = 1 << 30 }, "fetch bytes 1073741824"},
		"negative wait":          {func(o *Options) { o.RevokeWait = -1 }, "below 0"},
	} {
		t.Run(name, func(t *testing.T) {
			o := good()
			c.spoil(&o)
			_, err := New(o)
			require.ErrorContains(t, err, c.want)
			assert.ErrorContains(t, err, "kafka options: ")
		})
	}
}

func TestProducersThatCanNotWork(t *testing.T) {
	there := Connection{Brokers: []string{"localhost:9092"}}
	_, err := NewSink(SinkOptions{Connection: there, Topic: "t", Compression: "rar"})
	require.ErrorContains(t, err, `kafka sink: compression "rar": take none or gzip`)
	_, err = NewSink(SinkOptions{Connection: there})
	require.ErrorContains(t, err, "topic: name one")
	_, err = NewDeadLetters(DeadLetterOptions{Topic: "t"})
	require.ErrorContains(t, err, "kafka dead letters: brokers: none given")
}
