package notifier

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/sirupsen/logrus"
	"github.com/sirupsen/logrus/hooks/test"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fake is an Alertmanager without a network, so that tests control the clock.
type fake struct {
	answer func() (status int, text string) // nil: it accepts everything
	hangs  bool
	down   bool

	mu       sync.Mutex
	posts    []posted
	requests int // accepted or not
}

type posted struct {
	at     time.Time
	alerts []postable
	header http.Header
	url    string
}

var errDown = errors.New("connection refused")

func (f *fake) RoundTrip(r *http.Request) (*http.Response, error) {
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	f.mu.Lock()
	f.requests++
	hangs, down, answer := f.hangs, f.down, f.answer
	f.mu.Unlock()
	if hangs {
		<-r.Context().Done()
		return nil, r.Context().Err()
	}
	if down {
		return nil, errDown
	}
	status, text := http.StatusOK, ""
	if answer != nil {
		status, text = answer()
	}
	if status == http.StatusOK {
		var alerts []postable
		if err := json.Unmarshal(body, &alerts); err != nil {
			return nil, err
		}
		f.mu.Lock()
		f.posts = append(f.posts, posted{time.Now(), alerts, r.Header, r.URL.String()})
		f.mu.Unlock()
	}
	return &http.Response{StatusCode: status, Body: io.NopCloser(strings.NewReader(text)), Request: r}, nil
}

func (f *fake) set(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
}

// accepted returns the accepted requests.
func (f *fake) accepted() []posted {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.posts)
}

func (f *fake) attempts() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.requests
}

// drain returns and forgets the accepted alerts, one line per alert.
func (f *fake) drain() (lines []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, p := range f.posts {
		for _, a := range p.alerts {
			state := "firing"
			if !a.EndsAt.After(p.at) {
				state = "resolved"
			}
			lines = append(lines, fmt.Sprintf("%s %s %s %s", a.Labels["device"], a.Labels["type"], a.Labels["severity"], state))
		}
	}
	f.posts = nil
	slices.Sort(lines)
	return lines
}

// fakeStore is the list of open alerts in the store.
type fakeStore struct {
	mu   sync.Mutex
	open []telemetry.Alert
	err  error
}

func (s *fakeStore) read(context.Context) ([]telemetry.Alert, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.open), s.err
}

func (s *fakeStore) set(err error, open ...telemetry.Alert) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open, s.err = open, err
}

// harness is an Alertmanager receiver with fake Alertmanagers and a fake store.
type harness struct {
	*Alertmanager
	t     *testing.T
	store fakeStore
	to    []*fake
	reg   *prometheus.Registry
	hook  *test.Hook
}

func newHarness(t *testing.T, o Options, to ...*fake) *harness {
	t.Helper()
	if o.URLs == nil {
		for i := range to {
			o.URLs = append(o.URLs, fmt.Sprintf("http://am-%d:9093", i+1))
		}
	}
	o.Resend, o.Timeout = time.Minute, 10*time.Second
	x := &harness{t: t, to: to, reg: prometheus.NewPedanticRegistry()}
	var logger *logrus.Logger
	logger, x.hook = test.NewNullLogger()
	var err error
	x.Alertmanager, err = NewAlertmanager(o, x.store.read, logger, x.reg, time.Now)
	require.NoError(t, err)
	for i, f := range to {
		x.clients[i].http.Transport = f
	}
	return x
}

// start runs the receiver until stop is called or the test ends.
func (x *harness) start() (stop func()) {
	ctx, cancel := context.WithCancel(x.t.Context())
	ended := make(chan error, 1)
	go func() { ended <- x.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		assert.NoError(x.t, <-ended)
	})
	x.t.Cleanup(stop)
	return stop
}

func (x *harness) count(o outcome) float64 { return testutil.ToFloat64(x.metrics.outcomes[o]) }

// logged returns and forgets the log lines.
func (x *harness) logged() (lines []string) {
	for _, e := range x.hook.AllEntries() {
		line := fmt.Sprintf("%s: %s", e.Level, e.Message)
		for _, field := range []string{"alertmanager", "error", "duration"} {
			if v, ok := e.Data[field]; ok {
				line += fmt.Sprintf("; %s=%v", field, v)
			}
		}
		lines = append(lines, line)
	}
	x.hook.Reset()
	return lines
}

