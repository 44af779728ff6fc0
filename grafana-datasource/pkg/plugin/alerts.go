package plugin

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/grafana/grafana-plugin-sdk-go/data"

	"github.com/fleettracing/fleet-tracing/cassandra"
)

// alerts answers with the alerts of fleets, newest first, as a table, as log lines, as annotations, as counts over time
// or as counts for a rule.
func (d *Datasource) alerts(ctx context.Context, q *query, c *cost) (answer, error) {
	var a answer
	fleets, err := d.fleetsOf(ctx, q, c)
	if err != nil {
		return a, err
	}
	severities := slices.DeleteFunc(slices.Clone(cassandra.Severities), func(s string) bool {
		return len(q.Severities) > 0 && !slices.Contains(q.Severities, s)
	})
	days := daysOf(q.from, q.to, max(d.settings.maxPartitions/len(severities), 1), &a)
	fleets = d.within(fleets, len(days)*len(severities), &a)
	from := q.from
	if first := days[0].Time(); first.After(from) {
		from = first
	}
	// One more than may be shown tells that there are others. A count wants them all, as far as the limit of reading.
	most := q.rowLimit(&d.settings)
	limit := most + 1
	counts := q.Format == formatTimeSeries || q.Format == formatNumeric
	if counts || filtered(q) {
		limit = d.settings.maxRowsRead + 1
	}
	parts, err := each(ctx, fleets, func(ctx context.Context, fleet string) ([]cassandra.Alert, error) {
		rows, err := d.reader.alerts(ctx, c, cassandra.AlertQuery{FleetID: fleet, From: from, To: q.to, Severities: severities, Limit: limit})
		if err != nil {
			return nil, err
		}
		return slices.DeleteFunc(slices.Clone(rows), func(alert cassandra.Alert) bool { return !alertPasses(&alert, &q.model) }), nil
	})
	if err != nil {
		return a, err
	}
	rows := slices.Concat(parts...)
	slices.SortStableFunc(rows, func(x, y cassandra.Alert) int {
		return cmp.Or(cmp.Compare(y.OpenedMs, x.OpenedMs), strings.Compare(x.FleetID, y.FleetID), strings.Compare(x.DeviceID, y.DeviceID), strings.Compare(x.Type, y.Type))
	})
	if counts {
		most = d.settings.maxRowsRead
	}
	if len(rows) > most {
		a.cut("Only the newest %d alerts, from %s on: the limit of rows.", most, rows[most-1].Opened().Format(time.RFC3339))
		rows = rows[:most]
	}
	switch q.Format {
	case formatLogs:
		a.frames = data.Frames{alertLogs(rows)}
	case formatAnnotations:
		a.frames = data.Frames{alertAnnotations(rows)}
	case formatTimeSeries:
		a.frames = alertSeries(rows, severities, q)
	case formatNumeric:
		a.frames = data.Frames{alertCounts(rows, fleets, severities)}
	default:
		a.frames = data.Frames{d.alertTable(rows)}
	}
	return a, nil
}

// filtered tells whether some of what is read of a partition will be left out.
func filtered(q *query) bool {
	return len(q.Devices)+len(q.AlertTypes)+len(q.Filters) > 0 || q.Resolved == "open" || q.Resolved == "resolved"
}

func alertPasses(a *cassandra.Alert, m *model) bool {
	if len(m.Devices) > 0 && !slices.Contains(m.Devices, a.DeviceID) ||
		len(m.AlertTypes) > 0 && !slices.Contains(m.AlertTypes, a.Type) ||
		m.Resolved == "open" && a.Resolved || m.Resolved == "resolved" && !a.Resolved {
		return false
	}
	return passes(m.Filters, func(key string) (cell, bool) {
		switch key {
		case "device_id":
			return textCell(a.DeviceID), true
		case "fleet_id":
			return textCell(a.FleetID), true
		case "severity":
			return textCell(a.Severity), true
		case "alert_type":
			return textCell(a.Type), true
		}
		return cell{}, false
	})
}

