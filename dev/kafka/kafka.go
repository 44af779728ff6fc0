// Package kafka runs an Apache Kafka broker as a local process, without containers: for developers through `go run ./dev kafka`, and
// for tests through this API, which can also kill it. The single node is controller and broker.
//
// All state is in the directory of the broker, so every process can manage a broker that another one started.
package kafka

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"

	"github.com/kelseyhightower/envconfig"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/fleettracing/fleet-tracing/dev/cluster"
	"github.com/fleettracing/fleet-tracing/dev/java"
	"github.com/fleettracing/fleet-tracing/dev/process"
)

const kafkaVersion = "4.4.0"

var program = java.Program{
	Name: "Kafka", Version: kafkaVersion,
	Dependencies: []java.Artifact{
		{Group: "org.apache.kafka", Name: "kafka_2.13", Version: kafkaVersion},
		{Group: "org.apache.logging.log4j", Name: "log4j-slf4j-impl", Version: "2.24.3"},
	},
	Runs: func(major int) bool { return major >= 17 },
	On:   "17 and newer",
}

// Broker is a broker in a directory, running or stopped. Its methods are safe for concurrent use, also by several processes:
// methods that change the broker wait for each other.
type Broker struct {
	dir    string // data, logs and state
	port   int    // plaintext, on 127.0.0.1; the next two are the controller and TLS with SASL
	printf func(format string, args ...any)
}

// Open returns the broker of the environment variables DEV_KAFKA_DIR and DEV_KAFKA_PORT. It starts nothing. It writes a line per event
// to out.
func Open(out io.Writer) (*Broker, error) {
	var settings struct {
		Dir  string `envconfig:"DEV_KAFKA_DIR"`
		Port int    `envconfig:"DEV_KAFKA_PORT" default:"19092"`
	}
	if err := envconfig.Process("", &settings); err != nil {
		return nil, fmt.Errorf("open broker: %w", err)
	}
	if settings.Port < 1 || settings.Port > 65535-2 {
		return nil, fmt.Errorf("open broker: DEV_KAFKA_PORT=%d: want 1 to %d", settings.Port, 65535-2)
	}
	if settings.Dir == "" {
		root, err := cluster.RepositoryRoot()
		if err != nil {
			return nil, fmt.Errorf("open broker: %w, or set DEV_KAFKA_DIR", err)
		}
		settings.Dir = filepath.Join(root, ".dev", "kafka")
	}
	dir, err := filepath.Abs(settings.Dir)
	if err != nil {
		return nil, fmt.Errorf("open broker: %w", err)
	}
	return &Broker{dir: dir, port: settings.Port, printf: log.New(out, "", 0).Printf}, nil
}

// Address is where the broker serves plain text without a login.
func (b *Broker) Address() string { return b.at(0) }

// TLSAddress is where it serves TLS with a login: user User, password Password, by PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512.
func (b *Broker) TLSAddress() string { return b.at(2) }

func (b *Broker) at(offset int) string {
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(b.port+offset))
}

// The credentials for TLSAddress, which only this machine can reach.
const (
	User     = "fleet"
	Password = "fleet-password"
)

// CAFile returns the PEM file of the certificate authority of TLSAddress.
func (b *Broker) CAFile() string { return filepath.Join(b.dir, "ca.pem") }

func (b *Broker) properties() string { return filepath.Join(b.dir, "server.properties") }
func (b *Broker) data() string       { return filepath.Join(b.dir, "data") }

// server describes the process of the broker.
func (b *Broker) server() process.Server {
	s := process.Server{
		Name: "kafka", Dir: b.dir, LogFile: filepath.Join(b.dir, "kafka.log"), Address: b.Address(), Ready: b.answers, Printf: b.printf,
	}
	for i := range 3 {
		s.Ports = append(s.Ports, process.Port{Address: b.at(i), Of: "kafka", Setting: "DEV_KAFKA_PORT"})
	}
	return s
}

// Runs reports whether the process of the broker runs.
func (b *Broker) Runs() (bool, error) {
	state, _, err := b.server().State()
	return state == process.Running || state == process.Paused, err
}

// change calls do while no other process changes the broker.
func (b *Broker) change(ctx context.Context, do func(process.Server, context.Context) error) error {
	unlock, err := process.Lock(ctx, b.dir, func(holder string) error {
		b.printf("waiting for process %s, which changes the broker in %s", holder, b.dir)
		return nil
	})
	if err != nil {
		return err
	}
	defer unlock()
	return do(b.server(), ctx)
}

