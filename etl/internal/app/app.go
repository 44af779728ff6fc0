// Package app is the program fleet-etl: its commands, how their parts are put together, and their life from the first
// setting to the last record.
package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/alecthomas/kong"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/sirupsen/logrus"
	"golang.org/x/term"

	"github.com/fleettracing/fleet-tracing/etl/internal/config"
)

// Streams are what a command reads and writes.
type Streams struct {
	In       io.Reader
	Out, Err io.Writer
}

// The exit statuses.
const (
	exitOK       = 0
	exitFailed   = 1 // not everything that is valid was stored
	exitRefused  = 2 // everything that is valid was stored, something was refused; or verify found differences
	exitBadUsage = 64
)

// refusedError ends a load that stored all that was valid.
type refusedError struct{ records int64 }

func (e refusedError) Error() string { return fmt.Sprintf("%d records were refused", e.records) }

type commands struct {
	Run         runCommand         `cmd:"" help:"Stream from the sources of ETL_SOURCES until told to stop."`
	Load        loadCommand        `cmd:"" help:"Load CSV files, and report."`
	Replay      replayCommand      `cmd:"" help:"Play recorded CSV files at a chosen speed."`
	Generate    generateCommand    `cmd:"" help:"Make records of simulated vehicles."`
	Bench       benchCommands      `cmd:"" help:"Measure on the cluster at hand: beside the bare driver, under load, and for how long it lasts."`
	Token       tokenCommand       `cmd:"" help:"Make a token for the IoT API."`
	DeadLetters deadLetterCommands `cmd:"" name:"deadletters" help:"List dead letters (rejected records), or reprocess them."`
	Verify      verifyCommand      `cmd:"" help:"Compute what is derived from the stored telemetry anew, and print each difference."`
	Schema      schemaCommands     `cmd:"" help:"Make or check the keyspace and its tables."`
	Health      healthCommand      `cmd:"" help:"Ask the fleet-etl that runs here whether it is ready: for the health checks of containers."`
	Config      configCommand      `cmd:"" help:"Show every setting: its variable, default, value in force and what it does."`
}

const description = `Takes vehicles' telemetry in, cleans and enriches it, and stores it in Cassandra.

Settings come from the environment; fleet-etl config shows them all. Without a command, ETL_MODE chooses: streaming is
run, batch is load of ETL_FILES. Exit status: 0 all is stored, 2 all that is valid is stored and some was refused, 1 not
all is stored.`

// program is what every command gets.
type program struct {
	Streams
	ctx    context.Context // ends at once, with whatever is under way
	stop   context.Context // asks for an orderly end
	config *config.Config
	logger *logrus.Logger
	reg    *prometheus.Registry
}

// Run runs fleet-etl with the given arguments and returns its exit status. The first interrupt or termination signal
// ends it in good order, the second at once.
func Run(ctx context.Context, args []string, streams Streams) int {
	cfg, configErr := config.FromEnvironment(checkReplication)
	if len(args) == 0 && configErr == nil {
		args = []string{"run"}
		if cfg.Mode == "batch" {
			args = append([]string{"load"}, cfg.Files...)
		}
	}
	var cli commands
	exited := -1
	parser, err := kong.New(&cli, kong.Name("fleet-etl"), kong.Description(description), kong.Writers(streams.Out, streams.Err),
		kong.Exit(func(status int) { exited = status }), kong.UsageOnError(), kong.ConfigureHelp(kong.HelpOptions{Compact: true}))
	if err != nil {
		return complain(streams, err, exitFailed)
	}
	command, err := parser.Parse(args)
	switch {
	case exited >= 0: // help was asked for
		return exited
	case err != nil:
		return complain(streams, fmt.Errorf("%w; see fleet-etl --help", err), exitBadUsage)
	case configErr != nil:
		return complain(streams, configErr, exitFailed)
	}

	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if err := keepMemoryGoal(ctx); err != nil { // of AUTOMEMLIMIT alone
		return complain(streams, err, exitFailed)
	}
	stop, quit := context.WithCancel(ctx)
	defer quit()
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	defer signal.Stop(signals)
	go func() {
		for _, end := range []func(){quit, cancel} {
			select {
			case <-signals:
				end()
			case <-ctx.Done():
				return
			}
		}
	}()

	reg := prometheus.NewRegistry()
	reg.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	p := &program{Streams: streams, ctx: ctx, stop: stop, config: cfg, reg: reg, logger: newLogger(streams.Err, cfg, reg)}
	err = command.Run(p)
	refused, differ := refusedError{}, differencesError{}
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &refused), errors.As(err, &differ):
		return exitRefused
	default:
		return complain(streams, err, exitFailed)
	}
}

func complain(streams Streams, err error, status int) int {
	fmt.Fprintf(streams.Err, "fleet-etl: %v\n", err)
	return status
}

// newLogger logs text for a person at a terminal and JSON for a collector, and counts lines by level.
func newLogger(w io.Writer, cfg *config.Config, reg prometheus.Registerer) *logrus.Logger {
	logger := logrus.New()
	logger.SetOutput(w)
	logger.SetLevel(logLevel(cfg))
	if isTerminal(w) {
		logger.SetFormatter(&logrus.TextFormatter{FullTimestamp: true, TimestampFormat: "15:04:05"})
	} else {
		logger.SetFormatter(&logrus.JSONFormatter{})
	}
	logger.AddHook(newLogCounter(reg))
	return logger
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// logCounter counts log lines by level.
type logCounter struct{ lines *prometheus.CounterVec }

func newLogCounter(reg prometheus.Registerer) logCounter {
	c := logCounter{prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "fleet_etl_log_messages_total",
		Help: "Log lines, by level.",
	}, []string{"level"})}
	for _, level := range c.Levels() {
		c.lines.WithLabelValues(level.String())
	}
	reg.MustRegister(c.lines)
	return c
}

// Levels implements logrus.Hook.
func (c logCounter) Levels() []logrus.Level {
	return []logrus.Level{logrus.ErrorLevel, logrus.WarnLevel, logrus.InfoLevel}
}

// Fire implements logrus.Hook.
func (c logCounter) Fire(e *logrus.Entry) error {
	c.lines.WithLabelValues(e.Level.String()).Inc()
	return nil
}
