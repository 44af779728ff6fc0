// Package plugintest runs the real binary of the plugin for tests and benchmarks, and calls it like Grafana does: with the
// handshake of go-plugin, then gRPC.
package plugintest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"runtime"
	"strings"
	"time"

	"github.com/grafana/grafana-plugin-sdk-go/backend"
	"github.com/grafana/grafana-plugin-sdk-go/backend/grpcplugin"
	"github.com/grafana/grafana-plugin-sdk-go/data"
	"github.com/grafana/grafana-plugin-sdk-go/genproto/pluginv2"
	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/go-plugin"

	"github.com/fleettracing/fleet-tracing/dev/testenv/platform"
)

// ID is the id of the plugin.
const ID = "fleettracing-cassandra-datasource"

// Build compiles the binary for this machine with the flags of mage, and returns its path. Test packages share it.
func Build(ctx context.Context) (binary string, err error) {
	name := fmt.Sprintf("gpx_fleet_cassandra_%s_%s", runtime.GOOS, runtime.GOARCH)
	return platform.Build(ctx, name, []string{"CGO_ENABLED=0"}, "-tags", "arrow_json_stdlib", "-ldflags", "-w -s", "./grafana-datasource/pkg")
}

// Plugin is a running plugin.
type Plugin struct {
	client      *plugin.Client
	data        grpcplugin.DataClient
	diagnostics grpcplugin.DiagnosticsClient
	resource    grpcplugin.ResourceClient
	stream      grpcplugin.StreamClient
}

// Start starts the binary, which writes its log to log. A nil log discards it.
func Start(binary string, log io.Writer) (*Plugin, error) {
	if log == nil {
		log = io.Discard
	}
	client := plugin.NewClient(&plugin.ClientConfig{
		Cmd:         exec.Command(binary),
		SkipHostEnv: true,
		HandshakeConfig: plugin.HandshakeConfig{
			ProtocolVersion: grpcplugin.ProtocolVersion, MagicCookieKey: grpcplugin.MagicCookieKey, MagicCookieValue: grpcplugin.MagicCookieValue,
		},
		VersionedPlugins: map[int]plugin.PluginSet{grpcplugin.ProtocolVersion: {
			"diagnostics": &grpcplugin.DiagnosticsGRPCPlugin{}, "resource": &grpcplugin.ResourceGRPCPlugin{},
			"data": &grpcplugin.DataGRPCPlugin{}, "stream": &grpcplugin.StreamGRPCPlugin{},
		}},
		AllowedProtocols: []plugin.Protocol{plugin.ProtocolGRPC},
		Logger:           hclog.New(&hclog.LoggerOptions{Output: log, Level: hclog.Debug}),
	})
	rpc, err := client.Client()
	service := func(name string) any {
		if err != nil {
			return nil
		}
		var raw any
		raw, err = rpc.Dispense(name)
		return raw
	}
	p := &Plugin{client: client}
	p.data, _ = service("data").(grpcplugin.DataClient)
	p.diagnostics, _ = service("diagnostics").(grpcplugin.DiagnosticsClient)
	p.resource, _ = service("resource").(grpcplugin.ResourceClient)
	p.stream, _ = service("stream").(grpcplugin.StreamClient)
	if err != nil {
		client.Kill()
		return nil, fmt.Errorf("connect to the plugin: %w", err)
	}
	return p, nil
}

// Close ends the plugin.
func (p *Plugin) Close() { p.client.Kill() }

// Exited reports whether the process has ended.
func (p *Plugin) Exited() bool { return p.client.Exited() }

// Pid returns the process id.
func (p *Plugin) Pid() int { return p.client.ReattachConfig().Pid }

// Source is a configured data source.
type Source struct {
	UID     string
	JSON    map[string]any
	Secure  map[string]string
	Updated time.Time
}

func (s Source) context() backend.PluginContext {
	settings, err := json.Marshal(s.JSON)
	if err != nil {
		panic(err) // the test has settings that JSON cannot express
	}
	return backend.PluginContext{
		OrgID:    1, //nolint:staticcheck // Grafana 12 sends it
		PluginID: ID, PluginVersion: "0.0.0",
		User: &backend.User{Login: "viewer", Role: "Viewer"},
		DataSourceInstanceSettings: &backend.DataSourceInstanceSettings{
			ID: 1, UID: s.UID, Name: s.UID, Type: ID, JSONData: settings, DecryptedSecureJSONData: s.Secure, Updated: s.Updated,
		},
	}
}

