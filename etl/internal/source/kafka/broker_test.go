package kafka_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/sirupsen/logrus"
	"github.com/sirupsen/logrus/hooks/test"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/goleak"

	broker "github.com/fleettracing/fleet-tracing/dev/kafka"
	"github.com/fleettracing/fleet-tracing/dev/testenv"
	"github.com/fleettracing/fleet-tracing/etl/internal/pipeline"
	"github.com/fleettracing/fleet-tracing/etl/internal/source/generator"
	"github.com/fleettracing/fleet-tracing/etl/internal/source/kafka"
	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
	"github.com/fleettracing/fleet-tracing/etl/internal/validate"
)

// The test binary is also the consumer process that tests kill.
func TestMain(m *testing.M) {
	if os.Getenv("KAFKA_TEST_CHILD") != "" {
		os.Exit(child())
	}
	goleak.VerifyTestMain(m)
}

// brokers returns the addresses of a real Kafka.
func brokers(t testing.TB) []string {
	t.Helper()
	return testenv.KafkaBrokers(t)
}

// fixture is a topic and a consumer group of one test.
type fixture struct {
	t          testing.TB
	connection kafka.Connection
	topic      string
	group      string
	admin      *kadm.Client
}

func newFixture(t testing.TB, partitions int) *fixture {
	t.Helper()
	s := &fixture{t: t, connection: kafka.Connection{Brokers: brokers(t)}}
	s.topic = fmt.Sprintf("test-%s-%d", strings.ToLower(strings.ReplaceAll(t.Name(), "/", "-")), time.Now().UnixNano())
	s.group = s.topic + "-group"
	client, err := kgo.NewClient(kgo.SeedBrokers(s.connection.Brokers...))
	require.NoError(t, err)
	s.admin = kadm.NewClient(client)
	_, err = s.admin.CreateTopic(t.Context(), int32(partitions), 1, nil, s.topic)
	require.NoError(t, err)
	t.Cleanup(func() {
		_, err := s.admin.DeleteTopics(context.Background(), s.topic)
		assert.NoError(t, err)
		client.Close()
	})
	return s
}

func (s *fixture) sink() *kafka.Sink {
	s.t.Helper()
	sink, err := kafka.NewSink(s.t.Context(), s.connection, s.topic, quiet())
	require.NoError(s.t, err)
	s.t.Cleanup(sink.Close)
	return sink
}

// send sends records to a sink.
func send(sink *kafka.Sink, records ...telemetry.Record) error {
	var text []byte
	for i := range records {
		line, err := json.Marshal(pipeline.FieldsOf(&records[i]))
		if err != nil {
			return err
		}
		text = append(append(text, line...), '\n')
	}
	_, err := sink.Write(text)
	return err
}

// fill sends valid records of 300 vehicles.
func (s *fixture) fill(records int) {
	s.t.Helper()
	sim, err := generator.New(generator.Options{Seed: 1, Vehicles: 300, Fleets: 2, Interval: 5 * time.Second, Records: records, Start: time.Now().Add(-time.Hour)})
	require.NoError(s.t, err)
	counts, err := generator.WriteNDJSON(s.t.Context(), s.sink(), sim)
	require.NoError(s.t, err)
	require.Equal(s.t, records, counts.Lines())
}

func (s *fixture) ends() map[int32]int64 {
	s.t.Helper()
	listed, err := s.admin.ListEndOffsets(s.t.Context(), s.topic)
	require.NoError(s.t, err)
	require.NoError(s.t, listed.Error())
	ends := map[int32]int64{}
	for n, o := range listed[s.topic] {
		ends[n] = o.Offset
	}
	return ends
}

// committed returns the committed offsets of the group, 0 where there is none.
func (s *fixture) committed() map[int32]int64 {
	s.t.Helper()
	listed, err := s.admin.FetchOffsetsForTopics(s.t.Context(), s.group, s.topic)
	require.NoError(s.t, err)
	committed := map[int32]int64{}
	for n, o := range listed[s.topic] {
		committed[n] = max(0, o.At)
	}
	return committed
}

func (s *fixture) options() kafka.Options {
	return kafka.Options{
		Connection: s.connection, Topics: []string{s.topic}, Group: s.group, BatchRecords: 100, CommitInterval: 100 * time.Millisecond,
		SessionTimeout: 3 * time.Second, RevokeWait: 5 * time.Second, DrainWait: 10 * time.Second,
		Start: kafka.Earliest, FetchMaxBytes: 8 << 20, Logger: quiet(), Registerer: prometheus.NewRegistry(), Now: time.Now,
	}
}

func quiet() logrus.FieldLogger {
	l, _ := test.NewNullLogger()
	return l
}

// place is where a record was.
type place struct {
	origin string
	offset int64
}

