package app

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/go-retryablehttp"

	"github.com/fleettracing/fleet-tracing/etl/internal/source/generator"
	"github.com/fleettracing/fleet-tracing/etl/internal/source/kafka"
)

type generateCommand struct {
	Records   int           `default:"10000" help:"Valid records to generate."`
	Vehicles  int           `default:"50" help:"Vehicles to simulate."`
	Fleets    int           `default:"1" help:"Fleets that the vehicles are spread over, starting with fleet-001."`
	Interval  time.Duration `default:"5s" help:"Interval between two records of a vehicle."`
	Start     string        `placeholder:"TIME" help:"Time of the first record, or a duration before now: 2h (default: so that the last is about now)."`
	Seed      uint64        `default:"1" help:"Seed; the same seed gives the same records."`
	Late      float64       `help:"Share of records that arrive late, 0 to 1."`
	Duplicate float64       `help:"Share of records sent twice, 0 to 1."`
	Broken    float64       `help:"Share of invalid records added, 0 to 1."`
	To        string        `enum:"file,http,kafka" default:"file" help:"Destination: file, http (an HTTP API) or kafka (the first of KAFKA_TOPICS)."`
	URL       string        `name:"url" default:"http://127.0.0.1:8080/v1/telemetry" help:"HTTP API that --to http sends to."`
	Token     string        `env:"ETL_API_TOKEN" help:"Token for --to http."`
	Format    string        `enum:"csv,ndjson" default:"csv" help:"File format: csv or ndjson."`
	Out       string        `short:"o" default:"-" placeholder:"FILE" help:"Output file; - is standard output."`
}

// Run implements the command.
func (c *generateCommand) Run(p *program) error {
	options, err := c.options()
	if err != nil {
		return err
	}
	simulator, err := generator.New(options)
	if err != nil {
		return err
	}
	switch c.To {
	case "http":
		return c.intoHTTP(p, simulator)
	case "kafka":
		return c.intoKafka(p, simulator)
	}
	return c.intoFile(p, simulator)
}

func (c *generateCommand) options() (generator.Options, error) {
	if c.Records < 1 {
		return generator.Options{}, fmt.Errorf("--records %d: use at least 1", c.Records)
	}
	o := generator.Options{
		Seed: c.Seed, Vehicles: c.Vehicles, Fleets: c.Fleets, Interval: c.Interval, Records: c.Records,
		Late: c.Late, Duplicate: c.Duplicate, Broken: c.Broken,
	}
	if c.Start == "" {
		rounds := (c.Records + c.Vehicles - 1) / max(1, c.Vehicles)
		o.Start = time.Now().Add(-time.Duration(rounds) * c.Interval)
		return o, nil
	}
	var err error
	o.Start, err = parseTime("--start", c.Start, time.UTC)
	return o, err
}

// intoFile writes a temporary file and renames it once it is complete.
func (c *generateCommand) intoFile(p *program, simulator *generator.Simulator) error {
	write := generator.WriteCSV
	if c.Format == "ndjson" {
		write = generator.WriteNDJSON
	}
	if c.Out == "-" {
		_, err := write(p.stop, p.Out, simulator)
		return err
	}
	file, err := os.CreateTemp(filepath.Dir(c.Out), filepath.Base(c.Out)+".*")
	if err != nil {
		return fmt.Errorf("write %s: %w", c.Out, err)
	}
	defer os.Remove(file.Name()) // already renamed on success
	counts, err := write(p.stop, file, simulator)
	if err = cmp.Or(err, file.Chmod(0o644), file.Close()); err == nil {
		err = os.Rename(file.Name(), c.Out)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", c.Out, err)
	}
	fmt.Fprintf(p.Err, "%s: %d records, %d of them late; %d duplicates", c.Out, counts.Good, counts.Late, counts.Duplicate)
	for _, reason := range slices.Sorted(maps.Keys(counts.Broken)) {
		fmt.Fprintf(p.Err, ", %d %s", counts.Broken[reason], reason)
	}
	fmt.Fprintln(p.Err)
	return nil
}

func (c *generateCommand) intoHTTP(p *program, simulator *generator.Simulator) error {
	started, to := time.Now(), newAPIClient(p.stop, c.URL, c.Token)
	if _, err := generator.WriteNDJSON(p.stop, to, simulator); err != nil {
		return err
	}
	fmt.Fprintf(p.Err, "%s: %d records accepted, %d duplicates, %d rejected in %s\n",
		c.URL, to.total.Accepted, to.total.Duplicates, to.total.Rejected, time.Since(started).Round(time.Millisecond))
	return nil
}

func (c *generateCommand) intoKafka(p *program, simulator *generator.Simulator) error {
	connection, err := kafkaConnection(p.config)
	if err != nil {
		return err
	}
	topic := p.config.KafkaTopics[0]
	sink, err := kafka.NewSink(p.stop, connection, topic, p.logger)
	if err != nil {
		return err
	}
	defer sink.Close()
	started := time.Now()
	counts, err := generator.WriteNDJSON(p.stop, sink, simulator)
	if err != nil {
		return err
	}
	fmt.Fprintf(p.Err, "%s: %d records and %d duplicates stored in %s\n", topic, counts.Good, counts.Duplicate, time.Since(started).Round(time.Millisecond))
	return nil
}

// apiClient sends NDJSON to an HTTP API. Write returns once the records are durable there, and retries failures that may
// pass.
type apiClient struct {
	ctx        context.Context
	client     *retryablehttp.Client
	url, token string
	total      ingestAnswer
}

// ingestAnswer is the answer of the API to one request.
type ingestAnswer struct{ Accepted, Duplicates, Rejected int }

func newAPIClient(ctx context.Context, url, token string) *apiClient {
	client := retryablehttp.NewClient()
	client.Logger, client.RetryMax, client.RetryWaitMin, client.RetryWaitMax = nil, 60, 100*time.Millisecond, 5*time.Second
	client.ErrorHandler = retryablehttp.PassthroughErrorHandler // keeps the last answer for the error message
	return &apiClient{ctx: ctx, client: client, url: url, token: token}
}

// Write implements io.Writer. Each call sends one request.
func (p *apiClient) Write(lines []byte) (int, error) {
	req, err := retryablehttp.NewRequestWithContext(p.ctx, http.MethodPost, p.url, lines)
	if err != nil {
		return 0, fmt.Errorf("--url %q: %w", p.url, err)
	}
	req.Header.Set("Content-Type", "application/x-ndjson")
	if p.token != "" {
		req.Header.Set("Authorization", "Bearer "+p.token)
	}
	answer, err := p.client.Do(req)
	if err != nil {
		return 0, fmt.Errorf("send to %s: %w", p.url, err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(io.LimitReader(answer.Body, 4<<20))
	if err != nil {
		return 0, fmt.Errorf("send to %s: read answer: %w", p.url, err)
	}
	if answer.StatusCode != http.StatusOK && answer.StatusCode != http.StatusUnprocessableEntity { // 422: every record was rejected
		return 0, fmt.Errorf("send to %s: %s: %s", p.url, answer.Status, strings.TrimSpace(string(text[:min(len(text), 500)])))
	}
	var a ingestAnswer
	if err := json.Unmarshal(text, &a); err != nil {
		return 0, fmt.Errorf("send to %s: answer %q: %w", p.url, text, err)
	}
	p.total.Accepted += a.Accepted
	p.total.Duplicates += a.Duplicates
	p.total.Rejected += a.Rejected
	return len(lines), nil
}
