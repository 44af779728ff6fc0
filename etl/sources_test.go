package main

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fleettracing/fleet-tracing/dev/kafka"
	"github.com/fleettracing/fleet-tracing/dev/monitoring"
	"github.com/fleettracing/fleet-tracing/dev/testenv"
)

// service is a fleet-etl that runs until it is killed, and comes back.
type service struct {
	s       *site
	env     []string
	metrics string // address
	cmd     *exec.Cmd
	log     string // file of all of them
}

func (s *site) service(env ...string) *service {
	v := &service{s: s, metrics: "127.0.0.1:19466", log: filepath.Join(s.t.TempDir(), "log")}
	v.env = append([]string{"ETL_METRICS_ADDRESS=" + v.metrics}, env...)
	s.t.Cleanup(func() {
		if v.cmd != nil {
			_ = v.cmd.Process.Kill() // gone already when all went well
			_ = v.cmd.Wait()
		}
	})
	return v
}

func (v *service) start() {
	v.cmd = v.s.command("run")
	v.cmd.Env = append(v.cmd.Env, v.env...)
	log, err := os.OpenFile(v.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	require.NoError(v.s.t, err)
	defer log.Close() // the program has its own
	v.cmd.Stderr = log
	require.NoError(v.s.t, v.cmd.Start())
}

func (v *service) kill() {
	require.NoError(v.s.t, v.cmd.Process.Kill())
	_ = v.cmd.Wait() // killed
	v.cmd = nil
}

// stop asks for an orderly end, which must be one.
func (v *service) stop() {
	require.NoError(v.s.t, v.cmd.Process.Signal(syscall.SIGTERM))
	err := v.cmd.Wait()
	v.cmd = nil
	require.NoError(v.s.t, err, v.said())
}

// said is the end of its log.
func (v *service) said() string {
	text, err := os.ReadFile(v.log)
	require.NoError(v.s.t, err)
	return string(text[max(0, len(text)-4000):])
}

// metric is the sum of a metric's series; -1 when they can't be read.
func (v *service) metric(name string) float64 {
	return monitoring.Metric("http://"+v.metrics+"/metrics", name)
}

// killsPerSource returns how often a test kills fleet-etl per source: FLEET_KILLS, or three times.
func killsPerSource(t *testing.T) int {
	text := os.Getenv("FLEET_KILLS")
	if text == "" {
		return 3
	}
	n, err := strconv.Atoi(text)
	require.NoError(t, err, "FLEET_KILLS")
	return n
}

// stream is a set of records in every format, with the rows that an undisturbed load stores.
type stream struct {
	csv, ndjson string
	generate    []string // flags that make it
	want        contents
}

func (s *site) stream(records int) *stream {
	flags := []string{"generate", "--records", fmt.Sprint(records), "--vehicles", "50", "--fleets", "2", "--late", "0.02", "--duplicate", "0.02",
		"--start", time.Now().Add(-20 * time.Hour).UTC().Truncate(time.Second).Format(time.RFC3339)}
	x := &stream{csv: filepath.Join(s.dir, "stream.csv"), ndjson: filepath.Join(s.dir, "stream.ndjson"), generate: flags}
	for path, format := range map[string]string{x.csv: "csv", x.ndjson: "ndjson"} {
		out, status := s.run(append(slices.Clone(flags), "--format", format, "-o", path)...)
		require.Zero(s.t, status, out)
	}
	r, status := s.load(x.csv)
	require.Zero(s.t, status, r.Result)
	x.want = s.contents()
	require.Equal(s.t, records, x.want.rows())
	return x
}

// chunks are the lines of the stream in requests of so many.
func (x *stream) chunks(t *testing.T, lines int) [][]byte {
	text, err := os.ReadFile(x.ndjson)
	require.NoError(t, err)
	var chunks [][]byte
	for part := range slices.Chunk(slices.Collect(strings.Lines(string(text))), lines) {
		chunks = append(chunks, []byte(strings.Join(part, "")))
	}
	return chunks
}

func TestAcknowledgedRecordsSurviveKills(t *testing.T) {
	s := newSite(t)
	x := s.stream(10_000)

	t.Run("HTTP", func(t *testing.T) {
		s.truncate()
		const address = "127.0.0.1:18080"
		v := s.service("ETL_SOURCES=api", "ETL_API_ADDRESS="+address, "ETL_API_OPEN_FLEET=nobody", "ETL_API_DEVICE_RATE=0", "ETL_API_TOKEN_RATE=0")
		v.start()
		chunks := x.chunks(t, 50)
		var acknowledged sync.Map
		var over atomic.Bool
		var senders sync.WaitGroup
		for range 4 {
			senders.Go(func() {
				for i := range endless(len(chunks)) {
					if over.Load() {
						return
					}
					if post(address, chunks[i]) == http.StatusOK {
						acknowledged.Store(i, true)
					} else {
						time.Sleep(20 * time.Millisecond)
					}
				}
			})
		}
		for range killsPerSource(t) {
			require.Eventually(t, func() bool { return up(address) }, 20*time.Second, 10*time.Millisecond, v.said())
			time.Sleep(rand.N(500 * time.Millisecond))
			v.kill()
			v.start()
		}
		require.Eventually(t, func() bool {
			for i := range chunks {
				if _, ok := acknowledged.Load(i); !ok {
					return false
				}
			}
			return true
		}, time.Minute, 50*time.Millisecond, "every record is acknowledged in the end")
		over.Store(true)
		senders.Wait()
		require.Eventually(t, func() bool { return v.metric("fleet_etl_spool_entries") == 0 }, time.Minute, 50*time.Millisecond, "what was acknowledged is stored")
		v.stop()
		assert.Equal(t, x.want, s.contents(), "as an undisturbed load leaves it")
	})

	t.Run("HTTP while Cassandra is down", func(t *testing.T) { whileCassandraIsDown(t, s.empty(t), x) })

	t.Run("Kafka", func(t *testing.T) {
		testenv.KafkaBrokers(t)
		s.truncate()
		broker, err := kafka.Open(io.Discard)
		require.NoError(t, err)
		topic := fmt.Sprintf("kills-%08x", rand.Uint32())
		require.NoError(t, broker.CreateTopic(t.Context(), topic, 6))
		require.NoError(t, broker.CreateTopic(t.Context(), topic+"-dead-letters", 1))
		env := []string{"KAFKA_BROKERS=" + broker.Address(), "KAFKA_TOPICS=" + topic, "KAFKA_DEAD_LETTER_TOPIC=" + topic + "-dead-letters", "KAFKA_GROUP=" + topic,
			"KAFKA_SESSION_TIMEOUT=6s", "KAFKA_COMMIT_INTERVAL=100ms", "KAFKA_BATCH_RECORDS=50"}
		generate := s.command(append(slices.Clone(x.generate), "--to", "kafka")...)
		generate.Env = append(generate.Env, env...)
		out, err := generate.CombinedOutput()
		require.NoError(t, err, string(out))

		slow := append([]string{"ETL_SOURCES=kafka", "ETL_BUFFER_RECORDS=200", "ETL_MAX_IN_FLIGHT=2"}, env...)
		v := s.service(slow...)
		for range max(2, killsPerSource(t)/10) { // a member that is killed is missed only after its session, six seconds
			v.start()
			require.Eventually(t, func() bool { return v.metric("fleet_etl_kafka_partitions") > 0 }, 30*time.Second, 5*time.Millisecond, v.said())
			time.Sleep(rand.N(300 * time.Millisecond))
			v.kill()
		}
		v.start()
		require.Eventually(t, func() bool {
			return v.metric("fleet_etl_kafka_partitions") == 6 && v.metric("fleet_etl_kafka_lag_records") == 0 && v.metric("fleet_etl_kafka_position") > 0
		}, time.Minute, 50*time.Millisecond, v.said())
		v.stop()
		assert.Equal(t, x.want, s.contents())
	})

	t.Run("files", func(t *testing.T) {
		s.truncate()
		most := killsPerSource(t)
		for kills := 0; kills < most; {
			cmd := s.command("load", x.csv)
			cmd.Env = append(cmd.Env, "ETL_BUFFER_RECORDS=200", "ETL_MAX_IN_FLIGHT=2")
			require.NoError(t, cmd.Start())
			ended := make(chan error, 1)
			go func() { ended <- cmd.Wait() }()
			select {
			case <-time.After(rand.N(1200 * time.Millisecond)):
				require.NoError(t, cmd.Process.Kill())
				<-ended
				kills++
			case err := <-ended: // it was faster; the next one starts from the beginning
				require.NoError(t, err)
			}
		}
		r, status := s.load(x.csv)
		require.Zero(t, status, r.Result)
		assert.Equal(t, x.want, s.contents())
	})
}

// endless counts round and round, from somewhere.
func endless(n int) func(func(int) bool) {
	return func(yield func(int) bool) {
		for i := rand.IntN(n); yield(i); i = (i + 1) % n {
		}
	}
}

var client = &http.Client{Timeout: 10 * time.Second}

// post gives the status of the answer; 0 when there is none.
func post(address string, body []byte) int {
	response, err := client.Post("http://"+address+"/v1/telemetry", "application/x-ndjson", bytes.NewReader(body))
	if err != nil {
		return 0
	}
	defer response.Body.Close()
	if _, err := io.Copy(io.Discard, response.Body); err != nil {
		return 0
	}
	return response.StatusCode
}

func up(address string) bool {
	response, err := client.Get("http://" + address + "/v1/openapi.json")
	if err != nil {
		return false
	}
	defer response.Body.Close()
	return response.StatusCode == http.StatusOK
}

// whileCassandraIsDown stops all nodes in the middle of a stream, and kills fleet-etl meanwhile.
func whileCassandraIsDown(t *testing.T, s *site, x *stream) {
	c := nodes(t)
	const address = "127.0.0.1:18080"
	v := s.service("ETL_SOURCES=api", "ETL_API_ADDRESS="+address, "ETL_API_OPEN_FLEET=nobody", "ETL_API_DEVICE_RATE=0", "ETL_API_TOKEN_RATE=0", "ETL_DRAIN_TIMEOUT=60s")
	v.start()
	chunks := x.chunks(t, 50)
	require.Eventually(t, func() bool { return v.metric("fleet_etl_store_up") == 1 }, 30*time.Second, 50*time.Millisecond)
	half := len(chunks) / 2
	for _, chunk := range chunks[:half] {
		require.Equal(t, http.StatusOK, post(address, chunk))
	}
	for n := 1; n <= 4; n++ {
		require.NoError(t, c.Pause(t.Context(), n))
	}
	resumed := false
	resume := func() {
		for n := 1; n <= 4 && !resumed; n++ {
			assert.NoError(t, c.Resume(t.Context(), n))
		}
		resumed = true
	}
	defer resume()
	paused := time.Now()
	slowest := time.Duration(0)
	for _, chunk := range chunks[half:] {
		sent := time.Now()
		require.Equal(t, http.StatusOK, post(address, chunk), "it goes on taking records")
		slowest = max(slowest, time.Since(sent))
		time.Sleep(time.Until(paused.Add(20*time.Second)) / time.Duration(len(chunks)-half) / 2)
	}
	time.Sleep(time.Until(paused.Add(15 * time.Second)))
	assert.Less(t, slowest, 2*time.Second, "and never hangs")
	assert.Positive(t, v.metric("fleet_etl_spool_bytes"))
	assert.Less(t, v.metric("process_resident_memory_bytes"), float64(256<<20))
	v.kill() // what is in the spool outlives the process
	v.start()
	resume()
	require.Eventually(t, func() bool { return v.metric("fleet_etl_spool_entries") == 0 }, 2*time.Minute, 100*time.Millisecond, "the spool is emptied")
	v.stop()
	assert.Equal(t, x.want, s.contents())
}
