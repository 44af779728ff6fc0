package ingest

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/sirupsen/logrus"
	"github.com/stretchr/testify/require"

	"github.com/fleettracing/fleet-tracing/etl/internal/pipeline"
	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

// kept is an entry as the journal has it, of so many records from 0 on; those of odd device numbers are refused.
func kept(origin string, at int64, devices ...int) []byte {
	e := entry{at: time.UnixMilli(at), origin: origin, protocol: protocolTelemetry}
	for i, d := range devices {
		r := received{index: i, raw: fmt.Sprint("raw ", d)}
		if d%2 == 1 {
			r.rejection = telemetry.Reject(telemetry.LatRange, "lat", "91", "less")
		} else {
			r.record = telemetry.Record{DeviceID: fmt.Sprint("v", d), FleetID: "wuxi", TimeMs: 1_795_000_000_000, Lat: 1, Lon: 2}
		}
		e.records = append(e.records, r)
	}
	text, err := e.encode()
	if err != nil {
		panic(err)
	}
	return text
}

// pumped is a source of which only the pump runs.
func pumped(journal Journal, pending int) *Source {
	limits := DefaultLimits()
	limits.MaxPending = pending
	logger := logrus.New()
	logger.SetOutput(io.Discard)
	s, err := New(Options{
		Listener: idleListener{}, Journal: journal, Tokens: OpenAccess("wuxi"), Limits: limits, Logger: logger, Registerer: prometheus.NewRegistry(),
		Check: func(*telemetry.Record, int64) *telemetry.Rejection { return nil },
	})
	if err != nil {
		panic(err)
	}
	return s
}

type idleListener struct{ net.Listener }

func TestSmallEntriesAreHandedOverTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		journal := newMemory(kept("a", 3000, 2))
		s := pumped(journal, 100)
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		var batches []pipeline.Batch
		gate := make(chan struct{})
		go func() {
			ended <- s.pump(ctx, func(b pipeline.Batch) error {
				<-gate
				batches = append(batches, b)
				return nil
			})
		}()
		synctest.Wait() // the first is taken before the others are there
		require.NoError(t, journal.Append(ctx, kept("b", 1000, 4)))
		require.NoError(t, journal.Append(ctx, kept("c", 2000, 6)))
		synctest.Wait()
		close(gate)
		synctest.Wait()
		require.Len(t, batches, 2, "the others come together")
		require.Equal(t, "a", batches[0].Origin)
		require.Len(t, batches[0].Items, 1)
		last := batches[1]
		require.Equal(t, "b..c", last.Origin)
		require.Len(t, last.Items, 2)
		require.Equal(t, int64(1000), last.Accepted.UnixMilli(), "as old as the oldest")
		_, done := journal.counts()
		require.Zero(t, done, "none is stored yet")
		last.Done(pipeline.Outcome{})
		_, done = journal.counts()
		require.Equal(t, len(last.Items), done)
		stop()
		require.NoError(t, <-ended)
	})
}

func TestTheOriginNamesEveryRequestOfWhichSomethingWasRefused(t *testing.T) {
	entries := make(chan held, 100)
	s := pumped(newMemory(), 100)
	add := func(origin string, devices ...int) held {
		e, err := decodeEntry(kept(origin, 1, devices...))
		require.NoError(t, err)
		return held{entry: e, weight: 1}
	}
	entries <- add("b", 1, 2)
	entries <- add("c", 2)
	entries <- add("d", 3)
	b := s.merge(add("a", 2), entries)
	require.Equal(t, "b,d", b.Origin)
	require.Len(t, b.Items, 3)
	require.Equal(t, []int64{0, 0}, []int64{b.Rejected[0].Position, b.Rejected[1].Position})

	for i := range 40 {
		entries <- add(fmt.Sprint(i), 1)
	}
	b = s.merge(add("first", 1), entries)
	require.Len(t, b.Rejected, batchRefusing, "so that an origin stays short")

	for len(entries) > 0 {
		<-entries
	}
	many := make([]int, 600)
	entries <- add("y", many...)
	entries <- add("z", many...)
	b = s.merge(add("x", many...), entries)
	require.Len(t, b.Items, 1200)
	require.Equal(t, "x..y", b.Origin)
}