// waitForBatch waits until queued notifications are sent.
func waitForBatch() { time.Sleep(150 * time.Millisecond); synctest.Wait() }

func alertOf(device string, kind telemetry.AlertType, severity telemetry.Severity) telemetry.Alert {
	opened := time.Now().Add(-time.Minute).UnixMilli()
	return telemetry.Alert{
		FleetID: "wuxi", DeviceID: device, Type: kind, Severity: severity, OpenedMs: opened, StartedMs: opened - 30_000,
		Peak: 97.25, Threshold: 80, Zone: "harbor", Lat: 52.374214, Lon: 9.738119, Message: "97 km/h, limit 80 km/h",
	}
}

func opened(a telemetry.Alert) telemetry.AlertEvent {
	return telemetry.AlertEvent{Alert: a, Transition: telemetry.AlertOpened}
}

func resolved(a telemetry.Alert) telemetry.AlertEvent {
	a.EndedMs = time.Now().Add(-time.Second).UnixMilli()
	return telemetry.AlertEvent{Alert: a, Transition: telemetry.AlertResolved}
}

func TestPostedAlerts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		am := &fake{}
		x := newHarness(t, Options{
			URLs:       []string{"https://me:s3cret%2F@am.example.org/monitoring/"},
			GrafanaURL: "http://grafana:3000/", RunbookURL: "https://docs/runbooks",
		}, am)
		x.start()
		waitForBatch()
		am.drain()
		a := alertOf("truck-7", telemetry.SpeedLimit, telemetry.High) // the fake clock starts in the year 2000
		x.Notify([]telemetry.AlertEvent{opened(a), resolved(alertOf("truck-8", telemetry.GeofenceExit, telemetry.Low))})
		waitForBatch()

		posts := am.accepted()
		require.Len(t, posts, 1)
		p := posts[0]
		assert.Equal(t, "https://am.example.org/monitoring/api/v2/alerts", p.url)
		assert.Equal(t, "application/json", p.header.Get("Content-Type"))
		assert.Equal(t, "fleet-etl", p.header.Get("User-Agent"))
		user, password, _ := (&http.Request{Header: p.header}).BasicAuth()
		assert.Equal(t, "me:s3cret/", user+":"+password)

		require.Len(t, p.alerts, 2)
		got, err := json.MarshalIndent(p.alerts[1], "", "  ")
		require.NoError(t, err)
		assert.Equal(t, `{
  "labels": {
    "alertname": "FleetVehicleSpeedLimit",
    "device": "truck-7",
    "fleet": "wuxi",
    "fleet_severity": "HIGH",
    "kind": "fleet",
    "severity": "critical",
    "type": "speed_limit"
  },
  "annotations": {
    "dashboard_url": "http://grafana:3000/d/fleet-analytics?var-fleet=wuxi\u0026var-device=truck-7\u0026from=946681140150\u0026to=now",
    "description": "97 km/h, limit 80 km/h",
    "location": "harbor (52.37421, 9.73812)",
    "runbook_url": "https://docs/runbooks/FleetVehicleSpeedLimit.md",
    "summary": "truck-7: speed limit",
    "threshold": "80 km/h",
    "value": "97.3 km/h"
  },
  "startsAt": "1999-12-31T23:59:00.15Z",
  "endsAt": "2000-01-01T00:04:00.25Z",
  "generatorURL": "http://grafana:3000/d/fleet-analytics?var-fleet=wuxi\u0026var-device=truck-7\u0026from=946681140150\u0026to=now"
}`, string(got))
		ended := p.alerts[0]
		assert.Equal(t, "FleetVehicleGeofenceExit", ended.Labels["alertname"])
		assert.Equal(t, "info", ended.Labels["severity"])
		assert.NotContains(t, ended.Annotations, "value", "leaving a geofence has no value")
		assert.True(t, strings.HasSuffix(ended.GeneratorURL, "&from=946681140150&to=946686599150"), ended.GeneratorURL)
		assert.Equal(t, time.Second, p.at.Sub(ended.EndsAt).Round(time.Second), "the end of the alert, not of the request")
	})
}

func TestEventsOfAMomentAreOneRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		am := &fake{}
		x := newHarness(t, Options{}, am)
		x.start()
		waitForBatch()
		am.drain()
		notified := time.Now()
		for i := range 30 {
			x.Notify([]telemetry.AlertEvent{opened(alertOf(fmt.Sprint("truck-", i), telemetry.Temperature, telemetry.Medium))})
			time.Sleep(2 * time.Millisecond)
		}
		time.Sleep(140 * time.Millisecond)
		synctest.Wait()
		require.Len(t, am.accepted(), 1)
		assert.Len(t, am.accepted()[0].alerts, 30)
		assert.LessOrEqual(t, am.accepted()[0].at.Sub(notified), 200*time.Millisecond)
	})
}

func TestOpenAlertIsResentUntilResolved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		am := &fake{}
		x := newHarness(t, Options{}, am)
		a := alertOf("truck-1", telemetry.BatteryLow, telemetry.Medium)
		x.store.set(nil, a)
		x.start()
		waitForBatch()
		const firing, ended = "truck-1 battery_low warning firing", "truck-1 battery_low warning resolved"
		assert.Equal(t, []string{firing}, am.drain(), "sent at start")
		time.Sleep(59 * time.Second)
		assert.Empty(t, am.drain())
		time.Sleep(2 * time.Second)
		require.Len(t, am.accepted(), 1)
		assert.Equal(t, 4*time.Minute, am.accepted()[0].alerts[0].EndsAt.Sub(am.accepted()[0].at))
		am.drain()

		x.Notify([]telemetry.AlertEvent{resolved(a)})
		waitForBatch()
		assert.Equal(t, []string{ended}, am.drain())
		time.Sleep(time.Minute) // the store still lists it
		assert.Equal(t, []string{ended}, am.drain(), "repeated once, and not sent as firing")
		x.store.set(nil)
		time.Sleep(30 * time.Minute)
		assert.Empty(t, am.drain())
		assert.Zero(t, x.count(dropped))
	})
}

func TestReopenedAlertIsNotResolvedByItsFormerEnd(t *testing.T) {
	for name, here := range map[string]bool{"by this instance": true, "by another instance": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				am := &fake{}
				x := newHarness(t, Options{}, am)
				x.start()
				waitForBatch()
				first := alertOf("truck-1", telemetry.DeviceOffline, telemetry.High)
				x.Notify([]telemetry.AlertEvent{opened(first)})
				waitForBatch()
				x.Notify([]telemetry.AlertEvent{resolved(first)})
				waitForBatch()
				am.drain()
				second := first
				second.OpenedMs = time.Now().UnixMilli()
				x.store.set(nil, second)
				if here {
					x.Notify([]telemetry.AlertEvent{opened(second)})
				}
				time.Sleep(20 * time.Minute)
				lines := am.drain()
				assert.GreaterOrEqual(t, len(lines), 19)
				assert.Equal(t, []string{"truck-1 device_offline critical firing"}, slices.Compact(lines))
			})
		})
	}
}

func TestEscalationResolvesTheFormerSeverity(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		am := &fake{}
		x := newHarness(t, Options{}, am)
		a := alertOf("truck-1", telemetry.SpeedLimit, telemetry.Medium)
		x.store.set(nil, a)
		x.start()
		waitForBatch()
		am.drain()
		a.Severity = telemetry.High
		x.Notify([]telemetry.AlertEvent{{Alert: a, Transition: telemetry.AlertEscalated, From: telemetry.Medium}})
		waitForBatch()
		both := []string{"truck-1 speed_limit critical firing", "truck-1 speed_limit warning resolved"}
		assert.Equal(t, both, am.drain())
		time.Sleep(time.Minute) // a late replica still lists the former severity
		assert.Equal(t, both[1:], am.drain(), "not firing again")
		x.store.set(nil, a)
		time.Sleep(time.Minute)
		assert.Equal(t, both[:1], am.drain())
	})
}

// An open alert must not expire because Cassandra is unavailable.
func TestKnownAlertsAreResentWhileTheStoreIsUnavailable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		am := &fake{}
		x := newHarness(t, Options{}, am)
		known, ended, fresh := alertOf("known", telemetry.SpeedLimit, telemetry.Low), alertOf("ended", telemetry.SpeedLimit, telemetry.Low), alertOf("fresh", telemetry.SpeedLimit, telemetry.Low)
		x.store.set(nil, known, ended)
		x.start()
		waitForBatch()
		x.store.set(errors.New("no hosts"))
		x.Notify([]telemetry.AlertEvent{opened(fresh), resolved(ended)})
		time.Sleep(2 * time.Minute)
		am.drain()
		for range 30 {
			time.Sleep(time.Minute)
			assert.Equal(t, []string{"fresh speed_limit info firing", "known speed_limit info firing"}, am.drain())
		}
		logged := x.logged()
		assert.Equal(t, "warning: reading open alerts failed, resending the last known ones; error=no hosts", logged[0])
		x.store.set(nil, fresh)
		time.Sleep(2 * time.Minute)
		am.drain()
		time.Sleep(time.Minute)
		assert.Equal(t, []string{"fresh speed_limit info firing"}, am.drain())
		require.Len(t, x.logged(), 1)
	})
}

