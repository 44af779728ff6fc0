package app

import (
	"crypto/tls"
	"fmt"
	"os"

	"github.com/fleettracing/fleet-tracing/cassandra"
	"github.com/fleettracing/fleet-tracing/etl/internal/api"
	"github.com/fleettracing/fleet-tracing/etl/internal/api/ingest"
	"github.com/fleettracing/fleet-tracing/etl/internal/config"
	"github.com/fleettracing/fleet-tracing/etl/internal/executor"
	"github.com/fleettracing/fleet-tracing/etl/internal/source/kafka"
	"github.com/fleettracing/fleet-tracing/etl/internal/writer"
)

// cassandraConfig returns the settings of the session. An error names the variable and the file.
func cassandraConfig(c *config.Config) (cassandra.Config, error) {
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

// clientTLS reads the PEM files of the settings that start with prefix.
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
			return nil, fmt.Errorf("%s %q: the file is empty; use a PEM file, or unset the variable", f.variable, f.path)
		}
		pem[i] = text
	}
	client, err := cassandra.NewTLS(pem[0], pem[1], pem[2], serverName, skipVerify)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", prefix, err)
	}
	return client, nil
}

// kafkaConnection returns how to reach the brokers.
func kafkaConnection(c *config.Config) (kafka.Connection, error) {
	k := kafka.Connection{Brokers: c.KafkaBrokers, Mechanism: c.KafkaMechanism, Username: c.KafkaUsername, Password: c.KafkaPassword}
	if !c.KafkaTLS {
		return k, nil
	}
	var err error
	k.TLS, err = clientTLS("KAFKA_TLS", c.KafkaTLSCA, c.KafkaTLSCert, c.KafkaTLSKey, c.KafkaTLSServerName, false)
	return k, err
}

// apiLimits returns the limits of the HTTP API.
func apiLimits(c *config.Config) (api.Limits, ingest.Limits) {
	server, i := api.DefaultLimits(), ingest.DefaultLimits()
	server.MaxConnections = c.APIMaxConnections
	i.MaxBody, i.MaxRecords = c.APIMaxBody, c.APIMaxRecords
	i.MaxMemory = max(2*i.LargestRequest(), i.MaxMemory)
	i.SpoolBytes = c.SpoolMaxBytes
	i.FleetRate, i.TokenRate, i.DeviceRate, i.MaxLate = c.APIFleetRate, c.APITokenRate, c.APIDeviceRate, c.APIMaxLate
	i.FleetBurst = max(2*int(c.APIFleetRate), c.APIMaxRecords)
	i.TokenBurst, i.DeviceBurst = max(2*int(c.APITokenRate), c.APIMaxRecords), max(i.DeviceBurst, c.APIMaxRecords)
	return server, i
}

// executorOptions returns the options of the executor.
func executorOptions(c *config.Config) executor.Options {
	return executor.Options{MaxInFlight: c.MaxInFlight, RetryRate: c.RetryRate}
}

// writerOptions returns the options of the writer.
func writerOptions(c *config.Config) writer.Options {
	return writer.Options{BatchRows: c.BatchRows, DevicesKept: c.DevicesInMemory}
}
