package notify

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

	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

const (
	batchAlerts = 500                    // of one request
	gather      = 100 * time.Millisecond // what is told within it goes together
	firstPause  = 500 * time.Millisecond // before an Alertmanager that is away is tried again; doubled each time
	mostPause   = 30 * time.Second
	lastAttempt = 2 * time.Second // for all that is left when Run ends
	refusedSaid = 15 * time.Minute
	answerBytes = 512 // of an answer that is shown
)

// receiver is one Alertmanager. Each has a goroutine of its own, so that none waits for another.
type receiver struct {
	a      *Alertmanager
	index  int
	url    string
	user   *url.Userinfo
	agent  string
	client *http.Client
	wake   chan struct{}
	away   *outage
	logger logrus.FieldLogger

	saidNo   string // the refusal that was last logged, and when
	saidNoAt time.Time

	// Held by Alertmanager's lock.
	sweep  []telemetry.Alert // open alerts that are still to be sent in this round
	behind bool              // a newer round has begun
}

func newReceiver(a *Alertmanager, index int, u *url.URL) *receiver {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxIdleConns = 1
	user := u.User
	bare := *u
	bare.User = nil
	shown := strings.TrimRight(bare.String(), "/")
	logger := a.logger.WithField("alertmanager", shown)
	r := &receiver{
		a: a, index: index, url: shown + "/api/v2/alerts", user: user, agent: "fleet-etl",
		client: &http.Client{
			Transport: transport, Timeout: a.o.Timeout,
			// Go follows some redirects of a POST with a GET, which would look like success.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
		wake: make(chan struct{}, 1), logger: logger,
		away: &outage{
			logger: logger, now: a.now,
			away:  "alertmanager takes no alerts; trying again",
			still: "alertmanager still takes no alerts",
			back:  "alertmanager takes alerts again",
		},
	}
	if a.o.Instance != "" {
		r.agent += " (" + a.o.Instance + ")"
	}
	return r
}

// run sends what is due until ctx ends.
func (r *receiver) run(ctx context.Context) {
	defer r.client.CloseIdleConnections()
	defer r.finish(ctx)
	pause := firstPause
	for {
		select {
		case <-r.wake:
		case <-ctx.Done():
			return
		}
		sleep(ctx, gather)
		for ctx.Err() == nil {
			batch, ok := r.a.take(r, true)
			if !ok {
				break
			}
			if r.send(ctx, batch) {
				pause = firstPause
				continue
			}
			sleep(ctx, jitter(pause))
			pause = min(2*pause, mostPause)
		}
	}
}

// finish tries once more to send what was told just before the end: nobody else tells of an alert that is over.
func (r *receiver) finish(ctx context.Context) {
	if r.away.lasts() {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastAttempt)
	defer cancel()
	for {
		batch, ok := r.a.take(r, false)
		if !ok || !r.send(ctx, batch) {
			return
		}
	}
}

// send gives false where it has to be tried again, after a pause.
func (r *receiver) send(ctx context.Context, batch []message) bool {
	started := r.a.now()
	err := r.post(ctx, r.postable(batch, started))
	r.a.settle(r, batch, err)
	if err != nil && ctx.Err() != nil {
		return false // it says nothing about the Alertmanager
	}
	r.a.metrics.took(len(batch), err, started, r.a.now())
	if no := (*refusal)(nil); errors.As(err, &no) {
		r.away.note(nil)
		r.complain(no)
		return true
	}
	r.away.note(err)
	return err == nil
}

// complain logs what an Alertmanager has against alerts: the same only once in a while.
func (r *receiver) complain(no *refusal) {
	now, text := r.a.now(), no.Error()
	since := now.Sub(r.saidNoAt)
	if since < sayAgain || text == r.saidNo && since < refusedSaid {
		return
	}
	r.saidNo, r.saidNoAt = text, now
	r.logger.WithField("reason", text).Warn("alertmanager refuses alerts")
}

// refusal is an answer that says that the request is wrong: the same one again would be too.
type refusal struct {
	status int
	text   string
}

func (r *refusal) Error() string { return answered(r.status, r.text) }

func answered(status int, text string) string {
	said := fmt.Sprintf("answered %d %s", status, http.StatusText(status))
	if text != "" {
		said += ": " + text
	}
	return said
}

func (r *receiver) post(ctx context.Context, alerts []postable) error {
	body, err := json.Marshal(alerts)
	if err != nil {
		return fmt.Errorf("write alerts as json: %w", err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, r.url, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("make request: %w", err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", r.agent)
	if r.user != nil {
		password, _ := r.user.Password()
		req.SetBasicAuth(r.user.Username(), password)
	}
	answer, err := r.client.Do(req)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	text, _ := io.ReadAll(io.LimitReader(answer.Body, 64<<10)) // so that the connection can be used again
	status := answer.StatusCode
	switch {
	case status/100 == 2:
		return nil
	case status/100 == 5, status == http.StatusTooManyRequests, status == http.StatusRequestTimeout:
		return errors.New(answered(status, brief(text)))
	default:
		return &refusal{status, brief(text)}
	}
}

// brief is the beginning of an answer on one line.
func brief(text []byte) string {
	return strings.Join(strings.Fields(strings.ToValidUTF8(string(text[:min(len(text), answerBytes)]), "")), " ")
}

// postable is what the API takes: PostableAlert of Alertmanager's api/v2/openapi.yaml.
type postable struct {
	Labels       map[string]string `json:"labels"`
	Annotations  map[string]string `json:"annotations"`
	StartsAt     time.Time         `json:"startsAt"`
	EndsAt       time.Time         `json:"endsAt"`
	GeneratorURL string            `json:"generatorURL,omitempty"`
}

func (r *receiver) postable(batch []message, now time.Time) []postable {
	o := &r.a.o
	alerts := make([]postable, len(batch))
	for i := range batch {
		a := &batch[i].alert
		starts, ends := times(a, batch[i].resolved, now, expireAfter*o.Resend)
		alerts[i] = postable{
			Labels: Labels(*a), Annotations: Annotations(*a, o.GrafanaURL, o.RunbookURL),
			StartsAt: starts, EndsAt: ends, GeneratorURL: dashboardURL(*a, o.GrafanaURL),
		}
	}
	return alerts
}

// times are the start and end of an alert for Alertmanager, to which an alert whose end is not past is firing: an open one
// ends when nobody tells of it for so long, and one that is over may not end in the future, as it does by the clock of
// a device that runs ahead. What ends in the past closes a known alert, and is nothing new where it is not known.
func times(a *telemetry.Alert, resolved bool, now time.Time, expires time.Duration) (starts, ends time.Time) {
	nowMs := now.UnixMilli()
	startMs := min(a.OpenedMs, nowMs)
	if !resolved {
		return time.UnixMilli(startMs).UTC(), now.Add(expires).UTC()
	}
	endMs := min(max(a.EndedMs, a.OpenedMs+1), nowMs)
	return time.UnixMilli(min(startMs, endMs-1)).UTC(), time.UnixMilli(endMs).UTC()
}

func sleep(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
