// Package config is the settings of fleet-etl: one variable each, with a default, a sentence and a check.
package config

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/kelseyhightower/envconfig"
	"github.com/sirupsen/logrus"

	"github.com/fleettracing/fleet-tracing/cassandra"
	"github.com/fleettracing/fleet-tracing/etl/internal/load"
	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

// Config is every setting. A field's tags are its variable, its default and what it does, as `fleet-etl config` shows
// them; a field tagged secret is hidden there, and can also come from the file that the variable with _FILE names.
type Config struct {
	CassandraHosts            []string      `envconfig:"CASSANDRA_HOSTS" default:"127.0.0.1" desc:"Contact points, separated by commas, each host or host:port."`
	CassandraPort             int           `envconfig:"CASSANDRA_PORT" default:"9042" desc:"CQL port of contact points that name none."`
	CassandraKeyspace         string        `envconfig:"CASSANDRA_KEYSPACE" default:"fleet_iot" desc:"Keyspace that holds everything."`
	CassandraDC               string        `envconfig:"CASSANDRA_DC" default:"dc1" desc:"Local data centre: its nodes are spoken to while one of them lives."`
	CassandraReplication      string        `envconfig:"CASSANDRA_REPLICATION" default:"dc1=2,dc2=2" desc:"Replicas in each data centre, for the keyspace that schema apply makes."`
	CassandraWriteConsistency string        `envconfig:"CASSANDRA_WRITE_CONSISTENCY" desc:"Level of writes; empty is TWO, or ONE where the keyspace has a single replica."`
	CassandraReadConsistency  string        `envconfig:"CASSANDRA_READ_CONSISTENCY" default:"LOCAL_ONE" desc:"Level of reads for screens."`
	CassandraUsername         string        `envconfig:"CASSANDRA_USERNAME" desc:"Login; empty where the cluster asks for none." secret:"name"`
	CassandraPassword         string        `envconfig:"CASSANDRA_PASSWORD" desc:"Password of the login." secret:"hidden"`
	CassandraTLS              bool          `envconfig:"CASSANDRA_TLS" default:"false" desc:"Encrypt connections."`
	CassandraTLSCA            string        `envconfig:"CASSANDRA_TLS_CA_FILE" desc:"PEM file of the authority that signed the nodes' certificates; empty is the system's."`
	CassandraTLSCert          string        `envconfig:"CASSANDRA_TLS_CERT_FILE" desc:"PEM file of our own certificate, where nodes ask for one."`
	CassandraTLSKey           string        `envconfig:"CASSANDRA_TLS_KEY_FILE" desc:"PEM file of its key."`
	CassandraTLSServerName    string        `envconfig:"CASSANDRA_TLS_SERVER_NAME" desc:"Name that the nodes' certificates carry, where it is not their address."`
	CassandraTLSSkipVerify    bool          `envconfig:"CASSANDRA_TLS_SKIP_VERIFY" default:"false" desc:"Take any certificate: for trials only."`
	CassandraTimeout          time.Duration `envconfig:"CASSANDRA_TIMEOUT" default:"5s" desc:"Time that a request may take; keep it above the nodes' own timeouts."`
	CassandraConnections      int           `envconfig:"CASSANDRA_CONNECTIONS" default:"2" desc:"Connections to each node."`
	CassandraConnectWait      time.Duration `envconfig:"CASSANDRA_CONNECT_WAIT" default:"30s" desc:"How long a command waits for the cluster at its start; run waits as long as it takes."`

	Mode     string `envconfig:"ETL_MODE" default:"streaming" desc:"What fleet-etl does without a command: streaming (run) or batch (load ETL_FILES)."`
	LogLevel string `envconfig:"LOG_LEVEL" default:"info" desc:"Least level that is logged: debug, info, warn or error."`

	Sources []string `envconfig:"ETL_SOURCES" default:"generator" desc:"Sources of run, separated by commas: generator."`
	Files   []string `envconfig:"ETL_FILES" desc:"Files or patterns that ETL_MODE=batch loads, separated by commas."`
	Fleets  []string `envconfig:"ETL_FLEETS" desc:"Fleets that may send, separated by commas; empty is any."`

	StateDir           string `envconfig:"ETL_STATE_DIR" default:"var/fleet-etl" desc:"Directory of checkpoints and temporary files."`
	DeadLetterDir      string `envconfig:"ETL_DEAD_LETTER_DIR" desc:"Directory of refused records; empty is deadletters in ETL_STATE_DIR."`
	DeadLetterMaxBytes int64  `envconfig:"ETL_DEAD_LETTER_MAX_BYTES" default:"67108864" desc:"Size at which the file of refused records is put away and a new one begun."`

	WriteMode       string        `envconfig:"ETL_WRITE_MODE" default:"batch" desc:"How rows are sent: batch (rows of a partition together) or async (each by itself)."`
	WindowRecords   int           `envconfig:"ETL_WINDOW_RECORDS" default:"131072" desc:"Records that are grouped together at the most; more make larger groups and take more memory."`
	Linger          time.Duration `envconfig:"ETL_LINGER" default:"200ms" desc:"How long run gathers records before it writes them."`
	LoadLinger      time.Duration `envconfig:"ETL_LOAD_LINGER" default:"5s" desc:"The same for load, which has no reader waiting."`
	BatchRows       int           `envconfig:"ETL_BATCH_ROWS" default:"100" desc:"Rows of one batch at the most; it also ends at 16 KiB."`
	MaxInFlight     int           `envconfig:"ETL_MAX_IN_FLIGHT" default:"128" desc:"Writes under way at the most; the limit adapts below it."`
	RetryRate       float64       `envconfig:"ETL_RETRY_RATE" default:"100" desc:"Retries a second over all writes; the others wait their turn."`
	DevicesInMemory int           `envconfig:"ETL_DEVICES_IN_MEMORY" default:"200000" desc:"Devices whose newest fix is kept in memory; others are read again when they send."`
	DedupeRecords   int           `envconfig:"ETL_DEDUPE_RECORDS" default:"262144" desc:"Records that are remembered to tell duplicates."`
	QueueBatches    int           `envconfig:"ETL_QUEUE_BATCHES" default:"8" desc:"Batches of records that wait between two stages at the most."`
	DrainTimeout    time.Duration `envconfig:"ETL_DRAIN_TIMEOUT" default:"30s" desc:"How long run may take to store what it has when it is told to stop."`

	MetricsAddress string `envconfig:"ETL_METRICS_ADDRESS" default:":9464" desc:"Address of /metrics, /-/healthy and /-/ready; empty is none."`
	Pprof          bool   `envconfig:"ETL_PPROF" default:"false" desc:"Serve /debug/pprof there too."`

	GeneratorVehicles  int           `envconfig:"ETL_GENERATOR_VEHICLES" default:"50" desc:"Vehicles that the generator drives."`
	GeneratorFleets    int           `envconfig:"ETL_GENERATOR_FLEETS" default:"1" desc:"Fleets that they are spread over, from fleet-001."`
	GeneratorInterval  time.Duration `envconfig:"ETL_GENERATOR_INTERVAL" default:"5s" desc:"Time between two records of one vehicle."`
	GeneratorSeed      uint64        `envconfig:"ETL_GENERATOR_SEED" default:"1" desc:"Seed of the generator: the same seed drives the same routes."`
	GeneratorLate      float64       `envconfig:"ETL_GENERATOR_LATE" default:"0" desc:"Share of its records that come late, 0 to 1."`
	GeneratorDuplicate float64       `envconfig:"ETL_GENERATOR_DUPLICATE" default:"0" desc:"Share that comes twice, 0 to 1."`
	GeneratorBroken    float64       `envconfig:"ETL_GENERATOR_BROKEN" default:"0" desc:"Broken records that are mixed in, as a share, 0 to 1."`
}

