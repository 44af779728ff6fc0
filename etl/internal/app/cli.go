// Package app is the command line of fleet-etl. It wires the parts of the program together and runs them.
package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/alecthomas/kong"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	versioncollector "github.com/prometheus/client_golang/prometheus/collectors/version"
	"github.com/prometheus/common/version"
	"github.com/sirupsen/logrus"
	"golang.org/x/term"

	"github.com/fleettracing/fleet-tracing/etl/internal/config"
	"github.com/fleettracing/fleet-tracing/etl/internal/promutil"
)

// Streams are the standard streams of a command.
type Streams struct {
	In       io.Reader
	Out, Err io.Writer
}

// The exit statuses.
const (
	exitOK       = 0
	exitFailed   = 1 // some valid records were not stored
	exitRejected = 2 // all valid records were stored and some records were rejected; or verify found differences
	exitBadUsage = 64
)

// findingsError is the result of a command that did its work and found what it reports: rejected records, or differences.
type findingsError struct {
	n    int64
	what string
}

func (e findingsError) Error() string { return fmt.Sprintf("%d %s", e.n, e.what) }

type commands struct {
	Run         runCommand         `cmd:"" help:"Ingest from ETL_SOURCES until stopped."`
	Load        loadCommand        `cmd:"" help:"Load CSV files and print a report."`
	Replay      replayCommand      `cmd:"" help:"Replay recorded CSV files at a chosen speed."`
	Generate    generateCommand    `cmd:"" help:"Generate records of simulated vehicles."`
	Token       tokenCommand       `cmd:"" help:"Create a token for the HTTP API."`
	Devices     deviceCommands     `cmd:"" help:"Show or set the fleet that devices belong to."`
	DeadLetters deadLetterCommands `cmd:"" name:"deadletters" help:"List or reprocess dead letters (rejected records)."`
	Verify      verifyCommand      `cmd:"" help:"Recompute alerts, trips and statistics from the stored telemetry and print each difference."`
	Schema      schemaCommands     `cmd:"" help:"Create or check the keyspace and its tables."`
	Health      healthCommand      `cmd:"" help:"Check whether the fleet-etl on this host is ready (container health check)."`
	Config      configCommand      `cmd:"" help:"Print every setting with its value, default and description."`

	Version kong.VersionFlag `help:"Print the version and exit."`
}

const description = `Ingests vehicle telemetry, validates and enriches it, and stores it in Cassandra.

Settings come from the environment; "fleet-etl config" prints them. Without a command, ETL_MODE decides: streaming runs
"run", batch runs "load" with ETL_FILES. Exit status: 0 if all records are stored, 2 if all valid records are stored and
some were rejected, 1 otherwise.`

// program is the environment of a command.
type program struct {
	Streams
	ctx    context.Context // canceled to abort
	stop   context.Context // canceled to shut down gracefully
	config *config.Config
	logger *logrus.Logger
	reg    *prometheus.Registry
}

// Run runs fleet-etl with the given arguments and returns its exit status. The first interrupt or termination signal
// shuts it down gracefully, the second aborts it.
func Run(ctx context.Context, args []string, streams Streams) int {
	cfg, configErr := config.FromEnvironment()
	if len(args) == 0 && configErr == nil {
		args = []string{"run"}
		if cfg.Mode == "batch" {
			args = append([]string{"load"}, cfg.Files...)
		}
	}
	setVersion()
	var cli commands
	exited := -1
	parser, err := kong.New(&cli, kong.Name("fleet-etl"), kong.Description(description), kong.Writers(streams.Out, streams.Err),
		kong.Exit(func(status int) { exited = status }), kong.UsageOnError(), kong.Vars{"version": version.Print("fleet-etl")}, kong.ConfigureHelp(kong.HelpOptions{Compact: true}))
	if err != nil {
		return fail(streams, err, exitFailed)
	}
	command, err := parser.Parse(args)
	switch {
	case exited >= 0: // help or version
		return exited
	case err != nil:
		return fail(streams, fmt.Errorf("%w; see fleet-etl --help", err), exitBadUsage)
	case configErr != nil:
		return fail(streams, configErr, exitFailed)
	}

	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if err := followLiveHeap(ctx); err != nil { // only a wrong AUTOMEMLIMIT fails
		return fail(streams, err, exitFailed)
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
	reg.MustRegister(versioncollector.NewCollector("fleet_etl"), collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	p := &program{Streams: streams, ctx: ctx, stop: stop, config: cfg, reg: reg, logger: newLogger(streams.Err, cfg, reg)}
	err = command.Run(p)
	switch findings := (findingsError{}); {
	case err == nil:
		return exitOK
	case errors.As(err, &findings):
		return exitRejected
	default:
		return fail(streams, err, exitFailed)
	}
}

// setVersion sets the version that --version and fleet_etl_build_info report. Without one from the linker it is the one that
// the Go toolchain recorded.
func setVersion() {
	if info, ok := debug.ReadBuildInfo(); ok && version.Version == "" {
		version.Version = info.Main.Version
	}
}

func fail(streams Streams, err error, status int) int {
	fmt.Fprintf(streams.Err, "fleet-etl: %v\n", err)
	return status
}

// newLogger logs text to a terminal and JSON elsewhere, and counts lines by level.
func newLogger(w io.Writer, cfg *config.Config, reg prometheus.Registerer) *logrus.Logger {
	logger := logrus.New()
	logger.SetOutput(w)
	level, _ := logrus.ParseLevel(cfg.LogLevel) // config accepts no other
	logger.SetLevel(level)
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
	c := logCounter{promutil.With(reg).CounterVec("fleet_etl_log_messages_total", "Log lines, by level.", "level")}
	for _, level := range c.Levels() {
		c.lines.WithLabelValues(level.String())
	}
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
