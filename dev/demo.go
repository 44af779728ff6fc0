package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/fleettracing/fleet-tracing/cassandra"
	"github.com/fleettracing/fleet-tracing/dev/cluster"
)

const (
	metricsURL = "http://127.0.0.1:9464"
	apiAddress = "127.0.0.1:8080"
	demoFleet  = "fleet-001"
)

type demoCmd struct {
	DCs string `name:"dcs" placeholder:"NAME=NODES,…" help:"Data centres and their nodes (default dc1=2,dc2=2)."`
}

// demo is a running demo. Whoever connects to its socket asks it to end, and sees it end when the connection closes.
type demo struct {
	root    string // of the repository
	dir     string // .dev/demo in it
	cluster *cluster.Cluster
}

func newDemo(s *settings, dcs string) (*demo, error) {
	var parsed []cluster.DC
	if dcs != "" {
		var err error
		if parsed, err = cluster.ParseDCs(dcs); err != nil {
			return nil, err
		}
	}
	root, err := cluster.RepositoryRoot()
	if err != nil {
		return nil, err
	}
	c, err := s.open(parsed, os.Stdout)
	if err != nil {
		return nil, err
	}
	return &demo{root: root, dir: filepath.Join(root, ".dev", "demo"), cluster: c}, nil
}

func (d *demo) socket() string { return filepath.Join(d.dir, "socket") }
func (d *demo) log() string    { return filepath.Join(d.dir, "fleet-etl.log") }

func (cmd demoCmd) Run(ctx context.Context, s *settings) (err error) {
	d, err := newDemo(s, cmd.DCs)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(d.dir, 0o750); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ended, err := d.listen(cancel)
	if err != nil {
		return err
	}
	defer ended()
	for _, url := range []string{metricsURL, "http://" + apiAddress} {
		if err := portFree(url); err != nil {
			return err
		}
	}

	program, err := d.build(ctx)
	if err != nil {
		return err
	}
	if err := d.cluster.Up(ctx); err != nil {
		return interrupted(ctx, err)
	}
	defer func() {
		fmt.Println("stopping the cluster; its data stays for the next demo")
		down, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Minute)
		defer cancel()
		err = errors.Join(err, d.cluster.Down(down, false))
	}()
	environment, err := d.environment()
	if err != nil {
		return err
	}
	apply := exec.CommandContext(ctx, program, "schema", "apply")
	apply.Env, apply.Stdout, apply.Stderr = environment, os.Stdout, os.Stderr
	if err := apply.Run(); err != nil {
		return interrupted(ctx, fmt.Errorf("make the schema: %w", err))
	}
	etl, err := d.startETL(program, environment)
	if err != nil {
		return err
	}
	defer etl.stop()
	if err := waitReady(ctx, etl); err != nil {
		return interrupted(ctx, err)
	}
	if err := d.summary(ctx); err != nil {
		return interrupted(ctx, err)
	}
	return d.watch(ctx, etl)
}

// interrupted is nil for an error that only says that the demo was ended.
func interrupted(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// listen takes requests to end the demo. A second demo finds the first by it.
func (d *demo) listen(end func()) (ended func(), err error) {
	if conn, err := net.Dial("unix", d.socket()); err == nil {
		_ = conn.Close() // which ends nothing: a request is a line
		return nil, errors.New("a demo is running already: end it with make demo-down")
	}
	if err := os.Remove(d.socket()); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("remove the socket that a demo left: %w", err)
	}
	listener, err := net.Listen("unix", d.socket())
	if err != nil {
		return nil, fmt.Errorf("listen for make demo-down: %w", err)
	}
	var waiting []net.Conn
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			if line, _ := bufio.NewReader(conn).ReadString('\n'); line == "end\n" {
				waiting = append(waiting, conn)
				end()
				continue
			}
			_ = conn.Close()
		}
	}()
	return func() {
		_ = listener.Close()
		<-done
		for _, conn := range waiting {
			_ = conn.Close()
		}
	}, nil
}

func portFree(url string) error {
	address := strings.TrimPrefix(url, "http://")
	l, err := net.Listen("tcp", address)
	if err != nil {
		return fmt.Errorf("%s, of fleet-etl's metrics, can't be listened on: %w: end what uses it (ss -ltnp names it)", address, err)
	}
	return l.Close()
}

