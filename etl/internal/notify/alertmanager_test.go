package notify

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

// fake is an Alertmanager without a network, so that its time can be the test's.
type fake struct {
	answer func() (status int, text string) // nil: it takes everything
	hangs  bool
	down   bool

	mu       sync.Mutex
	posts    []posted
	requests int // those that were not taken among them
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

// all is what it took.
func (f *fake) all() []posted {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.posts)
}

func (f *fake) asked() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.requests
}

// took gives what it took, one line an alert, and forgets it.
func (f *fake) took() (lines []string) {
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

// storeOf is the store's list of open alerts.
type storeOf struct {
	mu   sync.Mutex
	open []telemetry.Alert
	err  error
}

func (s *storeOf) read(context.Context) ([]telemetry.Alert, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.open), s.err
}

func (s *storeOf) set(err error, open ...telemetry.Alert) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open, s.err = open, err
}

// post office of a test: a sender and its Alertmanagers.
type office struct {
	*Alertmanager
	t     *testing.T
	store storeOf
	to    []*fake
	reg   *prometheus.Registry
	hook  *test.Hook
}

func newOffice(t *testing.T, o Options, to ...*fake) *office {
	t.Helper()
	if o.URLs == nil {
		for i := range to {
			o.URLs = append(o.URLs, fmt.Sprintf("http://am-%d:9093", i+1))
		}
	}
	x := &office{t: t, to: to, reg: prometheus.NewPedanticRegistry()}
	var logger *logrus.Logger
	logger, x.hook = test.NewNullLogger()
	var err error
	x.Alertmanager, err = NewAlertmanager(o, x.store.read, logger, x.reg, time.Now)
	require.NoError(t, err)
	for i, f := range to {
		x.receivers[i].client.Transport = f
	}
	return x
}

