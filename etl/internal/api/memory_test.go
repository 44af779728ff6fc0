//go:build !race

package api

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"runtime"
	"runtime/metrics"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/sirupsen/logrus"
	"github.com/stretchr/testify/require"

	"github.com/fleettracing/fleet-tracing/etl/internal/deadletter"
	"github.com/fleettracing/fleet-tracing/etl/internal/pipeline"
	"github.com/fleettracing/fleet-tracing/etl/internal/spool"
	"github.com/fleettracing/fleet-tracing/etl/internal/validate"
)

// gatedWriter stores everything, or nothing, as while Cassandra is unavailable.
type gatedWriter struct {
	open bool
	last atomic.Bool // a record of fixture.works was stored
}

func (w *gatedWriter) Run(ctx context.Context, in <-chan pipeline.ValidBatch) error {
	if !w.open {
		<-ctx.Done()
		return ctx.Err()
	}
	for b := range in {
		for i := range b.Items {
			if strings.HasPrefix(b.Items[i].DeviceID, "works-") {
				w.last.Store(true)
			}
		}
		b.Done()
	}
	return nil
}

// peakOfHeap returns the largest heap, in bytes, between now and the call of the function that it returns.
func peakOfHeap() (peak func() uint64) {
	runtime.GC()
	ended, result := make(chan struct{}), make(chan uint64)
	go func() {
		sample, peak := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}, uint64(0)
		for {
			metrics.Read(sample)
			peak = max(peak, sample[0].Value.Uint64())
			select {
			case <-ended:
				result <- peak
				return
			case <-time.After(time.Millisecond):
			}
		}
	}()
	return func() uint64 { close(ended); return <-result }
}

// Few bytes of gzip are megabytes of rejected records. They pass through the handlers, the spool, the pipeline and the
// dead-letter queue, and the spool returns them after a restart.
func TestHostileRequestsTakeLittleMemory(t *testing.T) {
	const most = 320 << 20 // of the heap with its garbage, bytes
	for name, body := range map[string]string{
		"lines that are too large":        strings.Repeat(strings.Repeat("\x01", 65_000)+"\n", 127),
		"lines without JSON":              strings.Repeat(strings.Repeat("\x01", 16_000)+"\n", 520),
		"many small lines":                strings.Repeat("\x01\n", 9_000),
		"rejected records":                strings.Repeat(`{"device_id":"a","timestamp":1795000000,"lat":91,"lon":2,"zone":"z"}`+"\n", 9_000),
		"valid records with other fields": strings.Repeat(strings.TrimSuffix(line("a", 0), "}")+`,"x":"`+strings.Repeat("x", 700)+`"}`+"\n", 9_000),
	} {
		t.Run(name, func(t *testing.T) {
			rejected, mixed := gzipped(body).Bytes(), gzipped(body+line("b", 0)).Bytes()
			h := hostile{t: t, spool: t.TempDir(), letters: t.TempDir()}
			peak := peakOfHeap()
			r, stop := h.start(false)
			var requests sync.WaitGroup
			for i := range 4 {
				token := []string{r.token, r.all}[i%2] // two senders
				requests.Go(func() {
					for _, text := range [][]byte{rejected, mixed} {
						for status := 0; status != http.StatusOK && status != http.StatusUnprocessableEntity; {
							status = r.send(t, token, text)
						}
					}
				})
			}
			requests.Wait()
			r.works()
			stop()
			require.Less(t, peak(), uint64(most), "requests")

			peak = peakOfHeap()
			_, stop = h.start(true)
			require.Eventually(t, func() bool { return h.writer.last.Load() }, time.Minute, time.Millisecond, "the last record is stored")
			stop()
			require.Less(t, peak(), uint64(most), "after the restart")
		})
	}
}

// hostile is a server with its spool, pipeline and dead letters in directories that survive a restart.
type hostile struct {
	t              *testing.T
	spool, letters string
	writer         *gatedWriter
}

// start starts it. Nothing is stored unless the store is open.
func (h *hostile) start(open bool) (r *fixture, stop func()) {
	buffer, err := spool.Open(h.spool, spool.Options{MaxBytes: 1 << 30}, logrus.New(), nil, time.Now)
	require.NoError(h.t, err)
	letters := deadletter.NewFile(h.letters, deadletter.Limits{Bytes: 4 << 30}, logrus.New(), nil, time.Now)
	h.writer = &gatedWriter{open: open}
	p := pipeline.New(pipeline.Options{
		Validator: validate.New(nil, 1000, nil), Writer: h.writer, DeadLetters: letters, Registerer: prometheus.NewRegistry(), Now: time.Now, Queue: 8,
	})
	r = start(h.t, func(o *settings) {
		o.ingest.Limits.TokenRate, o.ingest.Limits.DeviceRate = 0, 0
		o.ingest.Spool = buffer
		o.ingest.Reject = func(ctx context.Context, origin string, rejected []pipeline.Rejected) error {
			return p.Reject(ctx, Name, origin, rejected)
		}
		o.run = func(ctx context.Context, s *Server) error {
			if err := p.Run(ctx, ctx, s); ctx.Err() == nil {
				return err
			}
			return nil
		}
	})
	return r, func() {
		require.NoError(h.t, r.end())
		require.NoError(h.t, buffer.Close())
		require.NoError(h.t, letters.Close())
	}
}

// send sends a packed body, and returns the status. It waits when the server is busy.
func (r *fixture) send(t *testing.T, token string, text []byte) int {
	request, err := http.NewRequest(http.MethodPost, r.url+"/v1/telemetry?fleet_id=wuxi", bytes.NewReader(text))
	if err != nil {
		t.Error(err)
		return http.StatusOK
	}
	request.Header.Set("Authorization", "Bearer "+token)
	request.Header.Set("Content-Type", "application/x-ndjson")
	request.Header.Set("Content-Encoding", "gzip")
	response, err := r.client.Do(request)
	if err != nil {
		t.Error(err)
		return http.StatusOK
	}
	defer response.Body.Close()
	_, _ = io.Copy(io.Discard, response.Body)
	if response.StatusCode == http.StatusTooManyRequests || response.StatusCode == http.StatusServiceUnavailable {
		time.Sleep(20 * time.Millisecond)
	}
	return response.StatusCode
}