func (d *demo) build(ctx context.Context) (program string, err error) {
	program = filepath.Join(d.root, "bin", "fleet-etl")
	build := exec.CommandContext(ctx, "go", "build", "-o", program, "./etl")
	build.Dir, build.Stdout, build.Stderr = d.root, os.Stdout, os.Stderr
	if err := build.Run(); err != nil {
		return "", interrupted(ctx, fmt.Errorf("build fleet-etl: %w", err))
	}
	return program, nil
}

// environment gives fleet-etl the cluster that there is; what the caller's environment says comes first.
func (d *demo) environment() ([]string, error) {
	nodes, err := d.cluster.Nodes()
	if err != nil {
		return nil, err
	}
	perDC := map[string]int{}
	var hosts, dcs []string
	for _, n := range nodes {
		hosts = append(hosts, n.CQL().String())
		if perDC[n.DC] == 0 {
			dcs = append(dcs, n.DC)
		}
		perDC[n.DC]++
	}
	var replication []string
	for _, dc := range dcs {
		replication = append(replication, fmt.Sprintf("%s=%d", dc, min(2, perDC[dc])))
	}
	return append([]string{
		"CASSANDRA_HOSTS=" + strings.Join(hosts, ","), "CASSANDRA_DC=" + dcs[0], "CASSANDRA_REPLICATION=" + strings.Join(replication, ","),
		"ETL_STATE_DIR=" + filepath.Join(d.dir, "state"),
		"ETL_SOURCES=generator,httpapi", "ETL_HTTP_ADDRESS=" + apiAddress, "ETL_HTTP_OPEN_FLEET=" + demoFleet,
	}, os.Environ()...), nil
}

// child is a program of the demo that ends with it, however that ends.
type child struct {
	name    string
	process *os.Process
	done    chan struct{}
	err     error
}

func (d *demo) startETL(program string, environment []string) (*child, error) {
	log, err := os.Create(d.log())
	if err != nil {
		return nil, err
	}
	defer func() { _ = log.Close() }()  // the child has its own
	cmd := exec.Command(program, "run") //nolint:noctx // it is told to stop, and waited for
	cmd.Env, cmd.Stdout, cmd.Stderr = environment, log, log
	// A group of its own: Ctrl-C is for us, who then stop things in order. When we are killed, it is told to stop.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	c := &child{name: "fleet-etl", done: make(chan struct{})}
	started := make(chan error)
	go func() {
		runtime.LockOSThread() // Pdeathsig is sent when the thread that started the child ends
		defer close(c.done)
		err := cmd.Start()
		c.process = cmd.Process
		started <- err
		if err == nil {
			c.err = cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start fleet-etl: %w", err)
	}
	return c, nil
}

// stop lets the program store what it has, and waits for it.
func (c *child) stop() {
	fmt.Printf("stopping %s\n", c.name)
	_ = c.process.Signal(syscall.SIGTERM) // it may have ended
	select {
	case <-c.done:
	case <-time.After(40 * time.Second):
		_ = c.process.Kill()
		<-c.done
	}
}

func waitReady(ctx context.Context, etl *child) error {
	for range 300 {
		if get(ctx, "/-/ready", func(io.Reader) error { return nil }) == nil {
			return nil
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-etl.done:
			return fmt.Errorf("fleet-etl ended: %w; its log says why: .dev/demo/fleet-etl.log", etl.err)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return errors.New("fleet-etl is not ready after 30 s; its log says why: .dev/demo/fleet-etl.log")
}

func get(ctx context.Context, path string, read func(io.Reader) error) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, metricsURL+path, nil)
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", path, response.Status)
	}
	return read(response.Body)
}

func (d *demo) summary(ctx context.Context) error {
	nodes, err := d.cluster.Nodes()
	if err != nil {
		return err
	}
	var running []string
	for _, n := range nodes {
		running = append(running, n.CQL().String())
	}
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "\nRUNNING\tWHERE\tTRY")
	fmt.Fprintf(w, "Cassandra, %d nodes\t%s\tgo run ./dev cluster status fleet_iot\n", len(running), strings.Join(running, " "))
	fmt.Fprintf(w, "fleet-etl, streaming\t%s/metrics\tcurl -s %s/metrics | grep ^fleet_etl_records\n", metricsURL, metricsURL)
	fmt.Fprintf(w, "IoT API, open to all\thttp://%s\tcurl -s http://%s/v1/fleets/%s/latest?limit=2\n", apiAddress, apiAddress, demoFleet)
	fmt.Fprintf(w, "readiness\t%s/-/ready\tgo run ./dev cluster kill 2\n", metricsURL)
	fmt.Fprintf(w, "log of fleet-etl\t.dev/demo/fleet-etl.log\ttail -f .dev/demo/fleet-etl.log\n")
	fmt.Fprintf(w, "a file of your own\t\tbin/fleet-etl load data/sample_telemetry.csv --end-at now\n")
	if err := w.Flush(); err != nil {
		return err
	}
	fmt.Println("\nCtrl-C, or make demo-down in another terminal, ends it.")
	return ctx.Err()
}

