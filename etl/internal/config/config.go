// Package config reads and checks the settings of fleet-etl from the environment. It knows no other part of the program:
// package app turns settings into the options of each part.
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

	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

// Config holds every setting. The tags of a field give its variable, default and description, as `fleet-etl config` prints
// them. A field tagged secret is hidden there and can also come from the file that the variable with _FILE names.
type Config struct {
	CassandraHosts            []string      `envconfig:"CASSANDRA_HOSTS" default:"127.0.0.1" desc:"Contact points, host or host:port, separated by commas."`
	CassandraPort             int           `envconfig:"CASSANDRA_PORT" default:"9042" desc:"CQL port of contact points without a port."`
	CassandraKeyspace         string        `envconfig:"CASSANDRA_KEYSPACE" default:"fleet_iot" desc:"Keyspace that holds all tables."`
	CassandraDC               string        `envconfig:"CASSANDRA_DC" default:"dc1" desc:"Local data center. Requests go to its nodes while at least one of them is up."`
	CassandraReplication      string        `envconfig:"CASSANDRA_REPLICATION" default:"dc1=2,dc2=2" desc:"Replicas per data center of the keyspace that schema apply creates."`
	CassandraWriteConsistency string        `envconfig:"CASSANDRA_WRITE_CONSISTENCY" desc:"Write consistency level (default TWO, or ONE with a single replica)."`
	CassandraReadConsistency  string        `envconfig:"CASSANDRA_READ_CONSISTENCY" default:"LOCAL_ONE" desc:"Read consistency level of queries."`
	CassandraUsername         string        `envconfig:"CASSANDRA_USERNAME" desc:"User name; empty disables authentication." secret:"name"`
	CassandraPassword         string        `envconfig:"CASSANDRA_PASSWORD" desc:"Password of CASSANDRA_USERNAME." secret:"hidden"`
	CassandraTLS              bool          `envconfig:"CASSANDRA_TLS" default:"false" desc:"Encrypt connections."`
	CassandraTLSCA            string        `envconfig:"CASSANDRA_TLS_CA_FILE" desc:"PEM file of the certificate authority that signed the nodes' certificates; empty uses the system's."`
	CassandraTLSCert          string        `envconfig:"CASSANDRA_TLS_CERT_FILE" desc:"PEM file of the client certificate, if nodes require one."`
	CassandraTLSKey           string        `envconfig:"CASSANDRA_TLS_KEY_FILE" desc:"PEM file of the client certificate's key."`
	CassandraTLSServerName    string        `envconfig:"CASSANDRA_TLS_SERVER_NAME" desc:"Name in the nodes' certificates, if it differs from their address."`
	CassandraTLSSkipVerify    bool          `envconfig:"CASSANDRA_TLS_SKIP_VERIFY" default:"false" desc:"Skip server certificate verification (testing only)."`
	CassandraTimeout          time.Duration `envconfig:"CASSANDRA_TIMEOUT" default:"5s" desc:"Timeout of one request. Keep it above the nodes' own timeouts."`
	CassandraConnections      int           `envconfig:"CASSANDRA_CONNECTIONS" default:"2" desc:"Connections per node."`
	CassandraConnectWait      time.Duration `envconfig:"CASSANDRA_CONNECT_WAIT" default:"30s" desc:"How long a command waits for the cluster at start; run waits without a limit."`

	Mode     string `envconfig:"ETL_MODE" default:"streaming" desc:"What fleet-etl does without a command: streaming (run) or batch (load ETL_FILES)."`
	LogLevel string `envconfig:"LOG_LEVEL" default:"info" desc:"Lowest level that is logged: debug, info, warn or error."`

	Sources []string `envconfig:"ETL_SOURCES" default:"generator" desc:"Sources of run, separated by commas: generator, api, kafka."`
	Files   []string `envconfig:"ETL_FILES" desc:"Files or patterns that ETL_MODE=batch loads, separated by commas."`
	Fleets  []string `envconfig:"ETL_FLEETS" desc:"Fleets that may send, separated by commas; empty allows all."`

	StateDir           string `envconfig:"ETL_STATE_DIR" default:"var/fleet-etl" desc:"Directory of checkpoints and temporary files."`
	DeadLetterDir      string `envconfig:"ETL_DEAD_LETTER_DIR" desc:"Directory of the dead-letter queue; empty is deadletters in ETL_STATE_DIR."`
	DeadLetterMaxBytes int64  `envconfig:"ETL_DEAD_LETTER_MAX_BYTES" default:"67108864" desc:"Size in bytes at which the dead-letter file is rotated."`

	WriteMode       string        `envconfig:"ETL_WRITE_MODE" default:"batch" desc:"How rows are written: batch (rows of a partition together) or async (one statement per row)."`
	BufferRecords   int           `envconfig:"ETL_BUFFER_RECORDS" default:"131072" desc:"Maximum records buffered per flush; more make larger batches and use more memory."`
	Linger          time.Duration `envconfig:"ETL_LINGER" default:"200ms" desc:"How long run buffers records before it writes them."`
	LoadLinger      time.Duration `envconfig:"ETL_LOAD_LINGER" default:"5s" desc:"How long load buffers records before it writes them."`
	BatchRows       int           `envconfig:"ETL_BATCH_ROWS" default:"100" desc:"Maximum rows per batch statement; a batch also ends at 16 KiB."`
	MaxInFlight     int           `envconfig:"ETL_MAX_IN_FLIGHT" default:"128" desc:"Maximum number of writes in flight; the adaptive limit stays below it."`
	RetryRate       float64       `envconfig:"ETL_RETRY_RATE" default:"100" desc:"Maximum retries per second over all writes."`
	DevicesInMemory int           `envconfig:"ETL_DEVICES_IN_MEMORY" default:"200000" desc:"Devices whose latest position is kept in memory; others are re-read when they send."`
	DedupeRecords   int           `envconfig:"ETL_DEDUPE_RECORDS" default:"262144" desc:"Records that deduplication remembers."`
	QueueBatches    int           `envconfig:"ETL_QUEUE_BATCHES" default:"8" desc:"Maximum number of batches queued between two stages."`
	DrainTimeout    time.Duration `envconfig:"ETL_DRAIN_TIMEOUT" default:"30s" desc:"How long run may take to store buffered records when it stops."`

	MetricsAddress string `envconfig:"ETL_METRICS_ADDRESS" default:":9464" desc:"Address of /metrics, /-/healthy, /-/ready and /-/reload; empty disables them."`
	ReloadEnabled  bool   `envconfig:"ETL_RELOAD_ENABLED" default:"false" desc:"Serve POST /-/reload at ETL_METRICS_ADDRESS. SIGHUP and changed files reload without it."`
	Pprof          bool   `envconfig:"ETL_PPROF" default:"false" desc:"Serve /debug/pprof at ETL_METRICS_ADDRESS."`

	ReloadInterval time.Duration `envconfig:"ETL_RELOAD_INTERVAL" default:"5s" desc:"Interval between two checks for changed rules, geofences, tokens and TLS files; 0 disables them."`

	APIAddress        string  `envconfig:"ETL_API_ADDRESS" default:":8080" desc:"Address of the HTTP API (source api)."`
	APITokens         string  `envconfig:"ETL_API_TOKENS_FILE" desc:"File of API tokens; fleet-etl token prints its lines. Reloaded when it changes."`
	APIOpenFleet      string  `envconfig:"ETL_API_OPEN_FLEET" desc:"Without a tokens file: allow everyone to read and write every fleet; records without a fleet go to this one. For testing only."`
	APITLSCert        string  `envconfig:"ETL_API_TLS_CERT_FILE" desc:"PEM file of the API's certificate; empty serves plain HTTP. Reloaded when it changes."`
	APITLSKey         string  `envconfig:"ETL_API_TLS_KEY_FILE" desc:"PEM file of the API certificate's key. Reloaded when it changes."`
	APIMaxBody        int64   `envconfig:"ETL_API_MAX_BODY_BYTES" default:"8388608" desc:"Maximum size of a request body, compressed and decompressed."`
	APIMaxRecords     int     `envconfig:"ETL_API_MAX_RECORDS" default:"10000" desc:"Maximum records per request."`
	APITokenRate      float64 `envconfig:"ETL_API_TOKEN_RATE" default:"20000" desc:"Maximum records per second per token; 0 is unlimited. Requests above it get status 429."`
	APIDeviceRate     float64 `envconfig:"ETL_API_DEVICE_RATE" default:"50" desc:"Maximum records per second per device, after a burst of 10,000; 0 is unlimited."`
	APIMaxConnections int     `envconfig:"ETL_API_MAX_CONNECTIONS" default:"5000" desc:"Maximum connections of the API; above it, the connection idle for longest is closed."`

	SpoolDir      string `envconfig:"ETL_SPOOL_DIR" desc:"Directory of records that the API accepted and that are not stored yet; empty is spool in ETL_STATE_DIR."`
	SpoolMaxBytes int64  `envconfig:"ETL_SPOOL_MAX_BYTES" default:"1073741824" desc:"Maximum size of the spool; while it is full, the API answers 503. See fleet_etl_spool_bytes."`

	APIRedisURL   string `envconfig:"ETL_API_REDIS_URL" desc:"Redis cache of API queries, shared by several processes, as redis://USER:PASSWORD@HOST:PORT/DATABASE; empty uses memory." secret:"hidden"`
	APICacheBytes int64  `envconfig:"ETL_API_CACHE_BYTES" default:"33554432" desc:"Size of the in-memory cache of API queries if there is no Redis; 0 disables it."`

	ProcessorEnabled       bool          `envconfig:"ETL_PROCESSOR_ENABLED" default:"true" desc:"Compute alerts, trips and hourly statistics. If false, fleet-etl verify --fix computes them later."`
	ProcessorFlushInterval time.Duration `envconfig:"ETL_PROCESSOR_FLUSH_INTERVAL" default:"5s" desc:"Interval between two writes of changed statistics and trips; alerts are written at once."`
	ProcessorMaxClockSkew  time.Duration `envconfig:"ETL_PROCESSOR_MAX_CLOCK_SKEW" default:"10s" desc:"Largest expected clock difference between processes on one keyspace."`
	GeofencesFiles         []string      `envconfig:"ETL_GEOFENCES_FILES" desc:"GeoJSON files or patterns of geofences, separated by commas. Reloaded when they change."`
	AlertRulesFile         string        `envconfig:"ETL_ALERT_RULES_FILE" desc:"YAML file of alert rules; empty uses the built-in rules. Reloaded when it changes."`
	AlertNotifyMaxAge      time.Duration `envconfig:"ETL_ALERT_NOTIFY_MAX_AGE" default:"15m" desc:"Alerts detected later than this after they opened are stored but not sent."`
	AlertmanagerURLs       string        `envconfig:"ETL_ALERTMANAGER_URLS" desc:"Alertmanagers that receive vehicle alerts, separated by commas, as http://USER:PASSWORD@HOST:PORT/PREFIX; empty sends none." secret:"hidden"`
	GrafanaURL             string        `envconfig:"ETL_GRAFANA_URL" default:"http://localhost:3000" desc:"Public URL of Grafana; links in alerts start with it."`
	RunbookURL             string        `envconfig:"ETL_RUNBOOK_URL" default:"https://github.com/fleettracing/fleet-tracing/blob/main/docs/runbooks" desc:"URL of the runbooks of vehicle alerts; links are URL/ALERTNAME.md. Empty omits them."`
	CanaryInterval         time.Duration `envconfig:"ETL_CANARY_INTERVAL" default:"10s" desc:"Interval between synthetic canary records that run writes and reads back; 0 disables them."`

	KafkaBrokers         []string      `envconfig:"KAFKA_BROKERS" default:"localhost:9092" desc:"Bootstrap brokers, host:port, separated by commas (source kafka)."`
	KafkaTopics          []string      `envconfig:"KAFKA_TOPICS" default:"telemetry" desc:"Topics to consume, separated by commas; they must exist. generate --to kafka produces to the first."`
	KafkaGroup           string        `envconfig:"KAFKA_GROUP" default:"fleet-etl" desc:"Consumer group; all processes of a group share the partitions."`
	KafkaStart           string        `envconfig:"KAFKA_START" default:"earliest" desc:"Where a group without committed offsets starts: earliest or latest."`
	KafkaDeadLetterTopic string        `envconfig:"KAFKA_DEAD_LETTER_TOPIC" default:"telemetry-dead-letters" desc:"Topic of rejected records from Kafka; it must exist and differ from KAFKA_TOPICS."`
	KafkaAlertTopic      string        `envconfig:"KAFKA_ALERT_TOPIC" desc:"Topic that receives every alert event; empty sends none."`
	KafkaTLS             bool          `envconfig:"KAFKA_TLS" default:"false" desc:"Encrypt connections to brokers."`
	KafkaTLSCA           string        `envconfig:"KAFKA_TLS_CA_FILE" desc:"PEM file of the certificate authority that signed the brokers' certificates; empty uses the system's."`
	KafkaTLSCert         string        `envconfig:"KAFKA_TLS_CERT_FILE" desc:"PEM file of the client certificate, if brokers require one."`
	KafkaTLSKey          string        `envconfig:"KAFKA_TLS_KEY_FILE" desc:"PEM file of the client certificate's key."`
	KafkaTLSServerName   string        `envconfig:"KAFKA_TLS_SERVER_NAME" desc:"Name in the brokers' certificates, if it differs from their address."`
	KafkaMechanism       string        `envconfig:"KAFKA_SASL_MECHANISM" desc:"SASL mechanism: PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512; empty disables authentication."`
	KafkaUsername        string        `envconfig:"KAFKA_USERNAME" desc:"SASL user name." secret:"name"`
	KafkaPassword        string        `envconfig:"KAFKA_PASSWORD" desc:"SASL password." secret:"hidden"`
	KafkaBatchRecords    int           `envconfig:"KAFKA_BATCH_RECORDS" default:"1000" desc:"Maximum records per batch."`
	KafkaFetchMaxBytes   int           `envconfig:"KAFKA_FETCH_MAX_BYTES" default:"8388608" desc:"Maximum compressed bytes fetched ahead per broker."`
	KafkaCommitInterval  time.Duration `envconfig:"KAFKA_COMMIT_INTERVAL" default:"1s" desc:"Interval between two offset commits."`
	KafkaRevokeWait      time.Duration `envconfig:"KAFKA_REVOKE_WAIT" default:"20s" desc:"How long a revoked partition waits for its records to become durable."`
	KafkaSessionTimeout  time.Duration `envconfig:"KAFKA_SESSION_TIMEOUT" default:"45s" desc:"Session timeout of the consumer group."`

	GeneratorVehicles  int           `envconfig:"ETL_GENERATOR_VEHICLES" default:"50" desc:"Vehicles that the generator simulates."`
	GeneratorFleets    int           `envconfig:"ETL_GENERATOR_FLEETS" default:"1" desc:"Fleets that they are spread over, starting with fleet-001."`
	GeneratorInterval  time.Duration `envconfig:"ETL_GENERATOR_INTERVAL" default:"5s" desc:"Interval between two records of a vehicle."`
	GeneratorSeed      uint64        `envconfig:"ETL_GENERATOR_SEED" default:"1" desc:"Seed of the generator; the same seed gives the same routes."`
	GeneratorLate      float64       `envconfig:"ETL_GENERATOR_LATE" default:"0" desc:"Share of records that arrive late, 0 to 1."`
	GeneratorDuplicate float64       `envconfig:"ETL_GENERATOR_DUPLICATE" default:"0" desc:"Share of records sent twice, 0 to 1."`
	GeneratorBroken    float64       `envconfig:"ETL_GENERATOR_BROKEN" default:"0" desc:"Share of invalid records added, 0 to 1."`
}