func TestUnavailableAlertmanagerBlocksNothing(t *testing.T) {
	for name, c := range map[string]struct {
		fail    func(*fake)
		wantErr string
	}{
		"connection refused": {func(f *fake) { f.down = true }, "connection refused"},
		"hangs":              {func(f *fake) { f.hangs = true }, "deadline exceeded"},
		"server error":       {func(f *fake) { f.answer = func() (int, string) { return 503, "try\nlater" } }, "answered 503 Service Unavailable: try later"},
		"rate limited":       {func(f *fake) { f.answer = func() (int, string) { return 429, "" } }, "answered 429 Too Many Requests"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				failing, healthy := &fake{}, &fake{}
				c.fail(failing)
				x := newHarness(t, Options{}, failing, healthy)
				x.start()
				a, b := alertOf("truck-1", telemetry.SpeedLimit, telemetry.High), alertOf("truck-2", telemetry.SpeedLimit, telemetry.High)
				x.store.set(nil, a, b)
				before := time.Now()
				x.Notify([]telemetry.AlertEvent{opened(a), opened(b)})
				assert.Equal(t, before, time.Now(), "Notify does not wait")
				waitForBatch()
				assert.Contains(t, healthy.drain(), "truck-1 speed_limit critical firing")
				time.Sleep(3 * time.Minute)
				x.Notify([]telemetry.AlertEvent{resolved(b)})
				x.store.set(nil, a)
				waitForBatch()
				assert.Contains(t, healthy.drain(), "truck-2 speed_limit critical resolved")
				time.Sleep(7 * time.Minute)
				assert.Less(t, failing.attempts(), 45, "retries back off")
				assert.Greater(t, failing.attempts(), 10)
				logged := x.logged()
				assert.Contains(t, logged[0], "warning: alertmanager unavailable, retrying; alertmanager=http://am-1:9093; error=")
				assert.Contains(t, logged[0], c.wantErr)
				assert.LessOrEqual(t, len(logged), 21, "one reminder per half minute")
				assert.Greater(t, x.count(failed), 0.0)

				failing.set(func() { failing.hangs, failing.down, failing.answer = false, false, nil })
				healthy.drain()
				time.Sleep(42 * time.Second) // the longest backoff, and a request that still hangs
				got := failing.drain()
				assert.Contains(t, got, "truck-1 speed_limit critical firing")
				assert.Contains(t, got, "truck-2 speed_limit critical resolved")
				assert.NotContains(t, got, "truck-2 speed_limit critical firing", "it was not sent in time, and has ended")
				logged = x.logged()
				assert.Contains(t, logged[len(logged)-1], "info: alertmanager available again; alertmanager=http://am-1:9093; duration=")
				assert.Zero(t, x.count(dropped))
			})
		})
	}
}

func TestEventIsRetriedBeforeTheNextResend(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		am := &fake{}
		x := newHarness(t, Options{}, am)
		x.start()
		waitForBatch()
		am.set(func() { am.down = true })
		ended := alertOf("truck-1", telemetry.SpeedLimit, telemetry.High)
		x.Notify([]telemetry.AlertEvent{resolved(ended), opened(alertOf("truck-2", telemetry.SpeedLimit, telemetry.High))})
		waitForBatch()
		am.set(func() { am.down = false })
		time.Sleep(time.Second)
		assert.Equal(t, []string{"truck-1 speed_limit critical resolved", "truck-2 speed_limit critical firing"}, am.drain())
	})
}