// store makes batches durable as the writer does: several at a time and in any order.
type store struct {
	slow    time.Duration // maximum time per batch
	workers int
	durable func([]place) // called before Done; may be nil
	gate    chan struct{} // closed when batches may become durable; nil is at once
	emitted *atomic.Int64 // counts emitted records; may be nil

	mu   sync.Mutex
	done map[place]int
}

func (s *store) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.done)
}

func (s *store) places() map[place]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := map[place]int{}
	for at, n := range s.done {
		all[at] = n
	}
	return all
}

// running is a source that consumes into a store.
type running struct {
	*store
	t     testing.TB
	stop  context.CancelFunc
	ended chan error
	reg   *prometheus.Registry
}

func (s *store) run(ctx context.Context, source pipeline.Source) error {
	in := make(chan pipeline.Batch, 4)
	var workers sync.WaitGroup
	quit, end := context.WithCancel(context.Background())
	for range max(1, s.workers) {
		workers.Go(func() {
			for b := range in {
				if s.emitted != nil {
					s.emitted.Add(int64(len(b.Items)))
				}
				if s.gate != nil {
					select {
					case <-s.gate:
					case <-quit.Done():
						continue
					}
				}
				if s.slow > 0 {
					time.Sleep(time.Duration(rand.Int64N(int64(s.slow))))
				}
				var places []place
				for _, i := range b.Items {
					places = append(places, place{b.Origin, i.Position})
				}
				if s.durable != nil {
					s.durable(places)
				}
				s.mu.Lock()
				if s.done == nil {
					s.done = map[place]int{}
				}
				for _, at := range places {
					s.done[at]++
				}
				s.mu.Unlock()
				b.Done(pipeline.Outcome{Stored: len(b.Items)})
			}
		})
	}
	err := source.Run(ctx, func(b pipeline.Batch) error { in <- b; return nil })
	end()
	close(in)
	workers.Wait()
	return err
}

func start(t testing.TB, o kafka.Options, s *store) *running {
	t.Helper()
	r := &running{store: s, t: t, ended: make(chan error, 1), reg: o.Registerer.(*prometheus.Registry)}
	source, err := kafka.New(o)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	r.stop = cancel
	go func() { r.ended <- s.run(ctx, source) }()
	t.Cleanup(cancel)
	return r
}

// end stops the source.
func (r *running) end() {
	r.t.Helper()
	r.stop()
	select {
	case err := <-r.ended:
		require.NoError(r.t, err)
	case <-time.After(30 * time.Second):
		r.t.Fatal("the source does not end")
	}
}

func until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	require.Eventually(t, ok, time.Minute, 20*time.Millisecond, what)
}

