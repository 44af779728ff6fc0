package plugin

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/grafana/grafana-plugin-sdk-go/backend"

	"github.com/fleettracing/fleet-tracing/cassandra/diagnose"
)

// healthTimeout bounds a health check. Grafana ends its request after 30 seconds.
const healthTimeout = 20 * time.Second

// summaryStages are the stages whose findings a successful health check shows.
var summaryStages = []string{"login", "replicas", "data", "permissions"}

// CheckHealth checks the connection stage by stage, from the address to the newest record, and names the stage that
// fails and the remedy.
func (d *Datasource) CheckHealth(ctx context.Context, _ *backend.CheckHealthRequest) (result *backend.CheckHealthResult, err error) {
	defer func() { d.metrics.healthChecks.WithLabelValues(strings.ToLower(result.Status.String())).Inc() }()
	if d.settingsErr != nil {
		message := "settings: " + strings.ReplaceAll(d.settingsErr.Error(), "\n", "; ")
		return &backend.CheckHealthResult{Status: backend.HealthStatusError, Message: message}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, healthTimeout)
	defer cancel()
	findings := d.diagnose(ctx)
	if last := findings[len(findings)-1]; last.Status != diagnose.Error && d.settings.Access.Restricted() {
		findings = append(findings, diagnose.Finding{Stage: "permissions", Status: diagnose.OK,
			Detail: "only fleets " + strings.Join(d.settings.Access.Fleets(), ", ")})
	}
	result = summarize(findings)
	var verbose strings.Builder
	for _, f := range findings {
		fmt.Fprintf(&verbose, "%s: %s: %s", f.Stage, f.Status, f.Detail)
		if f.Remedy != "" {
			verbose.WriteString(" — " + f.Remedy)
		}
		verbose.WriteByte('\n')
	}
	result.JSONDetails, err = json.Marshal(map[string]any{"verboseMessage": verbose.String(), "findings": findings})
	return result, err
}

// summarize turns findings into one sentence: the failure, or the state of the cluster with its warnings.
func summarize(findings []diagnose.Finding) *backend.CheckHealthResult {
	var details, warnings []string
	for _, f := range findings {
		problem := strings.TrimSpace(fmt.Sprintf("%s: %s. %s", f.Stage, strings.TrimSuffix(f.Detail, "."), f.Remedy))
		switch {
		case f.Status == diagnose.Error:
			return &backend.CheckHealthResult{Status: backend.HealthStatusError, Message: "Failed at " + problem}
		case f.Status == diagnose.Warning:
			warnings = append(warnings, problem)
		case f.Status == diagnose.OK && slices.Contains(summaryStages, f.Stage):
			details = append(details, f.Detail)
		}
	}
	message := "Connected to Cassandra: " + strings.Join(details, "; ")
	if len(warnings) > 0 {
		message += ". Warning: " + strings.Join(warnings, " ")
	}
	return &backend.CheckHealthResult{Status: backend.HealthStatusOk, Message: message}
}