// A read of the store that is in progress does not have the alert yet.
func TestAlertOpensWhileTheStoreIsRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		am := &fake{}
		x := newHarness(t, Options{}, am)
		x.read = func(context.Context) ([]telemetry.Alert, error) {
			time.Sleep(time.Second)
			return nil, nil
		}
		x.start()
		time.Sleep(950 * time.Millisecond)
		x.Notify([]telemetry.AlertEvent{opened(alertOf("truck-1", telemetry.SpeedLimit, telemetry.High))})
		waitForBatch()
		assert.Equal(t, []string{"truck-1 speed_limit critical firing"}, am.drain())
	})
}

func TestRejectionIsLoggedOnceAndRetriedWithTheNextResend(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		am := &fake{answer: func() (int, string) { return http.StatusUnauthorized, "who are you?" }}
		x := newHarness(t, Options{}, am)
		a, b := alertOf("truck-1", telemetry.SpeedLimit, telemetry.High), alertOf("truck-2", telemetry.SpeedLimit, telemetry.High)
		x.store.set(nil, a)
		x.start()
		x.Notify([]telemetry.AlertEvent{opened(a), resolved(b)})
		time.Sleep(10*time.Minute - time.Second)
		assert.InDelta(t, 10, am.attempts(), 2, "once per resend")
		assert.Equal(t, []string{"warning: alertmanager rejects alerts; alertmanager=http://am-1:9093; error=answered 401 Unauthorized: who are you?"}, x.logged())
		assert.Greater(t, x.count(failed), 5.0)
		am.set(func() { am.answer = nil })
		time.Sleep(time.Minute)
		assert.Subset(t, am.drain(), []string{"truck-1 speed_limit critical firing", "truck-2 speed_limit critical resolved"}, "delivered once it accepts again")
	})
}

func TestForbiddenStopsTheBatchesOfAResend(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		am := &fake{answer: func() (int, string) { return http.StatusForbidden, "" }}
		x := newHarness(t, Options{}, am)
		var open []telemetry.Alert
		for i := range 2000 {
			open = append(open, alertOf(fmt.Sprint("truck-", i), telemetry.SpeedLimit, telemetry.High))
		}
		x.store.set(nil, open...)
		x.start()
		waitForBatch()
		assert.Equal(t, 1, am.attempts())
		time.Sleep(time.Minute)
		assert.Equal(t, 2, am.attempts(), "one per resend")
	})
}

// Alertmanager accepts the good alerts of a batch with a bad one and answers 400. The batches after it are still sent.
func TestBadBatchDoesNotStopTheOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		am := &fake{}
		x := newHarness(t, Options{}, am)
		var open []telemetry.Alert
		for i := range 1200 {
			open = append(open, alertOf(fmt.Sprint("truck-", i), telemetry.SpeedLimit, telemetry.High))
		}
		x.store.set(nil, open...)
		n := 0
		am.answer = func() (int, string) {
			if n++; n == 1 {
				return http.StatusBadRequest, "bad label"
			}
			return http.StatusOK, ""
		}
		x.start()
		waitForBatch()
		require.Len(t, am.accepted(), 2)
		assert.Len(t, am.accepted()[0].alerts, 500, "in batches")
		assert.Len(t, am.accepted()[1].alerts, 200)
		assert.Equal(t, 500.0, x.count(failed))
		assert.Equal(t, 700.0, x.count(sent))
	})
}

func TestQueueIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		am := &fake{down: true}
		x := newHarness(t, Options{}, am)
		x.start()
		events := func(device string, n int, event func(telemetry.Alert) telemetry.AlertEvent) (all []telemetry.AlertEvent) {
			for i := range n {
				all = append(all, event(alertOf(fmt.Sprintf("%s-%d", device, i), telemetry.SpeedLimit, telemetry.Low)))
			}
			return all
		}
		x.Notify(events("truck", 5000, opened))
		x.Notify(events("truck", 12_000, resolved)) // replaces the open ones
		assert.Equal(t, 2000.0, x.count(dropped), "the oldest")
		x.Notify(events("van", 500, opened))
		assert.Equal(t, 2500.0, x.count(dropped), "firing alerts push out resolved ones")
		am.set(func() { am.down = false })
		time.Sleep(45 * time.Second)
		got := slices.Compact(am.drain())
		require.Len(t, got, 10_000)
		for _, c := range []struct {
			line string
			want bool
		}{
			{"truck-2499 speed_limit info resolved", false}, {"truck-2500 speed_limit info resolved", true},
			{"truck-11999 speed_limit info resolved", true}, {"van-0 speed_limit info firing", true},
		} {
			assert.Equal(t, c.want, slices.Contains(got, c.line), c.line)
		}
		x.Notify(events("bus", 11_000, opened)) // the store lists them
		assert.Len(t, x.queue.byKey, 10_000)
		assert.Equal(t, 2500.0, x.count(dropped), "neither accepted nor firing alerts count as lost")
	})
}

