package chaos

// speedup divides the durations of the alerting rules, so that alerts fire after seconds instead of minutes.
const speedup = 12

// faster has the replacements in prometheus/. Error budget alerts never fire: Prometheus has known the platform for a short time
// only, so every fault spends the whole budget, and a burning budget inhibits the alerts of vehicles.
var faster = map[string][]string{
	// A scrape of a node reads many thousands of MBeans. Every 2 s, four nodes keep two processors busy and all scrapes time out.
	"prometheus.yml": {
		"scrape_interval: 15s", "scrape_interval: 2s", "evaluation_interval: 15s", "evaluation_interval: 1s",
		"    scrape_timeout: 10s", "    scrape_interval: 4s\n    scrape_timeout: 4s",
	},
	"rules/recording.yml":  {"interval: 1m", "interval: 5s"},
	"rules/slo-alerts.yml": {"for: 2m", "for: 2h", "for: 15m", "for: 2h"},
	"rules/cause-alerts.yml": {
		"for: 1m\n", "for: 5s\n", "for: 2m\n", "for: 10s\n", "for: 5m\n", "for: 25s\n", "for: 10m\n", "for: 50s\n", "for: 15m\n", "for: 75s\n",
		"[1m", "[5s", "[3m", "[15s", "[5m", "[25s", "[10m", "[50s", "[15m", "[75s", "[30m", "[150s", "[6h", "[1800s",
		":1m]", ":5s]", "offset 10m", "offset 50s", ") > 60\n", ") > 5\n", ") > 120\n", ") > 10\n", ") > 300\n", ") > 25\n",
	},
}

// fasterAlertmanager has the replacements in prometheus/alertmanager. They keep the order of the group waits: critical alerts are
// sent before others.
var fasterAlertmanager = map[string][]string{
	"alertmanager.yml": {
		"group_wait: 30s", "group_wait: 2s", "group_wait: 10s", "group_wait: 1s",
		"group_interval: 1m", "group_interval: 1s", "group_interval: 5m", "group_interval: 2s",
	},
}
