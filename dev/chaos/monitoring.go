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

	"github.com/fleettracing/fleet-tracing/dev/process"
)

// awaitCalm waits until no alert of an earlier fault fires. Alerts that fire for long may linger unless this fault expects them.
func (s *scenario) awaitCalm(ctx context.Context) error {
	began := time.Now()
	var firing []string
	err := waitFor(ctx, calmWithin, "no alert of an earlier fault fires", func() bool {
		var err error
		if firing, err = s.firing(ctx); err != nil {
			return false
		}
		return len(firing) == 0 || time.Since(began) > lingersAfter && !slices.ContainsFunc(s.expected, func(a alert) bool { return slices.Contains(firing, a.name()) })
	})
	if err != nil {
		return fmt.Errorf("%w; firing: %s", err, strings.Join(firing, ", "))
	}
	s.lingering = firing
	return nil
}

// firing returns the names of the firing alerts in Prometheus, except for the always allowed ones.
func (p *platform) firing(ctx context.Context) (names []string, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+p.prometheus.Address+"/api/v1/alerts", nil)
	if err != nil {
		return nil, err
	}
	response, err := scrapeClient.Do(request)
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
		if name := a.Labels["alertname"]; a.State == "firing" && !slices.Contains(alwaysAllowed, name) {
			names = append(names, name)
		}
	}
	return names, nil
}

// alertmanagerDown lets a vehicle speed while no notification can be sent.
func alertmanagerDown(ctx context.Context, s *scenario) error {
	port := portOf(s.alertmanager.Address)
	err := s.breakIt("kills Alertmanager, and lets a vehicle speed", func() error {
		s.load.speeding.Store(true)
		return s.alertmanager.Kill(ctx)
	})
	if err == nil {
		err = process.Sleep(ctx, time.Until(s.injected.Add(20*time.Second)))
	}
	return errors.Join(err, s.heal("starts Alertmanager", func() error {
		if err := s.startAlertmanager(ctx, port); err != nil {
			return err
		}
		if err := s.awaitAlerts(ctx, 0); err != nil {
			return err
		}
		s.note("the alert of the vehicle fired %.1f s after the start of Alertmanager", time.Since(s.healed).Seconds())
		s.load.speeding.Store(false)
		return waitFor(ctx, firesWithin, "the alert of the vehicle resolves", func() bool {
			status, _ := s.inbox.last(s.from, s.expected[0])
			return status == "resolved"
		})
	}))
}

// prometheusDown kills a node while no rule is evaluated.
func prometheusDown(ctx context.Context, s *scenario) error {
	port := portOf(s.prometheus.Address)
	err := s.breakIt("kills Prometheus, and then a node", func() error {
		if err := s.prometheus.Kill(ctx); err != nil {
			return err
		}
		return s.Cluster.Kill(ctx, 4)
	})
	if err == nil {
		err = process.Sleep(ctx, time.Until(s.injected.Add(15*time.Second)))
	}
	started := time.Now()
	err = errors.Join(err, s.startPrometheus(ctx, port))
	if err == nil {
		err = s.awaitAlerts(ctx, 0)
		s.note("the alert of the node fired %.1f s after the start of Prometheus", time.Since(started).Seconds())
	}
	return errors.Join(err, s.heal("starts the node", func() error { return s.Cluster.Start(ctx, 4) }))
}
