package plugin

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/grafana/grafana-plugin-sdk-go/backend"

	"github.com/fleettracing/fleet-tracing/cassandra"
)

// settings are those of one data source, read and checked.
type settings struct {
	cluster cassandra.Config

	queryTimeout   time.Duration
	maxConcurrency int
	maxPartitions  int
	maxRows        int // given back by one query
	maxRowsRead    int // read by one query before they are thinned

	latestCache    time.Duration
	closedDayCache time.Duration
	cacheBytes     uint64

	staleAfter     time.Duration
	offlineAfter   time.Duration
	movingAboveKmh float64
	liveInterval   time.Duration

	allowedFleets  []string // none: every fleet
	allowFiltering bool
	allowRaw       bool
}

// jsonSettings is how Grafana keeps them.
type jsonSettings struct {
	ContactPoints   string   `json:"contactPoints"`
	LocalDatacenter string   `json:"localDatacenter"`
	Keyspace        string   `json:"keyspace"`
	Consistency     string   `json:"consistency"`
	Username        string   `json:"username"`
	TLS             bool     `json:"tls"`
	TLSServerName   string   `json:"tlsServerName"`
	TLSSkipVerify   bool     `json:"tlsSkipVerify"`
	QueryTimeout    string   `json:"queryTimeout"`
	ConnectTimeout  string   `json:"connectTimeout"`
	MaxConcurrency  *int     `json:"maxConcurrency"`
	MaxPartitions   *int     `json:"maxPartitions"`
	MaxRows         *int     `json:"maxRows"`
	MaxRowsRead     *int     `json:"maxRowsRead"`
	LatestCache     string   `json:"latestCache"`
	ClosedDayCache  string   `json:"closedDayCache"`
	CacheMegabytes  *int     `json:"cacheMegabytes"`
	StaleAfter      string   `json:"staleAfter"`
	OfflineAfter    string   `json:"offlineAfter"`
	MovingAboveKmh  *float64 `json:"movingAboveKmh"`
	LiveInterval    string   `json:"liveInterval"`
	AllowedFleets   string   `json:"allowedFleets"`
	AllowFiltering  bool     `json:"allowFiltering"`
	AllowRaw        *bool    `json:"allowRaw"`
}

// names are what the settings of package cassandra are called in the editor of the data source.
var names = map[string]string{
	"CASSANDRA_HOSTS":            "Contact points",
	"CASSANDRA_DC":               "Local data centre",
	"CASSANDRA_KEYSPACE":         "Keyspace",
	"CASSANDRA_USERNAME":         "User name",
	"CASSANDRA_PASSWORD":         "Password",
	"CASSANDRA_READ_CONSISTENCY": "Consistency",
	"CASSANDRA_REPLICATION":      "the keyspace's replication",
}