// FromEnvironment reads and checks the settings. checks need other packages. The error names each wrong
// variable, its value and the accepted values.
func FromEnvironment(checks ...func(*Config) error) (*Config, error) {
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
	wrong := []error{c.readSecrets(), c.check()}
	for _, check := range checks {
		wrong = append(wrong, check(&c))
	}
	if err := errors.Join(wrong...); err != nil {
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
		return "boolean, true or false"
	case "float64":
		return "number"
	default:
		return "whole number"
	}
}

// readSecrets reads secrets from the files that variables with _FILE name.
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
			wrong = append(wrong, fmt.Errorf("%s and %s: both are set; set only one", f.Variable, variable))
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

// check rejects values that no part of the program can use.
func (c *Config) check() error {
	var wrong []error
	reject := func(variable string, value any, remedy string) {
		wrong = append(wrong, fmt.Errorf("%s %q: %s", variable, fmt.Sprint(value), remedy))
	}
	oneOf := func(variable, value string, allowed ...string) {
		if !slices.Contains(allowed, value) {
			reject(variable, value, "use "+strings.Join(allowed, " or "))
		}
	}
	atLeast := func(variable string, value, least int) {
		if value < least {
			reject(variable, value, fmt.Sprintf("use at least %d", least))
		}
	}
	atLeastFor := func(variable string, value, least time.Duration) {
		if value < least {
			reject(variable, value, fmt.Sprintf("use at least %s", least))
		}
	}
	share := func(variable string, value float64) {
		if !(value >= 0 && value <= 1) {
			reject(variable, value, "use a share from 0 to 1")
		}
	}
	oneOf("ETL_MODE", c.Mode, "streaming", "batch")
	oneOf("LOG_LEVEL", c.LogLevel, "debug", "info", "warn", "error")
	oneOf("ETL_WRITE_MODE", c.WriteMode, "batch", "async")
	for _, source := range c.Sources {
		oneOf("ETL_SOURCES", source, "generator", "api", "kafka")
		if source == "api" && c.APITokens == "" && c.APIOpenFleet == "" {
			reject("ETL_API_TOKENS_FILE", "", "set it to a tokens file (fleet-etl token creates one), or set ETL_API_OPEN_FLEET to allow everyone")
		}
	}
	if c.APITokens != "" && c.APIOpenFleet != "" {
		reject("ETL_API_OPEN_FLEET", c.APIOpenFleet, "conflicts with ETL_API_TOKENS_FILE; set only one")
	}
	if c.APIOpenFleet != "" && !telemetry.ValidName(c.APIOpenFleet) {
		reject("ETL_API_OPEN_FLEET", c.APIOpenFleet, "use 1 to 128 characters of A-Za-z0-9._:-")
	}
	if (c.APITLSCert == "") != (c.APITLSKey == "") {
		reject("ETL_API_TLS_CERT_FILE", c.APITLSCert, "set both it and ETL_API_TLS_KEY_FILE, or neither")
	}
	if c.APIMaxBody < 1024 || c.APIMaxBody > 64<<20 {
		reject("ETL_API_MAX_BODY_BYTES", c.APIMaxBody, "use 1024 to 67108864")
	}
	atLeast("ETL_API_MAX_RECORDS", c.APIMaxRecords, 1)
	atLeast("ETL_API_MAX_CONNECTIONS", c.APIMaxConnections, 1)
	if !(c.APITokenRate >= 0) || !(c.APIDeviceRate >= 0) {
		reject("ETL_API_TOKEN_RATE and ETL_API_DEVICE_RATE", fmt.Sprintf("%g, %g", c.APITokenRate, c.APIDeviceRate), "use 0 or more")
	}
	if c.SpoolMaxBytes < 64<<20 {
		reject("ETL_SPOOL_MAX_BYTES", c.SpoolMaxBytes, "use at least 67108864")
	}
	if c.APICacheBytes < 0 {
		reject("ETL_API_CACHE_BYTES", c.APICacheBytes, "use 0 or more")
	}
	oneOf("KAFKA_START", c.KafkaStart, "earliest", "latest")
	if c.KafkaMechanism != "" {
		oneOf("KAFKA_SASL_MECHANISM", c.KafkaMechanism, "PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")
	}
	if len(c.KafkaTopics) == 0 || slices.Contains(c.KafkaTopics, "") {
		reject("KAFKA_TOPICS", strings.Join(c.KafkaTopics, ","), "set at least one topic")
	}
	if c.KafkaDeadLetterTopic == "" || slices.Contains(c.KafkaTopics, c.KafkaDeadLetterTopic) {
		reject("KAFKA_DEAD_LETTER_TOPIC", c.KafkaDeadLetterTopic, "set a topic that is not in KAFKA_TOPICS; rejected records would be consumed again and again")
	}
	atLeast("KAFKA_BATCH_RECORDS", c.KafkaBatchRecords, 1)
	atLeastFor("KAFKA_COMMIT_INTERVAL", c.KafkaCommitInterval, 10*time.Millisecond)
	atLeastFor("KAFKA_REVOKE_WAIT", c.KafkaRevokeWait, time.Millisecond)
	atLeastFor("KAFKA_SESSION_TIMEOUT", c.KafkaSessionTimeout, 6*time.Second)
	for _, fleet := range c.Fleets {
		if !telemetry.ValidName(fleet) {
			reject("ETL_FLEETS", fleet, "use 1 to 128 characters of A-Za-z0-9._:- for each fleet")
		}
	}
	if len(c.CassandraHosts) == 0 || slices.Contains(c.CassandraHosts, "") {
		reject("CASSANDRA_HOSTS", strings.Join(c.CassandraHosts, ","), "set contact points, separated by commas")
	}
	if c.CassandraKeyspace == "" {
		reject("CASSANDRA_KEYSPACE", "", "set a keyspace")
	}
	if len(c.Sources) == 0 {
		reject("ETL_SOURCES", "", "set at least one source, for example generator")
	}
	for variable, path := range map[string]string{"KAFKA_TLS_CA_FILE": c.KafkaTLSCA, "KAFKA_TLS_CERT_FILE": c.KafkaTLSCert} {
		if path != "" && !c.KafkaTLS {
			reject(variable, path, "has no effect without KAFKA_TLS=true; set both")
		}
	}
	for variable, path := range map[string]string{"CASSANDRA_TLS_CA_FILE": c.CassandraTLSCA, "CASSANDRA_TLS_CERT_FILE": c.CassandraTLSCert} {
		if path != "" && !c.CassandraTLS {
			reject(variable, path, "has no effect without CASSANDRA_TLS=true; set both")
		}
	}
	if c.StateDir == "" {
		reject("ETL_STATE_DIR", "", "set a directory")
	}
	if c.CassandraPort < 1 || c.CassandraPort > 65535 {
		reject("CASSANDRA_PORT", c.CassandraPort, "use a port from 1 to 65535")
	}
	if (c.CassandraTLSCert == "") != (c.CassandraTLSKey == "") {
		reject("CASSANDRA_TLS_CERT_FILE", c.CassandraTLSCert, "set both it and CASSANDRA_TLS_KEY_FILE, or neither")
	}
	atLeast("CASSANDRA_CONNECTIONS", c.CassandraConnections, 1)
	atLeastFor("CASSANDRA_TIMEOUT", c.CassandraTimeout, 100*time.Millisecond)
	atLeast("ETL_BUFFER_RECORDS", c.BufferRecords, 1)
	atLeast("ETL_BATCH_ROWS", c.BatchRows, 1)
	atLeast("ETL_MAX_IN_FLIGHT", c.MaxInFlight, 1)
	atLeast("ETL_DEVICES_IN_MEMORY", c.DevicesInMemory, 1)
	atLeast("ETL_DEDUPE_RECORDS", c.DedupeRecords, 1)
	atLeast("ETL_QUEUE_BATCHES", c.QueueBatches, 1)
	atLeast("ETL_DEAD_LETTER_MAX_BYTES", int(c.DeadLetterMaxBytes), 1024)
	if !(c.RetryRate > 0 && c.RetryRate <= 1e6) {
		reject("ETL_RETRY_RATE", c.RetryRate, "use more than 0 and at most 1000000")
	}
	atLeastFor("ETL_PROCESSOR_FLUSH_INTERVAL", c.ProcessorFlushInterval, 100*time.Millisecond)
	atLeastFor("ETL_PROCESSOR_MAX_CLOCK_SKEW", c.ProcessorMaxClockSkew, 0)
	atLeastFor("ETL_ALERT_NOTIFY_MAX_AGE", c.AlertNotifyMaxAge, 0)
	atLeastFor("ETL_RELOAD_INTERVAL", c.ReloadInterval, 0)
	atLeastFor("ETL_CANARY_INTERVAL", c.CanaryInterval, 0)
	if c.KafkaAlertTopic != "" && (slices.Contains(c.KafkaTopics, c.KafkaAlertTopic) || c.KafkaAlertTopic == c.KafkaDeadLetterTopic) {
		reject("KAFKA_ALERT_TOPIC", c.KafkaAlertTopic, "set a topic that nothing else uses")
	}
	atLeastFor("CASSANDRA_CONNECT_WAIT", c.CassandraConnectWait, 0)
	atLeastFor("ETL_LINGER", c.Linger, 0)
	atLeastFor("ETL_LOAD_LINGER", c.LoadLinger, 0)
	atLeastFor("ETL_DRAIN_TIMEOUT", c.DrainTimeout, time.Second)
	atLeast("ETL_GENERATOR_VEHICLES", c.GeneratorVehicles, 1)
	atLeast("ETL_GENERATOR_FLEETS", c.GeneratorFleets, 1)
	atLeastFor("ETL_GENERATOR_INTERVAL", c.GeneratorInterval, time.Millisecond)
	share("ETL_GENERATOR_LATE", c.GeneratorLate)
	share("ETL_GENERATOR_DUPLICATE", c.GeneratorDuplicate)
	share("ETL_GENERATOR_BROKEN", c.GeneratorBroken)
	return errors.Join(wrong...)
}

// Setting is one variable as `fleet-etl config` prints it.
type Setting struct {
	Variable, Default, Value, Description string
}

type field struct {
	Setting
	Secret string
	value  reflect.Value
}

// Settings returns every variable with its current value, in the order of Config. Secrets are hidden.
func (c *Config) Settings() []Setting {
	var settings []Setting
	for _, f := range c.fields() {
		if f.Secret == "hidden" && f.Value != "" {
			f.Value = "(hidden)"
		}
		if f.Secret != "" {
			f.Description += " Or set " + f.Variable + "_FILE to a file that holds it."
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