func TestNoMoreIsHandedOverThanMayBePending(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var entries [][]byte
		for i := range 10 {
			entries = append(entries, kept(fmt.Sprint(i), 1, 2, 4, 6))
		}
		s := pumped(newMemory(entries...), 7)
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		var batches []pipeline.Batch
		go func() {
			ended <- s.pump(ctx, func(b pipeline.Batch) error { batches = append(batches, b); return nil })
		}()
		handed := func() (n int) {
			synctest.Wait()
			for _, b := range batches {
				n += len(b.Items)
			}
			return n
		}
		require.Equal(t, 6, handed(), "a third entry would be too much")
		for stored := 0; stored < len(batches); stored++ {
			batches[stored].Done(pipeline.Outcome{})
			require.LessOrEqual(t, handed(), 30)
		}
		require.Equal(t, 30, handed())
		stop()
		require.NoError(t, <-ended)
	})
}

func TestAnEntryOfMoreRecordsThanMayBePendingPasses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := pumped(newMemory(kept("a", 1, 2, 4, 6, 8), kept("b", 1, 2)), 2)
		ctx, stop := context.WithCancel(t.Context())
		n := 0
		ended := make(chan error, 1)
		go func() {
			ended <- s.pump(ctx, func(b pipeline.Batch) error { n += len(b.Items); b.Done(pipeline.Outcome{}); return nil })
		}()
		synctest.Wait()
		require.Equal(t, 5, n)
		stop()
		require.NoError(t, <-ended)
	})
}

func TestADamagedEntryGoesToTheDeadLetters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		torn := kept("a", 1, 2)[:20]
		journal := newMemory(torn, kept("b", 1, 2))
		s := pumped(journal, 100)
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		var refused []pipeline.Rejected
		n := 0
		go func() {
			ended <- s.pump(ctx, func(b pipeline.Batch) error {
				n += len(b.Items)
				refused = append(refused, b.Rejected...)
				b.Done(pipeline.Outcome{})
				return nil
			})
		}()
		synctest.Wait()
		require.Equal(t, 1, n, "the next one is not held up")
		require.Len(t, refused, 1)
		whole, err := base64.StdEncoding.DecodeString(refused[0].Raw)
		require.NoError(t, err)
		require.Equal(t, torn, whole)
		_, done := journal.counts()
		require.Equal(t, 2, done)
		stop()
		require.NoError(t, <-ended)
	})
}

type brokenJournal struct{ *memory }

var errDisk = errors.New("input/output error")

func (brokenJournal) Next(context.Context) ([]byte, uint64, error) { return nil, 0, errDisk }

func TestFaultsThatEndTheSource(t *testing.T) {
	later := kept("a", 1, 2)
	later[0] = 2
	for name, c := range map[string]struct {
		journal func() Journal
		emit    error
		want    string
	}{
		"the journal can't be read":   {func() Journal { return brokenJournal{newMemory()} }, nil, "read the journal: input/output error"},
		"an entry of a later version": {func() Journal { return newMemory(later) }, nil, "read the journal: entry 1: it is of version 2"},
		"the pipeline takes no batch": {func() Journal { return newMemory(kept("a", 1, 2)) }, errors.New("no way to the store"), "no way to the store"},
	} {
		t.Run(name, func(t *testing.T) {
			err := pumped(c.journal(), 10).pump(t.Context(), func(pipeline.Batch) error { return c.emit })
			require.ErrorContains(t, err, c.want)
			if c.emit != nil {
				return
			}
			r := start(t, func(o *Options) { o.Journal = c.journal() })
			require.ErrorContains(t, <-r.ended, c.want, "and the server with it")
			r.ended <- nil
			_, err = net.Dial("tcp", r.Listener.Addr().String())
			require.Error(t, err)
		})
	}
}