// parseSettings reads the settings of a data source; the error names every one that is wrong.
func parseSettings(source backend.DataSourceInstanceSettings) (settings, error) {
	var j jsonSettings
	if len(source.JSONData) > 0 {
		if err := json.Unmarshal(source.JSONData, &j); err != nil {
			return settings{}, fmt.Errorf("settings of the data source: %w", err)
		}
	}
	var failed []error
	wrong := func(name string, value any, remedy string) {
		failed = append(failed, fmt.Errorf("%s %v: %s", name, value, remedy))
	}
	duration := func(name, value, fallback string, least time.Duration) time.Duration {
		if strings.TrimSpace(value) == "" {
			value = fallback
		}
		d, err := time.ParseDuration(strings.TrimSpace(value))
		if err != nil || d < least {
			wrong(name, fmt.Sprintf("%q", value), fmt.Sprintf("give a duration of at least %s, for example %s", least, fallback))
		}
		return d
	}
	number := func(name string, value *int, fallback, most int) int {
		if value == nil {
			return fallback
		}
		if *value < 1 || *value > most {
			wrong(name, *value, fmt.Sprintf("give a number from 1 to %d", most))
			return fallback
		}
		return *value
	}
	s := settings{
		queryTimeout:   duration("Query timeout", j.QueryTimeout, "10s", 100*time.Millisecond),
		maxConcurrency: number("Partitions at once", j.MaxConcurrency, 32, 1000),
		maxPartitions:  number("Partitions per query", j.MaxPartitions, 2000, 100_000),
		maxRows:        number("Rows per query", j.MaxRows, 100_000, 1_000_000),
		maxRowsRead:    number("Rows read per query", j.MaxRowsRead, 2_000_000, 20_000_000),
		latestCache:    duration("Newest positions", j.LatestCache, "1s", 0),
		closedDayCache: duration("Closed days", j.ClosedDayCache, "10m", 0),
		cacheBytes:     uint64(number("Memory (MB)", j.CacheMegabytes, 64, 16_384)) << 20,
		staleAfter:     duration("Stale after", j.StaleAfter, "2m", time.Second),
		offlineAfter:   duration("Offline after", j.OfflineAfter, "15m", time.Second),
		liveInterval:   duration("Live interval", j.LiveInterval, "2s", 200*time.Millisecond),
		movingAboveKmh: 3,
		allowedFleets:  list(j.AllowedFleets),
		allowFiltering: j.AllowFiltering,
		allowRaw:       j.AllowRaw == nil || *j.AllowRaw,
	}
	if j.MovingAboveKmh != nil {
		if s.movingAboveKmh = *j.MovingAboveKmh; s.movingAboveKmh < 0 {
			wrong("Moving above", s.movingAboveKmh, "give a speed of 0 km/h or more")
		}
	}
	if s.offlineAfter < s.staleAfter {
		wrong("Offline after", s.offlineAfter, fmt.Sprintf("give at least Stale after, which is %s", s.staleAfter))
	}
	s.cluster = cassandra.Config{
		Hosts:           list(j.ContactPoints),
		Keyspace:        strings.TrimSpace(j.Keyspace),
		LocalDC:         strings.TrimSpace(j.LocalDatacenter),
		Username:        j.Username,
		Password:        source.DecryptedSecureJSONData["password"],
		ReadConsistency: strings.TrimSpace(j.Consistency),
		// Nothing is written, so the level of writes must only be one that every keyspace can serve.
		WriteConsistency: "ONE",
		ConnectTimeout:   duration("Connect timeout", j.ConnectTimeout, "5s", 100*time.Millisecond),
		// A node that doesn't answer costs a quarter of the time that a query has, and another is asked.
		Timeout:       max(s.queryTimeout/4, 100*time.Millisecond),
		ReadRetries:   2,
		Fanout:        max(s.maxConcurrency/2, 1),
		ReadsInFlight: s.maxConcurrency,
		Settings:      names,
	}
	if s.cluster.Keyspace == "" {
		s.cluster.Keyspace = "fleet_iot"
	}
	if len(s.cluster.Hosts) == 0 {
		wrong("Contact points", `""`, "name at least one, as host or host:port")
	}
	for _, fleet := range s.allowedFleets {
		if !validName(fleet) {
			wrong("Allowed fleets", fmt.Sprintf("%q", fleet), nameRule)
		}
	}
	if j.TLS {
		var err error
		secure := source.DecryptedSecureJSONData
		s.cluster.TLS, err = cassandra.NewTLS([]byte(secure["tlsCACert"]), []byte(secure["tlsClientCert"]), []byte(secure["tlsClientKey"]), j.TLSServerName, j.TLSSkipVerify)
		if err != nil {
			failed = append(failed, err)
		}
	}
	return s, errors.Join(failed...)
}

// list reads words between commas, white space or line ends.
func list(s string) []string {
	return strings.FieldsFunc(s, func(r rune) bool { return r == ',' || r == ' ' || r == '\t' || r == '\n' || r == '\r' })
}

const nameRule = "a name has 1 to 128 characters of A-Z a-z 0-9 . _ : -"

// validName tells whether a text can be the name of a fleet, device or zone.
func validName(s string) bool {
	for i := range len(s) {
		c := s[i]
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '.' && c != '_' && c != ':' && c != '-' {
			return false
		}
	}
	return len(s) > 0 && len(s) <= 128
}

// allows tells whether the data source has a right on a fleet.
func (s *settings) allows(fleet string) bool {
	return len(s.allowedFleets) == 0 || slices.Contains(s.allowedFleets, fleet)
}
