package notifier_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/sirupsen/logrus/hooks/test"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fleettracing/fleet-tracing/dev/monitoring"
	"github.com/fleettracing/fleet-tracing/dev/testenv"
	"github.com/fleettracing/fleet-tracing/etl/internal/notifier"
	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

// resend is short, so that an alert without a sender expires within two seconds.
const resend = 500 * time.Millisecond

// eventually is a deadline that a busy machine meets too.
const eventually = time.Minute

// alertmanager is a real Alertmanager, which notifies a webhook of the test.
type alertmanager struct {
	t       *testing.T
	program string
	dir     string
	address string
	cmd     *exec.Cmd

	mu  sync.Mutex
	got map[string][]notification // by device
}

type notification struct {
	Status      string            `json:"status"`
	Labels      map[string]string `json:"labels"`
	Annotations map[string]string `json:"annotations"`
	StartsAt    time.Time         `json:"startsAt"`
	EndsAt      time.Time         `json:"endsAt"`
}

func newAlertmanager(t *testing.T) *alertmanager {
	t.Helper()
	program := testenv.Program(t, testenv.Alertmanager, "prometheus-alertmanager", "prometheus-alertmanager", "alertmanager")
	m := &alertmanager{t: t, program: program, dir: t.TempDir(), got: map[string][]notification{}}
	hook := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		var message struct {
			Alerts []notification `json:"alerts"`
		}
		assert.NoError(t, json.NewDecoder(r.Body).Decode(&message))
		m.mu.Lock()
		defer m.mu.Unlock()
		for _, a := range message.Alerts {
			m.got[a.Labels["device"]] = append(m.got[a.Labels["device"]], a)
		}
	}))
	t.Cleanup(hook.Close)
	require.NoError(t, os.WriteFile(filepath.Join(m.dir, "alertmanager.yml"), fmt.Appendf(nil, `
route:
  receiver: webhook
  group_by: [alertname, device, severity]
  group_wait: 100ms
  group_interval: 300ms
  repeat_interval: 1h
receivers:
  - name: webhook
    webhook_configs: [{url: %q, send_resolved: true}]
`, hook.URL), 0o600))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	m.address = l.Addr().String()
	require.NoError(t, l.Close())
	t.Cleanup(m.stop)
	return m
}

func (m *alertmanager) start() {
	m.t.Helper()
	var log bytes.Buffer
	m.cmd = exec.Command(m.program, "--config.file="+filepath.Join(m.dir, "alertmanager.yml"), "--storage.path="+m.dir,
		"--web.listen-address="+m.address, "--web.route-prefix=/am", "--cluster.listen-address=")
	m.cmd.Stdout, m.cmd.Stderr = &log, &log
	m.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	require.NoError(m.t, m.cmd.Start())
	require.Eventually(m.t, func() bool {
		answer, err := http.Get("http://" + m.address + "/am/-/ready")
		if err != nil {
			return false
		}
		answer.Body.Close()
		return answer.StatusCode == http.StatusOK
	}, eventually, 20*time.Millisecond, "alertmanager does not start")
	http.DefaultClient.CloseIdleConnections()
}

func (m *alertmanager) stop() {
	if m.cmd != nil {
		_ = m.cmd.Process.Kill()
		_ = m.cmd.Wait()
		m.cmd = nil
	}
}

// notified returns the webhook's notifications about a device, one "status severity" each, in order.
func (m *alertmanager) notified(device string) (lines []string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, n := range m.got[device] {
		lines = append(lines, n.Status+" "+n.Labels["severity"])
	}
	return lines
}

// await waits until the webhook has exactly these notifications about a device.
func (m *alertmanager) await(device string, want ...string) {
	m.t.Helper()
	require.EventuallyWithT(m.t, func(c *assert.CollectT) { assert.Equal(c, want, m.notified(device)) }, eventually, 20*time.Millisecond)
}

