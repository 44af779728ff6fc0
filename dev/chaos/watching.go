package chaos

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"
)

// calm waits until nothing is left to be told of what was before, or only what goes on longer and is none of what must be heard now.
func (t *trial) calm(ctx context.Context) error {
	began := time.Now()
	var firing []string
	err := within(ctx, calmWithin, "no alert of an earlier fault fires", func() bool {
		var err error
		if firing, err = t.firing(ctx); err != nil {
			return false
		}
		return len(firing) == 0 || time.Since(began) > lingersAfter && !slices.ContainsFunc(t.must, func(w wanted) bool { return slices.Contains(firing, w.name()) })
	})
	if err != nil {
		return fmt.Errorf("%w; firing: %s", err, strings.Join(firing, ", "))
	}
	t.earlier = firing
	return nil
}

// firing names the alerts that Prometheus takes for so, but for those that always may be.
func (p *platform) firing(ctx context.Context) (names []string, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+p.prometheus.Address+"/api/v1/alerts", nil)
	if err != nil {
		return nil, err
	}
	response, err := scrapes.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	var answer struct {
		Data struct {
			Alerts []struct {
				State  string
				Labels map[string]string
			}
		}
	}
	if err := json.NewDecoder(response.Body).Decode(&answer); err != nil {
		return nil, err
	}
	for _, a := range answer.Data.Alerts {
		if name := a.Labels["alertname"]; a.State == "firing" && !slices.Contains(always, name) {
			names = append(names, name)
		}
	}
	return names, nil
}

// alertmanagerAway has a vehicle drive too fast while nobody can be told.
func alertmanagerAway(ctx context.Context, t *trial) error {
	port := portOf(t.alertmanager.Address)
	err := t.inject("kills Alertmanager, and has a vehicle drive too fast", func() error {
		t.load.speeding.Store(true)
		return t.alertmanager.Kill(ctx)
	})
	if err == nil {
		err = sleepUntil(ctx, t.injected.Add(20*time.Second))
	}
	return errors.Join(err, t.heal("starts Alertmanager", func() error {
		if err := t.startAlertmanager(ctx, port); err != nil {
			return err
		}
		if err := t.hear(ctx, 0); err != nil {
			return err
		}
		t.note("people hear of the vehicle %.1f s after Alertmanager was started", time.Since(t.healed).Seconds())
		t.load.speeding.Store(false)
		return within(ctx, heardWithin, "people hear that it drives as it should", func() bool {
			status, _ := t.hooks.last(t.from, t.must[0])
			return status == "resolved"
		})
	}))
}

// prometheusAway kills a node while nobody looks.
func prometheusAway(ctx context.Context, t *trial) error {
	port := portOf(t.prometheus.Address)
	err := t.inject("kills Prometheus, and then a node", func() error {
		if err := t.prometheus.Kill(ctx); err != nil {
			return err
		}
		return t.Cluster.Kill(ctx, 4)
	})
	if err == nil {
		err = sleepUntil(ctx, t.injected.Add(15*time.Second))
	}
	started := time.Now()
	err = errors.Join(err, t.startPrometheus(ctx, port))
	if err == nil {
		err = t.hear(ctx, 0)
		t.note("people hear of the node %.1f s after Prometheus was started", time.Since(started).Seconds())
	}
	return errors.Join(err, t.heal("starts the node", func() error { return t.Cluster.Start(ctx, 4) }))
}
