// Package settings parses and validates the settings of one data source, and defines which fleets it may read.
package settings

import (
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/grafana/grafana-plugin-sdk-go/backend"

	"github.com/fleettracing/fleet-tracing/cassandra"
)

// Settings are the validated settings of one data source. Those with a name in JSON are stored in the same form.
type Settings struct {
	Cluster cassandra.Config `json:"-"`

	QueryTimeout  time.Duration `json:"-"`
	MaxPartitions int           `json:"maxPartitions"` // read by one query
	MaxRows       int           `json:"maxRows"`       // returned by one query
	MaxRowsRead   int           `json:"maxRowsRead"`   // read by one query, before downsampling

	LatestCache    time.Duration `json:"-"`
	ClosedDayCache time.Duration `json:"-"`
	CacheBytes     uint64        `json:"-"`
	QueryBytes     int           `json:"-"` // held by all queries in progress

	StaleAfter     time.Duration `json:"-"`
	OfflineAfter   time.Duration `json:"-"`
	MovingAboveKmh float64       `json:"movingAboveKmh"`
	LiveInterval   time.Duration `json:"-"`

	Access         Access `json:"-"`
	AllowFiltering bool   `json:"allowFiltering"`
	AllowRaw       bool   `json:"allowRaw"`
}

// stored is the form in which Grafana stores the settings.
type stored struct {
	Settings
	ContactPoints   string `json:"contactPoints"`
	LocalDatacenter string `json:"localDatacenter"`
	Keyspace        string `json:"keyspace"`
	Consistency     string `json:"consistency"`
	Username        string `json:"username"`
	TLS             bool   `json:"tls"`
	TLSServerName   string `json:"tlsServerName"`
	TLSSkipVerify   bool   `json:"tlsSkipVerify"`
	QueryTimeout    string `json:"queryTimeout"`
	ConnectTimeout  string `json:"connectTimeout"`
	MaxConcurrency  int    `json:"maxConcurrency"`
	LatestCache     string `json:"latestCache"`
	ClosedDayCache  string `json:"closedDayCache"`
	CacheMegabytes  int    `json:"cacheMegabytes"`
	QueryMegabytes  int    `json:"queryMegabytes"`
	StaleAfter      string `json:"staleAfter"`
	OfflineAfter    string `json:"offlineAfter"`
	LiveInterval    string `json:"liveInterval"`
	AllowedFleets   string `json:"allowedFleets"`
}

// labels maps the setting names of package cassandra to the labels in the configuration editor.
var labels = map[string]string{
	"CASSANDRA_HOSTS":            "Contact points",
	"CASSANDRA_DC":               "Local data center",
	"CASSANDRA_KEYSPACE":         "Keyspace",
	"CASSANDRA_USERNAME":         "User name",
	"CASSANDRA_PASSWORD":         "Password",
	"CASSANDRA_READ_CONSISTENCY": "Consistency",
	"CASSANDRA_REPLICATION":      "the keyspace's replication",
}

// Parse reads the settings of a data source. The error names every invalid setting, its value and the remedy; the
// returned settings are usable only without an error.
func Parse(source backend.DataSourceInstanceSettings) (*Settings, error) {
	j := stored{
		Settings:       Settings{MaxPartitions: 2000, MaxRows: 100_000, MaxRowsRead: 2_000_000, MovingAboveKmh: 3, AllowRaw: true},
		MaxConcurrency: 32, CacheMegabytes: 64, QueryMegabytes: 192,
	}
	s := &j.Settings
	if len(source.JSONData) > 0 {
		if err := json.Unmarshal(source.JSONData, &j); err != nil {
			return s, fmt.Errorf("settings of the data source: %w", err)
		}
	}
	p := &parser{}
	p.number("Partitions per query", s.MaxPartitions, 100_000)
	p.number("Rows per query", s.MaxRows, 1_000_000)
	p.number("Rows read per query", s.MaxRowsRead, 20_000_000)
	p.number("Query memory (MB)", j.QueryMegabytes, 16_384)
	p.number("Memory (MB)", j.CacheMegabytes, 16_384)
	p.number("Partitions at once", j.MaxConcurrency, 1000)
	s.QueryTimeout = p.duration("Query timeout", j.QueryTimeout, "10s", 100*time.Millisecond)
	s.LatestCache = p.duration("Latest positions", j.LatestCache, "1s", 0)
	s.ClosedDayCache = p.duration("Closed days", j.ClosedDayCache, "10m", 0)
	s.CacheBytes = uint64(max(j.CacheMegabytes, 1)) << 20
	s.QueryBytes = max(j.QueryMegabytes, 1) << 20
	s.StaleAfter = p.duration("Stale after", j.StaleAfter, "2m", time.Second)
	s.OfflineAfter = p.duration("Offline after", j.OfflineAfter, "15m", time.Second)
	s.LiveInterval = p.duration("Live interval", j.LiveInterval, "2s", 200*time.Millisecond)
	s.Access = NewAccess(list(j.AllowedFleets)...)
	if s.MovingAboveKmh < 0 {
		p.reject("Moving above", s.MovingAboveKmh, "give a speed of 0 km/h or more")
	}
	if s.OfflineAfter < s.StaleAfter {
		p.reject("Offline after", s.OfflineAfter, fmt.Sprintf("give at least Stale after, which is %s", s.StaleAfter))
	}
	for _, fleet := range s.Access.Fleets() {
		if !ValidName(fleet) {
			p.reject("Allowed fleets", fmt.Sprintf("%q", fleet), NameRule)
		}
	}
	s.Cluster = p.cluster(&j, source.DecryptedSecureJSONData, s.QueryTimeout)
	return s, errors.Join(p.errs...)
}