func TestResolvedAlertIsDroppedAfterFifteenMinutes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		failing, healthy := &fake{down: true}, &fake{}
		x := newHarness(t, Options{}, failing, healthy)
		x.start()
		x.Notify([]telemetry.AlertEvent{resolved(alertOf("truck-1", telemetry.SpeedLimit, telemetry.Low))})
		time.Sleep(14 * time.Minute)
		assert.Zero(t, x.count(dropped))
		time.Sleep(3 * time.Minute)
		assert.Equal(t, 1.0, x.count(dropped), "by the Alertmanager that never accepted it")
		assert.Empty(t, x.queue.byKey)
		failing.set(func() { failing.down = false })
		time.Sleep(time.Minute)
		assert.Empty(t, failing.drain())
	})
}

func TestQueuedEventsAreSentAtStop(t *testing.T) {
	for name, c := range map[string]struct {
		am   *fake
		want []string
		most time.Duration
	}{
		"available": {&fake{}, []string{"truck-1 speed_limit info resolved"}, 0},
		"hanging":   {&fake{hangs: true}, nil, 2 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				x := newHarness(t, Options{}, c.am)
				stop := x.start()
				waitForBatch()
				c.am.drain()
				x.Notify([]telemetry.AlertEvent{resolved(alertOf("truck-1", telemetry.SpeedLimit, telemetry.Low))})
				at := time.Now()
				stop()
				assert.Equal(t, c.want, c.am.drain())
				assert.LessOrEqual(t, time.Since(at), c.most)
			})
		})
	}
}

func TestQuietFleetStillProbesAlertmanager(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		am := &fake{}
		x := newHarness(t, Options{}, am)
		assert.Zero(t, testutil.ToFloat64(x.metrics.lastSuccess))
		x.start()
		time.Sleep(5*time.Minute + time.Second)
		assert.Len(t, am.accepted(), 6)
		assert.Empty(t, am.drain(), "empty requests")
		assert.InDelta(t, float64(time.Now().Unix()), testutil.ToFloat64(x.metrics.lastSuccess), 2)
		assert.Zero(t, x.count(sent))
	})
}

func TestTimes(t *testing.T) {
	now := time.UnixMilli(1_000_000)
	for name, c := range map[string]struct {
		opened, ended int64 // ms; ended 0 is open
		starts, ends  int64
	}{
		"open":                          {900_000, 0, 900_000, 1_240_000},
		"open, device clock ahead":      {1_100_000, 0, 1_000_000, 1_240_000},
		"ended":                         {900_000, 950_000, 900_000, 950_000},
		"ended at once":                 {900_000, 900_000, 900_000, 900_001},
		"ended, device clock ahead":     {900_000, 1_200_000, 900_000, 1_000_000},
		"all of it, device clock ahead": {1_100_000, 1_200_000, 999_999, 1_000_000},
	} {
		t.Run(name, func(t *testing.T) {
			a := telemetry.Alert{OpenedMs: c.opened, EndedMs: c.ended}
			starts, ends := times(&a, now, 4*time.Minute)
			assert.Equal(t, c.starts, starts.UnixMilli(), "starts")
			assert.Equal(t, c.ends, ends.UnixMilli(), "ends")
			assert.True(t, starts.Before(ends), "Alertmanager rejects it otherwise")
		})
	}
}