// Up starts the broker unless it runs, and returns when it serves. If that fails or ctx ends, it kills the broker.
func (b *Broker) Up(ctx context.Context) error {
	return b.change(ctx, func(s process.Server, ctx context.Context) error { return b.up(ctx, s) })
}

func (b *Broker) up(ctx context.Context, server process.Server) error {
	runs, err := b.Runs()
	if err != nil {
		return err
	}
	if runs {
		if properties, err := os.ReadFile(b.properties()); err == nil && !bytes.Contains(properties, []byte(b.Address())) {
			return fmt.Errorf("the broker in %s runs on another port than %d: omit the setting, or stop the broker by `go run ./dev kafka down` first", b.dir, b.port)
		}
		b.printf("kafka is already running on %s", b.Address())
		return server.AwaitReady(ctx)
	}
	if err := process.PortsFree(server.Ports...); err != nil {
		return err
	}
	javaPath, err := program.Find(ctx)
	if err != nil {
		return err
	}
	jars, err := program.Jars(ctx, b.printf)
	if err != nil {
		return err
	}
	if err := b.configure(ctx, javaPath, jars); err != nil {
		return err
	}
	return server.Start(ctx, exec.Command(javaPath, "-Xms320M", "-Xmx320M", "-XX:+UseG1GC", //nolint:noctx // it outlives the caller
		"-XX:MaxGCPauseMillis=50", "-XX:+ExitOnOutOfMemoryError", "-XX:+PerfDisableSharedMem", "-Djava.net.preferIPv4Stack=true",
		"-Dlog4j2.configurationFile="+filepath.Join(b.dir, "log4j2.yaml"), "-cp", filepath.Join(jars, "*"), "kafka.Kafka", b.properties()))
}

// administer calls do with a client of the broker, which gives up after a time limit.
func (b *Broker) administer(ctx context.Context, limit time.Duration, do func(context.Context, *kadm.Client) error, o ...kgo.Opt) error {
	client, err := kgo.NewClient(append(o, kgo.SeedBrokers(b.Address()))...)
	if err != nil {
		return err
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	return do(ctx, kadm.NewClient(client))
}

// CreateTopic creates a topic unless it exists.
func (b *Broker) CreateTopic(ctx context.Context, name string, partitions int) error {
	err := b.administer(ctx, 30*time.Second, func(ctx context.Context, client *kadm.Client) error {
		_, err := client.CreateTopic(ctx, int32(partitions), 1, nil, name)
		return err
	})
	if err != nil && !errors.Is(err, kerr.TopicAlreadyExists) {
		return fmt.Errorf("create topic %s: %w", name, err)
	}
	return nil
}

// Down stops the broker, and kills it if that takes more than a minute. With remove, it also removes the data.
func (b *Broker) Down(ctx context.Context, remove bool) error {
	return b.change(ctx, func(s process.Server, ctx context.Context) error {
		if err := s.Stop(ctx); err != nil || !remove {
			return err
		}
		if err := os.RemoveAll(b.data()); err != nil {
			return fmt.Errorf("remove broker: %w", err)
		}
		b.printf("data in %s removed", b.dir)
		return nil
	})
}

// Kill ends the broker with SIGKILL.
func (b *Broker) Kill(ctx context.Context) error { return b.change(ctx, process.Server.Kill) }

// Status prints the state of the broker and its topics, and reports whether it serves.
func (b *Broker) Status(ctx context.Context) (serves bool, err error) {
	state, pid, err := b.server().State()
	if err != nil {
		return false, err
	}
	logFile := b.server().LogFile
	if state != process.Running || !b.answers(ctx) {
		b.printf("kafka is %s and does not answer on %s: `go run ./dev kafka up` starts it; its log: %s", state, b.Address(), logFile)
		return false, nil
	}
	b.printf("kafka serves on %s (TLS with SASL on %s), pid %d; its log: %s", b.Address(), b.TLSAddress(), pid, logFile)
	return true, b.administer(ctx, 30*time.Second, func(ctx context.Context, client *kadm.Client) error {
		topics, err := client.ListTopics(ctx)
		for _, t := range topics.Sorted() {
			b.printf("%s: %d partitions", t.Topic, len(t.Partitions))
		}
		return err
	})
}

// answers reports whether the broker returns metadata.
func (b *Broker) answers(ctx context.Context) bool {
	registered := false // with its controller
	err := b.administer(ctx, 2*time.Second, func(ctx context.Context, client *kadm.Client) error {
		brokers, err := client.ListBrokers(ctx)
		registered = len(brokers) == 1
		return err
	}, kgo.RequestRetries(0), kgo.DialTimeout(time.Second))
	return err == nil && registered
}
