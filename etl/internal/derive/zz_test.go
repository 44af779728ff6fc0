package derive
import ("testing";"fmt";"time";"github.com/fleettracing/fleet-tracing/etl/internal/alerting";"github.com/fleettracing/fleet-tracing/etl/internal/source/generator";"github.com/fleettracing/fleet-tracing/etl/internal/rollup")
type counting struct{ steps map[string]int; hours, trips int}
func (c *counting) Hour(rollup.Hour) {c.hours++}
func (c *counting) Trip(rollup.Trip) {c.trips++}
func (c *counting) Step(s alerting.Step) {c.steps[string(s.Type)+" "+string(s.Transition)]++}
func TestZZ(t *testing.T) {
	start := time.Now().Add(-5100*time.Second)
	track := simulate(t, generator.Options{Seed: 1, Vehicles: 1000, Interval: 10 * time.Second, Start: start, Records: 500000})
	rules, _ := alerting.ParseRules("rules", []byte(allRules))
	for n, e := range map[string]*alerting.Engine{"all": alerting.New(rules, city(t, 1000, "")), "default": alerting.New(alerting.DefaultRules(), city(t,1000,""))} {
		c := &counting{steps: map[string]int{}}
		states := map[string]*state{}
		for i := range track { r := &track[i]; s := states[r.DeviceID]; if s == nil { s = &state{}; states[r.DeviceID]=s}; s.apply(e, r, c) }
		fmt.Println(n, c)
	}
}