// FromEnvironment reads and checks the settings. The error names each variable that is wrong, its value and what it
// takes.
func FromEnvironment() (*Config, error) {
	var c Config
	if err := envconfig.Process("", &c); err != nil {
		if e := (*envconfig.ParseError)(nil); errors.As(err, &e) {
			return nil, fmt.Errorf("%s %q: not a %s; its default is %s", e.KeyName, e.Value, kindOf(e.TypeName), c.defaultOf(e.KeyName))
		}
		return nil, err
	}
	for _, list := range [][]string{c.CassandraHosts, c.Sources, c.Files, c.Fleets} {
		for i := range list {
			list[i] = strings.TrimSpace(list[i])
		}
	}
	if err := errors.Join(c.readSecrets(), c.check()); err != nil {
		return nil, err
	}
	if c.DeadLetterDir == "" {
		c.DeadLetterDir = filepath.Join(c.StateDir, "deadletters")
	}
	return &c, nil
}

func (c *Config) defaultOf(variable string) string {
	for _, f := range c.fields() {
		if f.Variable == variable {
			return f.Default
		}
	}
	return ""
}

func kindOf(typeName string) string {
	switch typeName {
	case "time.Duration":
		return "duration such as 200ms or 5s"
	case "bool":
		return "choice of true or false"
	case "float64":
		return "number"
	default:
		return "whole number"
	}
}

