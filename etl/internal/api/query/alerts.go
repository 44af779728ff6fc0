package query

import (
	"cmp"
	"context"
	"crypto/rand"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/fleettracing/fleet-tracing/cassandra"
	"github.com/fleettracing/fleet-tracing/etl/internal/api/params"
	"github.com/fleettracing/fleet-tracing/etl/internal/api/rest"
	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

// alertItem is an alert in a response.
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
		Spec: params.Spec{Route: "alerts", Span: manyDays, Severity: true}, path: "/v1/fleets/{fleet}/alerts", idField: fieldFleet, streamed: true,
		// An alert of any age can be resolved by a process that shares no cache with this one.
		ttl: fixedTTL(ttlList), generation: a.alertGeneration,
		page: func(ctx context.Context, store Store, q *params.Query) ([]alertItem, string, error) {
			rows, position, err := alertsPage(ctx, store, q)
			items := make([]alertItem, len(rows))
			for i, r := range rows {
				items[i] = alertItem{alertID(r), r.FleetID, r.Severity, formatTime(r.Opened()), r.DeviceID, r.Type, r.Message, r.Resolved}
			}
			return items, position, err
		},
	}
}

// maxAlertDays is how many days of alerts are read at once, with a partition per severity.
const maxAlertDays = 32

// alertsPage reads alerts newest first, a few days at a time. The position is the ID of the last alert.
func alertsPage(ctx context.Context, store Store, q *params.Query) ([]cassandra.Alert, string, error) {
	to, last := q.To, cassandra.Alert{}
	if q.Position != "" {
		var ok bool
		if last, ok = parseAlertID(q.Position); !ok || last.OpenedMs > q.To {
			return nil, "", q.BadPage()
		}
		to = last.OpenedMs
	}
	var rows []cassandra.Alert
	days, limit := int64(1), q.Limit+1
	for to >= q.From {
		from := max(q.From, cassandra.DayOf(to).Time().UnixMilli()-(days-1)*msPerDay)
		part, err := store.Alerts(ctx, cassandra.AlertQuery{
			FleetID: q.ID, From: time.UnixMilli(from), To: time.UnixMilli(to), Severities: q.Severities, Limit: limit,
		})
		if err != nil {
			return nil, "", err
		}
		if len(part) >= limit {
			// The limit may have separated alerts with the same timestamp, whose order in the store is not defined.
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
		if q.Position != "" {
			part = slices.DeleteFunc(part, func(r cassandra.Alert) bool { return compareAlerts(r, last) <= 0 })
		}
		if rows = append(rows, part...); len(rows) > q.Limit {
			rows = rows[:q.Limit]
			return rows, alertID(rows[q.Limit-1]), nil
		}
	}
	return rows, "", nil
}

// compareAlerts orders the list: newest first, then by the rest of the key.
func compareAlerts(a, b cassandra.Alert) int {
	return cmp.Or(cmp.Compare(b.OpenedMs, a.OpenedMs), strings.Compare(a.DeviceID, b.DeviceID), strings.Compare(a.Type, b.Type),
		cmp.Compare(params.SeverityRank(a.Severity), params.SeverityRank(b.Severity)))
}

// alertID is the ID of an alert for clients. It contains the key of its row: base64url of a JSON array, which keeps names
// apart whatever they contain.
func alertID(a cassandra.Alert) string {
	return params.EncodeToken([]string{a.FleetID, a.Severity, strconv.FormatInt(a.OpenedMs, 10), a.DeviceID, a.Type})
}

// parseAlertID returns an alert that has only the key of its row.
func parseAlertID(id string) (key cassandra.Alert, ok bool) {
	var parts []string
	if params.DecodeToken(id, &parts) != nil || len(parts) != 5 {
		return key, false
	}
	ms, err := strconv.ParseInt(parts[2], 10, 64)
	key = cassandra.Alert{FleetID: parts[0], Severity: parts[1], OpenedMs: ms, DeviceID: parts[3], Type: parts[4]}
	return key, err == nil && alertID(key) == id && telemetry.ValidName(key.FleetID) && params.SeverityRank(key.Severity) >= 0 && ms >= 0 && ms <= params.MaxTime
}

// resolve resolves an alert and removes it from the open alerts. It is idempotent.
func (a *API) resolve(w *rest.Response, r *rest.Request) error {
	text := r.PathValue("alert")
	key, ok := parseAlertID(text)
	if !ok {
		return rest.Invalid("alert", text, "not the ID of an alert", "use an id from the list of alerts")
	}
	if !r.Grant.Allows(key.FleetID) {
		return otherFleet(key.FleetID)
	}
	if err := a.withStore(r.Context(), r.Grant.Sender(), func(ctx context.Context, store Store) error {
		return a.resolveAlert(ctx, store, key)
	}); err != nil {
		return err
	}
	w.ExtendDeadline(slowReader)
	w.WriteJSON(http.StatusOK, rest.JSONType, struct {
		ID       string `json:"id"`
		Resolved bool   `json:"resolved"`
	}{text, true})
	return nil
}

func (a *API) resolveAlert(ctx context.Context, store Store, key cassandra.Alert) error {
	at := key.Opened()
	rows, err := store.Alerts(ctx, cassandra.AlertQuery{FleetID: key.FleetID, From: at, To: at, Severities: []string{key.Severity}})
	if err != nil {
		return err
	}
	i := slices.IndexFunc(rows, func(r cassandra.Alert) bool { return compareAlerts(r, key) == 0 })
	if i < 0 {
		return &rest.Problem{Kind: rest.NotFound, Detail: "the alert does not exist", Field: "alert", Value: alertID(key), Remedy: "use an id from the list of alerts"}
	}
	now := a.Now().UnixMicro()
	if !rows[i].Resolved {
		if err := store.ResolveAlert(ctx, &rows[i], now); err != nil {
			return err
		}
		a.Logger.WithFields(logrus.Fields{"fleet": key.FleetID, "severity": key.Severity, "type": key.Type}).Info("alert resolved")
	}
	open, err := store.OpenAlertsOfDevice(ctx, key.FleetID, key.DeviceID)
	if err != nil {
		return err
	}
	// Another alert of its type may be open.
	if slices.ContainsFunc(open, func(o cassandra.Alert) bool { return o.Type == key.Type && o.OpenedMs == key.OpenedMs }) {
		if err := store.DeleteOpenAlert(ctx, key.FleetID, key.DeviceID, key.Type, now); err != nil { // ends the notifications
			return err
		}
	}
	if a.Cache != nil {
		a.Cache.Set(ctx, generationKey(key.FleetID), []byte(rand.Text()), ttlGeneration)
	}
	return nil
}

// ttlGeneration is longer than any list that was read before the alert was resolved stays in the cache.
const ttlGeneration = 6 * ttlList

// alertGeneration names the state of a fleet's alerts for the cache. It changes with every alert that is resolved.
func (a *API) alertGeneration(ctx context.Context, q *params.Query) string {
	if a.Cache == nil {
		return ""
	}
	generation, _ := a.Cache.Get(ctx, generationKey(q.ID))
	return string(generation)
}