func TestAtTheStopRequestsUnderWayAreFinished(t *testing.T) {
	r := start(t)
	stuck := make(chan struct{})
	r.journal.set(nil, stuck)
	under := make(chan reply, 1)
	go func() { under <- r.post(line("a", 0)) }()
	require.Eventually(t, func() bool { return len(r.slots) == 1 }, 10*time.Second, time.Millisecond)
	idle := r.raw()
	r.stop()
	_, _ = io.ReadAll(idle) // a connection without a request is closed at once
	require.Eventually(t, func() bool {
		conn, err := net.Dial("tcp", r.Listener.Addr().String())
		if err == nil {
			conn.Close()
		}
		return err != nil
	}, 10*time.Second, time.Millisecond, "no new ones are taken")
	select {
	case <-under:
		t.Fatal("it was answered before it was durable")
	default:
	}
	close(stuck)
	require.Equal(t, 200, (<-under).status)
	require.NoError(t, r.end())
	appended, _ := r.journal.counts()
	require.Equal(t, 1, appended, "it stays in the journal for the next run")
	late := &probeWriter{header: http.Header{}}
	r.ServeHTTP(late, bearing(r.token))
	require.Equal(t, 503, late.status)
}

func TestARequestThatTakesLongerThanTheGraceIsCutOff(t *testing.T) {
	r := start(t, func(o *Options) { o.Limits.Grace = 50 * time.Millisecond })
	conn := r.raw()
	_, err := fmt.Fprintf(conn, "POST /v1/telemetry HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Length: 1000\r\n\r\n{", r.token)
	require.NoError(t, err)
	require.Eventually(t, func() bool { r.requests.mu.Lock(); defer r.requests.mu.Unlock(); return r.requests.inside == 1 }, 10*time.Second, time.Millisecond)
	started := time.Now()
	require.NoError(t, r.end())
	require.Less(t, time.Since(started), 5*time.Second)
	require.Contains(t, r.logs.String(), "were cut off")
}

func TestWhatWasNotDoneComesAgainAfterARestart(t *testing.T) {
	journal := newMemory()
	s := pumped(journal, 100)
	e := entry{at: time.Now(), origin: "a", protocol: protocolTelemetry, records: []received{{record: telemetry.Record{DeviceID: "v", FleetID: "wuxi", TimeMs: time.Now().UnixMilli()}}}}
	text, err := e.encode()
	require.NoError(t, err)
	require.NoError(t, journal.Append(t.Context(), text))
	ctx, stop := context.WithCancel(t.Context())
	err = s.pump(ctx, func(pipeline.Batch) error { stop(); return ctx.Err() }) // it fell before it was stored
	require.NoError(t, err)
	_, done := journal.counts()
	require.Zero(t, done)
	journal.next = 0 // as a journal begins anew
	r := start(t, func(o *Options) { o.Journal = journal })
	items, _ := r.arrived(1)
	require.Equal(t, "v", items[0].DeviceID)
}

func TestMountedRoutesAreServedCountedAndDescribed(t *testing.T) {
	var tokens *Tokens
	r := start(t, func(o *Options) {
		tokens = o.Tokens
		o.Describe = []byte(`{"paths":{"/v1/fleets":{"get":{"responses":{"200":{"description":"fleets"}}}}},"components":{"schemas":{"Fleet":{"type":"string"}},"headers":{}}}`)
		o.Mount = func(mux *http.ServeMux) {
			mux.HandleFunc("GET /v1/fleets/{fleet}", func(w http.ResponseWriter, r *http.Request) {
				grant, ok := tokens.Authenticate(r)
				if !ok || !grant.Read || !grant.Allows(r.PathValue("fleet")) {
					w.WriteHeader(http.StatusForbidden)
					_, _ = io.WriteString(w, "{}")
					return
				}
				if http.NewResponseController(w).SetWriteDeadline(time.Now().Add(time.Minute)) == nil {
					_, _ = io.WriteString(w, `{"accepted":7}`)
				}
			})
		}
	})
	require.Equal(t, 7, r.do("GET", "/v1/fleets/wuxi", r.reader, nil).Accepted)
	require.Equal(t, 403, r.do("GET", "/v1/fleets/suzhou", r.reader, nil).status)
	require.Equal(t, 403, r.do("GET", "/v1/fleets/wuxi", r.token, nil).status)
	require.Equal(t, 405, r.do("POST", "/v1/fleets/wuxi", r.reader, strings.NewReader("")).status)
	require.Equal(t, 2.0, r.metric("fleet_etl_http_requests_total", "endpoint", "mounted", "code", "403"))
	description := r.do("GET", "/v1/openapi.json", "", nil).body
	require.Contains(t, description, `"/v1/fleets"`)
	require.Contains(t, description, `"/v1/telemetry"`)
	require.Contains(t, description, `"Fleet"`)
}