// awaitLogged waits until Alertmanager has logged its only notification so far, which happens after the webhook got it.
// Alertmanager queries that log before each notification, so the second query follows the first notification.
func (m *alertmanager) awaitLogged() {
	m.t.Helper()
	require.Eventually(m.t, func() bool {
		return monitoring.Metric("http://"+m.address+"/am/metrics", "alertmanager_nflog_queries_total") >= 2
	}, eventually, 20*time.Millisecond)
	http.DefaultClient.CloseIdleConnections()
}

// fleet is the open alerts in the store, shared by the senders of a test.
type fleet struct {
	mu    sync.Mutex
	open  map[string]telemetry.Alert // by device
	reads atomic.Int64
}

func (f *fleet) read(context.Context) (open []telemetry.Alert, err error) {
	f.reads.Add(1)
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, a := range f.open {
		open = append(open, a)
	}
	return open, nil
}

func (f *fleet) put(a telemetry.Alert) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if a.EndedMs != 0 {
		delete(f.open, a.DeviceID)
		return
	}
	f.open[a.DeviceID] = a
}

// awaitReads waits until the open alerts were read n more times.
func (f *fleet) awaitReads(t *testing.T, n int64) {
	t.Helper()
	until := f.reads.Load() + n
	require.Eventually(t, func() bool { return f.reads.Load() >= until }, eventually, 10*time.Millisecond)
}

// sender runs the receiver of one fleet-etl instance.
func (m *alertmanager) sender(f *fleet) (a *notifier.Alertmanager, stop func()) {
	m.t.Helper()
	logger, _ := test.NewNullLogger()
	a, err := notifier.NewAlertmanager(notifier.Options{
		URLs: []string{"http://" + m.address + "/am"}, GrafanaURL: "http://localhost:3000", Resend: resend, Timeout: 2 * time.Second,
	}, f.read, logger, prometheus.NewRegistry(), time.Now)
	require.NoError(m.t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		assert.NoError(m.t, <-done)
	})
	m.t.Cleanup(stop)
	return a, stop
}

func speeding(device string) telemetry.Alert {
	at := time.Now().Add(-3 * time.Second).UnixMilli()
	return telemetry.Alert{
		FleetID: "wuxi", DeviceID: device, Type: telemetry.SpeedLimit, Severity: telemetry.Medium, OpenedMs: at, StartedMs: at,
		Peak: 97, Threshold: 80, Zone: "harbor/α \"7\"\n", Lat: 52.37421, Lon: 9.73812, Message: "97 km/h, limit 80 km/h",
	}
}

func ended(a telemetry.Alert) telemetry.Alert {
	a.EndedMs = time.Now().Add(-time.Second).UnixMilli()
	return a
}

