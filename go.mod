module github.com/fleettracing/fleet-tracing

go 1.26.0
