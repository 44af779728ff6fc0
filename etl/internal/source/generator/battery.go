package generator

// battery is the drive battery of a vehicle. Vehicles with a combustion engine report none.
type battery struct {
	fitted   bool
	pct      float64
	perMeter float64 // percent per meter
	perSec   float64 // percent per second at work: heating, electronics, cooling unit
	charging float64 // percent per second at the charger
	returnAt float64 // percent at which the driver turns back to the depot
}

const (
	fullEnough = 82.0 // percent at which a vehicle at work leaves the charger
	emptyAt    = 1.0  // percent; drivers avoid an empty battery
	carelessOf = 0.12 // share of drivers who turn back too late
	dieselOf   = 0.08 // share of vehicles
)

func rollBattery(d *dice, refrigerated bool) battery {
	b := battery{
		fitted:   !d.chance(dieselOf),
		perMeter: d.between(0.22, 0.55) / 1000,
		perSec:   d.between(0.8, 1.8) / hour,
		charging: d.between(22, 75) / hour,
		returnAt: d.between(19, 33),
	}
	if d.chance(carelessOf) {
		b.returnAt = d.between(8, 15)
	}
	if refrigerated {
		b.perSec += 1.6 / hour
	}
	return b
}

// drain subtracts the consumption of a distance and a time at work.
func (b *battery) drain(meters, seconds float64) {
	b.pct = max(emptyAt, b.pct-meters*b.perMeter-seconds*b.perSec)
}

// charge adds the energy of some seconds at the charger.
func (b *battery) charge(seconds float64) { b.pct = min(100, b.pct+seconds*b.charging) }
