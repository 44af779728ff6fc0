package notifier

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/fleettracing/fleet-tracing/etl/internal/backoff"
	"github.com/fleettracing/fleet-tracing/etl/internal/ratelog"
	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

const (
	batchAlerts       = 500                    // per request
	batchWait         = 100 * time.Millisecond // events within it are sent together
	minBackoff        = 500 * time.Millisecond // after the first failed attempt; doubled after each
	maxBackoff        = 30 * time.Second
	lastAttempt       = 2 * time.Second // for all that is queued when Run ends
	rejectionInterval = 15 * time.Minute
	maxShownResponse  = 512 // bytes
)

// client sends to one Alertmanager. Each has its own goroutine, so that none waits for another.
type client struct {
	a      *Alertmanager
	index  int
	url    string
	user   *url.Userinfo
	http   *http.Client
	wake   chan struct{}
	outage *ratelog.Outage
	logger logrus.FieldLogger

	lastRejection   string // the last one logged, and when
	lastRejectionAt time.Time

	// Guarded by Alertmanager.mu.
	open      []telemetry.Alert // still to be sent in this resend
	resendDue bool
}

func newClient(a *Alertmanager, index int, u *url.URL) *client {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxIdleConns = 1
	withoutUser := *u
	withoutUser.User = nil
	address := strings.TrimRight(withoutUser.String(), "/")
	logger := a.logger.WithField("alertmanager", address)
	return &client{
		a: a, index: index, url: address + "/api/v2/alerts", user: u.User,
		http: &http.Client{
			Transport: transport, Timeout: a.o.Timeout,
			// Go follows some redirects of a POST with a GET, which would look like success.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
		wake: make(chan struct{}, 1), logger: logger,
		outage: ratelog.New(logger, a.now, ratelog.Interval, ratelog.Messages{
			Down:  "alertmanager unavailable, retrying",
			Still: "alertmanager still unavailable",
			Up:    "alertmanager available again",
		}),
	}
}

// run sends what is due until ctx ends.
func (c *client) run(ctx context.Context) {
	defer c.http.CloseIdleConnections()
	defer c.drain(ctx)
	pause := minBackoff
	for {
		select {
		case <-c.wake:
		case <-ctx.Done():
			return
		}
		_ = backoff.Sleep(ctx, batchWait)
		for ctx.Err() == nil {
			batch, ok := c.a.next(c, true)
			if !ok {
				break
			}
			if c.send(ctx, batch) {
				pause = minBackoff
				continue
			}
			_ = backoff.Sleep(ctx, backoff.Jitter(pause))
			pause = min(2*pause, maxBackoff)
		}
	}
}

// drain makes a last attempt to send what is queued: nothing else reports that an alert is resolved.
func (c *client) drain(ctx context.Context) {
	if c.outage.Active() {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastAttempt)
	defer cancel()
	for {
		batch, ok := c.a.next(c, false)
		if !ok || !c.send(ctx, batch) {
			return
		}
	}
}

// send returns false if it must be tried again after a pause.
func (c *client) send(ctx context.Context, batch []*notification) bool {
	started := c.a.now()
	err := c.post(ctx, c.postable(batch, started))
	c.a.done(c, batch, err)
	if err != nil && ctx.Err() != nil {
		return false // canceled, which is not the Alertmanager's fault
	}
	c.a.metrics.attempt(len(batch), err, started, c.a.now())
	var rejected *rejection
	if errors.As(err, &rejected) {
		c.outage.Note(nil)
		c.logRejection(rejected)
		return true
	}
	c.outage.Note(err)
	return err == nil
}

// logRejection logs why an Alertmanager rejects alerts. It repeats the same reason only at a longer interval.
func (c *client) logRejection(rejected *rejection) {
	now, text := c.a.now(), rejected.Error()
	since := now.Sub(c.lastRejectionAt)
	if since < ratelog.Interval || text == c.lastRejection && since < rejectionInterval {
		return
	}
	c.lastRejection, c.lastRejectionAt = text, now
	c.logger.WithError(rejected).Warn("alertmanager rejects alerts")
}

// rejection is a response to a request that would fail again if it were repeated.
type rejection struct {
	error
	status int
}

func (c *client) post(ctx context.Context, alerts []postable) error {
	body, err := json.Marshal(alerts)
	if err != nil {
		return fmt.Errorf("encode alerts: %w", err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.url, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("make request: %w", err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "fleet-etl")
	if c.user != nil {
		password, _ := c.user.Password()
		req.SetBasicAuth(c.user.Username(), password)
	}
	res, err := c.http.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	text, _ := io.ReadAll(io.LimitReader(res.Body, 64<<10)) // read it all, so that the connection is reused
	err = fmt.Errorf("answered %d %s", res.StatusCode, http.StatusText(res.StatusCode))
	if reason := shorten(text); reason != "" {
		err = fmt.Errorf("%w: %s", err, reason)
	}
	switch status := res.StatusCode; {
	case status/100 == 2:
		return nil
	case status/100 == 5, status == http.StatusTooManyRequests, status == http.StatusRequestTimeout:
		return err
	default:
		return &rejection{err, status}
	}
}

// shorten returns the beginning of a response on one line.
func shorten(text []byte) string {
	return strings.Join(strings.Fields(strings.ToValidUTF8(string(text[:min(len(text), maxShownResponse)]), "")), " ")
}

// postable is PostableAlert of Alertmanager's api/v2/openapi.yaml.
type postable struct {
	Labels       map[string]string `json:"labels"`
	Annotations  map[string]string `json:"annotations"`
	StartsAt     time.Time         `json:"startsAt"`
	EndsAt       time.Time         `json:"endsAt"`
	GeneratorURL string            `json:"generatorURL,omitempty"`
}

func (c *client) postable(batch []*notification, now time.Time) []postable {
	o := &c.a.o
	alerts := make([]postable, len(batch))
	for i, n := range batch {
		starts, ends := times(&n.alert, now, expireAfter*o.Resend)
		alerts[i] = postable{
			Labels: Labels(n.alert), Annotations: Annotations(n.alert, o.GrafanaURL, o.RunbookURL),
			StartsAt: starts, EndsAt: ends, GeneratorURL: dashboardURL(n.alert, o.GrafanaURL),
		}
	}
	return alerts
}

// times returns the start and end of an alert for Alertmanager, which takes an alert for firing until its end is past.
// The end of an open alert is when it expires without a resend. A resolved alert must not end in the future, as it does
// by the clock of a device that runs ahead.
func times(a *telemetry.Alert, now time.Time, expires time.Duration) (starts, ends time.Time) {
	nowMs := now.UnixMilli()
	startMs := min(a.OpenedMs, nowMs)
	if a.EndedMs == 0 {
		return time.UnixMilli(startMs).UTC(), now.Add(expires).UTC()
	}
	endMs := min(max(a.EndedMs, a.OpenedMs+1), nowMs)
	return time.UnixMilli(min(startMs, endMs-1)).UTC(), time.UnixMilli(endMs).UTC()
}