// watch shows what flows until the demo is ended.
func (d *demo) watch(ctx context.Context, etl *child) error {
	ticker := time.NewTicker(10 * time.Second)
	defer ticker.Stop()
	shown := false
	for {
		select {
		case <-ticker.C:
		case <-etl.done:
			return fmt.Errorf("fleet-etl ended: %w; its log says why: .dev/demo/fleet-etl.log", etl.err)
		case <-ctx.Done():
			return nil
		}
		var stored, rejected, late float64
		err := get(ctx, "/metrics", func(r io.Reader) error {
			stored, rejected, late = 0, 0, 0
			return eachSample(r, func(name string, value float64) {
				switch {
				case strings.HasPrefix(name, `fleet_etl_records_written_total{table="telemetry_by_device_day"}`):
					stored = value
				case strings.HasPrefix(name, "fleet_etl_records_rejected_total{"):
					rejected += value
				case name == "fleet_etl_records_late_total":
					late = value
				}
			})
		})
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			fmt.Println("metrics:", err)
			continue
		}
		fmt.Printf("%s  %.0f records stored, %.0f late, %.0f rejected\n", time.Now().Format(time.TimeOnly), stored, late, rejected)
		if !shown && stored > 0 {
			shown = true
			if err := d.showFleet(ctx); err != nil && ctx.Err() == nil {
				fmt.Println("newest fixes:", err)
			}
		}
	}
}

// eachSample reads the text form of metrics, a sample a line.
func eachSample(r io.Reader, take func(name string, value float64)) error {
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		name, value, ok := strings.Cut(lines.Text(), " ")
		if v, err := strconv.ParseFloat(value, 64); ok && err == nil && !strings.HasPrefix(name, "#") {
			take(name, v)
		}
	}
	return lines.Err()
}

// showFleet reads back what was stored, as the screens do.
func (d *demo) showFleet(ctx context.Context) error {
	nodes, err := d.cluster.Nodes()
	if err != nil {
		return err
	}
	logger := logrus.New()
	logger.SetOutput(io.Discard)
	store, err := cassandra.Open(ctx, cassandra.Config{
		Hosts: []string{nodes[0].CQL().String()}, Keyspace: "fleet_iot", LocalDC: nodes[0].DC,
	}, logger, nil)
	if err != nil {
		return err
	}
	defer store.Close()
	fixes, err := store.LatestOfFleet(ctx, demoFleet)
	if err != nil {
		return err
	}
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "\nnewest fixes of %s, %d vehicles:\nDEVICE\tTIME\tLAT\tLON\tKM/H\tBATTERY %%\tTEMP °C\tZONE\n", demoFleet, len(fixes))
	for _, f := range fixes[:min(5, len(fixes))] {
		fmt.Fprintf(w, "%s\t%s\t%.5f\t%.5f\t%s\t%s\t%s\t%s\n", f.DeviceID, f.Ts.Local().Format(time.TimeOnly), f.Lat, f.Lon,
			show(f.SpeedKmh), show(f.BatteryPct), show(f.TempC), f.Zone)
	}
	fmt.Fprintln(w)
	return w.Flush()
}

func show[T any](v *T) string {
	if v == nil {
		return "-"
	}
	return fmt.Sprint(*v)
}

type demoDownCmd struct{}

// Run asks the demo to end and waits for it. Where none runs, it stops the cluster that one may have left.
func (demoDownCmd) Run(ctx context.Context, s *settings) error {
	d, err := newDemo(s, "")
	if err != nil {
		return err
	}
	conn, err := net.Dial("unix", d.socket())
	if err != nil {
		fmt.Println("no demo is running")
		return d.cluster.Down(ctx, false)
	}
	defer func() { _ = conn.Close() }()
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	if _, err := io.WriteString(conn, "end\n"); err != nil {
		return fmt.Errorf("ask the demo to end: %w", err)
	}
	_, _ = conn.Read(make([]byte, 1)) // until it closes: it says nothing
	if ctx.Err() == nil {
		fmt.Println("the demo has ended")
	}
	return ctx.Err()
}
