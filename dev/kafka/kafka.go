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
	"net"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/fleettracing/fleet-tracing/dev/cluster"
	"github.com/fleettracing/fleet-tracing/dev/java"
	"github.com/fleettracing/fleet-tracing/dev/process"
)

// Time limits. A broker starts in about five seconds on an idle machine.
const (
	readyWithin   = 2 * time.Minute
	stoppedWithin = 30 * time.Second
	killedWithin  = 15 * time.Second
)

const (
	defaultPort   = 19092
	defaultHeapMB = 320
)

const kafkaVersion = "4.4.0"

var program = java.Program{
	Name: "Kafka", Version: kafkaVersion, Size: "43 MB",
	Dependencies: []java.Artifact{
		{Group: "org.apache.kafka", Name: "kafka_2.13", Version: kafkaVersion},
		{Group: "org.apache.logging.log4j", Name: "log4j-slf4j-impl", Version: "2.24.3"},
	},
	Runs: func(major int) bool { return major >= 17 },
	On:   "17 and newer", Get: "Java 17 or newer",
}

// Config describes a broker. A zero field means the default.
type Config struct {
	Dir    string    // data, logs and state; default .dev/kafka beside go.mod
	Port   int       // plaintext, on 127.0.0.1; the next two are the controller and TLS with SASL; default 19092
	HeapMB int       // Java heap in MiB; default 320
	Out    io.Writer // progress, one line per event; nil discards it
}

// DefaultConfig reads the environment variables DEV_KAFKA_DIR, DEV_KAFKA_PORT and DEV_KAFKA_HEAP.
func DefaultConfig() (Config, error) {
	cfg := Config{Dir: os.Getenv("DEV_KAFKA_DIR")}
	for _, v := range []struct {
		name string
		to   *int
	}{{"DEV_KAFKA_PORT", &cfg.Port}, {"DEV_KAFKA_HEAP", &cfg.HeapMB}} {
		s := os.Getenv(v.name)
		if s == "" {
			continue
		}
		n, err := strconv.Atoi(s)
		if err != nil || n < 1 {
			return Config{}, fmt.Errorf("%s=%q: want a whole number above 0", v.name, s)
		}
		*v.to = n
	}
	return cfg, nil
}

// Broker is a broker in a directory, running or stopped. Its methods are safe for concurrent use, also by several processes:
// methods that change the broker wait for each other.
type Broker struct {
	dir    string
	port   int
	heapMB int
	out    io.Writer
}

