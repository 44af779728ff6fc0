package query

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/fleettracing/fleet-tracing/cassandra"
	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

// alertItem is an alert.
type alertItem struct {
	ID        string `json:"id"`
	FleetID   string `json:"fleet_id"`
	Severity  string `json:"severity"`
	Timestamp string `json:"timestamp"`
	DeviceID  string `json:"device_id"`
	AlertType string `json:"alert_type"`
	Message   string `json:"message"`
	Resolved  bool   `json:"resolved"`
}

func (a *API) alerts() list[alertItem] {
	return list[alertItem]{
		route: routeAlerts, idField: fieldFleet, severity: true, streamed: true,
		span: &span{back: 7 * 24 * time.Hour, longest: (cassandra.MaxDays - 1) * 24 * time.Hour},
		// An alert can be resolved however old it is, by a process that shares no cache with this one.
		keep: keepFor(keepList), generation: a.alertGeneration,
		columns: []string{"id", "fleet_id", "severity", "timestamp", "device_id", "alert_type", "message", "resolved"},
		row: func(i alertItem) []string {
			return []string{i.ID, i.FleetID, i.Severity, i.Timestamp, i.DeviceID, i.AlertType, i.Message, strconv.FormatBool(i.Resolved)}
		},
		page: func(ctx context.Context, store Store, q *query) ([]alertItem, string, error) {
			rows, position, err := alertsPage(ctx, store, q)
			items := make([]alertItem, len(rows))
			for i, r := range rows {
				items[i] = alertItem{alertIDOf(r).String(), r.FleetID, r.Severity, formatTime(r.Opened()), r.DeviceID, r.Type, r.Message, r.Resolved}
			}
			return items, position, err
		},
	}
}

// maxAlertDays is how many days of alerts are asked for at once, with a partition for each severity.
const maxAlertDays = 32

// alertsPage reads alerts newest first, a few days at a time. The position is the id of the last one.
func alertsPage(ctx context.Context, store Store, q *query) ([]cassandra.Alert, string, error) {
	to, last := q.to, cassandra.Alert{}
	if q.position != "" {
		id, ok := parseAlertID(q.position)
		if !ok || id.ts > q.to {
			return nil, "", badPage(q.page)
		}
		to, last = id.ts, id.row()
	}
	var rows []cassandra.Alert
	days, limit := int64(1), q.limit+1
	for to >= q.from {
		from := max(q.from, cassandra.DayOf(to).Time().UnixMilli()-(days-1)*msPerDay)
		part, err := store.Alerts(ctx, cassandra.AlertQuery{
			FleetID: q.id, From: time.UnixMilli(from), To: time.UnixMilli(to), Severities: q.severities, Limit: limit,
		})
		if err != nil {
			return nil, "", err
		}
		if len(part) >= limit {
			// The limit may have cut through alerts of one instant, among which the store has no order.
			oldest := part[len(part)-1].OpenedMs
			whole := slices.IndexFunc(part, func(r cassandra.Alert) bool { return r.OpenedMs == oldest })
			if whole == 0 {
				limit *= 2
				continue
			}
			part, to = part[:whole], oldest
		} else {
			to, days = from-1, widen(days, maxAlertDays, len(cassandra.Severities), limit)
		}
		slices.SortFunc(part, compareAlerts)
		if q.position != "" {
			part = slices.DeleteFunc(part, func(r cassandra.Alert) bool { return compareAlerts(r, last) <= 0 })
		}
		if rows = append(rows, part...); len(rows) > q.limit {
			rows = rows[:q.limit]
			return rows, alertIDOf(rows[q.limit-1]).String(), nil
		}
	}
	return rows, "", nil
}

// compareAlerts is the order of the list: newest first, then by the rest of the key.
func compareAlerts(a, b cassandra.Alert) int {
	return cmp.Or(cmp.Compare(b.OpenedMs, a.OpenedMs), strings.Compare(a.DeviceID, b.DeviceID), strings.Compare(a.Type, b.Type),
		cmp.Compare(gravity(a.Severity), gravity(b.Severity)))
}

// alertID is the key of an alert's row, which its id holds.
type alertID struct {
	fleet, severity string
	ts              int64 // Unix milliseconds
	device, kind    string
}

func alertIDOf(r cassandra.Alert) alertID {
	return alertID{r.FleetID, r.Severity, r.OpenedMs, r.DeviceID, r.Type}
}

func (i alertID) row() cassandra.Alert {
	return cassandra.Alert{FleetID: i.fleet, Severity: i.severity, OpenedMs: i.ts, DeviceID: i.device, Type: i.kind}
}

