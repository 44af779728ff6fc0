package plugin

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/grafana/grafana-plugin-sdk-go/backend"

	"github.com/fleettracing/fleet-tracing/cassandra"
)

// healthTimeout bounds a health check: Grafana's own requests end after half a minute.
const healthTimeout = 20 * time.Second

// CheckHealth goes from the address to the newest record and tells how far it got and what to do.
func (d *Datasource) CheckHealth(ctx context.Context, _ *backend.CheckHealthRequest) (*backend.CheckHealthResult, error) {
	if d.wrong != nil {
		d.metrics.health.WithLabelValues("error").Inc()
		return &backend.CheckHealthResult{Status: backend.HealthStatusError, Message: "settings: " + strings.ReplaceAll(d.wrong.Error(), "\n", "; ")}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, healthTimeout)
	defer cancel()
	findings := cassandra.Diagnose(ctx, d.settings.cluster, d.reader.logger)
	if last := findings[len(findings)-1]; last.Status != cassandra.FindingError && len(d.settings.allowedFleets) > 0 {
		findings = append(findings, cassandra.Finding{Stage: "permissions", Status: cassandra.FindingOK,
			Detail: "only fleets " + strings.Join(d.settings.allowedFleets, ", ")})
	}
	result := &backend.CheckHealthResult{Status: backend.HealthStatusOk}
	var verbose strings.Builder
	var warnings []string
	for _, f := range findings {
		fmt.Fprintf(&verbose, "%s: %s: %s", f.Stage, f.Status, f.Detail)
		if f.Remedy != "" {
			verbose.WriteString(" — " + f.Remedy)
		}
		verbose.WriteByte('\n')
		switch f.Status {
		case cassandra.FindingError:
			result.Status = backend.HealthStatusError
			result.Message = strings.TrimSpace(fmt.Sprintf("Failed at %s: %s. %s", f.Stage, strings.TrimSuffix(f.Detail, "."), f.Remedy))
		case cassandra.FindingWarning:
			warnings = append(warnings, fmt.Sprintf("%s: %s. %s", f.Stage, strings.TrimSuffix(f.Detail, "."), f.Remedy))
		}
	}
	if result.Status == backend.HealthStatusOk {
		result.Message = "Cassandra answers: " + summary(findings)
		if len(warnings) > 0 {
			result.Message += ". Look at " + strings.Join(warnings, " ")
		}
		d.metrics.health.WithLabelValues("ok").Inc()
	} else {
		d.metrics.health.WithLabelValues("error").Inc()
	}
	details, err := json.Marshal(map[string]any{"verboseMessage": verbose.String(), "findings": findings})
	if err != nil {
		return nil, err
	}
	result.JSONDetails = details
	return result, nil
}

// summary tells the stages of which people want to know even when all is well.
func summary(findings []cassandra.Finding) string {
	var parts []string
	for _, f := range findings {
		switch f.Stage {
		case "login", "replicas", "data", "permissions":
			if f.Status == cassandra.FindingOK {
				parts = append(parts, f.Detail)
			}
		}
	}
	return strings.Join(parts, "; ")
}

// statusOf is the HTTP status of an error of a resource.
func statusOf(r backend.DataResponse) int {
	if r.Status == 0 {
		return http.StatusInternalServerError
	}
	return int(r.Status)
}