// parser collects every invalid setting, so that an administrator sees all of them at once.
type parser struct{ errs []error }

func (p *parser) reject(name string, value any, remedy string) {
	p.errs = append(p.errs, fmt.Errorf("%s %v: %s", name, value, remedy))
}

func (p *parser) duration(name, value, fallback string, least time.Duration) time.Duration {
	if strings.TrimSpace(value) == "" {
		value = fallback
	}
	d, err := time.ParseDuration(strings.TrimSpace(value))
	if err != nil || d < least {
		p.reject(name, fmt.Sprintf("%q", value), fmt.Sprintf("give a duration of at least %s, for example %s", least, fallback))
	}
	return d
}

func (p *parser) number(name string, value, most int) {
	if value < 1 || value > most {
		p.reject(name, value, fmt.Sprintf("give a number from 1 to %d", most))
	}
}

func (p *parser) cluster(j *stored, secure map[string]string, queryTimeout time.Duration) cassandra.Config {
	cfg := cassandra.Config{
		Hosts:           list(j.ContactPoints),
		Keyspace:        strings.TrimSpace(j.Keyspace),
		LocalDC:         strings.TrimSpace(j.LocalDatacenter),
		Username:        j.Username,
		Password:        secure["password"],
		ReadConsistency: strings.TrimSpace(j.Consistency),
		// The plugin never writes: the write level only has to be one that every keyspace supports.
		WriteConsistency: "ONE",
		ConnectTimeout:   p.duration("Connect timeout", j.ConnectTimeout, "5s", 100*time.Millisecond),
		// A node that does not answer costs a quarter of the query timeout; then the driver asks another node.
		Timeout:       max(queryTimeout/4, 100*time.Millisecond),
		ReadRetries:   2,
		Fanout:        max(j.MaxConcurrency/2, 1),
		ReadsInFlight: j.MaxConcurrency,
		Settings:      labels,
	}
	if cfg.Keyspace == "" {
		cfg.Keyspace = "fleet_iot"
	}
	if len(cfg.Hosts) == 0 {
		p.reject("Contact points", `""`, "name at least one, as host or host:port")
	}
	if j.TLS {
		var err error
		cfg.TLS, err = cassandra.NewTLS([]byte(secure["tlsCACert"]), []byte(secure["tlsClientCert"]), []byte(secure["tlsClientKey"]), j.TLSServerName, j.TLSSkipVerify)
		if err != nil {
			p.errs = append(p.errs, err)
		}
	}
	return cfg
}

// list splits a text at commas and white space.
func list(s string) []string {
	return strings.FieldsFunc(s, func(r rune) bool { return strings.ContainsRune(", \t\r\n", r) })
}

// NameRule describes the names that ValidName accepts.
const NameRule = "a name has 1 to 128 characters of A-Z a-z 0-9 . _ : -"

var nameForm = regexp.MustCompile(`^[a-zA-Z0-9._:-]{1,128}$`)

// ValidName reports whether s can be the name of a fleet, device, geofence or alert type.
func ValidName(s string) bool { return nameForm.MatchString(s) }

// Access is the set of fleets that a data source may read. The zero value allows every fleet.
type Access struct{ fleets []string }

// NewAccess allows the named fleets, or every fleet when none is named.
func NewAccess(fleets ...string) Access {
	return Access{slices.Compact(slices.Sorted(slices.Values(fleets)))}
}

// Restricted reports whether the data source may read only named fleets.
func (a Access) Restricted() bool { return len(a.fleets) > 0 }

// Fleets returns the allowed fleets, sorted; none when access is not restricted.
func (a Access) Fleets() []string { return slices.Clone(a.fleets) }

// Allows reports whether the data source may read a fleet.
func (a Access) Allows(fleet string) bool {
	_, found := slices.BinarySearch(a.fleets, fleet) // sorted
	return found || !a.Restricted()
}

// Check returns a *ForbiddenError for the first fleet that the data source may not read.
func (a Access) Check(fleets []string) error {
	for _, fleet := range fleets {
		if !a.Allows(fleet) {
			return Forbidden("fleet %q: not allowed for this data source (allowed: %s)", fleet, strings.Join(a.fleets, ", "))
		}
	}
	return nil
}

// ForbiddenError rejects a request that the settings do not allow.
type ForbiddenError struct{ message string }

func (e *ForbiddenError) Error() string { return e.message }

// Forbidden formats a *ForbiddenError.
func Forbidden(format string, args ...any) error {
	return &ForbiddenError{fmt.Sprintf(format, args...)}
}