// readSecrets takes secrets from the files that variables with _FILE name.
func (c *Config) readSecrets() error {
	var wrong []error
	for _, f := range c.fields() {
		if f.Secret == "" {
			continue
		}
		variable := f.Variable + "_FILE"
		path := os.Getenv(variable)
		switch {
		case path == "":
		case f.value.String() != "":
			wrong = append(wrong, fmt.Errorf("%s and %s: both are set; keep one", f.Variable, variable))
		default:
			text, err := os.ReadFile(path) //nolint:gosec // the administrator names it
			if err != nil {
				wrong = append(wrong, fmt.Errorf("%s: %w", variable, err))
				continue
			}
			f.value.SetString(strings.TrimRight(string(text), "\r\n"))
		}
	}
	return errors.Join(wrong...)
}

// check refuses what no part of the program could work with.
func (c *Config) check() error {
	var wrong []error
	refuse := func(variable string, value any, remedy string) {
		wrong = append(wrong, fmt.Errorf("%s %q: %s", variable, fmt.Sprint(value), remedy))
	}
	oneOf := func(variable, value string, allowed ...string) {
		if !slices.Contains(allowed, value) {
			refuse(variable, value, "take "+strings.Join(allowed, " or "))
		}
	}
	atLeast := func(variable string, value, least int) {
		if value < least {
			refuse(variable, value, fmt.Sprintf("give at least %d", least))
		}
	}
	longer := func(variable string, value, least time.Duration) {
		if value < least {
			refuse(variable, value, fmt.Sprintf("give at least %s", least))
		}
	}
	share := func(variable string, value float64) {
		if !(value >= 0 && value <= 1) {
			refuse(variable, value, "give a share from 0 to 1")
		}
	}
	oneOf("ETL_MODE", c.Mode, "streaming", "batch")
	oneOf("LOG_LEVEL", c.LogLevel, "debug", "info", "warn", "error")
	oneOf("ETL_WRITE_MODE", c.WriteMode, string(load.Batch), string(load.Async))
	for _, source := range c.Sources {
		oneOf("ETL_SOURCES", source, "generator")
	}
	for _, fleet := range c.Fleets {
		if !telemetry.ValidName(fleet) {
			refuse("ETL_FLEETS", fleet, "use 1 to 128 characters of A-Za-z0-9._:- for each fleet")
		}
	}
	if len(c.CassandraHosts) == 0 || slices.Contains(c.CassandraHosts, "") {
		refuse("CASSANDRA_HOSTS", strings.Join(c.CassandraHosts, ","), "give contact points, separated by commas")
	}
	if c.CassandraKeyspace == "" {
		refuse("CASSANDRA_KEYSPACE", "", "name a keyspace")
	}
	if len(c.Sources) == 0 {
		refuse("ETL_SOURCES", "", "name at least one source, for example generator")
	}
	for variable, path := range map[string]string{"CASSANDRA_TLS_CA_FILE": c.CassandraTLSCA, "CASSANDRA_TLS_CERT_FILE": c.CassandraTLSCert} {
		if path != "" && !c.CassandraTLS {
			refuse(variable, path, "it encrypts nothing by itself; set CASSANDRA_TLS=true with it")
		}
	}
	if c.StateDir == "" {
		refuse("ETL_STATE_DIR", "", "name a directory")
	}
	if _, err := cassandra.ParseReplication(c.CassandraReplication); err != nil {
		wrong = append(wrong, fmt.Errorf("CASSANDRA_REPLICATION: %w", err))
	}
	if c.CassandraPort < 1 || c.CassandraPort > 65535 {
		refuse("CASSANDRA_PORT", c.CassandraPort, "give a port from 1 to 65535")
	}
	if (c.CassandraTLSCert == "") != (c.CassandraTLSKey == "") {
		refuse("CASSANDRA_TLS_CERT_FILE", c.CassandraTLSCert, "give CASSANDRA_TLS_KEY_FILE with it, or neither")
	}
	atLeast("CASSANDRA_CONNECTIONS", c.CassandraConnections, 1)
	longer("CASSANDRA_TIMEOUT", c.CassandraTimeout, 100*time.Millisecond)
	atLeast("ETL_WINDOW_RECORDS", c.WindowRecords, 1)
	atLeast("ETL_BATCH_ROWS", c.BatchRows, 1)
	atLeast("ETL_MAX_IN_FLIGHT", c.MaxInFlight, 1)
	atLeast("ETL_DEVICES_IN_MEMORY", c.DevicesInMemory, 1)
	atLeast("ETL_DEDUPE_RECORDS", c.DedupeRecords, 1)
	atLeast("ETL_QUEUE_BATCHES", c.QueueBatches, 1)
	atLeast("ETL_DEAD_LETTER_MAX_BYTES", int(c.DeadLetterMaxBytes), 1024)
	if !(c.RetryRate > 0 && c.RetryRate <= 1e6) {
		refuse("ETL_RETRY_RATE", c.RetryRate, "give more than 0, and at most 1000000")
	}
	longer("CASSANDRA_CONNECT_WAIT", c.CassandraConnectWait, 0)
	longer("ETL_LINGER", c.Linger, 0)
	longer("ETL_LOAD_LINGER", c.LoadLinger, 0)
	longer("ETL_DRAIN_TIMEOUT", c.DrainTimeout, time.Second)
	atLeast("ETL_GENERATOR_VEHICLES", c.GeneratorVehicles, 1)
	atLeast("ETL_GENERATOR_FLEETS", c.GeneratorFleets, 1)
	longer("ETL_GENERATOR_INTERVAL", c.GeneratorInterval, time.Millisecond)
	share("ETL_GENERATOR_LATE", c.GeneratorLate)
	share("ETL_GENERATOR_DUPLICATE", c.GeneratorDuplicate)
	share("ETL_GENERATOR_BROKEN", c.GeneratorBroken)
	return errors.Join(wrong...)
}

