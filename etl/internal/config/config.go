// Package config is the settings of fleet-etl: one variable each, with a default, a sentence and a check.
package config

import (
	"crypto/tls"
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
	"github.com/fleettracing/fleet-tracing/etl/internal/api/ingest"
	"github.com/fleettracing/fleet-tracing/etl/internal/load"
	"github.com/fleettracing/fleet-tracing/etl/internal/source/kafka"
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

	Sources []string `envconfig:"ETL_SOURCES" default:"generator" desc:"Sources of run, separated by commas: generator, httpapi, kafka."`
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

	HTTPAddress        string  `envconfig:"ETL_HTTP_ADDRESS" default:":8080" desc:"Address of the IoT API (source httpapi)."`
	HTTPTokens         string  `envconfig:"ETL_HTTP_TOKENS_FILE" desc:"File of the API's tokens; fleet-etl token makes its lines. SIGHUP reads it again."`
	HTTPOpenFleet      string  `envconfig:"ETL_HTTP_OPEN_FLEET" desc:"Without a file of tokens: let everybody read and write every fleet, records that name none going to this one. For trials."`
	HTTPTLSCert        string  `envconfig:"ETL_HTTP_TLS_CERT_FILE" desc:"PEM file of the API's certificate; empty is plain HTTP."`
	HTTPTLSKey         string  `envconfig:"ETL_HTTP_TLS_KEY_FILE" desc:"PEM file of its key."`
	HTTPMaxBody        int64   `envconfig:"ETL_HTTP_MAX_BODY_BYTES" default:"8388608" desc:"Size of a request's body, packed and unpacked, at the most."`
	HTTPMaxRecords     int     `envconfig:"ETL_HTTP_MAX_RECORDS" default:"10000" desc:"Records of one request at the most."`
	HTTPTokenRate      float64 `envconfig:"ETL_HTTP_TOKEN_RATE" default:"20000" desc:"Records a second that one token may send; 0 is no limit. What exceeds it is answered 429."`
	HTTPDeviceRate     float64 `envconfig:"ETL_HTTP_DEVICE_RATE" default:"50" desc:"Records a second of one device, after a burst of 10,000; 0 is no limit."`
	HTTPMaxConnections int     `envconfig:"ETL_HTTP_MAX_CONNECTIONS" default:"5000" desc:"Connections of the API; beyond it the one that has been quiet for longest is closed."`

	SpoolDir      string `envconfig:"ETL_SPOOL_DIR" desc:"Directory of what the API accepted and is not stored yet; empty is spool in ETL_STATE_DIR."`
	SpoolMaxBytes int64  `envconfig:"ETL_SPOOL_MAX_BYTES" default:"1073741824" desc:"Size of it; when it is full, the API answers 503. See fleet_etl_spool_bytes."`

	RedisURL       string `envconfig:"ETL_REDIS_URL" desc:"Cache of the API's reads that several processes share, as redis://USER:PASSWORD@HOST:PORT/DATABASE; empty is one in memory." secret:"hidden"`
	ReadCacheBytes int64  `envconfig:"ETL_READ_CACHE_BYTES" default:"33554432" desc:"Memory of the cache of the API's reads where there is no Redis; 0 is none."`

	Derive           bool          `envconfig:"ETL_DERIVE" default:"true" desc:"Keep up alerts, trips and hourly figures. Without it fleet-etl verify --fix makes them later."`
	DeriveFlush      time.Duration `envconfig:"ETL_DERIVE_FLUSH" default:"5s" desc:"Time between two writes of figures and trips that changed; alerts are written at once."`
	DeriveSettle     time.Duration `envconfig:"ETL_DERIVE_SETTLE" default:"10s" desc:"How far apart the clocks of processes on one keyspace may be."`
	GeofencesFiles   []string      `envconfig:"ETL_GEOFENCES_FILES" desc:"GeoJSON files or patterns of zones, separated by commas. SIGHUP reads them again."`
	AlertRulesFile   string        `envconfig:"ETL_ALERT_RULES_FILE" desc:"YAML file of the rules of alerts; empty is the built-in ones. SIGHUP reads it again."`
	AlertNewsAge     time.Duration `envconfig:"ETL_ALERT_NEWS_AGE" default:"15m" desc:"Alerts that are older when they are found are stored, and nobody is told."`
	AlertmanagerURLs string        `envconfig:"ETL_ALERTMANAGER_URLS" desc:"Alertmanagers that are told of vehicles' alerts, separated by commas, as http://USER:PASSWORD@HOST:PORT/PREFIX; empty is none." secret:"hidden"`
	GrafanaURL       string        `envconfig:"ETL_GRAFANA_URL" default:"http://localhost:3000" desc:"Where people open Grafana: links of alerts begin with it."`
	RunbookURL       string        `envconfig:"ETL_RUNBOOK_URL" default:"https://github.com/fleettracing/fleet-tracing/blob/main/docs/runbooks" desc:"Where the pages are that say what to do about a vehicle's alert, ALERTNAME.md; empty is nowhere."`
	CanaryInterval   time.Duration `envconfig:"ETL_CANARY_INTERVAL" default:"10s" desc:"Time between two records of a vehicle of our own that run sends through everything and reads back; 0 is none."`

	KafkaBrokers         []string      `envconfig:"KAFKA_BROKERS" default:"localhost:9092" desc:"Some brokers, host:port, separated by commas; they name the others (source kafka)."`
	KafkaTopics          []string      `envconfig:"KAFKA_TOPICS" default:"telemetry" desc:"Topics to consume, separated by commas; they have to be there. generate --to kafka sends to the first."`
	KafkaGroup           string        `envconfig:"KAFKA_GROUP" default:"fleet-etl" desc:"Consumer group; all processes of one name share the partitions."`
	KafkaStart           string        `envconfig:"KAFKA_START" default:"earliest" desc:"Where a group without offsets begins: earliest or latest."`
	KafkaDeadLetterTopic string        `envconfig:"KAFKA_DEAD_LETTER_TOPIC" default:"telemetry-dead-letters" desc:"Topic of refused records that came from Kafka; it has to be there. Never one of KAFKA_TOPICS."`
	KafkaAlertTopic      string        `envconfig:"KAFKA_ALERT_TOPIC" desc:"Topic that gets each step of a vehicle's alert; empty is none."`
	KafkaTLS             bool          `envconfig:"KAFKA_TLS" default:"false" desc:"Encrypt connections to brokers."`
	KafkaTLSCA           string        `envconfig:"KAFKA_TLS_CA_FILE" desc:"PEM file of the authority that signed the brokers' certificates; empty is the system's."`
	KafkaTLSCert         string        `envconfig:"KAFKA_TLS_CERT_FILE" desc:"PEM file of our own certificate, where brokers ask for one."`
	KafkaTLSKey          string        `envconfig:"KAFKA_TLS_KEY_FILE" desc:"PEM file of its key."`
	KafkaTLSServerName   string        `envconfig:"KAFKA_TLS_SERVER_NAME" desc:"Name that the brokers' certificates carry, where it is not their address."`
	KafkaMechanism       string        `envconfig:"KAFKA_SASL_MECHANISM" desc:"How to log in: PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512; empty is not at all."`
	KafkaUsername        string        `envconfig:"KAFKA_USERNAME" desc:"User of the login." secret:"name"`
	KafkaPassword        string        `envconfig:"KAFKA_PASSWORD" desc:"Password of the login." secret:"hidden"`
	KafkaBatchRecords    int           `envconfig:"KAFKA_BATCH_RECORDS" default:"1000" desc:"Records of one batch at the most."`
	KafkaFetchMaxBytes   int           `envconfig:"KAFKA_FETCH_MAX_BYTES" default:"8388608" desc:"Bytes, compressed, that each broker may send ahead."`
	KafkaCommitInterval  time.Duration `envconfig:"KAFKA_COMMIT_INTERVAL" default:"1s" desc:"Time between two commits."`
	KafkaRevokeWait      time.Duration `envconfig:"KAFKA_REVOKE_WAIT" default:"20s" desc:"How long a partition that moves to another process may take to become durable."`
	KafkaSessionTimeout  time.Duration `envconfig:"KAFKA_SESSION_TIMEOUT" default:"45s" desc:"After how long without a sign of life the group gives a process up."`

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
	for _, list := range [][]string{c.CassandraHosts, c.Sources, c.Files, c.Fleets, c.KafkaBrokers, c.KafkaTopics, c.GeofencesFiles} {
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
	if c.SpoolDir == "" {
		c.SpoolDir = filepath.Join(c.StateDir, "spool")
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
		oneOf("ETL_SOURCES", source, "generator", "httpapi", "kafka")
		if source == "httpapi" && c.HTTPTokens == "" && c.HTTPOpenFleet == "" {
			refuse("ETL_HTTP_TOKENS_FILE", "", "name a file of tokens (fleet-etl token makes them), or set ETL_HTTP_OPEN_FLEET to let everybody in")
		}
	}
	if c.HTTPTokens != "" && c.HTTPOpenFleet != "" {
		refuse("ETL_HTTP_OPEN_FLEET", c.HTTPOpenFleet, "it would undo ETL_HTTP_TOKENS_FILE; keep one of them")
	}
	if c.HTTPOpenFleet != "" && !telemetry.ValidName(c.HTTPOpenFleet) {
		refuse("ETL_HTTP_OPEN_FLEET", c.HTTPOpenFleet, "use 1 to 128 characters of A-Za-z0-9._:-")
	}
	if (c.HTTPTLSCert == "") != (c.HTTPTLSKey == "") {
		refuse("ETL_HTTP_TLS_CERT_FILE", c.HTTPTLSCert, "set it and ETL_HTTP_TLS_KEY_FILE both, or none")
	}
	if c.HTTPMaxBody < 1024 || c.HTTPMaxBody > 64<<20 {
		refuse("ETL_HTTP_MAX_BODY_BYTES", c.HTTPMaxBody, "give 1024 to 67108864")
	}
	atLeast("ETL_HTTP_MAX_RECORDS", c.HTTPMaxRecords, 1)
	atLeast("ETL_HTTP_MAX_CONNECTIONS", c.HTTPMaxConnections, 1)
	if !(c.HTTPTokenRate >= 0) || !(c.HTTPDeviceRate >= 0) {
		refuse("ETL_HTTP_TOKEN_RATE and ETL_HTTP_DEVICE_RATE", fmt.Sprintf("%g, %g", c.HTTPTokenRate, c.HTTPDeviceRate), "give 0 or more")
	}
	if c.SpoolMaxBytes < 64<<20 {
		refuse("ETL_SPOOL_MAX_BYTES", c.SpoolMaxBytes, "give at least 67108864")
	}
	if c.ReadCacheBytes < 0 {
		refuse("ETL_READ_CACHE_BYTES", c.ReadCacheBytes, "give 0 or more")
	}
	oneOf("KAFKA_START", c.KafkaStart, "earliest", "latest")
	if c.KafkaMechanism != "" {
		oneOf("KAFKA_SASL_MECHANISM", c.KafkaMechanism, kafka.Mechanisms...)
	}
	if len(c.KafkaTopics) == 0 || slices.Contains(c.KafkaTopics, "") {
		refuse("KAFKA_TOPICS", strings.Join(c.KafkaTopics, ","), "name at least one")
	}
	if c.KafkaDeadLetterTopic == "" || slices.Contains(c.KafkaTopics, c.KafkaDeadLetterTopic) {
		refuse("KAFKA_DEAD_LETTER_TOPIC", c.KafkaDeadLetterTopic, "name a topic that is none of KAFKA_TOPICS: refused records would come back for ever")
	}
	atLeast("KAFKA_BATCH_RECORDS", c.KafkaBatchRecords, 1)
	longer("KAFKA_COMMIT_INTERVAL", c.KafkaCommitInterval, 10*time.Millisecond)
	longer("KAFKA_REVOKE_WAIT", c.KafkaRevokeWait, time.Millisecond)
	longer("KAFKA_SESSION_TIMEOUT", c.KafkaSessionTimeout, 6*time.Second)
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
	for variable, path := range map[string]string{"KAFKA_TLS_CA_FILE": c.KafkaTLSCA, "KAFKA_TLS_CERT_FILE": c.KafkaTLSCert} {
		if path != "" && !c.KafkaTLS {
			refuse(variable, path, "it encrypts nothing by itself; set KAFKA_TLS=true with it")
		}
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
	longer("ETL_DERIVE_FLUSH", c.DeriveFlush, 100*time.Millisecond)
	longer("ETL_DERIVE_SETTLE", c.DeriveSettle, 0)
	longer("ETL_ALERT_NEWS_AGE", c.AlertNewsAge, 0)
	longer("ETL_CANARY_INTERVAL", c.CanaryInterval, 0)
	if c.KafkaAlertTopic != "" && (slices.Contains(c.KafkaTopics, c.KafkaAlertTopic) || c.KafkaAlertTopic == c.KafkaDeadLetterTopic) {
		refuse("KAFKA_ALERT_TOPIC", c.KafkaAlertTopic, "name a topic of its own")
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
	var err error
	s.TLS, err = clientTLS("CASSANDRA_TLS", c.CassandraTLSCA, c.CassandraTLSCert, c.CassandraTLSKey, c.CassandraTLSServerName, c.CassandraTLSSkipVerify)
	return s, err
}

// clientTLS reads the PEM files of the settings that begin with a prefix.
func clientTLS(prefix, ca, cert, key, serverName string, skipVerify bool) (*tls.Config, error) {
	var pem [3][]byte
	for i, f := range [...]struct{ variable, path string }{{prefix + "_CA_FILE", ca}, {prefix + "_CERT_FILE", cert}, {prefix + "_KEY_FILE", key}} {
		if f.path == "" {
			continue
		}
		text, err := os.ReadFile(f.path)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", f.variable, err)
		}
		if len(text) == 0 {
			return nil, fmt.Errorf("%s %q: the file is empty; give a PEM file, or leave the variable out", f.variable, f.path)
		}
		pem[i] = text
	}
	made, err := cassandra.NewTLS(pem[0], pem[1], pem[2], serverName, skipVerify)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", prefix, err)
	}
	return made, nil
}

// Kafka gives how brokers are reached.
func (c *Config) Kafka() (kafka.Connection, error) {
	k := kafka.Connection{Brokers: c.KafkaBrokers, Mechanism: c.KafkaMechanism, Username: c.KafkaUsername, Password: c.KafkaPassword}
	if !c.KafkaTLS {
		return k, nil
	}
	var err error
	k.TLS, err = clientTLS("KAFKA_TLS", c.KafkaTLSCA, c.KafkaTLSCert, c.KafkaTLSKey, c.KafkaTLSServerName, false)
	return k, err
}

// HTTPCertificate gives the IoT API's certificate; nil is plain HTTP.
func (c *Config) HTTPCertificate() (*tls.Config, error) {
	if c.HTTPTLSCert == "" {
		return nil, nil
	}
	pair, err := tls.LoadX509KeyPair(c.HTTPTLSCert, c.HTTPTLSKey)
	if err != nil {
		return nil, fmt.Errorf("ETL_HTTP_TLS_CERT_FILE and ETL_HTTP_TLS_KEY_FILE: %w", err)
	}
	return &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{pair}}, nil
}

