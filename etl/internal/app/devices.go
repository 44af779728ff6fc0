package app

import (
	"fmt"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/fleettracing/fleet-tracing/cassandra"
	"github.com/fleettracing/fleet-tracing/etl/internal/registry"
	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

type deviceCommands struct {
	Claim claimDevicesCommand `cmd:"" help:"Make a fleet the owner of devices."`
	Show  showDevicesCommand  `cmd:"" help:"Print the owners of devices, present and former."`
}

type claimDevicesCommand struct {
	Fleet   string   `arg:"" help:"Fleet that the devices belong to from now on."`
	Devices []string `arg:"" name:"device" help:"Devices, known or not."`
	Since   string   `default:"now" placeholder:"TIME" help:"Event time from which a device of another fleet belongs to this one: earlier records stay with the other fleet, and can't be written any more."`
}

// Run sets the owner of devices. Processes that have an owner in memory notice the new one within a minute.
func (c *claimDevicesCommand) Run(p *program) error {
	for _, name := range append([]string{c.Fleet}, c.Devices...) {
		if !telemetry.ValidName(name) {
			return fmt.Errorf("name %q: use 1 to 128 characters of A-Za-z0-9._:-", name)
		}
	}
	since, err := parseTime("--since", c.Since, time.UTC)
	if err != nil {
		return err
	}
	return p.withStore(func(store *cassandra.Store) error {
		for _, id := range c.Devices {
			before, err := registry.Claim(p.stop, store, c.Fleet, id, since)
			switch {
			case err != nil:
				return fmt.Errorf("claim device %s: %w", id, err)
			case before.FleetID == c.Fleet:
				fmt.Fprintf(p.Out, "%s belongs to %s already\n", id, c.Fleet)
			case before.FleetID != "":
				fmt.Fprintf(p.Out, "%s belongs to %s since %s, before to %s\n", id, c.Fleet, since.UTC().Format(time.RFC3339), before.FleetID)
			default:
				fmt.Fprintf(p.Out, "%s belongs to %s\n", id, c.Fleet)
			}
		}
		fmt.Fprintln(p.Err, "Records that were held for these devices are stored by: fleet-etl deadletters reprocess --reason held_device")
		return nil
	})
}

type showDevicesCommand struct {
	Devices []string `arg:"" name:"device" help:"Devices."`
}

// Run prints a line for each owner, the newest first.
func (c *showDevicesCommand) Run(p *program) error {
	return p.withStore(func(store *cassandra.Store) error {
		owners, err := store.Owners(p.stop, c.Devices)
		if err != nil {
			return err
		}
		w := tabwriter.NewWriter(p.Out, 0, 0, 2, ' ', 0)
		fmt.Fprintln(w, "DEVICE\tFLEET\tSINCE\tSET BY")
		for _, o := range owners {
			if o.FleetID == "" {
				fmt.Fprintf(w, "%s\t-\t-\t-\n", o.DeviceID)
				continue
			}
			former, err := store.FormerOwners(p.stop, o.DeviceID)
			if err != nil {
				return err
			}
			former = slices.DeleteFunc(former, func(f cassandra.Owner) bool { return f.Since.Equal(o.Since) }) // a move that came too late
			for _, o := range append([]cassandra.Owner{o}, former...) {
				fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", o.DeviceID, o.FleetID, o.Since.UTC().Format(time.RFC3339), o.SetBy)
			}
		}
		return w.Flush()
	})
}

// withStore connects to Cassandra for one command.
func (p *program) withStore(do func(*cassandra.Store) error) error {
	a, err := p.connect()
	if err != nil {
		return err
	}
	defer func() { _ = a.cleanups.run() }() // the command is done
	store, _ := a.connector.Get()
	return do(store)
}