// value sums a metric over the labels that are not given.
func value(t *testing.T, reg *prometheus.Registry, name string, labels ...string) (sum float64, series int) {
	t.Helper()
	families, err := reg.Gather()
	require.NoError(t, err)
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
	next:
		for _, m := range f.Metric {
			for _, want := range labels {
				found := false
				for _, l := range m.Label {
					found = found || l.GetName()+"="+l.GetValue() == want
				}
				if !found {
					continue next
				}
			}
			series++
			sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	return sum, series
}

func TestConsumesEverythingAndCommitsIt(t *testing.T) {
	const records = 20_000
	s := newFixture(t, 6)
	s.fill(records)
	begun := time.Now()
	r := start(t, s.options(), &store{workers: 4})
	until(t, "all records", func() bool { return r.count() == records })
	t.Logf("%d records in %s", records, time.Since(begun).Round(time.Millisecond))
	until(t, "positions in the metrics", func() bool {
		position, n := value(t, r.reg, "fleet_etl_kafka_position", "topic="+s.topic)
		lag, m := value(t, r.reg, "fleet_etl_kafka_lag_records", "topic="+s.topic)
		return position == records && n == 6 && lag == 0 && m == 6
	})
	until(t, "a commit while it runs", func() bool { c := s.committed(); return len(c) == 6 && sum(c) == records })
	r.end()
	assert.Equal(t, s.ends(), s.committed())
	for at, n := range r.places() {
		require.Equal(t, 1, n, "%v", at)
	}
	if _, n := value(t, r.reg, "fleet_etl_kafka_position"); n != 0 {
		t.Errorf("%d partitions in the metrics after the end, want none", n)
	}
}

func sum(m map[int32]int64) (n int64) {
	for _, v := range m {
		n += v
	}
	return n
}

func TestDeviceStaysInOnePartition(t *testing.T) {
	s := newFixture(t, 6)
	s.fill(3000)
	of := map[string]string{}
	var mu sync.Mutex
	source, err := kafka.New(s.options())
	require.NoError(t, err)
	ctx, stop := context.WithCancel(t.Context())
	n := 0
	require.NoError(t, source.Run(ctx, func(b pipeline.Batch) error {
		mu.Lock()
		defer mu.Unlock()
		assert.LessOrEqual(t, len(b.Items), 100)
		for _, i := range b.Items {
			if at, seen := of[i.DeviceID]; seen {
				assert.Equal(t, at, b.Origin)
			}
			of[i.DeviceID] = b.Origin
		}
		if n += len(b.Items); n == 3000 {
			stop()
		}
		b.Done(pipeline.Outcome{})
		return nil
	}))
	assert.Len(t, of, 300)
}

// child consumes until it is killed. It writes durable offsets to a file before it acknowledges them.
func child() int {
	out, err := os.OpenFile(os.Getenv("KAFKA_TEST_CHILD"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	s := &store{workers: 4, slow: 5 * time.Millisecond, durable: func(places []place) {
		var text bytes.Buffer
		for _, at := range places {
			fmt.Fprintln(&text, at.origin, at.offset)
		}
		_, _ = out.Write(text.Bytes())
	}}
	f := fixture{connection: kafka.Connection{Brokers: strings.Split(os.Getenv("KAFKA_TEST_BROKERS"), ",")}, topic: os.Getenv("KAFKA_TEST_TOPIC")}
	f.group = f.topic + "-group"
	o := f.options()
	o.CommitInterval = 50 * time.Millisecond
	source, err := kafka.New(o)
	if err == nil {
		err = s.run(context.Background(), source)
	}
	fmt.Fprintln(os.Stderr, err)
	return 1
}

// consumerProcess is a consumer in another process.
type consumerProcess struct {
	t    testing.TB
	cmd  *exec.Cmd
	path string
	errs bytes.Buffer
}

func (s *fixture) startProcess() *consumerProcess {
	s.t.Helper()
	self, err := os.Executable()
	require.NoError(s.t, err)
	v := &consumerProcess{t: s.t, cmd: exec.Command(self), path: filepath.Join(s.t.TempDir(), "durable")}
	v.cmd.Env = append(os.Environ(), "KAFKA_TEST_CHILD="+v.path, "KAFKA_TEST_TOPIC="+s.topic)
	v.cmd.Stderr = &v.errs
	require.NoError(s.t, v.cmd.Start())
	s.t.Cleanup(func() { _ = v.cmd.Process.Kill() })
	return v
}

// durable returns what the process has stored, by complete lines only.
func (v *consumerProcess) durable() map[place]int {
	v.t.Helper()
	text, err := os.ReadFile(v.path)
	if !errors.Is(err, os.ErrNotExist) {
		require.NoError(v.t, err)
	}
	all := map[place]int{}
	lines := bufio.NewScanner(bytes.NewReader(text[:bytes.LastIndexByte(text, '\n')+1]))
	for lines.Scan() {
		var at place
		_, err := fmt.Sscan(lines.Text(), &at.origin, &at.offset)
		require.NoError(v.t, err)
		all[at]++
	}
	return all
}

func (v *consumerProcess) kill() {
	v.t.Helper()
	require.NoError(v.t, v.cmd.Process.Kill())
	err := v.cmd.Wait()
	exit := (*exec.ExitError)(nil)
	require.ErrorAs(v.t, err, &exit)
	require.Equal(v.t, syscall.SIGKILL, exit.Sys().(syscall.WaitStatus).Signal(), "it ended before the kill: %s", v.errs.String())
}

// covers fails unless every offset below the given ones is durable in one of the stores.
func (s *fixture) covers(offsets map[int32]int64, durable ...map[place]int) {
	s.t.Helper()
	for n, end := range offsets {
	next:
		for offset := range end {
			at := place{fmt.Sprintf("%s/%d", s.topic, n), offset}
			for _, d := range durable {
				if d[at] > 0 {
					continue next
				}
			}
			s.t.Fatalf("%v is not durable; committed or end offset: %d", at, end)
		}
	}
}

func TestKilledProcessLosesNothing(t *testing.T) {
	const records = 40_000
	s := newFixture(t, 6)
	s.fill(records)
	var all []map[place]int
	for i := range 2 {
		v := s.startProcess()
		until(t, "a part is stored", func() bool { return len(v.durable()) > 4000 && sum(s.committed()) > int64(i+1)*3000 })
		v.kill()
		all = append(all, v.durable())
		committed := s.committed()
		t.Logf("killed with %d durable, %d committed", len(all[i]), sum(committed))
		assert.Less(t, sum(committed), int64(records), "it was killed too late")
		s.covers(committed, all...)
	}
	r := start(t, s.options(), &store{workers: 4})
	until(t, "the rest", func() bool { return sum(s.committed()) == records })
	r.end()
	s.covers(s.ends(), append(all, r.places())...)
}

func TestRebalanceUnderLoadLosesNothing(t *testing.T) {
	s := newFixture(t, 6)
	sink := s.sink()
	loading, stop := context.WithCancel(t.Context())
	var load sync.WaitGroup
	load.Go(func() {
		for i := int64(0); loading.Err() == nil; i++ {
			var records []telemetry.Record
			for v := range 200 {
				records = append(records, telemetry.Record{DeviceID: fmt.Sprintf("truck-%d", v), FleetID: "wuxi", TimeMs: 1_750_000_000_000 + i, Lat: 1, Lon: 1})
			}
			if err := send(sink, records...); err != nil {
				t.Error(err)
				return
			}
			time.Sleep(20 * time.Millisecond)
		}
	})
	a := start(t, s.options(), &store{workers: 4, slow: 5 * time.Millisecond})
	until(t, "the first consumes", func() bool { return a.count() > 2000 })
	v := s.startProcess()
	until(t, "the second consumes", func() bool { return len(v.durable()) > 2000 })
	c := start(t, s.options(), &store{workers: 4, slow: 5 * time.Millisecond})
	until(t, "the third consumes", func() bool { return c.count() > 1000 })
	v.kill()
	c.end()
	before := a.count()
	until(t, "the first has all partitions again", func() bool {
		n, _ := value(t, a.reg, "fleet_etl_kafka_partitions")
		return n == 6 && a.count() > before+2000
	})
	stop()
	load.Wait()
	ends := s.ends()
	until(t, "all is committed", func() bool { return sum(s.committed()) == sum(ends) })
	a.end()
	s.covers(ends, a.places(), v.durable(), c.places())
	revoked, _ := value(t, a.reg, "fleet_etl_kafka_rebalances_total", "event=revoked")
	assert.Greater(t, revoked, 0.0)
	again := 0
	for _, r := range []map[place]int{a.places(), c.places()} {
		for _, n := range r {
			again += n - 1
		}
	}
	t.Logf("%d records, %d of them read again by the same consumer", sum(ends), again)
}

func TestRevokedPartitionIsCommittedFirst(t *testing.T) {
	s := newFixture(t, 6)
	s.fill(600)
	o := s.options()
	o.CommitInterval, o.BatchRecords = time.Hour, 20
	gate := make(chan struct{})
	var emitted atomic.Int64
	a := start(t, o, &store{workers: 100, gate: gate, emitted: &emitted})
	until(t, "the first has read all", func() bool { return emitted.Load() == 600 })
	b := start(t, s.options(), &store{})
	until(t, "the second joins", func() bool {
		groups, err := s.admin.DescribeGroups(t.Context(), s.group)
		require.NoError(t, err)
		return len(groups[s.group].Members) == 2
	})
	time.Sleep(1500 * time.Millisecond) // the next heartbeat of the first starts the rebalance, within 1 s
	require.Zero(t, sum(s.committed()))
	n, _ := value(t, b.reg, "fleet_etl_kafka_partitions")
	require.Zero(t, n, "the second has partitions whose records the first has in flight")
	close(gate)
	until(t, "the second has its half", func() bool { n, _ := value(t, b.reg, "fleet_etl_kafka_partitions"); return n == 3 })
	s.fill(600)
	until(t, "all", func() bool { return a.count()+b.count() >= 1200 })
	a.end()
	b.end()
	assert.Equal(t, s.ends(), s.committed())
	for at := range a.places() {
		assert.Zero(t, b.places()[at], "%v was read again", at)
	}
	assert.Positive(t, b.count())
}

// The store hangs: emitted records do not become durable while the partitions are revoked.
func TestHangingConsumerDelaysRebalanceOnlySoLong(t *testing.T) {
	s := newFixture(t, 6)
	s.fill(3000)
	o := s.options()
	o.RevokeWait = time.Second
	gate := make(chan struct{})
	a := start(t, o, &store{workers: 20, gate: gate})
	until(t, "the first has all", func() bool { n, _ := value(t, a.reg, "fleet_etl_kafka_partitions"); return n == 6 })
	time.Sleep(4 * time.Second) // longer than the session: heartbeats go on while emit blocks
	gone, _ := value(t, a.reg, "fleet_etl_kafka_rebalances_total", "event=lost")
	assert.Zero(t, gone, "a blocked consumer lost its partitions")
	require.Zero(t, sum(s.committed()))

	b := start(t, s.options(), &store{workers: 2})
	until(t, "the second has its half", func() bool {
		n, _ := value(t, b.reg, "fleet_etl_kafka_partitions")
		return n == 3 && b.count() > 0
	})
	until(t, "the second has committed its half", func() bool { return sum(s.committed()) >= int64(b.count()) && b.count() > 1000 })
	half := s.committed()
	close(gate) // the first also acknowledges records of revoked partitions
	until(t, "all", func() bool { return sum(s.committed()) == 3000 })
	for n, offset := range half {
		assert.GreaterOrEqual(t, s.committed()[n], offset)
	}
	a.end()
	b.end()
	s.covers(s.ends(), a.places(), b.places())
}

func TestInvalidValuesAreDeadLettersAndThePartitionContinues(t *testing.T) {
	s := newFixture(t, 1)
	deadTopic := s.topic + "-dead"
	_, err := s.admin.CreateTopic(t.Context(), 1, 1, nil, deadTopic)
	require.NoError(t, err)
	t.Cleanup(func() { _, _ = s.admin.DeleteTopics(context.Background(), deadTopic) })
	record := func(device string, lat float64) []byte {
		r := telemetry.Record{DeviceID: device, FleetID: "wuxi", TimeMs: time.Now().UnixMilli(), Lat: lat, Lon: 1}
		text, err := json.Marshal(pipeline.FieldsOf(&r))
		require.NoError(t, err)
		return text
	}
	long := []byte(`{"device_id":"truck-6","x":"` + strings.Repeat("x", 1_000_000-150) + `"}`)
	torn := record("truck-3", 1)[:40]
	values := [][]byte{
		record("truck-1", 1),
		nil,
		{},
		torn,
		[]byte("\xff\x00 no JSON"),
		[]byte(`{"device_id":"truck-4","timestamp":1,"lat":1,"lon":1}`),
		record("truck-5", 91), // which validation rejects
		long,
		[]byte(string(record("truck-7", 1)) + "\n{\"device_id\":\"truck-8\"\n" + string(record("truck-9", 1))),
		record("truck-10", 1),
	}
	producer, err := kgo.NewClient(kgo.SeedBrokers(s.connection.Brokers...), kgo.DefaultProduceTopic(s.topic))
	require.NoError(t, err)
	defer producer.Close()
	for _, v := range values {
		require.NoError(t, producer.ProduceSync(t.Context(), &kgo.Record{Key: []byte("k"), Value: v}).FirstErr())
	}

	o := s.options()
	reg := o.Registerer.(*prometheus.Registry)
	source, err := kafka.New(o)
	require.NoError(t, err)
	deadLetters, err := kafka.NewDeadLetterTopic(s.connection, deadTopic, quiet(), reg, time.Now)
	require.NoError(t, err)
	defer deadLetters.Close()
	var stored []string
	p := pipeline.New(pipeline.Options{
		Validator: validate.New(nil, 1000, nil), DeadLetters: deadLetters, Registerer: reg, Now: time.Now, Queue: 2,
		Writer: writer(func(_ context.Context, in <-chan pipeline.ValidBatch) error {
			for c := range in {
				for _, i := range c.Items {
					stored = append(stored, i.DeviceID)
				}
				c.Done()
			}
			return nil
		}),
	})
	stop, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- p.Run(context.Background(), stop, source) }()
	until(t, "the partition is committed", func() bool { return s.committed()[0] == int64(len(values)) })
	cancel()
	require.NoError(t, <-ended)
	assert.Equal(t, []string{"truck-1", "truck-7", "truck-9", "truck-10"}, stored)

	type deadLetter struct{ key, raw, reason, field, position string }
	var got []deadLetter
	client, err := kgo.NewClient(kgo.SeedBrokers(s.connection.Brokers...), kgo.ConsumeTopics(deadTopic))
	require.NoError(t, err)
	defer client.Close()
	reading, done := context.WithTimeout(t.Context(), 20*time.Second)
	defer done()
	cut := ""
	for len(got) < 6 {
		fetches := client.PollFetches(reading)
		require.NoError(t, fetches.Err())
		fetches.EachRecord(func(r *kgo.Record) {
			h := map[string]string{}
			for _, header := range r.Headers {
				h[header.Key] = string(header.Value)
			}
			got = append(got, deadLetter{string(r.Key), string(r.Value), h["reason"], h["field"], h["position"]})
			assert.Equal(t, "kafka", h["source"])
			assert.Equal(t, s.topic+"/0", h["origin"])
			assert.NotEmpty(t, h["remedy"])
			at, err := time.Parse(time.RFC3339Nano, h["time"])
			assert.NoError(t, err)
			assert.WithinDuration(t, time.Now(), at, time.Minute)
			if h["reason"] == "lat_range" {
				assert.Equal(t, "91", h["value"])
			}
			cut += h["cut"]
		})
	}
	assert.ElementsMatch(t, []deadLetter{
		{"truck-3", string(torn), "malformed", "", "3"},
		{"", "\xff\x00 no JSON", "malformed", "", "4"},
		{"truck-4", string(values[5]), "missing_field", "fleet_id", "5"},
		{"truck-5", string(values[6]), "lat_range", "lat", "6"},
		{"truck-6", string(long[:telemetry.MaxJSON]), "too_large", "", "7"},
		{"truck-8", `{"device_id":"truck-8"`, "malformed", "", "8"},
	}, got)
	assert.Equal(t, fmt.Sprint(len(long)), cut)
	for reason, want := range map[string]float64{"tombstone": 1, "empty": 1} {
		n, _ := value(t, reg, "fleet_etl_kafka_values_skipped_total", "reason="+reason)
		assert.Equal(t, want, n, reason)
	}
	n, _ := value(t, reg, "fleet_etl_kafka_dead_letters_total")
	assert.Equal(t, 6.0, n)
}

// consume runs a source until the group has committed an offset, and returns the devices of the
// stored records and the rejected ones.
func (s *fixture) consume(t *testing.T, o kafka.Options, offset int64) (stored []string, rejected []pipeline.Rejected) {
	t.Helper()
	source, err := kafka.New(o)
	require.NoError(t, err)
	var mu sync.Mutex
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error, 1)
	go func() {
		ended <- source.Run(ctx, func(b pipeline.Batch) error {
			mu.Lock()
			defer mu.Unlock()
			for i := range b.Items {
				stored = append(stored, b.Items[i].DeviceID)
			}
			rejected = append(rejected, b.Rejected...)
			b.Done(pipeline.Outcome{})
			return nil
		})
	}()
	until(t, fmt.Sprint("offset ", offset, " is committed"), func() bool { return s.committed()[0] == offset })
	until(t, "the lag is 0", func() bool {
		lag, series := value(t, o.Registerer.(*prometheus.Registry), "fleet_etl_kafka_lag_records")
		return series == 1 && lag == 0
	})
	cancel()
	require.NoError(t, <-ended)
	return stored, rejected
}

// The marker at the end of a transaction has an offset, and so have the records of one that was aborted.
func TestOnlyCommittedTransactionsAreConsumed(t *testing.T) {
	s := newFixture(t, 1)
	producer, err := kgo.NewClient(kgo.SeedBrokers(s.connection.Brokers...), kgo.DefaultProduceTopic(s.topic), kgo.TransactionalID(s.topic))
	require.NoError(t, err)
	defer producer.Close()
	transaction := func(device string, end kgo.TransactionEndTry) {
		t.Helper()
		require.NoError(t, producer.BeginTransaction())
		r := telemetry.Record{DeviceID: device, FleetID: "wuxi", TimeMs: time.Now().UnixMilli(), Lat: 1, Lon: 1}
		text, err := json.Marshal(pipeline.FieldsOf(&r))
		require.NoError(t, err)
		require.NoError(t, producer.ProduceSync(t.Context(), &kgo.Record{Value: text}).FirstErr())
		require.NoError(t, producer.EndTransaction(t.Context(), end))
	}
	transaction("committed", kgo.TryCommit)
	transaction("aborted", kgo.TryAbort)
	o := s.options()
	stored, rejected := s.consume(t, o, 4)
	assert.Equal(t, []string{"committed"}, stored)
	assert.Empty(t, rejected)
	markers, _ := value(t, o.Registerer.(*prometheus.Registry), "fleet_etl_kafka_values_skipped_total", "reason=marker")
	assert.Equal(t, 2.0, markers)
}

func TestBatchThatIsTooLargeIsADeadLetterAndThePartitionContinues(t *testing.T) {
	s := newFixture(t, 1)
	record := func(device string) []byte {
		r := telemetry.Record{DeviceID: device, FleetID: "wuxi", TimeMs: time.Now().UnixMilli(), Lat: 1, Lon: 1}
		text, err := json.Marshal(pipeline.FieldsOf(&r))
		require.NoError(t, err)
		return text
	}
	producer, err := kgo.NewClient(kgo.SeedBrokers(s.connection.Brokers...), kgo.DefaultProduceTopic(s.topic),
		kgo.ProducerBatchMaxBytes(80<<20), kgo.ProducerBatchCompression(kgo.ZstdCompression()))
	require.NoError(t, err)
	defer producer.Close()
	for _, v := range [][]byte{record("before"), bytes.Repeat([]byte(" "), 70<<20), record("after")} {
		require.NoError(t, producer.ProduceSync(t.Context(), &kgo.Record{Value: v}).FirstErr())
	}
	o := s.options()
	stored, rejected := s.consume(t, o, 3)
	assert.Equal(t, []string{"before", "after"}, stored)
	require.Len(t, rejected, 1)
	assert.Equal(t, telemetry.TooLarge, rejected[0].Reason)
	assert.EqualValues(t, 1, rejected[0].Position)
	assert.Contains(t, rejected[0].Remedy, "the batch of offsets 1 to 1 decompresses to more than 64 MiB")
	errs, _ := value(t, o.Registerer.(*prometheus.Registry), "fleet_etl_kafka_fetch_errors_total", "reason=too_large")
	assert.Equal(t, 1.0, errs)
}

type writer func(context.Context, <-chan pipeline.ValidBatch) error

func (w writer) Run(ctx context.Context, in <-chan pipeline.ValidBatch) error { return w(ctx, in) }

func TestAppendWaitsForABrokerUntilItsContextEnds(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	deadLetters, err := kafka.NewDeadLetterTopic(kafka.Connection{Brokers: []string{"127.0.0.1:1"}}, "dead", quiet(), prometheus.NewRegistry(), time.Now)
	require.NoError(t, err)
	defer deadLetters.Close()
	time.AfterFunc(500*time.Millisecond, cancel)
	err = deadLetters.Append(ctx, "kafka", "t/0", []pipeline.Rejected{{Rejection: telemetry.Reject(telemetry.Malformed, "", "", "fix it"), Raw: "{"}})
	require.ErrorIs(t, err, context.Canceled)
	assert.ErrorContains(t, err, `write dead letters of t/0: topic "dead"`)
}

func TestConsumerContinuesWhenTheBrokerIsBack(t *testing.T) {
	s := newFixture(t, 6)
	b, err := broker.Open(io.Discard)
	require.NoError(t, err)
	if s.connection.Brokers[0] != b.Address() {
		testenv.Missing(t, testenv.Kafka, "this test kills the broker of dev/kafka at "+b.Address()+": KAFKA_TEST_BROKERS has another")
	}
	s.fill(5000)
	o := s.options()
	logger, hook := test.NewNullLogger()
	o.Logger = logger
	r := start(t, o, &store{workers: 2, slow: 20 * time.Millisecond})
	o = s.options()
	o.Group += "-other"
	other := start(t, o, &store{})
	until(t, "they consume", func() bool { return r.count() > 1000 && other.count() > 1000 })
	require.NoError(t, b.Kill(t.Context()))
	begun := time.Now()
	other.end() // records that it can't commit are read again
	assert.Less(t, time.Since(begun), 25*time.Second, "stopping takes too long")
	until(t, "it retries", func() bool {
		n, _ := value(t, r.reg, "fleet_etl_kafka_fetch_errors_total", "reason=unreachable")
		return n >= 3
	})
	assert.Equal(t, 1, said(hook, "broker unavailable"), "one log line for all attempts")
	select {
	case err := <-r.ended:
		t.Fatalf("the source ended: %v", err)
	default:
	}
	require.NoError(t, b.Up(t.Context()))
	s.fill(5000)
	until(t, "it continues", func() bool { return sum(s.committed()) == 10_000 })
	assert.Equal(t, 1, said(hook, "available again"))
	r.end()
	s.covers(s.ends(), r.places())
	n, _ := value(t, r.reg, "fleet_etl_kafka_fetch_errors_total", "reason=unreachable")
	assert.Positive(t, n)
}

func said(hook *test.Hook, part string) (n int) {
	for _, e := range hook.AllEntries() {
		if strings.Contains(e.Message, part) && e.Data["broker"] != nil {
			n++
		}
	}
	return n
}

func TestSourceWaitsForAnUnreachableBroker(t *testing.T) {
	logger, hook := test.NewNullLogger()
	o := (&fixture{connection: kafka.Connection{Brokers: []string{"127.0.0.1:1"}}, topic: "t", group: "g"}).options()
	o.Logger = logger
	r := start(t, o, &store{})
	until(t, "it retries", func() bool {
		n, _ := value(t, r.reg, "fleet_etl_kafka_fetch_errors_total", "reason=unreachable")
		return n >= 3
	})
	select {
	case err := <-r.ended:
		t.Fatalf("the source ended: %v", err)
	default:
	}
	assert.Equal(t, 1, said(hook, "unavailable"))
	begun := time.Now()
	r.end()
	assert.Less(t, time.Since(begun), 2*time.Second, "stopping takes too long")
}

func TestFailedPipelineIsNotDrained(t *testing.T) {
	s := newFixture(t, 2)
	s.fill(1000)
	o := s.options()
	o.DrainWait = time.Hour
	for name, c := range map[string]struct {
		cause error // why the source's context ends; nil when it does not
		emit  error
	}{
		"its context ends": {cause: assert.AnError},
		"emit fails":       {emit: assert.AnError},
		"both":             {cause: context.Canceled, emit: context.Canceled},
	} {
		t.Run(name, func(t *testing.T) {
			o.Registerer = prometheus.NewRegistry()
			source, err := kafka.New(o)
			require.NoError(t, err)
			ctx, fail := context.WithCancelCause(t.Context())
			defer fail(nil)
			n := 0
			err = source.Run(ctx, func(pipeline.Batch) error {
				if n++; n < 2 {
					return nil // Done is never called
				}
				if c.cause != nil {
					fail(c.cause)
				}
				return c.emit
			})
			if c.cause != nil {
				require.NoError(t, err)
			} else {
				require.ErrorIs(t, err, c.emit)
			}
			assert.Zero(t, sum(s.committed()), "nothing of it was durable")
		})
	}
}

func TestNewGroupMayStartAtTheEnd(t *testing.T) {
	s := newFixture(t, 2)
	s.fill(500)
	o := s.options()
	o.Start = kafka.Latest
	r := start(t, o, &store{})
	until(t, "it has joined", func() bool { n, _ := value(t, r.reg, "fleet_etl_kafka_position"); return n == 500 })
	before := s.ends()
	sink := s.sink()
	until(t, "new records", func() bool { // records sent before the consumer knows the end are old
		require.NoError(t, send(sink, telemetry.Record{DeviceID: "a", FleetID: "wuxi", TimeMs: 1, Lat: 1, Lon: 1}, telemetry.Record{DeviceID: "b", FleetID: "wuxi", TimeMs: 1, Lat: 1, Lon: 1}))
		return r.count() > 0
	})
	r.end()
	for at := range r.places() {
		for n, end := range before {
			if at.origin == fmt.Sprintf("%s/%d", s.topic, n) {
				assert.GreaterOrEqual(t, at.offset, end, "the record was older than the group")
			}
		}
	}
}

// trust returns a TLS configuration that trusts the broker of dev/kafka.
func trust(t *testing.T, b *broker.Broker) *tls.Config {
	t.Helper()
	text, err := os.ReadFile(b.CAFile())
	require.NoError(t, err)
	roots := x509.NewCertPool()
	require.True(t, roots.AppendCertsFromPEM(text))
	return &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
}

func TestLogin(t *testing.T) {
	s := newFixture(t, 1)
	s.fill(10)
	b, err := broker.Open(io.Discard)
	require.NoError(t, err)
	if s.connection.Brokers[0] != b.Address() {
		testenv.Missing(t, testenv.Kafka, "this test logs in to the broker of dev/kafka at "+b.Address()+": KAFKA_TEST_BROKERS has another")
	}
	secure := func(mechanism, password string, config *tls.Config) kafka.Connection {
		return kafka.Connection{Brokers: []string{b.TLSAddress()}, TLS: config, Mechanism: mechanism, Username: broker.User, Password: password}
	}
	for _, mechanism := range kafka.Mechanisms {
		t.Run(mechanism, func(t *testing.T) {
			o := s.options()
			o.Connection, o.Group = secure(mechanism, broker.Password, trust(t, b)), o.Group+mechanism
			r := start(t, o, &store{})
			until(t, "all", func() bool { return r.count() == 10 })
			r.end()
		})
		t.Run(mechanism+" denied", func(t *testing.T) {
			o := s.options()
			o.Connection = secure(mechanism, "wrong", trust(t, b))
			r := start(t, o, &store{})
			select {
			case err := <-r.ended:
				require.ErrorContains(t, err, `log in to kafka at 127.0.0.1:`)
				assert.ErrorContains(t, err, `as "fleet" by `+mechanism)
				assert.ErrorContains(t, err, "check user, password and mechanism")
			case <-time.After(20 * time.Second):
				t.Fatal("the source retries a wrong password")
			}
			sink, err := kafka.NewSink(t.Context(), o.Connection, s.topic, quiet())
			require.NoError(t, err)
			defer sink.Close()
			_, err = sink.Write([]byte("{}\n"))
			require.ErrorContains(t, err, "log in to kafka")
		})
	}
	t.Run("unknown CA", func(t *testing.T) {
		o := s.options()
		o.Connection = secure(kafka.Plain, broker.Password, &tls.Config{MinVersion: tls.VersionTLS12})
		r := start(t, o, &store{})
		select {
		case err := <-r.ended:
			require.ErrorContains(t, err, "give the CA that signed the brokers' certificates")
		case <-time.After(20 * time.Second):
			t.Fatal("the source retries")
		}
	})
}

func TestMissingTopic(t *testing.T) {
	s := newFixture(t, 1)
	o := s.options()
	o.Topics = []string{s.topic, "no-such-topic"}
	r := start(t, o, &store{})
	select {
	case err := <-r.ended:
		require.ErrorContains(t, err, `topic "no-such-topic": kafka at 127.0.0.1:`)
		assert.ErrorContains(t, err, "has no such topic; create it, or check the name")
	case <-time.After(20 * time.Second):
		t.Fatal("the source runs without the topic")
	}
}

func TestSinkRequiresWholeLines(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	sink, err := kafka.NewSink(ctx, kafka.Connection{Brokers: []string{"127.0.0.1:1"}}, "t", quiet())
	require.NoError(t, err)
	defer sink.Close()
	_, err = sink.Write([]byte("{}\n{"))
	require.ErrorContains(t, err, "end within a line")
	_, err = sink.Write([]byte("{}\n"))
	require.ErrorIs(t, err, context.DeadlineExceeded)
	assert.ErrorContains(t, err, `send to kafka: topic "t"`)
}