func (s Source) proto() *pluginv2.PluginContext { return backend.ToProto().PluginContext(s.context()) }

// Query runs several queries in one request, each as JSON like in a dashboard. The responses are by refId.
func (p *Plugin) Query(ctx context.Context, s Source, from, to time.Time, headers map[string]string, queries ...map[string]any) (backend.Responses, error) {
	req := &backend.QueryDataRequest{PluginContext: s.context(), Headers: headers}
	for _, q := range queries {
		text, err := json.Marshal(q)
		if err != nil {
			return nil, err
		}
		source := backend.DataQuery{
			RefID: "A", MaxDataPoints: 1000, Interval: max(to.Sub(from)/1000, time.Second), JSON: text,
			TimeRange: backend.TimeRange{From: from, To: to},
		}
		if id, ok := q["refId"].(string); ok {
			source.RefID = id
		}
		source.QueryType, _ = q["queryType"].(string)
		if n, ok := q["maxDataPoints"].(int); ok {
			source.MaxDataPoints = int64(n)
		}
		req.Queries = append(req.Queries, source)
	}
	answer, err := p.data.QueryData(ctx, backend.ToProto().QueryDataRequest(req))
	if err != nil {
		return nil, err
	}
	response, err := backend.FromProto().QueryDataResponse(answer)
	if err != nil {
		return nil, err
	}
	return response.Responses, nil
}

// Health checks the health of a data source.
func (p *Plugin) Health(ctx context.Context, s Source) (*backend.CheckHealthResult, error) {
	answer, err := p.diagnostics.CheckHealth(ctx, &pluginv2.CheckHealthRequest{PluginContext: s.proto()})
	if err != nil {
		return nil, err
	}
	return backend.FromProto().CheckHealthResponse(answer), nil
}

// Metrics returns the metrics of the plugin in the text format of Prometheus.
func (p *Plugin) Metrics(ctx context.Context) (string, error) {
	answer, err := p.diagnostics.CollectMetrics(ctx, &pluginv2.CollectMetricsRequest{})
	return string(answer.GetMetrics().GetPrometheus()), err
}

// Resource gets a resource, for example "zones?fleet=a", and returns its status and body.
func (p *Plugin) Resource(ctx context.Context, s Source, url string) (int, []byte, error) {
	path, _, _ := strings.Cut(url, "?")
	stream, err := p.resource.CallResource(ctx, &pluginv2.CallResourceRequest{PluginContext: s.proto(), Path: path, Method: "GET", Url: url})
	if err != nil {
		return 0, nil, err
	}
	var status int
	var body []byte
	for {
		part, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return status, body, nil
		}
		if err != nil {
			return 0, nil, err
		}
		if part.Code != 0 {
			status = int(part.Code)
		}
		body = append(body, part.Body...)
	}
}

// Subscribe subscribes to a stream, by its path without the data source.
func (p *Plugin) Subscribe(ctx context.Context, s Source, path string) (backend.SubscribeStreamStatus, *data.Frame, error) {
	answer, err := p.stream.SubscribeStream(ctx, &pluginv2.SubscribeStreamRequest{PluginContext: s.proto(), Path: path})
	status := backend.SubscribeStreamStatus(answer.GetStatus())
	if err != nil || len(answer.Data) == 0 {
		return status, nil, err
	}
	frame := &data.Frame{}
	return status, frame, json.Unmarshal(answer.Data, frame)
}

// Run runs a stream until ctx ends, and calls packet for each packet. It returns the error with which the plugin ended it.
func (p *Plugin) Run(ctx context.Context, s Source, path string, packet func(*data.Frame)) error {
	stream, err := p.stream.RunStream(ctx, &pluginv2.RunStreamRequest{PluginContext: s.proto(), Path: path})
	if err != nil {
		return err
	}
	for {
		part, err := stream.Recv()
		if err != nil {
			return err
		}
		frame := &data.Frame{}
		if err := json.Unmarshal(part.Data, frame); err != nil {
			return fmt.Errorf("packet of %s: %w", path, err)
		}
		packet(frame)
	}
}

// Publish publishes to a stream.
func (p *Plugin) Publish(ctx context.Context, s Source, path string) (backend.PublishStreamStatus, error) {
	answer, err := p.stream.PublishStream(ctx, &pluginv2.PublishStreamRequest{PluginContext: s.proto(), Path: path, Data: []byte("{}")})
	return backend.PublishStreamStatus(answer.GetStatus()), err
}
