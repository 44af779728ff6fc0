package notify

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/sirupsen/logrus"

	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

// Options say which Alertmanagers are told, and how.
type Options struct {
	URLs       []string      // of each Alertmanager: http or https, with user:password@ and a path before /api where it has them
	GrafanaURL string        // the root of the links to vehicles' pages; empty for none
	RunbookURL string        // the folder of pages that say what to do; empty for none
	Resend     time.Duration // how often open alerts are told of again; 0 is a minute
	Timeout    time.Duration // of one request; 0 is ten seconds
	Instance   string        // this process, as the Alertmanagers' access logs show it
}

// OpenAlerts reads every open alert that people are to be told of.
type OpenAlerts func(ctx context.Context) ([]telemetry.Alert, error)

// An alert is let expire when nobody told of it for so many times Resend: a process that dies takes none along as long as
// there is another.
const expireAfter = 4

// Alertmanager tells every given Alertmanager of alerts, by the API of version 2.
//
//	Tell ─► told (bounded) ─┬─► receiver ─► Alertmanager
//	store ─► open alerts ───┴─► receiver ─► Alertmanager
type Alertmanager struct {
	o         Options
	read      OpenAlerts
	logger    logrus.FieldLogger
	now       func() time.Time
	metrics   *metrics
	receivers []*receiver
	reading   *outage

	mu   sync.Mutex
	told *told
	open []telemetry.Alert // as they were last read; nothing in it is changed
	last time.Time         // when that reading began
}

// NewAlertmanager checks the options. It connects to nothing yet. No error and no log line shows a URL's credentials.
func NewAlertmanager(o Options, open OpenAlerts, logger logrus.FieldLogger, reg prometheus.Registerer, now func() time.Time) (*Alertmanager, error) {
	if o.Resend == 0 {
		o.Resend = time.Minute
	}
	if o.Timeout == 0 {
		o.Timeout = 10 * time.Second
	}
	switch {
	case len(o.URLs) == 0:
		return nil, errors.New("alertmanager: no url given; give one such as http://localhost:9093")
	case o.Resend < 0:
		return nil, fmt.Errorf("alertmanager: resend %s: give a time above 0", o.Resend)
	case o.Timeout < 0:
		return nil, fmt.Errorf("alertmanager: timeout %s: give a time above 0", o.Timeout)
	}
	for _, page := range []struct{ what, url string }{{"grafana url", o.GrafanaURL}, {"runbook url", o.RunbookURL}} {
		if page.url == "" {
			continue
		}
		if _, err := parseURL(page.url); err != nil {
			return nil, fmt.Errorf("alertmanager: %s: %w", page.what, err)
		}
	}
	a := &Alertmanager{
		o: o, read: open, logger: logger, now: now, told: newTold(len(o.URLs)),
		reading: &outage{
			logger: logger, now: now,
			away:  "open alerts can't be read; telling of those that are known",
			still: "open alerts still can't be read",
			back:  "open alerts can be read again",
		},
	}
	for i, address := range o.URLs {
		u, err := parseURL(address)
		if err != nil {
			return nil, fmt.Errorf("alertmanager %d: %w", i+1, err)
		}
		a.receivers = append(a.receivers, newReceiver(a, i, u))
	}
	a.metrics = newMetrics(reg, "alertmanager")
	return a, nil
}

// parseURL never shows the address in its errors, which may hold a password.
func parseURL(address string) (*url.URL, error) {
	u, err := url.Parse(strings.TrimSpace(address))
	switch {
	case err != nil:
		return nil, errors.New("it is no url; give one such as http://host:9093 with special characters of the password escaped")
	case u.Scheme != "http" && u.Scheme != "https" || u.Host == "":
		return nil, errors.New("it is no http or https url; give one such as http://host:9093")
	case u.RawQuery != "" || u.Fragment != "":
		return nil, errors.New("it has a query or a fragment; leave away what follows the path")
	}
	return u, nil
}