// Open returns the broker that cfg describes. It starts nothing.
func Open(cfg Config) (*Broker, error) {
	if _, err := os.Stat("/proc/self/stat"); err != nil {
		return nil, fmt.Errorf("open broker: %w: processes are found through /proc: run it on Linux", err)
	}
	if cfg.Dir == "" {
		root, err := cluster.RepositoryRoot()
		if err != nil {
			return nil, fmt.Errorf("open broker: %w, or set DEV_KAFKA_DIR", err)
		}
		cfg.Dir = filepath.Join(root, ".dev", "kafka")
	}
	dir, err := filepath.Abs(cfg.Dir)
	if err != nil {
		return nil, fmt.Errorf("open broker: %w", err)
	}
	b := &Broker{dir: dir, port: cfg.Port, heapMB: cfg.HeapMB, out: cfg.Out}
	if b.port == 0 {
		b.port = defaultPort
	}
	if b.heapMB == 0 {
		b.heapMB = defaultHeapMB
	}
	if b.out == nil {
		b.out = io.Discard
	}
	if b.port < 1 || b.port > 65535-2 {
		return nil, fmt.Errorf("open broker: port %d: want 1 to %d", b.port, 65535-2)
	}
	if b.heapMB < 64 {
		return nil, fmt.Errorf("open broker: heap %d MB: want at least 64", b.heapMB)
	}
	return b, nil
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

// LogFile returns the log of the broker.
func (b *Broker) LogFile() string { return filepath.Join(b.dir, "kafka.log") }

func (b *Broker) pidFile() string    { return filepath.Join(b.dir, "pid") }
func (b *Broker) properties() string { return filepath.Join(b.dir, "server.properties") }
func (b *Broker) data() string       { return filepath.Join(b.dir, "data") }

func (b *Broker) printf(format string, args ...any) { fmt.Fprintf(b.out, format, args...) }

// PID returns the pid of the broker; 0 while it is stopped.
func (b *Broker) PID() (int, error) {
	p, err := process.Read(b.pidFile())
	if err != nil {
		return 0, err
	}
	_, alive, err := p.State()
	if err != nil || !alive {
		return 0, err
	}
	return p.PID, nil
}

// Up starts the broker unless it runs, and returns when it serves. If that fails or ctx ends, it kills the broker.
func (b *Broker) Up(ctx context.Context) (err error) {
	unlock, err := b.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	p, err := process.Read(b.pidFile())
	if err != nil {
		return err
	}
	_, alive, err := p.State()
	if err != nil {
		return err
	}
	if alive {
		if properties, err := os.ReadFile(b.properties()); err == nil && !bytes.Contains(properties, []byte(b.Address())) {
			return fmt.Errorf("the broker in %s runs on another port than %d: omit the setting, or stop the broker by `go run ./dev kafka down` first", b.dir, b.port)
		}
		if err := b.daemon().AwaitReady(ctx, p, 0); err != nil {
			return err
		}
		b.printf("kafka is already running on %s, pid %d\n", b.Address(), p.PID)
		return nil
	}
	if err := b.portsFree(); err != nil {
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
	begun := time.Now()
	if err := b.configure(ctx, javaPath, jars); err != nil {
		return err
	}
	if p, err = b.start(ctx, javaPath, jars); err != nil {
		return err
	}
	b.printf("kafka serves on %s after %.1f s, pid %d\n", b.Address(), time.Since(begun).Seconds(), p.PID)
	return nil
}

// CreateTopic creates a topic unless it exists.
func (b *Broker) CreateTopic(ctx context.Context, name string, partitions int) error {
	client, err := kgo.NewClient(kgo.SeedBrokers(b.Address()))
	if err != nil {
		return fmt.Errorf("create topic %s: %w", name, err)
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	if _, err := kadm.NewClient(client).CreateTopic(ctx, int32(partitions), 1, nil, name); err != nil && !errors.Is(err, kerr.TopicAlreadyExists) {
		return fmt.Errorf("create topic %s: %w", name, err)
	}
	return nil
}

// Down stops the broker, and kills it if that takes too long. With remove, it also removes the data.
func (b *Broker) Down(ctx context.Context, remove bool) error {
	unlock, err := b.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	if remove {
		err = b.end(ctx, syscall.SIGKILL, killedWithin)
	} else if err = b.end(ctx, syscall.SIGTERM, stoppedWithin); err != nil && ctx.Err() == nil {
		err = b.end(ctx, syscall.SIGKILL, killedWithin)
	}
	if err != nil || !remove {
		return err
	}
	for _, path := range []string{b.data(), b.properties(), b.CAFile(), b.LogFile(), b.LogFile() + ".1"} {
		if err := os.RemoveAll(path); err != nil {
			return fmt.Errorf("remove broker: %w", err)
		}
	}
	b.printf("data in %s removed\n", b.dir)
	return nil
}

// Kill ends the broker with SIGKILL.
func (b *Broker) Kill(ctx context.Context) error {
	unlock, err := b.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	return b.end(ctx, syscall.SIGKILL, killedWithin)
}

// Status prints the state of the broker and its topics, and reports whether it serves.
func (b *Broker) Status(ctx context.Context) (serves bool, err error) {
	pid, err := b.PID()
	if err != nil {
		return false, err
	}
	if pid == 0 {
		b.printf("kafka is not running: `go run ./dev kafka up` starts it\n")
		return false, nil
	}
	if !b.answers(ctx) {
		b.printf("kafka is running, pid %d, but does not answer on %s; its log: %s\n", pid, b.Address(), b.LogFile())
		return false, nil
	}
	b.printf("kafka serves on %s (TLS with SASL on %s), pid %d; its log: %s\n", b.Address(), b.TLSAddress(), pid, b.LogFile())
	client, err := kgo.NewClient(kgo.SeedBrokers(b.Address()))
	if err != nil {
		return true, err
	}
	defer client.Close()
	topics, err := kadm.NewClient(client).ListTopics(ctx)
	if err != nil {
		return true, fmt.Errorf("list topics: %w", err)
	}
	for _, t := range topics.Sorted() {
		b.printf("%s: %d partitions\n", t.Topic, len(t.Partitions))
	}
	return true, nil
}

// answers reports whether the broker returns metadata.
func (b *Broker) answers(ctx context.Context) bool {
	client, err := kgo.NewClient(kgo.SeedBrokers(b.Address()), kgo.RequestRetries(0), kgo.DialTimeout(time.Second))
	if err != nil {
		return false
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	brokers, err := kadm.NewClient(client).ListBrokers(ctx)
	return err == nil && len(brokers) == 1 // the broker is listed once it has registered with its controller
}