// HTTPLimits gives the bounds of the IoT API.
func (c *Config) HTTPLimits() ingest.Limits {
	l := ingest.DefaultLimits()
	l.MaxBody, l.MaxBodies, l.MaxRecords, l.MaxConnections = c.HTTPMaxBody, max(8*c.HTTPMaxBody, l.MaxBodies), c.HTTPMaxRecords, c.HTTPMaxConnections
	l.TokenRate, l.DeviceRate = c.HTTPTokenRate, c.HTTPDeviceRate
	l.TokenBurst = max(2*int(c.HTTPTokenRate), c.HTTPMaxRecords)
	l.DeviceBurst = max(l.DeviceBurst, c.HTTPMaxRecords)
	return l
}

// Loader gives the settings of the loader that gathers for so long.
func (c *Config) Loader(linger time.Duration) load.Options {
	return load.Options{
		Mode: load.Mode(c.WriteMode), WindowRecords: c.WindowRecords, Linger: linger, BatchRows: c.BatchRows,
		MaxInFlight: c.MaxInFlight, RetryRate: c.RetryRate, DevicesKept: c.DevicesInMemory,
	}
}

// Alertmanagers are the addresses of ETL_ALERTMANAGER_URLS.
func (c *Config) Alertmanagers() []string {
	return strings.FieldsFunc(c.AlertmanagerURLs, func(r rune) bool { return r == ',' || r == ' ' })
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
