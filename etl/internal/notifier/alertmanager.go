package notifier

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

	"github.com/fleettracing/fleet-tracing/etl/internal/backoff"
	"github.com/fleettracing/fleet-tracing/etl/internal/ratelog"
	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

// Options are the settings of Alertmanager. Resend and Timeout must be set.
type Options struct {
	URLs       []string      // of each Alertmanager, at least one: http or https, with user:password@ and a path before /api if needed
	GrafanaURL string        // root of the links to the vehicle dashboard; empty for none
	RunbookURL string        // root of the links to runbooks; empty for none
	Resend     time.Duration // between two sends of an open alert
	Timeout    time.Duration // of one request
}

// OpenAlerts reads all open alerts that were notified.
type OpenAlerts func(ctx context.Context) ([]telemetry.Alert, error)

// An alert expires after this many resend intervals without a send. One instance that stops therefore resolves no alert
// while another instance runs.
const expireAfter = 4

// Alertmanager sends alerts to every given Alertmanager through API version 2.
//
//	Notify ─► queue (bounded) ─┬─► client ─► Alertmanager
//	store ─► open alerts ──────┴─► client ─► Alertmanager
type Alertmanager struct {
	o       Options
	read    OpenAlerts
	logger  logrus.FieldLogger
	now     func() time.Time
	metrics *metrics
	clients []*client
	reading *ratelog.Outage

	mu     sync.Mutex
	queue  *queue
	open   []telemetry.Alert // of the last read; never changed in place
	readAt time.Time         // start of that read
}

// NewAlertmanager checks the options. It opens no connection. Errors and log lines never contain a URL's credentials.
func NewAlertmanager(o Options, read OpenAlerts, logger logrus.FieldLogger, reg prometheus.Registerer, now func() time.Time) (*Alertmanager, error) {
	for name, link := range map[string]string{"grafana url": o.GrafanaURL, "runbook url": o.RunbookURL} {
		if _, err := parseURL(link); link != "" && err != nil {
			return nil, fmt.Errorf("alertmanager: %s: %w", name, err)
		}
	}
	a := &Alertmanager{
		o: o, read: read, logger: logger, now: now, queue: newQueue(len(o.URLs)),
		reading: ratelog.New(logger, now, ratelog.Interval, ratelog.Messages{
			Down:  "reading open alerts failed, resending the last known ones",
			Still: "reading open alerts still fails",
			Up:    "reading open alerts works again",
		}),
	}
	for i, address := range o.URLs {
		u, err := parseURL(address)
		if err != nil {
			return nil, fmt.Errorf("alertmanager %d: %w", i+1, err)
		}
		a.clients = append(a.clients, newClient(a, i, u))
	}
	a.metrics = newMetrics(reg, "alertmanager")
	return a, nil
}

// parseURL never shows the address in its errors, because it may contain a password.
func parseURL(address string) (*url.URL, error) {
	u, err := url.Parse(strings.TrimSpace(address))
	switch {
	case err != nil:
		return nil, errors.New("not a valid url; give one such as http://host:9093 and percent-encode the password")
	case u.Scheme != "http" && u.Scheme != "https" || u.Host == "":
		return nil, errors.New("not an http or https url; give one such as http://host:9093")
	case u.RawQuery != "" || u.Fragment != "":
		return nil, errors.New("url has a query or a fragment; remove everything after the path")
	}
	return u, nil
}

// Notify queues the events and sends them within a moment. Of the events of one alert the last one counts.
func (a *Alertmanager) Notify(events []telemetry.AlertEvent) {
	now := a.now()
	lost := 0
	a.mu.Lock()
	for _, e := range events {
		if e.Transition == telemetry.AlertEscalated && e.From != "" && e.From != e.Severity {
			// The severity is a label, so Alertmanager takes the former severity for another alert.
			former := e.Alert
			former.Severity, former.EndedMs = e.From, now.UnixMilli()
			lost += a.queue.add(former, now)
		}
		lost += a.queue.add(e.Alert, now)
	}
	a.mu.Unlock()
	a.metrics.count(dropped, lost)
	a.wake()
}

func (a *Alertmanager) wake() {
	for _, c := range a.clients {
		select {
		case c.wake <- struct{}{}:
		default: // it is awake
		}
	}
}

// Run sends queued notifications, and all open alerts at each resend interval, until ctx ends. What is queued by then is
// sent in one last attempt of at most two seconds. Run returns nil.
func (a *Alertmanager) Run(ctx context.Context) error {
	var clients sync.WaitGroup
	for _, c := range a.clients {
		clients.Go(func() { c.run(ctx) })
	}
	defer clients.Wait()
	for {
		a.resend(ctx)
		if backoff.Sleep(ctx, a.o.Resend) != nil {
			return nil
		}
	}
}

// resend reads the open alerts and has the clients send them. If the read fails, the last known ones are sent, because
// they would expire otherwise.
func (a *Alertmanager) resend(ctx context.Context) {
	started := a.now()
	reading, cancel := context.WithTimeout(ctx, max(a.o.Resend, 30*time.Second))
	open, err := a.read(reading)
	cancel()
	if ctx.Err() != nil {
		return
	}
	a.reading.Note(err)
	if err != nil {
		a.metrics.count(failed, 1)
	}
	a.mu.Lock()
	if err == nil {
		a.open, a.readAt = open, started
		a.queue.reconcile(open, started)
	}
	lost := a.queue.expire(a.now(), a.readAt)
	a.queue.repeat()
	for _, c := range a.clients {
		c.resendDue = true
	}
	a.mu.Unlock()
	a.metrics.count(dropped, lost)
	a.wake()
}

// next returns the next batch for a client, queued notifications first; ok is false if there is none. A resend without
// any open alert is one empty batch, which shows that the Alertmanager is reachable.
func (a *Alertmanager) next(c *client, withOpen bool) (batch []*notification, ok bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	batch = a.queue.take(c.index, batchAlerts)
	if !withOpen {
		return batch, len(batch) > 0
	}
	probe := false
	if len(c.open) == 0 && c.resendDue {
		c.open, c.resendDue, probe = a.open, false, true
	}
	for len(c.open) > 0 && len(batch) < batchAlerts {
		if alert := &c.open[0]; !a.queue.isResolved(alert) {
			batch = append(batch, &notification{alert: *alert})
		}
		c.open = c.open[1:]
	}
	return batch, len(batch) > 0 || probe
}

// done records the result of a batch from next.
func (a *Alertmanager) done(c *client, batch []*notification, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	var rejected *rejection
	permanent := errors.As(err, &rejected)
	for _, n := range batch {
		switch {
		case !n.queued():
		case err == nil:
			n.accepted[c.index]++
		case !permanent:
			n.due[c.index] = true
		}
	}
	switch {
	case err == nil:
	case !permanent: // send all open alerts again as soon as it is reachable
		c.open, c.resendDue = nil, true
	case rejected.status != http.StatusBadRequest: // it would reject the other batches too
		c.open = nil
	}
}
