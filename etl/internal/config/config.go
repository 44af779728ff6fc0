// Package config reads and checks the settings of fleet-etl from the environment. It knows no other part of the program:
// package app turns settings into the options of each part.
package config

import (
	"cmp"
	"errors"
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/kelseyhightower/envconfig"

	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

// Config holds every setting. The tags of a field give its variable, default and description, as `fleet-etl config` prints
// them, and what it accepts: oneof has the accepted values, min and max are bounds, and set names what must not be empty. A
// field tagged secret is hidden and can also come from the file that the variable with _FILE names.
type Config struct {
	CassandraHosts            []string      `envconfig:"CASSANDRA_HOSTS" default:"127.0.0.1" set:"contact points, separated by commas" desc:"Contact points, host or host:port, separated by commas."`
	CassandraPort             int           `envconfig:"CASSANDRA_PORT" default:"9042" min:"1" max:"65535" desc:"CQL port of contact points without a port."`
	CassandraKeyspace         string        `envconfig:"CASSANDRA_KEYSPACE" default:"fleet_iot" set:"a keyspace" desc:"Keyspace that holds all tables."`
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
	CassandraTimeout          time.Duration `envconfig:"CASSANDRA_TIMEOUT" default:"5s" min:"100ms" desc:"Timeout of one request. Keep it above the nodes' own timeouts."`
	CassandraConnections      int           `envconfig:"CASSANDRA_CONNECTIONS" default:"2" min:"1" desc:"Connections per node."`
	CassandraConnectWait      time.Duration `envconfig:"CASSANDRA_CONNECT_WAIT" default:"30s" min:"0s" desc:"How long a command waits for the cluster at start; run waits without a limit."`

	Mode     string `envconfig:"ETL_MODE" default:"streaming" oneof:"streaming,batch" desc:"What fleet-etl does without a command: streaming (run) or batch (load ETL_FILES)."`
	LogLevel string `envconfig:"LOG_LEVEL" default:"info" oneof:"debug,info,warn,error" desc:"Lowest level that is logged: debug, info, warn or error."`

	Sources []string `envconfig:"ETL_SOURCES" default:"generator" oneof:"generator,api,kafka" desc:"Sources of run, separated by commas: generator, api, kafka."`
	Files   []string `envconfig:"ETL_FILES" desc:"Files or patterns that ETL_MODE=batch loads, separated by commas."`
	Fleets  []string `envconfig:"ETL_FLEETS" desc:"Fleets that may send, separated by commas; empty allows all."`

	UnknownDevices string `envconfig:"ETL_UNKNOWN_DEVICES" default:"accept" oneof:"accept,hold,reject" desc:"Records of a device without an owner: accept (the first one's fleet becomes the owner), hold (as dead letters, until fleet-etl devices claim) or reject."`

	FleetMaxDevices int `envconfig:"ETL_FLEET_MAX_DEVICES" default:"20000" min:"0" desc:"Devices of a fleet beyond which its tokens register no new ones; 0 is unlimited. Trusted senders and fleet-etl devices claim still do."`

	StateDir           string        `envconfig:"ETL_STATE_DIR" default:"var/fleet-etl" set:"a directory" desc:"Directory of checkpoints and temporary files."`
	DeadLetterDir      string        `envconfig:"ETL_DEAD_LETTER_DIR" desc:"Directory of the dead-letter queue; empty is deadletters in ETL_STATE_DIR."`
	DeadLetterMaxBytes int64         `envconfig:"ETL_DEAD_LETTER_MAX_BYTES" default:"1073741824" min:"16777216" desc:"Maximum size of the dead-letter queue in bytes; beyond it, the oldest dead letters are removed."`
	DeadLetterMaxAge   time.Duration `envconfig:"ETL_DEAD_LETTER_MAX_AGE" default:"720h" min:"0s" desc:"How long dead letters are kept; 0 keeps them until the queue is full."`

	BufferRecords   int           `envconfig:"ETL_BUFFER_RECORDS" default:"131072" min:"1" desc:"Maximum records buffered per flush; more make larger batches and use more memory."`
	Linger          time.Duration `envconfig:"ETL_LINGER" default:"200ms" min:"0s" desc:"How long run buffers records before it writes them."`
	LoadLinger      time.Duration `envconfig:"ETL_LOAD_LINGER" default:"5s" min:"0s" desc:"How long load buffers records before it writes them."`
	BatchRows       int           `envconfig:"ETL_BATCH_ROWS" default:"100" min:"1" desc:"Maximum rows per batch statement; a batch also ends at 16 KiB."`
	MaxInFlight     int           `envconfig:"ETL_MAX_IN_FLIGHT" default:"128" min:"1" desc:"Maximum number of writes in flight; the adaptive limit stays below it."`
	RetryRate       float64       `envconfig:"ETL_RETRY_RATE" default:"100" min:"0.01" max:"1000000" desc:"Maximum retries per second over all writes."`
	DevicesInMemory int           `envconfig:"ETL_DEVICES_IN_MEMORY" default:"200000" min:"1" desc:"Devices whose latest position is kept in memory; others are re-read when they send."`
	DedupeRecords   int           `envconfig:"ETL_DEDUPE_RECORDS" default:"262144" min:"1" desc:"Records that deduplication remembers."`
	QueueBatches    int           `envconfig:"ETL_QUEUE_BATCHES" default:"8" min:"1" desc:"Maximum number of batches queued between two stages."`
	DrainTimeout    time.Duration `envconfig:"ETL_DRAIN_TIMEOUT" default:"30s" min:"1s" desc:"How long run may take to store buffered records when it stops."`

	MetricsAddress string `envconfig:"ETL_METRICS_ADDRESS" default:":9464" desc:"Address of /metrics, /-/healthy, /-/ready and /-/reload; empty disables them."`
	ReloadEnabled  bool   `envconfig:"ETL_RELOAD_ENABLED" default:"false" desc:"Serve POST /-/reload at ETL_METRICS_ADDRESS. SIGHUP and changed files reload without it."`
	Pprof          bool   `envconfig:"ETL_PPROF" default:"false" desc:"Serve /debug/pprof at ETL_METRICS_ADDRESS."`

	ReloadInterval time.Duration `envconfig:"ETL_RELOAD_INTERVAL" default:"5s" min:"0s" desc:"Interval between two checks for changed rules, geofences, tokens and TLS files; 0 disables them."`

	APIAddress        string        `envconfig:"ETL_API_ADDRESS" default:":8080" desc:"Address of the HTTP API (source api)."`
	APITokens         string        `envconfig:"ETL_API_TOKENS_FILE" desc:"File of API tokens; fleet-etl token prints its lines. Reloaded when it changes."`
	APITokensMode     string        `envconfig:"ETL_API_TOKENS_MODE" default:"keep" oneof:"keep,strict" desc:"When the tokens file becomes empty, invalid or unreadable: keep the tokens in use, or strict, which rejects all tokens until it is valid again. FleetConfigReloadFailed fires in both modes."`
	APIOpenFleet      string        `envconfig:"ETL_API_OPEN_FLEET" desc:"Without a tokens file: allow everyone to read and write every fleet; records without a fleet go to this one. For testing only."`
	APITLSCert        string        `envconfig:"ETL_API_TLS_CERT_FILE" desc:"PEM file of the API's certificate; empty serves plain HTTP. Reloaded when it changes."`
	APITLSKey         string        `envconfig:"ETL_API_TLS_KEY_FILE" desc:"PEM file of the API certificate's key. Reloaded when it changes."`
	APIMaxBody        int64         `envconfig:"ETL_API_MAX_BODY_BYTES" default:"8388608" min:"1024" max:"67108864" desc:"Maximum size of a request body, compressed and decompressed."`
	APIMaxRecords     int           `envconfig:"ETL_API_MAX_RECORDS" default:"10000" min:"1" desc:"Maximum records per request."`
	APIFleetRate      float64       `envconfig:"ETL_API_FLEET_RATE" default:"20000" min:"0" desc:"Maximum records per second of all tokens of a fleet together, with 1 KiB each; 0 is unlimited. Requests above it get status 429."`
	APITokenRate      float64       `envconfig:"ETL_API_TOKEN_RATE" default:"20000" min:"0" desc:"Maximum records per second per token, with 1 KiB each; 0 is unlimited. Requests above it get status 429."`
	APIDeviceRate     float64       `envconfig:"ETL_API_DEVICE_RATE" default:"50" min:"0" desc:"Maximum records per second per device, after a burst of 10,000; 0 is unlimited."`
	APIMaxLate        time.Duration `envconfig:"ETL_API_MAX_LATE" default:"336h" min:"0s" desc:"Age beyond which records of a fleet's tokens are rejected as too_late; 0 accepts all that are stored, which is 30 days. Tokens of all fleets, load and Kafka have no such limit."`
	APIMaxConnections int           `envconfig:"ETL_API_MAX_CONNECTIONS" default:"5000" min:"1" desc:"Maximum connections of the API; above it, a waiting connection of the address with the most connections is closed."`

	SpoolDir      string `envconfig:"ETL_SPOOL_DIR" desc:"Directory of records that the API accepted and that are not stored yet; empty is spool in ETL_STATE_DIR."`
	SpoolMaxBytes int64  `envconfig:"ETL_SPOOL_MAX_BYTES" default:"1073741824" min:"67108864" desc:"Maximum size of the spool; while it is full, the API answers 503. See fleet_etl_spool_bytes."`

	APIRedisURL   string `envconfig:"ETL_API_REDIS_URL" desc:"Redis cache of API queries, shared by several processes, as redis://USER:PASSWORD@HOST:PORT/DATABASE; empty uses memory." secret:"hidden"`
	APICacheBytes int64  `envconfig:"ETL_API_CACHE_BYTES" default:"33554432" min:"0" desc:"Size of the in-memory cache of API queries if there is no Redis; 0 disables it."`

	ProcessorEnabled       bool          `envconfig:"ETL_PROCESSOR_ENABLED" default:"true" desc:"Compute alerts, trips and hourly statistics. If false, fleet-etl verify --fix computes them later."`
	ProcessorFlushInterval time.Duration `envconfig:"ETL_PROCESSOR_FLUSH_INTERVAL" default:"5s" min:"100ms" desc:"Interval between two writes of changed statistics and trips; alerts are written at once."`
	ProcessorMaxClockSkew  time.Duration `envconfig:"ETL_PROCESSOR_MAX_CLOCK_SKEW" default:"10s" min:"0s" desc:"Largest expected clock difference between processes on one keyspace."`
	GeofencesFiles         []string      `envconfig:"ETL_GEOFENCES_FILES" desc:"GeoJSON files or patterns of geofences, separated by commas. Reloaded when they change."`
	AlertRulesFile         string        `envconfig:"ETL_ALERT_RULES_FILE" desc:"YAML file of alert rules; empty uses the built-in rules. Reloaded when it changes."`
	AlertNotifyMaxAge      time.Duration `envconfig:"ETL_ALERT_NOTIFY_MAX_AGE" default:"15m" min:"0s" desc:"Alerts detected later than this after they opened are sent only if they still hold."`
	AlertmanagerURLs       string        `envconfig:"ETL_ALERTMANAGER_URLS" desc:"Alertmanagers that receive vehicle alerts, separated by commas, as http://USER:PASSWORD@HOST:PORT/PREFIX; empty sends none." secret:"hidden"`
	GrafanaURL             string        `envconfig:"ETL_GRAFANA_URL" default:"http://localhost:3000" desc:"Public URL of Grafana; links in alerts start with it."`
	RunbookURL             string        `envconfig:"ETL_RUNBOOK_URL" default:"https://github.com/fleettracing/fleet-tracing/blob/main/docs/runbooks" desc:"URL of the runbooks of vehicle alerts; links are URL/ALERTNAME.md. Empty omits them."`
	CanaryInterval         time.Duration `envconfig:"ETL_CANARY_INTERVAL" default:"10s" min:"0s" desc:"Interval between synthetic canary records that run writes and reads back; 0 disables them."`

	KafkaBrokers         []string      `envconfig:"KAFKA_BROKERS" default:"localhost:9092" desc:"Bootstrap brokers, host:port, separated by commas (source kafka)."`
	KafkaTopics          []string      `envconfig:"KAFKA_TOPICS" default:"telemetry" set:"at least one topic" desc:"Topics to consume, separated by commas; they must exist. generate --to kafka produces to the first."`
	KafkaGroup           string        `envconfig:"KAFKA_GROUP" default:"fleet-etl" set:"the consumer group" desc:"Consumer group; all processes of a group share the partitions."`
	KafkaStart           string        `envconfig:"KAFKA_START" default:"earliest" oneof:"earliest,latest" desc:"Where a group without committed offsets starts: earliest or latest."`
	KafkaDeadLetterTopic string        `envconfig:"KAFKA_DEAD_LETTER_TOPIC" default:"telemetry-dead-letters" desc:"Topic of rejected records from Kafka; it must exist and differ from KAFKA_TOPICS."`
	KafkaAlertTopic      string        `envconfig:"KAFKA_ALERT_TOPIC" desc:"Topic that receives every alert event; empty sends none."`
	KafkaTLS             bool          `envconfig:"KAFKA_TLS" default:"false" desc:"Encrypt connections to brokers."`
	KafkaTLSCA           string        `envconfig:"KAFKA_TLS_CA_FILE" desc:"PEM file of the certificate authority that signed the brokers' certificates; empty uses the system's."`
	KafkaTLSCert         string        `envconfig:"KAFKA_TLS_CERT_FILE" desc:"PEM file of the client certificate, if brokers require one."`
	KafkaTLSKey          string        `envconfig:"KAFKA_TLS_KEY_FILE" desc:"PEM file of the client certificate's key."`
	KafkaTLSServerName   string        `envconfig:"KAFKA_TLS_SERVER_NAME" desc:"Name in the brokers' certificates, if it differs from their address."`
	KafkaMechanism       string        `envconfig:"KAFKA_SASL_MECHANISM" oneof:"PLAIN,SCRAM-SHA-256,SCRAM-SHA-512" desc:"SASL mechanism: PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512; empty disables authentication."`
	KafkaUsername        string        `envconfig:"KAFKA_USERNAME" desc:"SASL user name." secret:"name"`
	KafkaPassword        string        `envconfig:"KAFKA_PASSWORD" desc:"SASL password." secret:"hidden"`
	KafkaBatchRecords    int           `envconfig:"KAFKA_BATCH_RECORDS" default:"1000" min:"1" desc:"Maximum records per batch."`
	KafkaFetchMaxBytes   int           `envconfig:"KAFKA_FETCH_MAX_BYTES" default:"8388608" min:"65536" max:"52428800" desc:"Maximum compressed bytes fetched ahead per broker."`
	KafkaCommitInterval  time.Duration `envconfig:"KAFKA_COMMIT_INTERVAL" default:"1s" min:"10ms" desc:"Interval between two offset commits."`
	KafkaRevokeWait      time.Duration `envconfig:"KAFKA_REVOKE_WAIT" default:"20s" min:"1ms" desc:"How long a revoked partition waits for its records to become durable."`
	KafkaSessionTimeout  time.Duration `envconfig:"KAFKA_SESSION_TIMEOUT" default:"45s" min:"6s" desc:"Session timeout of the consumer group."`

	GeneratorVehicles  int           `envconfig:"ETL_GENERATOR_VEHICLES" default:"50" min:"1" desc:"Vehicles that the generator simulates."`
	GeneratorFleets    int           `envconfig:"ETL_GENERATOR_FLEETS" default:"1" min:"1" desc:"Fleets that they are spread over, starting with fleet-001."`
	GeneratorInterval  time.Duration `envconfig:"ETL_GENERATOR_INTERVAL" default:"5s" min:"1ms" desc:"Interval between two records of a vehicle."`
	GeneratorSeed      uint64        `envconfig:"ETL_GENERATOR_SEED" default:"1" desc:"Seed of the generator; the same seed gives the same routes."`
	GeneratorLate      float64       `envconfig:"ETL_GENERATOR_LATE" default:"0" min:"0" max:"1" desc:"Share of records that arrive late, 0 to 1."`
	GeneratorDuplicate float64       `envconfig:"ETL_GENERATOR_DUPLICATE" default:"0" min:"0" max:"1" desc:"Share of records sent twice, 0 to 1."`
	GeneratorBroken    float64       `envconfig:"ETL_GENERATOR_BROKEN" default:"0" min:"0" max:"1" desc:"Share of invalid records added, 0 to 1."`
}

// FromEnvironment reads and checks the settings. The error names each wrong variable, its value and the accepted values.
func FromEnvironment() (*Config, error) {
	var c Config
	if err := envconfig.Process("", &c); err != nil {
		if e := (*envconfig.ParseError)(nil); errors.As(err, &e) {
			f, _ := reflect.TypeFor[Config]().FieldByName(e.FieldName)
			return nil, fmt.Errorf("%s %q: not a %s; its default is %s", e.KeyName, e.Value, cmp.Or(kinds[e.TypeName], "whole number"), f.Tag.Get("default"))
		}
		return nil, err
	}
	var wrong []error
	for f := range c.fields() {
		if list, ok := f.value.Interface().([]string); ok {
			for i := range list {
				list[i] = strings.TrimSpace(list[i])
			}
		}
		wrong = append(wrong, f.readSecret(), f.check())
	}
	if err := errors.Join(append(wrong, c.check()...)...); err != nil {
		return nil, err
	}
	c.DeadLetterDir = cmp.Or(c.DeadLetterDir, filepath.Join(c.StateDir, "deadletters"))
	c.SpoolDir = cmp.Or(c.SpoolDir, filepath.Join(c.StateDir, "spool"))
	return &c, nil
}

// kinds describes the types of settings, except integers.
var kinds = map[string]string{"time.Duration": "duration such as 200ms or 5s", "bool": "boolean, true or false", "float64": "number"}

// check rejects values that contradict each other, and names that no record can have.
func (c *Config) check() (wrong []error) {
	reject := func(variable, value, remedy string) { wrong = append(wrong, rejected(variable, value, remedy)) }
	if c.APITokens != "" && c.APIOpenFleet != "" {
		reject("ETL_API_OPEN_FLEET", c.APIOpenFleet, "conflicts with ETL_API_TOKENS_FILE; set only one")
	}
	if c.APIOpenFleet != "" && !telemetry.ValidName(c.APIOpenFleet) {
		reject("ETL_API_OPEN_FLEET", c.APIOpenFleet, "use 1 to 128 characters of A-Za-z0-9._:-")
	}
	for _, fleet := range c.Fleets {
		if !telemetry.ValidName(fleet) {
			reject("ETL_FLEETS", fleet, "use 1 to 128 characters of A-Za-z0-9._:- for each fleet")
		}
	}
	if c.KafkaDeadLetterTopic == "" || slices.Contains(c.KafkaTopics, c.KafkaDeadLetterTopic) {
		reject("KAFKA_DEAD_LETTER_TOPIC", c.KafkaDeadLetterTopic, "set a topic that is not in KAFKA_TOPICS; rejected records would be consumed again and again")
	}
	if c.KafkaAlertTopic != "" && (slices.Contains(c.KafkaTopics, c.KafkaAlertTopic) || c.KafkaAlertTopic == c.KafkaDeadLetterTopic) {
		reject("KAFKA_ALERT_TOPIC", c.KafkaAlertTopic, "set a topic that nothing else uses")
	}
	for _, tls := range []struct {
		prefix        string
		enabled       bool
		ca, cert, key string
	}{
		{"CASSANDRA_TLS", c.CassandraTLS, c.CassandraTLSCA, c.CassandraTLSCert, c.CassandraTLSKey},
		{"KAFKA_TLS", c.KafkaTLS, c.KafkaTLSCA, c.KafkaTLSCert, c.KafkaTLSKey},
		{"ETL_API_TLS", true, "", c.APITLSCert, c.APITLSKey},
	} {
		if (tls.cert == "") != (tls.key == "") {
			reject(tls.prefix+"_CERT_FILE", tls.cert, "set both it and "+tls.prefix+"_KEY_FILE, or neither")
		}
		for variable, path := range map[string]string{tls.prefix + "_CA_FILE": tls.ca, tls.prefix + "_CERT_FILE": tls.cert} {
			if path != "" && !tls.enabled {
				reject(variable, path, "has no effect without "+tls.prefix+"=true; set both")
			}
		}
	}
	return wrong
}

func rejected(variable, value, remedy string) error {
	return fmt.Errorf("%s %q: %s", variable, value, remedy)
}

// field is one setting.
type field struct {
	reflect.StructTag
	variable string
	value    reflect.Value
}

// fields yields every setting, in the order of Config.
func (c *Config) fields() iter.Seq[field] {
	return func(yield func(field) bool) {
		for f, value := range reflect.ValueOf(c).Elem().Fields() {
			if !yield(field{f.Tag, f.Tag.Get("envconfig"), value}) {
				return
			}
		}
	}
}

// text returns the value of the field as the environment has it.
func (f field) text() string {
	if list, ok := f.value.Interface().([]string); ok {
		return strings.Join(list, ",")
	}
	return fmt.Sprint(f.value.Interface())
}

// readSecret reads a secret from the file that the variable with _FILE names.
func (f field) readSecret() error {
	variable := f.variable + "_FILE"
	path := os.Getenv(variable)
	if f.Get("secret") == "" || path == "" {
		return nil
	}
	if f.text() != "" {
		return fmt.Errorf("%s and %s: both are set; set only one", f.variable, variable)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("%s: %w", variable, err)
	}
	f.value.SetString(strings.TrimRight(string(text), "\r\n"))
	return nil
}

// check rejects a value that the tags of the field exclude. A setting without a default may be empty.
func (f field) check() error {
	parts := strings.Split(f.text(), ",")
	if remedy := f.Get("set"); remedy != "" && slices.Contains(parts, "") {
		return rejected(f.variable, f.text(), "set "+remedy)
	}
	if allowed := f.Get("oneof"); allowed != "" && (f.text() != "" || f.Get("default") != "") {
		names := strings.Split(allowed, ",")
		for _, part := range parts {
			if !slices.Contains(names, part) {
				return rejected(f.variable, part, "use "+strings.Join(names, " or "))
			}
		}
	}
	least, most := f.Get("min"), f.Get("max")
	if least == "" {
		return nil
	}
	value := number(f.text())
	switch {
	case most == "" && !(value >= number(least)):
		return rejected(f.variable, f.text(), "use at least "+least)
	case most != "" && !(value >= number(least) && value <= number(most)):
		return rejected(f.variable, f.text(), "use "+least+" to "+most)
	}
	return nil
}

// number returns the value of a number, or of a duration in nanoseconds.
func number(text string) float64 {
	if d, err := time.ParseDuration(text); err == nil {
		return float64(d)
	}
	n, _ := strconv.ParseFloat(text, 64) // the values of fields and the bounds in their tags can be parsed
	return n
}

// Setting is one variable as `fleet-etl config` prints it.
type Setting struct {
	Variable, Default, Value, Description string
}

// Settings returns every variable with its current value, in the order of Config. Secrets are hidden.
func (c *Config) Settings() []Setting {
	var settings []Setting
	for f := range c.fields() {
		s := Setting{f.variable, f.Get("default"), f.text(), f.Get("desc")}
		if f.Get("secret") == "hidden" && s.Value != "" {
			s.Value = "(hidden)"
		}
		if f.Get("secret") != "" {
			s.Description += " Or set " + f.variable + "_FILE to a file that holds it."
		}
		settings = append(settings, s)
	}
	return settings
}