func TestRealAlertmanager(t *testing.T) {
	t.Parallel()
	m := newAlertmanager(t)
	m.start()

	t.Run("open once, resolved once, by two senders and a restart", func(t *testing.T) {
		t.Parallel()
		f := &fleet{open: map[string]telemetry.Alert{}}
		one, stopOne := m.sender(f)
		_, stopTwo := m.sender(f)
		a := speeding("truck-1")
		f.put(a)
		one.Notify([]telemetry.AlertEvent{{Alert: a, Transition: telemetry.AlertOpened}})
		m.await("truck-1", "firing warning")
		f.awaitReads(t, 6)
		stopOne()
		one, stopOne = m.sender(f) // restarted: it has the open alerts of the store only
		f.awaitReads(t, 12)        // longer than it takes to expire
		m.await("truck-1", "firing warning")

		a = ended(a)
		f.put(a)
		one.Notify([]telemetry.AlertEvent{{Alert: a, Transition: telemetry.AlertResolved}})
		m.await("truck-1", "firing warning", "resolved warning")
		f.awaitReads(t, 8)
		m.await("truck-1", "firing warning", "resolved warning")
		m.mu.Lock()
		defer m.mu.Unlock()
		n := m.got["truck-1"][0]
		assert.Equal(t, notifier.Labels(a), n.Labels)
		a.EndedMs = 0
		assert.Equal(t, notifier.Annotations(a, "http://localhost:3000", ""), n.Annotations)
		assert.Equal(t, a.OpenedMs, n.StartsAt.UnixMilli())
		assert.WithinDuration(t, time.Now(), m.got["truck-1"][1].EndsAt, 30*time.Second)
		stopOne()
		stopTwo()
	})

	t.Run("opens again", func(t *testing.T) {
		t.Parallel()
		f := &fleet{open: map[string]telemetry.Alert{}}
		sender, stop := m.sender(f)
		first := speeding("truck-2")
		f.put(first)
		sender.Notify([]telemetry.AlertEvent{{Alert: first, Transition: telemetry.AlertOpened}})
		m.await("truck-2", "firing warning")
		f.put(ended(first))
		sender.Notify([]telemetry.AlertEvent{{Alert: ended(first), Transition: telemetry.AlertResolved}})
		m.await("truck-2", "firing warning", "resolved warning")
		second := first
		second.OpenedMs = time.Now().UnixMilli()
		f.put(second)
		sender.Notify([]telemetry.AlertEvent{{Alert: second, Transition: telemetry.AlertOpened}})
		m.await("truck-2", "firing warning", "resolved warning", "firing warning")
		f.awaitReads(t, 6)
		m.await("truck-2", "firing warning", "resolved warning", "firing warning")
		stop()
	})

	t.Run("escalates", func(t *testing.T) {
		t.Parallel()
		f := &fleet{open: map[string]telemetry.Alert{}}
		sender, stop := m.sender(f)
		a := speeding("truck-3")
		f.put(a)
		sender.Notify([]telemetry.AlertEvent{{Alert: a, Transition: telemetry.AlertOpened}})
		m.await("truck-3", "firing warning")
		a.Severity = telemetry.High
		f.put(a)
		sender.Notify([]telemetry.AlertEvent{{Alert: a, Transition: telemetry.AlertEscalated, From: telemetry.Medium}})
		require.Eventually(t, func() bool { return len(m.notified("truck-3")) == 3 }, eventually, 20*time.Millisecond)
		f.awaitReads(t, 6)
		assert.ElementsMatch(t, []string{"firing warning", "resolved warning", "firing critical"}, m.notified("truck-3"))
		stop()
	})

	t.Run("expires with its last sender", func(t *testing.T) {
		t.Parallel()
		f := &fleet{open: map[string]telemetry.Alert{}}
		_, stopOne := m.sender(f)
		two, stopTwo := m.sender(f)
		a := speeding("truck-4")
		f.put(a)
		two.Notify([]telemetry.AlertEvent{{Alert: a, Transition: telemetry.AlertOpened}})
		m.await("truck-4", "firing warning")
		stopTwo()
		f.awaitReads(t, 6) // longer than it takes to expire
		m.await("truck-4", "firing warning")
		stopOne()
		m.await("truck-4", "firing warning", "resolved warning")
	})
}

func TestRealAlertmanagerRestarts(t *testing.T) {
	t.Parallel()
	m := newAlertmanager(t)
	m.start()
	f := &fleet{open: map[string]telemetry.Alert{}}
	sender, stop := m.sender(f)
	known := speeding("truck-5")
	f.put(known)
	sender.Notify([]telemetry.AlertEvent{{Alert: known, Transition: telemetry.AlertOpened}})
	m.await("truck-5", "firing warning")
	m.awaitLogged()
	require.NoError(t, m.cmd.Process.Signal(syscall.SIGTERM)) // it stores its notification log
	require.NoError(t, m.cmd.Wait())
	m.cmd = nil

	f.put(ended(known))
	fresh := speeding("truck-6")
	f.put(fresh)
	began := time.Now()
	sender.Notify([]telemetry.AlertEvent{{Alert: ended(known), Transition: telemetry.AlertResolved}, {Alert: fresh, Transition: telemetry.AlertOpened}})
	assert.Less(t, time.Since(began), 10*time.Second, "Notify does not wait")
	f.awaitReads(t, 4) // reads of the store continue
	m.start()
	m.await("truck-6", "firing warning")
	m.await("truck-5", "firing warning", "resolved warning")
	stop()
}
