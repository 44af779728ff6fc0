package kafka

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"
)

// The SASL mechanisms.
const (
	Plain       = "PLAIN"
	ScramSHA256 = "SCRAM-SHA-256"
	ScramSHA512 = "SCRAM-SHA-512"
)

// Mechanisms are the values of Connection.Mechanism.
var Mechanisms = []string{Plain, ScramSHA256, ScramSHA512}

// Connection says how to reach Kafka.
type Connection struct {
	Brokers   []string    // host:port of some brokers; clients find the others through them
	TLS       *tls.Config // nil is plain text
	Mechanism string      // one of Mechanisms; empty turns authentication off
	Username  string
	Password  string
}

func (c Connection) check() error {
	if len(c.Brokers) == 0 {
		return errors.New("brokers: empty; give host:port of at least one")
	}
	for _, broker := range c.Brokers {
		if host, port, err := net.SplitHostPort(broker); err != nil || host == "" || port == "" {
			return fmt.Errorf("brokers %q: %q is not host:port, such as localhost:9092", strings.Join(c.Brokers, ","), broker)
		}
	}
	switch {
	case c.Mechanism != "" && !slices.Contains(Mechanisms, c.Mechanism):
		return fmt.Errorf("login mechanism %q: give %s, or none", c.Mechanism, strings.Join(Mechanisms, " or "))
	case c.Mechanism != "" && c.Username == "":
		return fmt.Errorf("login mechanism %q: give a user with it", c.Mechanism)
	case c.Mechanism == "" && c.Username != "":
		return fmt.Errorf("user %q has no login mechanism: give one, %s", c.Username, strings.Join(Mechanisms, " or "))
	}
	return nil
}

// Client checks the connection and returns the options that every client with it has. report is called after each attempt
// to connect and authenticate.
func (c Connection) Client(report func(broker string, err error)) ([]kgo.Opt, error) {
	if err := c.check(); err != nil {
		return nil, err
	}
	return c.options(report), nil
}

func (c Connection) options(report func(broker string, err error)) []kgo.Opt {
	opts := []kgo.Opt{kgo.SeedBrokers(c.Brokers...), kgo.ClientID("fleet-etl"), kgo.WithHooks(connectHook(report))}
	if c.TLS != nil {
		opts = append(opts, kgo.DialTLSConfig(c.TLS.Clone()))
	}
	var login sasl.Mechanism
	switch c.Mechanism {
	case Plain:
		login = plain.Auth{User: c.Username, Pass: c.Password}.AsMechanism()
	case ScramSHA256:
		login = scram.Auth{User: c.Username, Pass: c.Password}.AsSha256Mechanism()
	case ScramSHA512:
		login = scram.Auth{User: c.Username, Pass: c.Password}.AsSha512Mechanism()
	default:
		return opts
	}
	return append(opts, kgo.SASL(login))
}

// connectHook is called after each attempt to connect and authenticate.
type connectHook func(broker string, err error)

// OnBrokerConnect implements kgo.HookBrokerConnect.
func (report connectHook) OnBrokerConnect(meta kgo.BrokerMetadata, _ time.Duration, _ net.Conn, err error) {
	if errors.Is(err, context.Canceled) {
		return // the client was closed
	}
	report(net.JoinHostPort(meta.Host, fmt.Sprint(meta.Port)), err)
}

// permanent returns an error with a remedy where a retry fixes nothing: Kafka denies access, or its certificate is not
// trusted. It returns nil for all other errors, such as an unreachable broker.
func (c Connection) permanent(err error) error {
	switch untrusted := (*tls.CertificateVerificationError)(nil); {
	case err == nil:
		return nil
	case errors.Is(err, kerr.SaslAuthenticationFailed):
		return fmt.Errorf("log in to kafka at %s as %q by %s: %w: check user, password and mechanism", strings.Join(c.Brokers, ","), c.Username, c.Mechanism, err)
	case errors.Is(err, kerr.UnsupportedSaslMechanism), errors.Is(err, kerr.IllegalSaslState):
		return fmt.Errorf("log in to kafka at %s by %q: %w: the brokers offer another mechanism on this port", strings.Join(c.Brokers, ","), c.Mechanism, err)
	case errors.As(err, &untrusted):
		return fmt.Errorf("connect to kafka at %s: %w: give the CA that signed the brokers' certificates, and a host name that is in them", strings.Join(c.Brokers, ","), err)
	case errors.Is(err, kerr.TopicAuthorizationFailed), errors.Is(err, kerr.GroupAuthorizationFailed), errors.Is(err, kerr.ClusterAuthorizationFailed):
		return fmt.Errorf("kafka at %s: %w: grant user %q access", strings.Join(c.Brokers, ","), err, c.Username)
	case errors.Is(err, kerr.InvalidGroupID), errors.Is(err, kerr.InvalidTopicException), errors.Is(err, kerr.InconsistentGroupProtocol):
		return fmt.Errorf("kafka at %s: %w: check the names of topic and group", strings.Join(c.Brokers, ","), err)
	default:
		return nil
	}
}

// noSuchTopic is the error for a topic that brokers do not know.
func (c Connection) noSuchTopic(topic string) error {
	return fmt.Errorf("topic %q: kafka at %s has no such topic; create it, or check the name", topic, strings.Join(c.Brokers, ","))
}
