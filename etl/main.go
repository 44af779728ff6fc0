// Command fleet-etl takes vehicles' telemetry in, cleans and enriches it, and stores it in Cassandra.
package main

import (
	"context"
	"os"

	"github.com/fleettracing/fleet-tracing/etl/internal/app"
)

func main() {
	os.Exit(app.Run(context.Background(), os.Args[1:], app.Streams{In: os.Stdin, Out: os.Stdout, Err: os.Stderr}))
}
