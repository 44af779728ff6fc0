package plugin

import (
	"context"
	"errors"
	"fmt"

	"github.com/grafana/grafana-plugin-sdk-go/backend"

	"github.com/fleettracing/fleet-tracing/cassandra"
	"github.com/fleettracing/fleet-tracing/grafana-datasource/pkg/executor"
	"github.com/fleettracing/fleet-tracing/grafana-datasource/pkg/query"
	"github.com/fleettracing/fleet-tracing/grafana-datasource/pkg/reader"
	"github.com/fleettracing/fleet-tracing/grafana-datasource/pkg/settings"
)

// statusClientClosed is the status of a request whose client has gone; net/http has no name for it.
const statusClientClosed backend.Status = 499

// remedies tell users what to do about an error of the store.
var remedies = map[cassandra.Reason]string{
	cassandra.ReasonNoHosts:      "no node is reachable; the data source keeps trying, so run the query again when the cluster is back",
	cassandra.ReasonUnavailable:  "too few replicas are up for the consistency level of the data source; check which nodes are down, or lower the level",
	cassandra.ReasonTimeout:      "the nodes did not answer in time; try again, or choose a shorter time range",
	cassandra.ReasonReadTimeout:  "the replicas did not answer in time; try again, or choose a shorter time range",
	cassandra.ReasonUnauthorized: "grant the user of the data source SELECT on the keyspace",
	cassandra.ReasonInvalid:      "the statement does not fit the schema; run fleet-etl schema check to see what is missing",
}

// errorResponse converts an error into a response that names the remedy and the source of the error, and returns the
// reason for the metrics. ctx is the context of the request.
func (d *Datasource) errorResponse(ctx context.Context, err error) (backend.DataResponse, string) {
	respond := func(reason string, status backend.Status, message string) (backend.DataResponse, string) {
		return backend.DataResponse{Error: errors.New(message), Status: status, ErrorSource: backend.ErrorSourceDownstream}, reason
	}
	var invalid *query.InvalidError
	var rejected *executor.RejectedError
	var forbidden *settings.ForbiddenError
	var connect *reader.ConnectError
	var store *cassandra.Error
	switch {
	case errors.As(err, &invalid), errors.As(err, &rejected):
		return respond(reasonInvalid, backend.StatusBadRequest, err.Error())
	case errors.As(err, &forbidden):
		return respond(reasonForbidden, backend.StatusForbidden, err.Error())
	case d.settingsErr != nil && errors.Is(err, d.settingsErr):
		return respond(reasonInvalid, backend.StatusBadRequest, "settings of the data source: "+err.Error())
	case errors.Is(err, reader.ErrClosed):
		return respond(reasonCanceled, backend.StatusBadGateway, err.Error())
	case ctx.Err() != nil:
		return respond(reasonCanceled, statusClientClosed, "canceled")
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return respond(reasonDeadline, backend.StatusTimeout, fmt.Sprintf("query timed out after %s; choose a shorter time range or fewer vehicles, "+
			"raise the query timeout of the data source, or check the cluster with Save & test", d.settings.QueryTimeout))
	case errors.As(err, &connect):
		return respond(reasonConnect, backend.StatusBadGateway, "cannot connect to Cassandra: "+err.Error()+"; Save & test of the data source shows the failing stage")
	case errors.As(err, &store):
		message := store.Error()
		if remedy := remedies[store.Reason]; remedy != "" {
			message += "; " + remedy
		}
		if store.Reason == cassandra.ReasonInvalid {
			return respond(reasonSchema, backend.StatusBadRequest, message)
		}
		return respond(string(store.Reason), backend.StatusBadGateway, message)
	}
	var panicked *reader.PanicError
	if errors.As(err, &panicked) {
		err = errors.New("internal plugin error; see the plugin log")
	}
	return backend.DataResponse{Error: err, Status: backend.StatusInternal, ErrorSource: backend.ErrorSourcePlugin}, reasonPlugin
}