// String is the id as clients see it: base64url of a JSON array, in which no name can be mistaken for two.
func (i alertID) String() string {
	text, _ := json.Marshal([]string{i.fleet, i.severity, strconv.FormatInt(i.ts, 10), i.device, i.kind}) // texts always can
	return base64.RawURLEncoding.EncodeToString(text)
}

func parseAlertID(s string) (id alertID, ok bool) {
	text, err := base64.RawURLEncoding.DecodeString(s)
	if err != nil {
		return alertID{}, false
	}
	var parts []string
	if json.Unmarshal(text, &parts) != nil || len(parts) != 5 {
		return alertID{}, false
	}
	ts, err := strconv.ParseInt(parts[2], 10, 64)
	id = alertID{parts[0], parts[1], ts, parts[3], parts[4]}
	return id, err == nil && id.String() == s && telemetry.ValidName(id.fleet) && gravity(id.severity) >= 0 && ts >= 0 && ts <= latestInstant
}

// resolve marks an alert as resolved, and takes it off the open ones. Once more changes nothing.
func (a *API) resolve(w *answer, r *http.Request) error {
	g, err := a.authorise(r)
	if err != nil {
		return err
	}
	if !g.write {
		return &problem{status: http.StatusForbidden, message: "the token has no right to write", field: "Authorization", remedy: "use one that has"}
	}
	text := r.PathValue("alert")
	id, ok := parseAlertID(text)
	if !ok {
		return badRequest("alert", text, "not the id of an alert", "take id from the list of alerts")
	}
	if !g.covers(id.fleet) {
		return otherFleet(id.fleet)
	}
	ctx, cancel := context.WithTimeout(r.Context(), a.Limits.Timeout)
	defer cancel()
	if err := a.resolveAlert(ctx, id); err != nil {
		return err
	}
	h := w.Header()
	h.Set("Content-Type", jsonType)
	h.Set("Cache-Control", "no-store")
	w.expectReader()
	_ = json.NewEncoder(w).Encode(struct { // a client that is gone can't be told
		ID       string `json:"id"`
		Resolved bool   `json:"resolved"`
	}{text, true})
	return nil
}

func (a *API) resolveAlert(ctx context.Context, id alertID) error {
	store, leave, err := a.reach(ctx)
	if err != nil {
		return err
	}
	defer leave()
	at := time.UnixMilli(id.ts)
	rows, err := store.Alerts(ctx, cassandra.AlertQuery{FleetID: id.fleet, From: at, To: at, Severities: []string{id.severity}})
	if err != nil {
		return err
	}
	i := slices.IndexFunc(rows, func(r cassandra.Alert) bool { return alertIDOf(r) == id })
	if i < 0 {
		return &problem{status: http.StatusNotFound, message: "no such alert", field: "alert", value: id.String(), remedy: "take id from the list of alerts"}
	}
	now, open := a.Now().UnixMicro(), true
	if rows[i].Resolved {
		// It ended, and another of its type may be open; or somebody was cut off here before.
		if open, err = isOpen(ctx, store, id); err != nil {
			return err
		}
	} else {
		row := id.row()
		if err := store.ResolveAlert(ctx, &row, now); err != nil {
			return err
		}
		a.Logger.WithFields(logrus.Fields{"fleet": id.fleet, "severity": id.severity, "type": id.kind}).Info("alert resolved")
	}
	if open {
		if err := store.DeleteOpenAlert(ctx, id.fleet, id.device, id.kind, now); err != nil { // so that people are not told again
			return err
		}
	}
	if a.Cache != nil {
		a.Cache.Set(ctx, generationKey(id.fleet), []byte(rand.Text()), keepGeneration)
	}
	return nil
}

// isOpen tells whether an alert stands among its fleet's open ones.
func isOpen(ctx context.Context, store Store, id alertID) (bool, error) {
	open, err := store.OpenAlertsOfDevice(ctx, id.fleet, id.device)
	return slices.ContainsFunc(open, func(o cassandra.Alert) bool {
		return o.Type == id.kind && o.OpenedMs == id.ts
	}), err
}

// keepGeneration is longer than a list that was read before the alert was resolved can be kept.
const keepGeneration = 6 * keepList

// alertGeneration names what the cache may show of a fleet's alerts: it changes with every one that is resolved.
func (a *API) alertGeneration(ctx context.Context, q *query) string {
	if a.Cache == nil {
		return ""
	}
	generation, _ := a.Cache.Get(ctx, generationKey(q.id))
	return string(generation)
}
