package chaos

import (
	"fmt"
	"regexp"
	"strings"
	"time"
)

// speedup divides the durations of the alerting rules, so that alerts fire after seconds instead of minutes.
const speedup = 12

var (
	ruleDurations  = regexp.MustCompile(`(for: |\[|:|offset )(\d+)(m|h)\b`)
	ruleThresholds = strings.NewReplacer(") > 120\n", fmt.Sprintf(") > %d\n", 120/speedup), ") > 300\n", fmt.Sprintf(") > %d\n", 300/speedup),
		"spool_oldest_seconds[25s]) > 60\n", fmt.Sprintf("spool_oldest_seconds[25s]) > %d\n", 60/speedup))
)

// speedUpPrometheus edits the files of prometheus/. Error budget alerts never fire: Prometheus has known the platform for a short
// time only, so every fault spends the whole budget, and a burning budget inhibits the alerts of vehicles.
func speedUpPrometheus(file, text string) string {
	switch file {
	case "prometheus.yml":
		// A scrape of a node reads many thousands of MBeans. Every 2 s, four nodes keep two processors busy and all scrapes time out.
		return strings.NewReplacer("scrape_interval: 15s", "scrape_interval: 2s", "evaluation_interval: 15s", "evaluation_interval: 1s",
			"    scrape_timeout: 10s", "    scrape_interval: 4s\n    scrape_timeout: 4s").Replace(text)
	case "rules/recording.yml":
		return strings.ReplaceAll(text, "interval: 1m", "interval: 5s")
	case "rules/slo-alerts.yml":
		return strings.NewReplacer("for: 2m", "for: 2h", "for: 15m", "for: 2h").Replace(text)
	case "rules/cause-alerts.yml":
		text = ruleDurations.ReplaceAllStringFunc(text, func(match string) string {
			before := strings.TrimRight(match, "0123456789mh")
			d, _ := time.ParseDuration(match[len(before):]) // the expression matches durations only
			return fmt.Sprintf("%s%ds", before, int((d / speedup).Seconds()))
		})
		return ruleThresholds.Replace(text)
	}
	return text
}

// speedUpAlertmanager keeps the order of the group waits: critical alerts are sent before others.
func speedUpAlertmanager(file, text string) string {
	if file != "alertmanager.yml" {
		return text
	}
	return strings.NewReplacer("group_wait: 30s", "group_wait: 2s", "group_wait: 10s", "group_wait: 1s",
		"group_interval: 1m", "group_interval: 1s", "group_interval: 5m", "group_interval: 2s").Replace(text)
}