// Tell has the steps sent at once, gathered over a moment. It never blocks and never fails. The steps of one alert come in
// the order in which they happened; the last one counts.
func (a *Alertmanager) Tell(steps []telemetry.AlertEvent) {
	if len(steps) == 0 {
		return
	}
	now := a.now()
	lost := 0
	a.mu.Lock()
	for _, s := range steps {
		switch s.Transition {
		case telemetry.AlertResolved:
			lost += a.told.add(s.Alert, true, now)
		case telemetry.AlertEscalated:
			// To Alertmanager another severity is another alert.
			if s.From != "" && s.From != s.Severity {
				milder := s.Alert
				milder.Severity, milder.EndedMs = s.From, now.UnixMilli()
				lost += a.told.add(milder, true, now)
			}
			lost += a.told.add(s.Alert, false, now)
		default:
			lost += a.told.add(s.Alert, false, now)
		}
	}
	a.mu.Unlock()
	a.metrics.count(dropped, lost)
	a.wake()
}

func (a *Alertmanager) wake() {
	for _, r := range a.receivers {
		select {
		case r.wake <- struct{}{}:
		default: // it is awake
		}
	}
}

// Run sends what Tell brings, and again and again every open alert, until ctx ends. What was told by then goes out with
// one last attempt, which takes two seconds at the most. It returns nil.
func (a *Alertmanager) Run(ctx context.Context) error {
	var receivers sync.WaitGroup
	for _, r := range a.receivers {
		receivers.Go(func() { r.run(ctx) })
	}
	defer receivers.Wait()
	again := time.NewTicker(a.o.Resend)
	defer again.Stop()
	for {
		a.round(ctx)
		select {
		case <-again.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// round reads the open alerts and has them sent. While the store can't be read, those that are known are told of: they
// are no better for it, and must not expire.
func (a *Alertmanager) round(ctx context.Context) {
	began := a.now()
	reading, cancel := context.WithTimeout(ctx, max(a.o.Resend, 30*time.Second))
	open, err := a.read(reading)
	cancel()
	if ctx.Err() != nil {
		return
	}
	a.reading.note(err)
	if err != nil {
		a.metrics.count(failed, 1)
	}
	a.mu.Lock()
	if err == nil {
		a.open, a.last = open, began
		a.told.stored(open, began)
	}
	lost := a.told.expire(a.now(), a.last)
	a.told.again()
	for _, r := range a.receivers {
		r.behind = true
	}
	a.mu.Unlock()
	a.metrics.count(dropped, lost)
	a.wake()
}

// message is one alert on its way to one receiver.
type message struct {
	alert    telemetry.Alert
	resolved bool
	news     *news // nil where it was read from the store
}

// take gives what a receiver is to be sent next, and false where there is nothing. A round without any alert is one
// empty message, which shows that the Alertmanager is there.
func (a *Alertmanager) take(r *receiver, fromStore bool) (batch []message, ok bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, n := range a.told.take(r.index, batchAlerts) {
		batch = append(batch, message{n.alert, n.resolved, n})
	}
	if !fromStore {
		return batch, len(batch) > 0
	}
	empty := false
	if len(r.sweep) == 0 && r.behind {
		r.sweep, r.behind, empty = a.open, false, true
	}
	for len(r.sweep) > 0 && len(batch) < batchAlerts {
		if alert := &r.sweep[0]; !a.told.over(alert) {
			batch = append(batch, message{alert: *alert})
		}
		r.sweep = r.sweep[1:]
	}
	return batch, len(batch) > 0 || empty
}

// settle takes down what became of what take gave.
func (a *Alertmanager) settle(r *receiver, batch []message, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	no := (*refusal)(nil)
	refused := errors.As(err, &no)
	for _, m := range batch {
		switch {
		case m.news == nil:
		case err == nil:
			m.news.taken[r.index]++
		case !refused:
			m.news.due[r.index] = true
		}
	}
	switch {
	case err == nil:
	case !refused: // it goes on with what is open when it is back
		r.sweep, r.behind = nil, true
	case no.status != http.StatusBadRequest: // it takes none of them
		r.sweep = nil
	}
}