// Level is the level of LOG_LEVEL, which check has seen.
func (c *Config) Level() logrus.Level {
	level, err := logrus.ParseLevel(c.LogLevel)
	if err != nil {
		return logrus.InfoLevel
	}
	return level
}

// Replication is that of CASSANDRA_REPLICATION, which check has seen.
func (c *Config) Replication() cassandra.Replication {
	r, _ := cassandra.ParseReplication(c.CassandraReplication)
	return r
}

// Store gives the settings of the session; the error names the file that can't be used.
func (c *Config) Store() (cassandra.Config, error) {
	s := cassandra.Config{
		Hosts: c.CassandraHosts, Port: c.CassandraPort, Keyspace: c.CassandraKeyspace, LocalDC: c.CassandraDC,
		Username: c.CassandraUsername, Password: c.CassandraPassword,
		WriteConsistency: c.CassandraWriteConsistency, ReadConsistency: c.CassandraReadConsistency,
		Timeout: c.CassandraTimeout, Connections: c.CassandraConnections,
	}
	if !c.CassandraTLS {
		return s, nil
	}
	pem := map[string][]byte{}
	for variable, path := range map[string]string{
		"CASSANDRA_TLS_CA_FILE": c.CassandraTLSCA, "CASSANDRA_TLS_CERT_FILE": c.CassandraTLSCert, "CASSANDRA_TLS_KEY_FILE": c.CassandraTLSKey,
	} {
		if path == "" {
			continue
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return s, fmt.Errorf("%s: %w", variable, err)
		}
		if len(text) == 0 {
			return s, fmt.Errorf("%s %q: the file is empty; give a PEM file, or leave the variable out", variable, path)
		}
		pem[variable] = text
	}
	tls, err := cassandra.NewTLS(pem["CASSANDRA_TLS_CA_FILE"], pem["CASSANDRA_TLS_CERT_FILE"], pem["CASSANDRA_TLS_KEY_FILE"],
		c.CassandraTLSServerName, c.CassandraTLSSkipVerify)
	if err != nil {
		return s, fmt.Errorf("CASSANDRA_TLS: %w", err)
	}
	s.TLS = tls
	return s, nil
}

// Loader gives the settings of the loader that gathers for so long.
func (c *Config) Loader(linger time.Duration) load.Options {
	return load.Options{
		Mode: load.Mode(c.WriteMode), WindowRecords: c.WindowRecords, Linger: linger, BatchRows: c.BatchRows,
		MaxInFlight: c.MaxInFlight, RetryRate: c.RetryRate, DevicesKept: c.DevicesInMemory,
	}
}

// Setting is one variable as it is shown to people.
type Setting struct {
	Variable, Default, Value, Description string
}

type field struct {
	Setting
	Secret string
	value  reflect.Value
}

// Settings is every variable with the value in force, in the order of Config. Secrets are hidden.
func (c *Config) Settings() []Setting {
	var settings []Setting
	for _, f := range c.fields() {
		if f.Secret == "hidden" && f.Value != "" {
			f.Value = "(hidden)"
		}
		if f.Secret != "" {
			f.Description += " Or in the file " + f.Variable + "_FILE."
		}
		settings = append(settings, f.Setting)
	}
	return settings
}

func (c *Config) fields() []field {
	v := reflect.ValueOf(c).Elem()
	var fields []field
	for i := range v.NumField() {
		tag := v.Type().Field(i).Tag
		shown := fmt.Sprint(v.Field(i).Interface())
		if list, ok := v.Field(i).Interface().([]string); ok {
			shown = strings.Join(list, ",")
		}
		fields = append(fields, field{
			Setting: Setting{Variable: tag.Get("envconfig"), Default: tag.Get("default"), Value: shown, Description: tag.Get("desc")},
			Secret:  tag.Get("secret"),
			value:   v.Field(i),
		})
	}
	return fields
}