// start runs it until the test, or stop, ends it.
func (x *office) start() (stop func()) {
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

func (x *office) count(o outcome) float64 { return testutil.ToFloat64(x.metrics.outcomes[o]) }

func (x *office) said() (lines []string) {
	for _, e := range x.hook.AllEntries() {
		line := fmt.Sprintf("%s: %s", e.Level, e.Message)
		for _, field := range []string{"alertmanager", "reason", "after"} {
			if v, ok := e.Data[field]; ok {
				line += fmt.Sprintf("; %s=%v", field, v)
			}
		}
		lines = append(lines, line)
	}
	x.hook.Reset()
	return lines
}

// settle lets what was told go out.
func settle() { time.Sleep(150 * time.Millisecond); synctest.Wait() }

func alertOf(device string, kind telemetry.AlertType, severity telemetry.Severity) telemetry.Alert {
	opened := time.Now().Add(-time.Minute).UnixMilli()
	return telemetry.Alert{
		FleetID: "wuxi", DeviceID: device, Type: kind, Severity: severity, OpenedMs: opened, StartedMs: opened - 30_000,
		Peak: 97.25, Threshold: 80, Zone: "harbour", Lat: 52.374214, Lon: 9.738119, Message: "97 km/h where 80 is allowed",
	}
}

func opened(a telemetry.Alert) telemetry.AlertEvent {
	return telemetry.AlertEvent{Alert: a, Transition: telemetry.AlertOpened}
}

func resolved(a telemetry.Alert) telemetry.AlertEvent {
	a.EndedMs = time.Now().Add(-time.Second).UnixMilli()
	return telemetry.AlertEvent{Alert: a, Transition: telemetry.AlertResolved}
}

func TestWhatIsPosted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		am := &fake{}
		x := newOffice(t, Options{
			URLs:       []string{"https://me:s3cret%2F@am.example.org/monitoring/"},
			GrafanaURL: "http://grafana:3000/", RunbookURL: "https://docs/runbooks", Instance: "etl-1",
		}, am)
		x.start()
		settle()
		am.took()
		a := alertOf("truck-7", telemetry.SpeedLimit, telemetry.High) // the clock of the bubble begins in 2000
		x.Tell([]telemetry.AlertEvent{opened(a), resolved(alertOf("truck-8", telemetry.GeofenceExit, telemetry.Low))})
		settle()

		posts := am.all()
		require.Len(t, posts, 1)
		p := posts[0]
		assert.Equal(t, "https://am.example.org/monitoring/api/v2/alerts", p.url)
		assert.Equal(t, "application/json", p.header.Get("Content-Type"))
		assert.Equal(t, "fleet-etl (etl-1)", p.header.Get("User-Agent"))
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
    "description": "97 km/h where 80 is allowed",
    "place": "harbour (52.37421, 9.73812)",
    "runbook_url": "https://docs/runbooks/FleetVehicleSpeedLimit.md",
    "summary": "truck-7: speed limit",
    "threshold": "80 km/h",
    "value": "97.2 km/h"
  },
  "startsAt": "1999-12-31T23:59:00.15Z",
  "endsAt": "2000-01-01T00:04:00.25Z",
  "generatorURL": "http://grafana:3000/d/fleet-analytics?var-fleet=wuxi\u0026var-device=truck-7\u0026from=946681140150\u0026to=now"
}`, string(got))
		over := p.alerts[0]
		assert.Equal(t, "FleetVehicleGeofenceExit", over.Labels["alertname"])
		assert.Equal(t, "info", over.Labels["severity"])
		assert.NotContains(t, over.Annotations, "value", "leaving a zone has none")
		assert.True(t, strings.HasSuffix(over.GeneratorURL, "&from=946681140150&to=946686599150"), over.GeneratorURL)
		assert.Equal(t, time.Second, p.at.Sub(over.EndsAt).Round(time.Second), "its own end, which is past")
	})
}

func TestStepsGoOutAtOnceTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		am := &fake{}
		x := newOffice(t, Options{}, am)
		x.start()
		settle()
		am.took()
		told := time.Now()
		for i := range 30 {
			x.Tell([]telemetry.AlertEvent{opened(alertOf(fmt.Sprint("truck-", i), telemetry.Temperature, telemetry.Medium))})
			time.Sleep(2 * time.Millisecond)
		}
		time.Sleep(140 * time.Millisecond)
		synctest.Wait()
		require.Len(t, am.all(), 1)
		assert.Len(t, am.all()[0].alerts, 30)
		assert.LessOrEqual(t, am.all()[0].at.Sub(told), 200*time.Millisecond)
	})
}

func TestAnOpenAlertIsToldOfAgainUntilItIsOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		am := &fake{}
		x := newOffice(t, Options{}, am)
		a := alertOf("truck-1", telemetry.BatteryLow, telemetry.Medium)
		x.store.set(nil, a)
		x.start()
		settle()
		const firing, over = "truck-1 battery_low warning firing", "truck-1 battery_low warning resolved"
		assert.Equal(t, []string{firing}, am.took(), "from the first moment on")
		time.Sleep(59 * time.Second)
		assert.Empty(t, am.took())
		time.Sleep(2 * time.Second)
		require.Len(t, am.all(), 1)
		assert.Equal(t, 4*time.Minute, am.all()[0].alerts[0].EndsAt.Sub(am.all()[0].at))
		am.took()

		x.Tell([]telemetry.AlertEvent{resolved(a)})
		settle()
		assert.Equal(t, []string{over}, am.took())
		time.Sleep(time.Minute) // the store's list still has it
		assert.Equal(t, []string{over}, am.took(), "once more, and not what was read as open")
		x.store.set(nil)
		time.Sleep(30 * time.Minute)
		assert.Empty(t, am.took())
		assert.Zero(t, x.count(dropped))
	})
}

func TestAnAlertThatOpensAnewIsNotClosedByItsFormerEnd(t *testing.T) {
	for name, tell := range map[string]bool{"told of here": true, "by another process": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				am := &fake{}
				x := newOffice(t, Options{}, am)
				x.start()
				settle()
				first := alertOf("truck-1", telemetry.DeviceOffline, telemetry.High)
				x.Tell([]telemetry.AlertEvent{opened(first)})
				settle()
				x.Tell([]telemetry.AlertEvent{resolved(first)})
				settle()
				am.took()
				second := first
				second.OpenedMs = time.Now().UnixMilli()
				x.store.set(nil, second)
				if tell {
					x.Tell([]telemetry.AlertEvent{opened(second)})
				}
				time.Sleep(20 * time.Minute)
				lines := am.took()
				assert.GreaterOrEqual(t, len(lines), 19)
				assert.Equal(t, []string{"truck-1 device_offline critical firing"}, slices.Compact(lines))
			})
		})
	}
}

func TestAnEscalationClosesTheMilderAlert(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		am := &fake{}
		x := newOffice(t, Options{}, am)
		a := alertOf("truck-1", telemetry.SpeedLimit, telemetry.Medium)
		x.store.set(nil, a)
		x.start()
		settle()
		am.took()
		a.Severity = telemetry.High
		x.Tell([]telemetry.AlertEvent{{Alert: a, Transition: telemetry.AlertEscalated, From: telemetry.Medium}})
		settle()
		both := []string{"truck-1 speed_limit critical firing", "truck-1 speed_limit warning resolved"}
		assert.Equal(t, both, am.took())
		time.Sleep(time.Minute) // the list that is read still has the milder one: a replica was late
		assert.Equal(t, both[1:], am.took(), "not fired again")
		x.store.set(nil, a)
		time.Sleep(time.Minute)
		assert.Equal(t, both[:1], am.took())
	})
}

// An open alert must not be reported as over because Cassandra is.
func TestWhileTheStoreIsAwayWhatIsKnownIsToldOf(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		am := &fake{}
		x := newOffice(t, Options{}, am)
		known, over, fresh := alertOf("known", telemetry.SpeedLimit, telemetry.Low), alertOf("over", telemetry.SpeedLimit, telemetry.Low), alertOf("fresh", telemetry.SpeedLimit, telemetry.Low)
		x.store.set(nil, known, over)
		x.start()
		settle()
		x.store.set(errors.New("no hosts"))
		x.Tell([]telemetry.AlertEvent{opened(fresh), resolved(over)})
		time.Sleep(2 * time.Minute)
		am.took()
		for range 30 {
			time.Sleep(time.Minute)
			assert.Equal(t, []string{"fresh speed_limit info firing", "known speed_limit info firing"}, am.took())
		}
		said := x.said()
		assert.Equal(t, "warning: open alerts can't be read; telling of those that are known; reason=no hosts", said[0])
		x.store.set(nil, fresh)
		time.Sleep(2 * time.Minute)
		am.took()
		time.Sleep(time.Minute)
		assert.Equal(t, []string{"fresh speed_limit info firing"}, am.took())
		require.Len(t, x.said(), 1)
	})
}

func TestAnAlertmanagerThatIsAwayHoldsNothingUp(t *testing.T) {
	for name, c := range map[string]struct {
		fail   func(*fake)
		reason string
	}{
		"refuses connections": {func(f *fake) { f.down = true }, "connection refused"},
		"hangs":               {func(f *fake) { f.hangs = true }, "deadline exceeded"},
		"in trouble":          {func(f *fake) { f.answer = func() (int, string) { return 503, "try\nlater" } }, "answered 503 Service Unavailable: try later"},
		"too busy":            {func(f *fake) { f.answer = func() (int, string) { return 429, "" } }, "answered 429 Too Many Requests"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				sick, well := &fake{}, &fake{}
				c.fail(sick)
				x := newOffice(t, Options{}, sick, well)
				x.start()
				a, b := alertOf("truck-1", telemetry.SpeedLimit, telemetry.High), alertOf("truck-2", telemetry.SpeedLimit, telemetry.High)
				x.store.set(nil, a, b)
				told := time.Now()
				x.Tell([]telemetry.AlertEvent{opened(a), opened(b)})
				assert.Equal(t, told, time.Now(), "it does not wait")
				settle()
				assert.Contains(t, well.took(), "truck-1 speed_limit critical firing")
				time.Sleep(3 * time.Minute)
				x.Tell([]telemetry.AlertEvent{resolved(b)})
				x.store.set(nil, a)
				settle()
				assert.Contains(t, well.took(), "truck-2 speed_limit critical resolved")
				time.Sleep(7 * time.Minute)
				assert.Less(t, sick.asked(), 45, "it is asked less and less often")
				assert.Greater(t, sick.asked(), 10)
				said := x.said()
				assert.Contains(t, said[0], "warning: alertmanager takes no alerts; trying again; alertmanager=http://am-1:9093; reason=")
				assert.Contains(t, said[0], c.reason)
				assert.LessOrEqual(t, len(said), 21, "a reminder each half minute")
				assert.Greater(t, x.count(failed), 0.0)

				sick.set(func() { sick.hangs, sick.down, sick.answer = false, false, nil })
				well.took()
				time.Sleep(42 * time.Second) // the longest pause, and a request that still hangs
				got := sick.took()
				assert.Contains(t, got, "truck-1 speed_limit critical firing")
				assert.Contains(t, got, "truck-2 speed_limit critical resolved")
				assert.NotContains(t, got, "truck-2 speed_limit critical firing", "it missed that, and it is over")
				said = x.said()
				assert.Contains(t, said[len(said)-1], "info: alertmanager takes alerts again; alertmanager=http://am-1:9093; after=")
				assert.Zero(t, x.count(dropped))
			})
		})
	}
}

func TestAfterAShortTroubleNewsDoesNotWaitForTheNextRound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		am := &fake{}
		x := newOffice(t, Options{}, am)
		x.start()
		settle()
		am.set(func() { am.down = true })
		over := alertOf("truck-1", telemetry.SpeedLimit, telemetry.High)
		x.Tell([]telemetry.AlertEvent{resolved(over), opened(alertOf("truck-2", telemetry.SpeedLimit, telemetry.High))})
		settle()
		am.set(func() { am.down = false })
		time.Sleep(time.Second)
		assert.Equal(t, []string{"truck-1 speed_limit critical resolved", "truck-2 speed_limit critical firing"}, am.took())
	})
}

// The list that is being read when an alert opens does not have it.
func TestAnAlertThatOpensWhileTheStoreIsRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		am := &fake{}
		x := newOffice(t, Options{}, am)
		x.read = func(context.Context) ([]telemetry.Alert, error) {
			time.Sleep(time.Second)
			return nil, nil
		}
		x.start()
		time.Sleep(950 * time.Millisecond)
		x.Tell([]telemetry.AlertEvent{opened(alertOf("truck-1", telemetry.SpeedLimit, telemetry.High))})
		settle()
		assert.Equal(t, []string{"truck-1 speed_limit critical firing"}, am.took())
	})
}

func TestARefusalIsSaidOnceAndNotRetriedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		am := &fake{answer: func() (int, string) { return http.StatusUnauthorized, "who are you?" }}
		x := newOffice(t, Options{}, am)
		a, b := alertOf("truck-1", telemetry.SpeedLimit, telemetry.High), alertOf("truck-2", telemetry.SpeedLimit, telemetry.High)
		x.store.set(nil, a)
		x.start()
		x.Tell([]telemetry.AlertEvent{opened(a), resolved(b)})
		time.Sleep(10*time.Minute - time.Second)
		assert.InDelta(t, 10, am.asked(), 2, "with each round")
		assert.Equal(t, []string{"warning: alertmanager refuses alerts; alertmanager=http://am-1:9093; reason=answered 401 Unauthorized: who are you?"}, x.said())
		assert.Greater(t, x.count(failed), 5.0)
		am.set(func() { am.answer = nil })
		time.Sleep(time.Minute)
		assert.Subset(t, am.took(), []string{"truck-1 speed_limit critical firing", "truck-2 speed_limit critical resolved"}, "and delivered once it was mended")
	})
}

func TestOneThatLetsNobodyInIsNotSentAllBatches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		am := &fake{answer: func() (int, string) { return http.StatusForbidden, "" }}
		x := newOffice(t, Options{}, am)
		var open []telemetry.Alert
		for i := range 2000 {
			open = append(open, alertOf(fmt.Sprint("truck-", i), telemetry.SpeedLimit, telemetry.High))
		}
		x.store.set(nil, open...)
		x.start()
		settle()
		assert.Equal(t, 1, am.asked())
		time.Sleep(time.Minute)
		assert.Equal(t, 2, am.asked(), "one a round")
	})
}

// Of a batch with a bad alert Alertmanager takes the good ones and answers 400: the batches behind it still go.
func TestABadBatchDoesNotStopTheOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		am := &fake{}
		x := newOffice(t, Options{}, am)
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
		settle()
		require.Len(t, am.all(), 2)
		assert.Len(t, am.all()[0].alerts, 500, "in batches")
		assert.Len(t, am.all()[1].alerts, 200)
		assert.Equal(t, 500.0, x.count(failed))
		assert.Equal(t, 700.0, x.count(sent))
	})
}

func TestWhatIsRememberedIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		am := &fake{down: true}
		x := newOffice(t, Options{}, am)
		x.start()
		steps := func(device string, n int, step func(telemetry.Alert) telemetry.AlertEvent) (all []telemetry.AlertEvent) {
			for i := range n {
				all = append(all, step(alertOf(fmt.Sprintf("%s-%d", device, i), telemetry.SpeedLimit, telemetry.Low)))
			}
			return all
		}
		x.Tell(steps("truck", 5000, opened))
		x.Tell(steps("truck", 12_000, resolved)) // takes the place of the open ones
		assert.Equal(t, 2000.0, x.count(dropped), "the oldest")
		x.Tell(steps("van", 500, opened))
		assert.Equal(t, 2500.0, x.count(dropped), "what is open pushes out what is over, not itself")
		am.set(func() { am.down = false })
		time.Sleep(45 * time.Second)
		got := slices.Compact(am.took())
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
		x.Tell(steps("bus", 11_000, opened)) // the store has them
		assert.Len(t, x.told.byKey, 10_000)
		assert.Equal(t, 2500.0, x.count(dropped), "what was taken is not lost, and neither is what is open")
	})
}

func TestAResolutionIsGivenUpAfterAQuarterOfAnHour(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sick, well := &fake{down: true}, &fake{}
		x := newOffice(t, Options{}, sick, well)
		x.start()
		x.Tell([]telemetry.AlertEvent{resolved(alertOf("truck-1", telemetry.SpeedLimit, telemetry.Low))})
		time.Sleep(14 * time.Minute)
		assert.Zero(t, x.count(dropped))
		time.Sleep(3 * time.Minute)
		assert.Equal(t, 1.0, x.count(dropped), "by the one that never took it")
		assert.Empty(t, x.told.byKey)
		sick.set(func() { sick.down = false })
		time.Sleep(time.Minute)
		assert.Empty(t, sick.took())
	})
}

func TestWhatWasToldLastStillGoesOut(t *testing.T) {
	for name, c := range map[string]struct {
		am   *fake
		want []string
		most time.Duration
	}{
		"to one that is there": {&fake{}, []string{"truck-1 speed_limit info resolved"}, 0},
		"to one that hangs":    {&fake{hangs: true}, nil, 2 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				x := newOffice(t, Options{}, c.am)
				stop := x.start()
				settle()
				c.am.took()
				x.Tell([]telemetry.AlertEvent{resolved(alertOf("truck-1", telemetry.SpeedLimit, telemetry.Low))})
				at := time.Now()
				stop()
				assert.Equal(t, c.want, c.am.took())
				assert.LessOrEqual(t, time.Since(at), c.most)
			})
		})
	}
}

func TestAQuietFleetShowsThatTheWayIsOpen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		am := &fake{}
		x := newOffice(t, Options{}, am)
		assert.Zero(t, testutil.ToFloat64(x.metrics.last))
		x.start()
		time.Sleep(5*time.Minute + time.Second)
		assert.Len(t, am.all(), 6)
		assert.Empty(t, am.took(), "nothing in them")
		assert.InDelta(t, float64(time.Now().Unix()), testutil.ToFloat64(x.metrics.last), 2)
		assert.Zero(t, x.count(sent))
	})
}

func TestTimes(t *testing.T) {
	now := time.UnixMilli(1_000_000)
	for name, c := range map[string]struct {
		opened, ended int64 // after the start of the hour, ms; ended 0: open
		starts, ends  int64
	}{
		"open":                            {900_000, 0, 900_000, 1_240_000},
		"open, by a clock that is ahead":  {1_100_000, 0, 1_000_000, 1_240_000},
		"over":                            {900_000, 950_000, 900_000, 950_000},
		"over at once":                    {900_000, 900_000, 900_000, 900_001},
		"over, by a clock that is ahead":  {900_000, 1_200_000, 900_000, 1_000_000},
		"all of it by a clock that is so": {1_100_000, 1_200_000, 999_999, 1_000_000},
	} {
		t.Run(name, func(t *testing.T) {
			a := telemetry.Alert{OpenedMs: c.opened, EndedMs: c.ended}
			starts, ends := times(&a, c.ended != 0, now, 4*time.Minute)
			assert.Equal(t, c.starts, starts.UnixMilli(), "starts")
			assert.Equal(t, c.ends, ends.UnixMilli(), "ends")
			assert.True(t, starts.Before(ends), "or it is refused")
		})
	}
}

func TestWords(t *testing.T) {
	for kind, want := range map[telemetry.AlertType][4]string{ // name, summary, value, threshold
		telemetry.SpeedLimit:    {"FleetVehicleSpeedLimit", "d: speed limit", "3725.4 km/h", "80 km/h"},
		telemetry.BatteryLow:    {"FleetVehicleBatteryLow", "d: battery low", "3725.4 %", "80 %"},
		telemetry.Temperature:   {"FleetVehicleTemperature", "d: temperature", "3725.4 °C", "80 °C"},
		telemetry.GeofenceEnter: {"FleetVehicleGeofenceEnter", "d: entered a zone", "", ""},
		telemetry.GeofenceExit:  {"FleetVehicleGeofenceExit", "d: left a zone", "", ""},
		telemetry.GeofenceDwell: {"FleetVehicleGeofenceDwell", "d: too long in a zone", "1 h 2 min", "1 min 20 s"},
		telemetry.DeviceOffline: {"FleetVehicleDeviceOffline", "d: offline", "1 h 2 min", "1 min 20 s"},
		telemetry.DeviceStuck:   {"FleetVehicleDeviceStuck", "d: position stuck", "1 h 2 min", "1 min 20 s"},
	} {
		t.Run(string(kind), func(t *testing.T) {
			a := telemetry.Alert{FleetID: "a&b", DeviceID: "d", Type: kind, Peak: 3725.4, Threshold: 80, OpenedMs: 7_200_000}
			words := Annotations(a, "https://g/sub", "")
			assert.Equal(t, want, [4]string{Labels(a)["alertname"], words["summary"], words["value"], words["threshold"]})
			assert.Equal(t, "0.00000, 0.00000", words["place"], "without a zone")
			assert.Equal(t, "https://g/sub/d/fleet-analytics?var-fleet=a%26b&var-device=d&from=3600000&to=now", words["dashboard_url"])
			assert.NotContains(t, words, "runbook_url")
			assert.NotContains(t, Annotations(a, "", "r"), "dashboard_url")
		})
	}
	for seconds, want := range map[float64]string{0: "0 s", 59.4: "59 s", 60: "1 min", 3600: "1 h 0 min", 90_000: "1 d 1 h"} {
		assert.Equal(t, want, span(seconds))
	}
}

func TestOptionsThatCanNotWorkAndKeepTheirSecrets(t *testing.T) {
	for name, c := range map[string]struct {
		o    Options
		want string
	}{
		"no alertmanager": {Options{}, "no url given"},
		"another scheme":  {Options{URLs: []string{"http://a", "ftp://u:s3cret@host"}}, "alertmanager 2: it is no http or https url"},
		"no url":          {Options{URLs: []string{"http://u:s3cret%zz@host"}}, "alertmanager 1: it is no url"},
		"no host":         {Options{URLs: []string{"localhost:9093"}}, "it is no http or https url"},
		"a query":         {Options{URLs: []string{"http://u:s3cret@host?x=1"}}, "it has a query"},
		"negative resend": {Options{URLs: []string{"http://a"}, Resend: -1}, "resend -1ns"},
		"negative wait":   {Options{URLs: []string{"http://a"}, Timeout: -1}, "timeout -1ns"},
		"grafana":         {Options{URLs: []string{"http://a"}, GrafanaURL: "grafana:3000"}, "grafana url: it is no"},
		"runbook":         {Options{URLs: []string{"http://a"}, RunbookURL: "/docs"}, "runbook url: it is no"},
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

// With a real client, whose errors show the address.
func TestNoLogLineShowsCredentials(t *testing.T) {
	reg := prometheus.NewRegistry()
	logger, hook := test.NewNullLogger()
	a, err := NewAlertmanager(Options{URLs: []string{"http://me:s3cret@127.0.0.1:1/x"}}, (&storeOf{}).read, logger, reg, time.Now)
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