func TestLabelsAndAnnotations(t *testing.T) {
	for kind, want := range map[telemetry.AlertType][4]string{ // name, summary, value, threshold
		telemetry.SpeedLimit:    {"FleetVehicleSpeedLimit", "d: speed limit", "3725.4 km/h", "80 km/h"},
		telemetry.BatteryLow:    {"FleetVehicleBatteryLow", "d: battery low", "3725.4 %", "80 %"},
		telemetry.Temperature:   {"FleetVehicleTemperature", "d: temperature", "3725.4 °C", "80 °C"},
		telemetry.GeofenceEnter: {"FleetVehicleGeofenceEnter", "d: entered a geofence", "", ""},
		telemetry.GeofenceExit:  {"FleetVehicleGeofenceExit", "d: left a geofence", "", ""},
		telemetry.GeofenceDwell: {"FleetVehicleGeofenceDwell", "d: too long in a geofence", "1 h 2 min", "1 min 20 s"},
		telemetry.DeviceOffline: {"FleetVehicleDeviceOffline", "d: offline", "1 h 2 min", "1 min 20 s"},
		telemetry.DeviceStuck:   {"FleetVehicleDeviceStuck", "d: position stuck", "1 h 2 min", "1 min 20 s"},
	} {
		t.Run(string(kind), func(t *testing.T) {
			a := telemetry.Alert{FleetID: "a&b", DeviceID: "d", Type: kind, Peak: 3725.4, Threshold: 80, OpenedMs: 7_200_000}
			annotations := Annotations(a, "https://g/sub", "")
			assert.Equal(t, want, [4]string{Labels(a)["alertname"], annotations["summary"], annotations["value"], annotations["threshold"]})
			assert.Equal(t, "0.00000, 0.00000", annotations["location"], "without a geofence")
			assert.Equal(t, "https://g/sub/d/fleet-analytics?var-fleet=a%26b&var-device=d&from=3600000&to=now", annotations["dashboard_url"])
			assert.NotContains(t, annotations, "runbook_url")
			assert.NotContains(t, Annotations(a, "", "r"), "dashboard_url")
		})
	}
}

func TestInvalidOptionsDoNotShowSecrets(t *testing.T) {
	for name, c := range map[string]struct {
		o    Options
		want string
	}{
		"another scheme": {Options{URLs: []string{"http://a", "ftp://u:s3cret@host"}}, "alertmanager 2: not an http or https url"},
		"malformed":      {Options{URLs: []string{"http://u:s3cret%zz@host"}}, "alertmanager 1: not a valid url"},
		"no host":        {Options{URLs: []string{"localhost:9093"}}, "not an http or https url"},
		"a query":        {Options{URLs: []string{"http://u:s3cret@host?x=1"}}, "has a query"},
		"grafana":        {Options{URLs: []string{"http://a"}, GrafanaURL: "grafana:3000"}, "grafana url: not an"},
		"runbook":        {Options{URLs: []string{"http://a"}, RunbookURL: "/docs"}, "runbook url: not an"},
	} {
		t.Run(name, func(t *testing.T) {
			logger, _ := test.NewNullLogger()
			_, err := NewAlertmanager(c.o, nil, logger, prometheus.NewRegistry(), time.Now)
			require.ErrorContains(t, err, c.want)
			assert.ErrorContains(t, err, "alertmanager")
			assert.NotContains(t, err.Error(), "s3cret")
		})
	}
}

// A real client, whose errors show the address.
func TestLogLinesShowNoCredentials(t *testing.T) {
	reg := prometheus.NewRegistry()
	logger, hook := test.NewNullLogger()
	a, err := NewAlertmanager(Options{URLs: []string{"http://me:s3cret@127.0.0.1:1/x"}, Resend: time.Minute, Timeout: time.Second}, (&fakeStore{}).read, logger, reg, time.Now)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- a.Run(ctx) }()
	require.Eventually(t, func() bool { return len(hook.AllEntries()) > 0 }, 5*time.Second, 5*time.Millisecond)
	cancel()
	require.NoError(t, <-ended)
	for _, e := range hook.AllEntries() {
		text, err := e.String()
		require.NoError(t, err)
		assert.Contains(t, text, "127.0.0.1:1/x")
		assert.NotContains(t, text, "s3cret")
	}
}

func TestMetrics(t *testing.T) {
	reg := prometheus.NewPedanticRegistry()
	newMetrics(reg, "alertmanager")
	newMetrics(reg, "kafka")
	problems, err := testutil.GatherAndLint(reg)
	require.NoError(t, err)
	assert.Empty(t, problems)
	families, err := reg.Gather()
	require.NoError(t, err)
	series := map[string]int{}
	for _, f := range families {
		series[f.GetName()] = len(f.Metric)
	}
	assert.Equal(t, map[string]int{
		"fleet_etl_notifications_total":                   6,
		"fleet_etl_notify_duration_seconds":               2,
		"fleet_etl_notify_last_success_timestamp_seconds": 2,
	}, series, fmt.Sprint(slices.Sorted(maps.Keys(series))))
}