func (d *Datasource) alertTable(rows []cassandra.Alert) *data.Frame {
	n := len(rows)
	times, resolved := make([]time.Time, n), make([]bool, n)
	severity, kind, device, fleet, message := make([]string, n), make([]string, n), make([]string, n), make([]string, n), make([]string, n)
	for i, r := range rows {
		times[i], severity[i], kind[i], device[i], fleet[i], message[i], resolved[i] = r.Opened(), r.Severity, r.Type, r.DeviceID, r.FleetID, r.Message, r.Resolved
	}
	vehicle := field("device_id", nil, device)
	vehicle.Config.Links = []data.DataLink{d.trackLink("Track of ${__value.raw}", "${__value.raw}")}
	return table("alerts", data.NewField("time", nil, times), field("severity", nil, severity), field("alert_type", nil, kind),
		vehicle, field("fleet_id", nil, fleet), field("message", nil, message), field("resolved", nil, resolved))
}

// logLevels are the severities as Grafana colours log lines.
var logLevels = map[string]string{"HIGH": "critical", "MEDIUM": "warning", "LOW": "info"}

func alertLogs(rows []cassandra.Alert) *data.Frame {
	n := len(rows)
	times := make([]time.Time, n)
	body, level, id, labels := make([]string, n), make([]string, n), make([]string, n), make([]jsonText, n)
	for i, r := range rows {
		times[i], level[i], id[i] = r.Opened(), logLevels[r.Severity], alertID(&r)
		body[i] = fmt.Sprintf("%s %s: %s", r.DeviceID, r.Type, cmp.Or(r.Message, "no message"))
		labels[i] = jsonOf(map[string]string{
			"fleet_id": r.FleetID, "device_id": r.DeviceID, "alert_type": r.Type, "severity": r.Severity,
			"state": map[bool]string{true: "resolved", false: "open"}[r.Resolved],
		})
	}
	return logLines(times, body, level, id, labels)
}

func alertAnnotations(rows []cassandra.Alert) *data.Frame {
	n := len(rows)
	times := make([]time.Time, n)
	title, text, tags, id := make([]string, n), make([]string, n), make([]string, n), make([]string, n)
	for i, r := range rows {
		times[i], id[i] = r.Opened(), alertID(&r)
		title[i] = fmt.Sprintf("%s %s", r.Severity, r.Type)
		text[i] = fmt.Sprintf("%s: %s", r.DeviceID, cmp.Or(r.Message, r.Type))
		tags[i] = strings.Join([]string{r.Severity, r.Type, r.FleetID, map[bool]string{true: "resolved", false: "open"}[r.Resolved]}, ",")
	}
	return table("alerts", data.NewField("time", nil, times), data.NewField("title", nil, title), data.NewField("text", nil, text),
		data.NewField("tags", nil, tags), data.NewField("id", nil, id))
}

func alertID(a *cassandra.Alert) string {
	return fmt.Sprintf("%s/%s/%s/%d", a.FleetID, a.DeviceID, a.Type, a.OpenedMs)
}

// alertSeries counts alerts by severity in steps of the panel's interval. A step without any is zero, so that a rule
// can tell silence from no data.
func alertSeries(rows []cassandra.Alert, severities []string, q *query) data.Frames {
	step := max(q.interval, time.Second)
	for q.to.Sub(q.from)/step > time.Duration(max(q.maxDataPoints, 1)) {
		step *= 2
	}
	first := q.from.Truncate(step)
	n := int(q.to.Sub(first)/step) + 1
	var frames data.Frames
	for _, severity := range severities {
		times, counts := make([]time.Time, n), make([]int64, n)
		for i := range times {
			times[i] = first.Add(time.Duration(i) * step)
		}
		for i := range rows {
			if rows[i].Severity == severity {
				counts[min(max(int(rows[i].Opened().Sub(first)/step), 0), n-1)]++
			}
		}
		value := field("count", data.Labels{"severity": severity}, counts)
		value.Config.DisplayName, value.Config.DisplayNameFromDS = "", severity
		frames = append(frames, series(data.NewField("time", nil, times), value))
	}
	return frames
}

// alertCounts counts alerts by fleet and severity, zeros too: a rule that fired must see that it can stop.
func alertCounts(rows []cassandra.Alert, fleets, severities []string) *data.Frame {
	type key struct{ fleet, severity string }
	counted := map[key]int64{}
	for i := range rows {
		counted[key{rows[i].FleetID, rows[i].Severity}]++
	}
	var fleet, severity []string
	var counts []int64
	for _, f := range fleets {
		for _, s := range severities {
			fleet, severity, counts = append(fleet, f), append(severity, s), append(counts, counted[key{f, s}])
		}
	}
	return numeric("alerts", field("fleet_id", nil, fleet), field("severity", nil, severity), field("count", nil, counts))
}
